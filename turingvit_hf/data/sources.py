# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Sources of pretraining: what a `SourceRecipe` names, opened, with the columns that hold media and captions found."""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import fsspec
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError

from turingvit_hf.data.columns import CAPTION_COLUMNS, IMAGE_COLUMNS
from turingvit_hf.data.draws import permuted
from turingvit_hf.data.parquet_stream import ParquetStream
from turingvit_hf.data.rows import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    DatasetRows,
    JsonLinesRows,
    Rows,
    ShapesRows,
    TarRows,
    read_folder,
)
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.streams import DatasetStream, Position, RowsInOrder, RowStream, TarStream
from turingvit_hf.errors import BadRowError, InputError


PATH_COLUMNS = ("file_name", "path", "file")
MEDIA_COLUMNS = {
    "image": (*IMAGE_COLUMNS, "jpeg", "image_path", *PATH_COLUMNS),
    "video": ("video", "clip", "mp4", "webm", "mkv", "avi", "mov", "video_path", *PATH_COLUMNS),
}
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PARQUET_SUFFIXES = (".parquet",)
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson", ".json")
GLOB_CHARACTERS = frozenset("*?[")
# what ends so is a file, and no id on the hub
FILE_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | {".csv", ".txt", ".zip"}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
# seconds that the hub has to say whether it has a dataset
HUB_PATIENCE = 10.0


@dataclass(frozen=True)
class Source:
    """An open source.

    Attributes:
        recipe: what it was opened from.
        rows: its rows, by index or in order.
        media_columns: the column of its images or videos. Samples in tars may differ in it: the first that has one.
        caption_columns: the probability of each column of captions; empty where no captions are wanted.
        class_names: of columns that hold numbers of classes, their names.
        root: the folder that relative paths start from; None where rows hold no paths of files here.
        is_confined: whether paths must stay inside `root`. Those of a JSON-lines file need not.
    """

    recipe: SourceRecipe
    rows: Rows | RowStream
    media_columns: tuple[str, ...]
    caption_columns: dict[str, float]
    class_names: dict[str, list[str]]
    root: Path | None = None
    is_confined: bool = False


def count_rows(rows: Rows, recipe: SourceRecipe) -> int:
    """Return how many rows of a source by index are read."""
    return min(len(rows), recipe.max_samples or len(rows))


def is_streamed(recipe: SourceRecipe) -> bool:
    """Return whether a source is read front to back; False where there is nothing at its path."""
    if recipe.streaming is not None:
        return recipe.streaming
    try:
        form = recipe.format if recipe.format != "auto" else _format_of(recipe.path)
    except InputError:
        return False
    return form in ("webdataset", "hub")


def iterate_rows(source: Source, *, shuffled: bool) -> Iterator[tuple[dict[str, Any] | BadRowError, str]]:
    """Yield each row of a source once, or why it cannot be read, and its name: evenly spread or from the front on."""
    if isinstance(source.rows, RowStream):
        for row, name, _ in source.rows.iterate(Position(), index=0, num_shares=1, seed=0):
            yield row, name
        return
    num_rows = count_rows(source.rows, source.recipe)
    for position in range(num_rows):
        index = permuted(position, num_rows, 0) if shuffled else position
        try:
            yield source.rows[index], str(index)
        except BadRowError as error:
            yield error, str(index)


def open_source(recipe: SourceRecipe, *, captions: bool = True) -> Source:
    """Return the source that a recipe names.

    Args:
        recipe: what to open; its `format` `"auto"` goes by the path, in this order: `shapes` and `shapes:NAME`, the
            ending of a file, address or glob, what an existing folder holds (tars, parquet files, a
            `metadata.jsonl` or `metadata.csv`, sub-folders), and else an id on the hub.
        captions: whether a column of captions is needed.

    Raises:
        InputError: there is nothing there, it cannot be read, it has no rows, or it lacks a column.
    """
    form = recipe.format if recipe.format != "auto" else _format_of(recipe.path)
    root, is_confined, class_names = None, False, {}
    try:
        match form:
            case "shapes":
                rows = _rows_of(ShapesRows(recipe.path), recipe, streaming=bool(recipe.streaming))
            case "folder":
                root, is_confined = _existing(recipe.path), True
                rows = _rows_of(read_folder(root, recipe.kind), recipe, streaming=bool(recipe.streaming))
            case "jsonl":
                path = _existing(recipe.path)
                root = path.parent
                rows = _rows_of(JsonLinesRows(path), recipe, streaming=bool(recipe.streaming))
            case "webdataset":
                paths = _files(recipe.path, TAR_SUFFIXES)
                is_stream = recipe.streaming is not False
                rows = TarStream(paths, recipe.max_samples) if is_stream else TarRows(paths)
            case "parquet":
                paths = _files(recipe.path, PARQUET_SUFFIXES)
                if recipe.streaming:
                    rows = ParquetStream(paths, recipe.max_samples, path=recipe.path)
                    class_names = rows.class_names
                else:
                    rows, class_names = _load(recipe, "parquet", streaming=False, data_files=paths, split="train")
                root = Path(paths[0]).parent
            case _:
                _check_on_hub(recipe.path)
                streaming = recipe.streaming is not False
                rows, class_names = _load(recipe, recipe.path, streaming=streaming, split=recipe.split)
    except InputError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot open {recipe.path!r} as {form}: {reason}") from error
    return _with_columns(recipe, rows, class_names, root=root, is_confined=is_confined, captions=captions)


def _with_columns(
    recipe: SourceRecipe,
    rows: Rows | RowStream,
    class_names: dict[str, list[str]],
    *,
    root: Path | None,
    is_confined: bool,
    captions: bool,
) -> Source:
    if (isinstance(rows, RowStream) and not rows.columns) or (not isinstance(rows, RowStream) and not len(rows)):
        raise InputError(f"{recipe.path!r} has no rows")
    wanted = (recipe.media_column,) if recipe.media_column else MEDIA_COLUMNS[recipe.kind]
    media_columns = (_find(rows.columns, wanted, recipe, recipe.kind),)
    if isinstance(rows, TarRows | TarStream) and not recipe.media_column:
        media_columns += wanted
    caption_columns = dict(recipe.caption_columns)
    if captions and not caption_columns:
        # a path may be called what a caption is called
        others = [name for name in rows.columns if name != media_columns[0]]
        caption_columns = {_find(others, CAPTION_COLUMNS, recipe, "caption"): 1.0}
    for name in caption_columns if captions else ():
        _find(rows.columns, (name,), recipe, "caption")
    if captions and not sum(caption_columns.values()) > 0:
        raise InputError(f"caption_columns={caption_columns} of {recipe.path!r} need a probability above 0")
    return Source(
        recipe, rows, media_columns, caption_columns if captions else {}, class_names, root, is_confined=is_confined
    )


def _find(columns: Iterable[str], wanted: Sequence[str], recipe: SourceRecipe, what: str) -> str:
    names = list(columns)
    for name in wanted:
        if name in names:
            return name
    raise InputError(f"{recipe.path!r} has no {what} column: it has {sorted(names)}, looked for {list(wanted)}")


def _rows_of(rows: Rows, recipe: SourceRecipe, *, streaming: bool) -> Rows | RowStream:
    return RowsInOrder(rows, recipe.max_samples) if streaming else rows


def _load(
    recipe: SourceRecipe, name: str, *, streaming: bool, **options: Any
) -> tuple[Rows | RowStream, dict[str, list[str]]]:
    dataset = datasets.load_dataset(name, streaming=streaming, **options)
    class_names = {
        column: feature.names
        for column, feature in (dataset.features or {}).items()
        if isinstance(feature, datasets.ClassLabel)
    }
    if isinstance(dataset, datasets.IterableDataset):
        return DatasetStream(dataset, recipe.max_samples, path=recipe.path), class_names
    return DatasetRows(dataset), class_names


def _format_of(path: str) -> str:
    if path == "shapes" or path.startswith("shapes:"):
        return "shapes"
    lowered = path.lower()
    for form, suffixes in (
        ("webdataset", TAR_SUFFIXES),
        ("parquet", PARQUET_SUFFIXES),
        ("jsonl", JSON_LINES_SUFFIXES),
    ):
        if lowered.endswith(suffixes):
            return form
    folder = Path(path).expanduser()
    if folder.is_dir():
        if any(_in_folder(folder, TAR_SUFFIXES)):
            return "webdataset"
        return "parquet" if any(_in_folder(folder, PARQUET_SUFFIXES)) else "folder"
    if folder.exists():
        raise InputError(
            f"cannot tell the format of {path!r}: files end in "
            f"{', '.join((*TAR_SUFFIXES, *PARQUET_SUFFIXES, *JSON_LINES_SUFFIXES))}; format says it otherwise"
        )
    if _is_meant_as_path(path):
        raise InputError(f"there is no file or folder {path!r}")
    return "hub"


def _is_meant_as_path(path: str) -> bool:
    """Whether what is not there can be no id on the hub, which is `name` or `owner/name`."""
    if path.startswith((".", "/", "~")) or path.endswith("/") or path.count("/") > 1 or GLOB_CHARACTERS & set(path):
        return True
    is_in_a_folder = "/" in path and Path(path).parent.is_dir()
    return is_in_a_folder or Path(path).suffix.lower() in FILE_SUFFIXES or not HUB_ID.fullmatch(path)


def _check_on_hub(path: str) -> None:
    """Raises an `InputError` where the hub lacks a dataset or is out of reach; `datasets` would try for long."""
    if Path(path).expanduser().exists() or huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    try:
        huggingface_hub.HfApi().dataset_info(path, timeout=HUB_PATIENCE)
    except RepositoryNotFoundError:
        raise InputError(
            f"cannot open {path!r} as hub: there is no such folder here, and no such dataset there"
        ) from None
    except (OSError, HTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        if isinstance(error, HfHubHTTPError):
            raise InputError(f"cannot open {path!r} as hub: {reason}") from error
        raise InputError(
            f"cannot open {path!r} as hub: there is no such folder here, and the hub cannot be reached ({reason}); "
            "HF_HUB_OFFLINE=1 takes what was downloaded before"
        ) from error


def _existing(path: str) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        raise InputError(f"there is no file or folder {path!r}")
    return found


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    return sorted(str(file) for file in folder.rglob("*") if file.name.lower().endswith(suffixes))


def _files(path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files of a path, folder or glob, sorted by name, here or at an address."""
    has_glob = bool(GLOB_CHARACTERS & set(path))
    if "://" in path:
        files = [path]
        if has_glob:
            filesystem, pattern = fsspec.core.url_to_fs(path)
            files = sorted(filesystem.unstrip_protocol(file) for file in filesystem.glob(pattern))
    elif has_glob:
        files = sorted(glob.glob(str(Path(path).expanduser()), recursive=True))
    else:
        found = _existing(path)
        files = _in_folder(found, suffixes) if found.is_dir() else [str(found)]
    if not files:
        raise InputError(f"no file matches {path!r} ({', '.join(suffixes)})")
    return files
