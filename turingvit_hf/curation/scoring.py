# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The stage `score`: over the whole table, from stored embeddings and entropies, without images or models."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from turingvit_hf.curation.ambiguity import Contrast, ContrastBatches, alignment, mean_ambiguity, number_of_jobs
from turingvit_hf.curation.duplicates import duplicate_columns
from turingvit_hf.curation.embedding_table import EmbeddingPart, EmbeddingTable, write_table
from turingvit_hf.curation.engines import Engine
from turingvit_hf.curation.selection import better_shares, is_eligible, overall_score, rank_candidates
from turingvit_hf.curation.semantic import BestScores, semantic_duplicates
from turingvit_hf.curation.stages import STAGES
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.curation.stored import live_rows, vectors_file
from turingvit_hf.curation.text import AFFINE_SCALE, EntropyScale, percentile_scale, text_quality
from turingvit_hf.errors import InputError


# what the caption stage gives, and this stage copies to the row from its best candidate
COPIED = ("text_quality", "alignment", "ambiguity", "overall")


def score_rows(run: RunFolder, engine: Engine) -> tuple[Iterator[list[dict[str, Any]]], dict[str, Any]]:
    """Return the scored rows, shard by shard, and what they depend on: tau, pool, the ends of the entropy.

    Each row has `candidates` with their scores and ranks, `best` (index of the best one, None without one) with its
    `caption`, scores and `better_share`, and `dup_of` where it is a semantic duplicate of a better one.

    Args:
        run: a run whose rows are embedded.
        engine: that does the batches of the ambiguity.
    """
    folder = run.whole_file("embeddings")
    table = write_table(folder, (_part(run, shard.number) for shard in run.shards))
    facts = _scorer_facts(run)
    section = run.config.score
    contrast = Contrast(
        tau=section.tau if section.tau is not None else facts.get("tau", 1.0),
        batch_size=section.batch_size,
        num_batchings=section.num_batchings,
        seed=run.config.seed,
        pool=section.pool,
    )
    cosines = alignment(table)
    ambiguities = _ambiguity(table, folder, contrast, engine)
    scale = _entropy_scale(run)
    ranked = _Ranked(run, cosines, ambiguities, scale)
    best = ranked.best_scores()
    shares = better_shares([scores.overall for scores in best], table.keys.tolist())
    duplicates = _semantic(run, table, best)
    facts |= {
        "tau": contrast.tau,
        "batch_size": contrast.batch_size,
        "num_batchings": contrast.num_batchings,
        "pool": contrast.pool,
        "entropy_low": scale.low,
        "entropy_high": scale.high,
    }

    def rows() -> Iterator[list[dict[str, Any]]]:
        place = 0
        for shard in run.shards:
            scored = ranked.rows_of(shard.number)
            for row in scored:
                row["better_share"] = shares[place]
                row |= duplicates[place]
                place += 1
            yield scored
        shutil.rmtree(folder)

    return rows(), facts


class _Ranked:
    """The scores of all candidates, by their place in the table, and the candidates of each shard with them."""

    def __init__(self, run: RunFolder, cosines: np.ndarray, ambiguities: np.ndarray, scale: EntropyScale):
        self._run = run
        self._cosines = cosines
        self._ambiguities = ambiguities
        self._scale = scale
        self._starts: list[int] = []

    def best_scores(self) -> list[BestScores]:
        """The scores of each row's best candidate."""
        found: list[BestScores] = []
        place = 0
        for shard in self._run.shards:
            self._starts.append(place)
            for row in live_rows(self._run, STAGES["score"], shard.number):
                scored = self._scored(row, place)
                place += len(scored)
                best = _best(scored)
                found.append(BestScores(best.get("overall"), best.get("alignment")))
        return found

    def rows_of(self, shard: int) -> list[dict[str, Any]]:
        """What is stored of the rows of a shard."""
        place = self._starts[shard]
        rows = []
        for row in live_rows(self._run, STAGES["score"], shard):
            scored = self._scored(row, place)
            place += len(scored)
            best = _best(scored)
            index = scored.index(best) if best else None
            values = {"sample_id": row["sample_id"], "candidates": scored, "best": index, "caption": best.get("text")}
            rows.append(values | {name: best.get(name) for name in COPIED})
        return rows

    def _scored(self, row: Mapping[str, Any], place: int) -> list[dict[str, Any]]:
        section = self._run.config.score
        candidates = [dict(candidate) for candidate in row["candidates"] or ()]
        quality = text_quality([candidate["entropy"] for candidate in candidates], self._scale)
        cosines = self._cosines[place : place + len(candidates)]
        ambiguities = self._ambiguities[place : place + len(candidates)]
        overall = overall_score(
            quality,
            cosines,
            ambiguities,
            text_weight=section.text_weight,
            relevance_weight=section.relevance_weight,
            scale=section.scale,
        )
        limits = self._run.config.thresholds.captions
        eligible = [is_eligible(candidate, limits) for candidate in candidates]
        ranks = rank_candidates(overall.tolist(), cosines.tolist(), eligible)
        for index, candidate in enumerate(candidates):
            candidate |= {
                "text_quality": float(quality[index]),
                "alignment": float(cosines[index]),
                "ambiguity": float(ambiguities[index]),
                "overall": float(overall[index]),
                "rank": ranks[index],
            }
        return candidates


def _best(candidates: list[dict[str, Any]]) -> dict[str, Any]:
    return next((candidate for candidate in candidates if candidate["rank"] == 0), {})


def _part(run: RunFolder, shard: int) -> EmbeddingPart:
    """The vectors of a shard's live rows."""
    alive = {row["sample_id"]: row for row in live_rows(run, STAGES["score"], shard)}
    path = run.shard_file(shard, "embed.parquet")
    ids = pq.read_table(path, columns=["sample_id"]).column(0).to_pylist()
    vectors = pq.read_table(vectors_file(path))
    keys, images, captions, owners, styles = [], [], [], [], []
    for sample_id, image, texts in zip(
        ids, vectors.column("image_embedding"), vectors.column("candidate_embeddings"), strict=True
    ):
        if sample_id not in alive:
            continue
        candidates = alive[sample_id]["candidates"] or []
        images.append(image.values.to_numpy(zero_copy_only=False))
        for candidate, text in zip(candidates, texts if candidates else (), strict=True):
            captions.append(text.values.to_numpy(zero_copy_only=False))
            owners.append(len(keys))
            styles.append(candidate.get("style") or candidate["origin"])
        keys.append(sample_id)
    width = len(images[0]) if images else 0
    return EmbeddingPart(
        keys,
        np.stack(images) if images else np.zeros((0, width), np.float16),
        np.stack(captions) if captions else np.zeros((0, width), np.float16),
        np.array(owners, np.int64),
        styles,
    )


def _ambiguity(table: EmbeddingTable, folder: Path, contrast: Contrast, engine: Engine) -> np.ndarray:
    if not len(table.owners):
        return np.zeros(0)
    step = ContrastBatches(folder.absolute(), contrast)
    results = engine.contrast(step, number_of_jobs(len(table.keys), contrast))
    return mean_ambiguity(results, len(table.owners), contrast)


def _scorer_facts(run: RunFolder) -> dict[str, Any]:
    """What the scorer said of itself, which must be one scorer.

    Raises:
        InputError: parts of the run were embedded by different ones.
    """
    found: list[dict[str, Any]] = []
    for shard in run.shards:
        facts = (run.manifest("embed", shard.number) or {}).get("facts")
        if facts and facts not in found:
            found.append(facts)
    if len(found) > 1:
        raise InputError(f"shards were embedded by different scorers, {found[0]} and {found[1]}: --from-stage embed")
    return dict(found[0]) if found else {}


def _entropy_scale(run: RunFolder) -> EntropyScale:
    if run.config.score.text_quality == "affine":
        return AFFINE_SCALE
    stored = (run.manifest("score", None) or {}).get("facts") or {}
    if stored and (run.manifest("score", None) or {}).get("stage_hash") == STAGES["score"].hash(run.config):
        return EntropyScale(stored["entropy_low"], stored["entropy_high"])
    entropies = [
        candidate["entropy"]
        for shard in run.shards
        for row in live_rows(run, STAGES["score"], shard.number)
        for candidate in row["candidates"] or ()
    ]
    try:
        return percentile_scale(entropies)
    except ValueError as error:
        raise InputError(f"score.text_quality=minmax: {error}") from error


def _semantic(run: RunFolder, table: EmbeddingTable, best: list[BestScores]) -> list[dict[str, Any]]:
    """The columns of semantic duplicates, of each row."""
    keys = table.keys.tolist()
    if not run.config.score.semantic:
        return [duplicate_columns(None)] * len(keys)
    found = semantic_duplicates(table.images, best, keys, run.config.thresholds, seed=run.config.seed)
    return [duplicate_columns(duplicate) for duplicate in found]
