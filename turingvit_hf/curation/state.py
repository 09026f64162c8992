# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The run folder: plain files that say what was done, so that the same command goes on where a killed one stopped.

config.yaml                 the resolved config, its hash in the first line
run.json                    config, its hash, versions, sources, shard table
sources/00.jsonl            the listing of a folder, as it was when the run began
shards/00000/<stage>.parquet, <stage>.json (manifest), calls.jsonl (journal of answered calls)
whole/<stage>.parquet, <stage>.json
calls.jsonl                 answers from before the rows were cut into other shards
rows.parquet                one row for each sample
"""

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.config_files import config_from_dict
from turingvit_hf.curation.selection import best_without_scores
from turingvit_hf.curation.shards import Shard
from turingvit_hf.curation.tables import read_json
from turingvit_hf.errors import InputError


MARKER = "run.json"
# columns without which a row is none
ALWAYS = ("sample_id", "error", "attempts")
# of a run whose rows have moved to other shards
EARLIER_CALLS = "calls.jsonl"


class RunFolder:
    """A folder that a run was begun in.

    Args:
        path: the folder.

    Raises:
        InputError: no run was begun there.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        if not (self.path / MARKER).is_file():
            raise InputError(f"{self.path} is no run folder: it has no {MARKER}")

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        """Return whether a run was begun in this folder."""
        return (Path(path).expanduser() / MARKER).is_file()

    @cached_property
    def config(self) -> CurationConfig:
        """The resolved config of the run."""
        # out of the file that is replaced last: config.yaml beside it is for people
        return config_from_dict(self.facts["config"], str(self.path / MARKER))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What run.json holds."""
        return read_json(self.path / MARKER)

    @property
    def has_outcomes(self) -> bool:
        """Whether rows.parquet is there, and not that of an earlier config, which stays until a run is finished."""
        path = self.path / "rows.parquet"
        if not path.is_file():
            return False
        with pq.ParquetFile(path) as file:
            first = next(file.iter_batches(batch_size=1, columns=["config_hash"], use_threads=False), None)
        return not first or first.column(0)[0].as_py() == self.facts["config_hash"]

    @cached_property
    def shards(self) -> list[Shard]:
        """The shard table."""
        return [Shard(**entry) for entry in self.facts["shards"]]

    def listing_of(self, shard: Shard) -> str | None:
        """Return the path of the listing of a shard's source, None where it is read in place."""
        return None if shard.listing is None else str(self.path / shard.listing)

    def shard_file(self, shard: int, name: str) -> Path:
        """Return the path of a shard's file."""
        return self.path / "shards" / f"{shard:05d}" / name

    def whole_file(self, name: str) -> Path:
        """Return the path of a file about the whole table."""
        return self.path / "whole" / name

    def manifest(self, stage: str, shard: int | None) -> dict[str, Any] | None:
        """Return what is known of a stage that was done, of a shard or (None) of the whole table; None: not done."""
        name = f"{stage}.json"
        return read_json(self.whole_file(name) if shard is None else self.shard_file(shard, name))

    def stored_stages(self, shard: int) -> list[str]:
        """Return the enabled stages that have a table for this shard, in their order."""
        from turingvit_hf.curation.stages import enabled_stages

        found = []
        for stage in enabled_stages(self.config):
            whole = self.whole_file(f"{stage.name}.parquet")
            file = whole if stage.is_whole else self.shard_file(shard, f"{stage.name}.parquet")
            if file.is_file():
                found.append(stage.name)
        return found

    def read_stage(
        self,
        stage: str,
        shard: int,
        *,
        is_whole: bool,
        columns: Sequence[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the rows that a stage stored for a shard, as far as they are asked for; see `read_shard`."""
        path = self.whole_file(f"{stage}.parquet") if is_whole else self.shard_file(shard, f"{stage}.parquet")
        with pq.ParquetFile(path) as file:
            if is_whole:
                table = file.read_row_group(shard, columns=columns, use_threads=False)
            else:
                table = file.read(columns=columns, use_threads=False)
        if ids is not None:
            is_wanted = pc.is_in(table.column("sample_id"), pa.array(ids, pa.string()))  # pyrefly: ignore[missing-attribute]
            table = table.filter(is_wanted)
        return table.to_pylist()

    def read_shard(
        self,
        shard: int,
        before: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the samples of a shard with all columns that stages stored; a later stage's column replaces an
        earlier one's. `errors` names the stages that a sample has an error in, with the text; `stages` those that
        have stored something of it.

        Args:
            shard: its number.
            before: only what stages before this one stored.
            columns: only these, and parts of nested ones as parquet calls them, such as
                `candidates.list.element.text`; None: all.
            ids: only these samples; None: all.
        """
        from turingvit_hf.curation.stages import STAGES, enabled_stages

        rows: list[dict[str, Any]] = []
        by_id: dict[str, dict[str, Any]] = {}
        order = list(STAGES)
        first = enabled_stages(self.config)[0].name
        for name in self.stored_stages(shard):
            # whether or not that stage has a table: what later ones stored is of an earlier config then
            if before is not None and order.index(name) >= order.index(before):
                break
            wanted = None if columns is None else [*columns, *ALWAYS]
            for values in self.read_stage(name, shard, is_whole=STAGES[name].is_whole, columns=wanted, ids=ids):
                error, attempts = values.pop("error", None), values.pop("attempts", 0)
                values.pop("input_digest", None)
                row = by_id.get(values["sample_id"])
                if row is None and name != first:
                    continue  # of a row that the sources do not have any more
                if row is None:
                    row = by_id[values["sample_id"]] = _new_row()
                    rows.append(row)
                if error is not None:
                    row["errors"][name] = error
                row["stages"].append(name)
                row["attempts"] = max(row["attempts"], attempts or 0)
                row.update(values)
        if not self.config.score.enabled and (before is None or order.index(before) > order.index("score")):
            self._choose(rows)
        return rows

    def _choose(self, rows: list[dict[str, Any]]) -> None:
        """Adds `best` and `caption` to rows that no stage has scored."""
        for row in rows:
            if (candidates := row.get("candidates")) is not None:
                row["best"] = best_without_scores(candidates, self.config.thresholds.captions)
                row["caption"] = None if row["best"] is None else candidates[row["best"]]["text"]

    def iterate_rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield all samples with all stored columns, or those asked for, a shard in memory at a time."""
        for shard in self.shards:
            yield from self.read_shard(shard.number, columns=columns)

    def find_samples(self, beginning: str) -> dict[str, int]:
        """Return the ids that begin so, each with its shard; of all that is stored the ids alone are read."""
        from turingvit_hf.curation.stages import enabled_stages

        first = enabled_stages(self.config)[0].name
        found = {}
        for shard in self.shards:
            path = self.shard_file(shard.number, f"{first}.parquet")
            if path.is_file():
                ids = pq.read_table(path, columns=["sample_id"], use_threads=False, memory_map=False).column(0)
                begins_so = pc.starts_with(ids, beginning)  # pyrefly: ignore[missing-attribute]
                for sample_id in ids.filter(begins_so).to_pylist():
                    found[sample_id] = shard.number
        return found

    def remove_from(self, stages: list[str]) -> None:
        """Remove what these stages stored; journals of answered calls stay."""
        for name in stages:
            for file in (
                *self.path.glob(f"shards/*/{name}.parquet"),
                *self.path.glob(f"shards/*/{name}.vectors.parquet"),
                *self.path.glob(f"shards/*/{name}.json"),
                self.whole_file(f"{name}.parquet"),
                self.whole_file(f"{name}.json"),
            ):
                file.unlink(missing_ok=True)


def _new_row() -> dict[str, Any]:
    return {"errors": {}, "attempts": 0, "stages": []}


def source_name(config: CurationConfig, number: int) -> str:
    """Return the name of a source in sample ids."""
    source = config.sources[number]
    return source.name or source.path.rstrip("/").rsplit("/", 1)[-1]
