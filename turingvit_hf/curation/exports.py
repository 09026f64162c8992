# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Kept rows with their media, as parquet or as webdataset tars that pretraining and `datasets` read as they are."""

import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from turingvit_hf.curation.outcomes import KEPT, SCHEMA
from turingvit_hf.curation.rows import check_sample, read_samples
from turingvit_hf.curation.state import RunFolder, source_name
from turingvit_hf.curation.steps.decode import media_hash, read_media
from turingvit_hf.curation.steps.videos import is_chunk_of
from turingvit_hf.curation.tables import table_of, write_json, write_tables
from turingvit_hf.curation.video.clips import encode_chunk
from turingvit_hf.curation.video.shots import Chunk
from turingvit_hf.data.media import decode_image
from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.files.output_folder import choose_folder, written_in_one_piece
from turingvit_hf.processing.video_files import ClipError


FORMATS = ("parquet", "webdataset")
MARKER = "export.json"
# files that readers of tars know as images and that are written as they are; others become PNG
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
# columns of the run that say nothing about a row that was kept
LEFT_OUT = (
    "status",
    "drop_stage",
    "drop_reason",
    "drop_value",
    "drop_detail",
    "drop_threshold",
    "error_stage",
    "error",
    "thumbnail",
)
PROVENANCE = pa.schema([field for field in SCHEMA if field.name not in LEFT_OUT])
# in memory at a time while parquet is written, and of the index of tars, which has no media
ROWS_A_GROUP, ROWS_OF_INDEX = 100, 1000


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        num_rows: kept rows with their media.
        num_lost: kept rows whose media could not be read any more, or was replaced; their ids stand in `export.json`.
    """

    folder: Path
    num_rows: int
    num_lost: int


def export(
    run: str | Path | RunFolder,
    out: str | Path,
    *,
    form: str = "webdataset",
    rows_per_file: int = 10_000,
    overwrite: bool = False,
) -> Exported:
    """Write the kept rows of a finished run with their media, best caption and provenance.

    Both forms are read as they are by `turingvit pretrain` (a source whose `path` is the folder) and by `datasets`:
    `load_dataset("parquet", data_files="OUT/*.parquet")`, `load_dataset("webdataset", data_files="OUT/*.tar")`. A tar
    holds images of one type, since `datasets` asks for that, and `index.parquet` lies beside the tars.

    Args:
        run: the run or its folder.
        out: folder to write; it appears complete or not at all.
        form: `"parquet"` or `"webdataset"`.
        rows_per_file: at most so many rows a file.
        overwrite: whether `out` may be an earlier export.

    Raises:
        InputError: the run is not finished, kept nothing, its sources have changed, or `out` is taken.
    """
    if form not in FORMATS:
        raise InputError(f"there is no form {form!r}; there are {', '.join(FORMATS)}")
    if rows_per_file < 1:
        raise InputError(f"rows_per_file={rows_per_file} must be 1 or more")
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    if not folder.has_outcomes:
        raise InputError(
            f"{folder.path} has no rows.parquet of its config: the run is not finished; next: turingvit curate run "
            f"{folder.path}"
        )
    target = choose_folder(out, default="curated", marker=MARKER, overwrite=overwrite)
    with written_in_one_piece(target) as partial:
        source = _Kept(folder)
        writer = _write_parquet if form == "parquet" else _write_tars
        num_rows = writer(source, partial, rows_per_file)
        if not num_rows:
            raise InputError(f"{folder.path} has no kept row that could be written")
        facts = {"form": form, "rows": num_rows, "config_hash": folder.facts["config_hash"], "lost": source.lost}
        write_json(partial / MARKER, facts)
    return Exported(target, num_rows, len(source.lost))


class _Kept:
    """The kept rows of a run with their media, front to back.

    Attributes:
        kind: of the media.
        lost: the ids of rows whose media could not be read.
    """

    def __init__(self, run: RunFolder):
        self._run = run
        self.kind = run.config.sources[0].kind
        self.lost: list[str] = []

    def __iter__(self) -> Iterator[tuple[dict[str, Any], bytes, str]]:
        """Yield (row, bytes of its media, extension)."""
        with pq.ParquetFile(self._run.path / "rows.parquet") as file:
            for entry in self._run.shards:
                # a group for each shard
                rows = file.read_row_group(entry.number, use_threads=False).to_pylist()
                kept = {row["sample_id"]: row for row in rows if row["status"] == KEPT}
                stored = self._run.read_shard(entry.number)
                by_position: dict[int, list[dict[str, Any]]] = {}
                for row in stored:
                    if row["sample_id"] in kept:
                        by_position.setdefault(row["position"], []).append(row)
                source = self._run.config.sources[entry.source]
                samples = read_samples(
                    source,
                    name=source_name(self._run.config, entry.source),
                    listing=self._run.listing_of(entry),
                    unit=entry.unit,
                    start=entry.start,
                    stop=entry.stop,
                    repeats=entry.repeats,
                    wanted=by_position.keys(),
                )
                for sample in samples:
                    for row in by_position.pop(sample["position"]):
                        check_sample(row, sample, source)
                        found = self._media(row, sample["media"])
                        if found is not None:
                            yield kept[row["sample_id"]], *found
                self.lost += [row["sample_id"] for rows in by_position.values() for row in rows]

    def columns(self) -> Iterator[pa.RecordBatch]:
        """Yield the plain columns of the kept rows, without their media."""
        names = [field.name for field in PROVENANCE if not pa.types.is_nested(field.type)]
        with pq.ParquetFile(self._run.path / "rows.parquet") as file:
            for batch in file.iter_batches(columns=[*names, "status"], use_threads=False):
                yield batch.filter(pc.equal(batch["status"], KEPT)).select(names)  # pyrefly: ignore[missing-attribute]

    def _media(self, row: dict[str, Any], media: bytes | str | None) -> tuple[bytes, str] | None:
        try:
            if media is None:
                raise BadRowError("media is gone")
            return media_of(row, media, self.kind)
        except (OSError, BadRowError, ClipError):
            self.lost.append(row["sample_id"])
            return None


def media_of(row: dict[str, Any], media: bytes | str, kind: str) -> tuple[bytes, str]:
    """Return what is written for a row: the bytes of its image or clip, and their extension.

    Args:
        row: all that is stored of it.
        media: of its source: encoded bytes, or the path of a file.
        kind: `"image"` or `"video"`.

    Raises:
        OSError: the file cannot be read.
        BadRowError: it is no image any more, or another one than was measured; or another video than was cut.
        ClipError: it is no video any more.
    """
    if kind == "video" and row.get("first_frame") is not None:
        if not is_chunk_of(media, row["first_frame"], row["num_frames"], row["sha256"]):
            raise BadRowError("video has changed")
        chunk = Chunk(row["first_frame"], row["num_frames"], row["fps"], row["shot"])
        return encode_chunk(media, chunk), "mp4"
    encoded = read_media(media)
    if media_hash(encoded) != row["sha256"]:
        raise BadRowError(f"{kind} has changed")
    if kind == "video":
        suffix = Path(media).suffix if isinstance(media, str) else ""
        return encoded, suffix.lstrip(".").lower() or "mp4"
    with Image.open(io.BytesIO(encoded)) as picture:
        extension = EXTENSIONS.get(picture.format or "")
    if extension is not None:
        return encoded, extension
    buffer = io.BytesIO()
    Image.fromarray(decode_image(encoded).transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue(), "png"


def _write_parquet(source: _Kept, folder: Path, rows_per_file: int) -> int:
    media = source.kind
    features = datasets.Features.from_arrow_schema(PROVENANCE)
    features[media] = datasets.Image() if media == "image" else datasets.Video()
    cell = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema([pa.field(media, cell), *PROVENANCE])
    metadata = {key.decode(): value.decode() for key, value in features.arrow_schema.metadata.items()}
    rows = iter(source)
    num_rows = 0

    def groups() -> Iterator[pa.Table]:
        nonlocal num_rows
        left, group = rows_per_file, []
        for row, encoded, extension in _taken(rows, rows_per_file):
            group.append(row | {media: {"bytes": encoded, "path": f"{row['sample_id']}.{extension}"}})
            left -= 1
            if len(group) == ROWS_A_GROUP or not left:
                num_rows += len(group)
                yield table_of(group, schema)
                group = []
        if group:
            num_rows += len(group)
            yield table_of(group, schema)

    number, before = 0, -1
    while num_rows > before:
        before = num_rows
        path = folder / f"{number:05d}.parquet"
        write_tables(path, groups(), schema, metadata)
        if num_rows == before:
            path.unlink()
        number += 1
    return num_rows


def _taken(rows: Iterator[Any], number: int) -> Iterator[Any]:
    for _ in range(number):
        try:
            yield next(rows)
        except StopIteration:
            return


def _write_tars(source: _Kept, folder: Path, rows_per_file: int) -> int:
    names = _named_in_tars(source)
    schema = pa.schema([*PROVENANCE, pa.field("tar", pa.string())])
    num_rows = 0

    def groups() -> Iterator[pa.Table]:
        nonlocal num_rows
        rows = _into_tars(source, folder, rows_per_file, names)
        while group := list(itertools.islice(rows, ROWS_OF_INDEX)):
            num_rows += len(group)
            yield table_of(group, schema)

    write_tables(folder / "index.parquet", groups(), schema)
    return num_rows


def _into_tars(source: _Kept, folder: Path, rows_per_file: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """Writes rows into tars, and yields each with the name of its `tar`."""
    open_tars: dict[str, tuple[tarfile.TarFile, str]] = {}
    counts: dict[str, int] = {}
    try:
        for row, encoded, extension in source:
            number, within = divmod(counts.get(extension, 0), rows_per_file)
            counts[extension] = counts.get(extension, 0) + 1
            if within == 0:
                if extension in open_tars:
                    open_tars[extension][0].close()
                name = f"{extension}-{number:05d}.tar"
                # closed above or in the end; a stack of contexts would keep the members of every tar in memory
                open_tars[extension] = (tarfile.open(folder / name, "w"), name)  # noqa: SIM115
            tar, name = open_tars[extension]
            entries = {key: row[key] if row[key] is not None else "" for key in names}
            key = row["sample_id"]
            _add(tar, f"{key}.{extension}", encoded)
            if row["caption"] is not None:  # all rows have one, or none is wanted and none has
                _add(tar, f"{key}.txt", row["caption"].encode())
            _add(tar, f"{key}.json", json.dumps(entries, ensure_ascii=False).encode())
            yield row | {"tar": name}
    finally:
        for tar, _ in open_tars.values():
            tar.close()


def _named_in_tars(source: _Kept) -> list[str]:
    """The columns in each sample's JSON: texts that some row has, and numbers that all have. `datasets` takes the
    types of a tar from its first samples, so that a number may not be missing; `index.parquet` has all columns."""
    missing: Counter[str] = Counter()
    num_rows = 0
    for columns in source.columns():
        num_rows += len(columns)
        missing.update({name: columns[name].null_count for name in columns.schema.names})
    fields = [field for field in PROVENANCE if not pa.types.is_nested(field.type)]
    return [
        field.name
        for field in fields
        if not missing[field.name] or (pa.types.is_string(field.type) and missing[field.name] < num_rows)
    ]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without owner and time, so that equal rows give equal tars
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
