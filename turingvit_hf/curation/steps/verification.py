# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Verdicts on candidates by one model or several."""

from collections.abc import Sequence
from typing import Any

from turingvit_hf.curation.journal import Journal
from turingvit_hf.curation.models.answers import Answer, usage_of
from turingvit_hf.curation.models.captioners import error_text, failure_row
from turingvit_hf.curation.models.registry import build
from turingvit_hf.curation.models.verifiers import Verifier, merge_verdicts
from turingvit_hf.curation.prompts import Verdict
from turingvit_hf.curation.steps.base import Batch, Step, batch_length
from turingvit_hf.curation.steps.captions import add_usage


# a candidate that some verifier has given no verdict on
NOT_VERIFIED = "not verified"


class VerificationStep(Step):
    """Adds `verdict`, `verdicts` and `verifier` to the candidates.

    It reads `image` (uint8 (H, W, 3), a tuple of frames, or None), `candidates` and, where there is one, `sha256`.
    With several verifiers `verdict` is what they say together: grounded if all say so, all phrases that any of them
    does not see, the least quality; `verdicts` keeps each one's. It also makes `verification_failures` and
    `verification_usage`.

    Args:
        verifiers: models, as `registry.build` takes them or built already; none of them should be one that captioned.
        verify_raw: whether the rows' own captions are verified too.
    """

    name = "verify"
    reads = ("image", "candidates")

    def __init__(self, *, verifiers: Sequence[Any], verify_raw: bool = True):
        self._verifiers = [Verifier(build("verifier", verifier)) for verifier in verifiers]
        self._verify_raw = verify_raw

    def __call__(self, batch: Batch) -> Batch:
        """Return `candidates`, `verification_failures`, `verification_usage` and `error` of each row."""
        if self.journal is None:
            self.journal = Journal()
        size = batch_length(batch)
        candidates = [[{**candidate} for candidate in row or ()] for row in batch["candidates"]]
        hashes = batch.get("sha256", [None] * size)
        wanted = [
            (row, candidate)
            for row, image in enumerate(batch["image"])
            if image is not None
            for candidate in candidates[row]
            if self._verify_raw or candidate["origin"] != "raw"
        ]
        failures: list[list[dict[str, Any]]] = [[] for _ in range(size)]
        usage: list[dict[str, Any]] = [{} for _ in range(size)]
        verdicts: list[dict[str, Verdict]] = [{} for _ in wanted]
        for verifier in self._verifiers:
            answers = verifier.verify(
                [batch["image"][row] for row, _ in wanted],
                [hashes[row] for row, _ in wanted],
                [candidate["text"] for _, candidate in wanted],
                self.journal,
            )
            for (row, candidate), answer, given in zip(wanted, answers, verdicts, strict=True):
                usage[row] = add_usage(usage[row], self._usage(verifier, answer))
                if answer.failure is None:
                    given[verifier.model.name] = answer.value
                else:
                    failures[row].append(failure_row(verifier.model.name, candidate["style"], answer))
        verified = set()
        for (row, candidate), given in zip(wanted, verdicts, strict=True):
            self._write(candidate, given)
            if given:
                verified.add(row)
        errors = [error_text(missing, is_anything_usable=row in verified) for row, missing in enumerate(failures)]
        return {
            "candidates": candidates,
            "verification_failures": failures,
            "verification_usage": usage,
            "error": errors,
        }

    def _write(self, candidate: dict[str, Any], given: dict[str, Verdict]) -> None:
        candidate["verdicts"] = [{"verifier": name, **verdict.model_dump()} for name, verdict in given.items()]
        candidate["verdict"] = merge_verdicts(list(given.values())) if given else None
        candidate["verifier"] = " + ".join(given) or None
        if len(given) < len(self._verifiers):
            candidate["flags"] = [*candidate["flags"], NOT_VERIFIED]

    @staticmethod
    def _usage(verifier: Verifier, answer: Answer) -> dict[str, Any]:
        model = verifier.model
        prices = {name: getattr(model, name, 0.0) for name in ("prompt_price", "completion_price")}
        return usage_of([answer], **prices)
