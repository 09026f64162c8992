# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A small finished run with everything that reports, tuning and explanations look at."""

import hashlib
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.curation.run_cases import LENIENT, make_config, write_bad_rows, write_listing, write_pictures
from turingvit_hf.curation.models.answers import Answer
from turingvit_hf.curation.models.detectors import Box
from turingvit_hf.curation.prompts import Verdict
from turingvit_hf.curation.runs import run


HARM = '<script>alert(1)</script><img src=x onerror="alert(2)"><a href="http://evil.example/">'
HARM_STYLE = "<b>styled</b>"


class CornerDetector:
    """Finds the first phrase of an image in its upper left corner, if it pleases."""

    def __init__(self) -> None:
        self.name, self.revision = "corner", None

    def detect(self, images: Any, phrases: Any) -> list[list[Box]]:
        return [
            [Box(given[0], 0.5, 2.0, 2.0, 0.6 * image.shape[1], 0.5 * image.shape[0])]
            if given and len(given[0]) % 4
            else []
            for image, given in zip(images, phrases, strict=True)
        ]


class DoubtingVerifier:
    """Verdicts that follow from the question: a quality of 1 to 5, and one in four not grounded."""

    def __init__(self) -> None:
        self.name = self.model = "doubting"
        self.revision = None
        self.parameters: dict[str, Any] = {}

    def answer(self, questions: Any, done: Any) -> None:
        for index, question in enumerate(questions):
            digest = hashlib.sha256(repr((question.image_hash, question.prompt)).encode()).digest()
            grounded, quality = digest[0] % 4 > 0, 1 + digest[1] % 5
            phrases = [] if grounded else [HARM]
            verdict = Verdict(grounded=grounded, hallucinated_phrases=phrases, quality=quality)
            done(index, Answer(text=verdict.model_dump_json(), finish_reason="stop", value=verdict))


def whole_config(folder: Path, log: Path | None, **values: Any) -> Any:
    """A config with captions, verdicts, scores and boxes."""
    here = "tests.curation.looking_cases"
    base = {
        "verify": {"verifiers": [{"kind": f"{here}:DoubtingVerifier"}]},
        "ground": {"enabled": True, "detector": {"kind": f"{here}:CornerDetector"}},
    }
    return make_config(folder, log=log, **(base | values))


def write_source(folder: Path, number: int = 14) -> dict[str, str]:
    """Write good rows, bad rows and one whose caption and key are HTML; return the reasons of the bad ones."""
    rows = write_pictures(folder, number)
    reasons = write_bad_rows(folder)
    rows += [{"file_name": name, "caption": "A bad one."} for name in reasons]
    rows += [{"file_name": f"{HARM[:8]}.png", "caption": HARM}]
    rows[3]["caption"] = HARM
    for name in ("copy a.png", "copy b.png"):
        shutil.copy(folder / "004.png", folder / name)
        rows.append({"file_name": name, "caption": "A copy."})
    write_listing(folder, rows)
    return reasons


def finished_run(folder: Path, **values: Any) -> Path:
    """A finished run over such a source."""
    write_source(folder / "pictures")
    run(whole_config(folder / "pictures", folder / "log", **values), folder / "run")
    return folder / "run"


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The final rows."""
    return pq.read_table(out / "rows.parquet").to_pylist()


def lenient(**values: Any) -> dict[str, Any]:
    """Thresholds for small pictures, some of them others."""
    return LENIENT | values


class Page(HTMLParser):
    """What a page consists of: names of elements, attributes, and text by the heading it stands under."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.sections: dict[str, str] = {"": ""}
        self._heading = ""
        self._in_heading = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "h2":
            self._in_heading, self._heading = True, ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2":
            self._in_heading = False
            self.sections[self._heading] = ""

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self._heading += data
        else:
            self.sections[self._heading] += data
