# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Data to evaluate on: images with a class or with captions, by index, from the sources that pretraining reads."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turingvit_hf.data.columns import CAPTION_COLUMNS
from turingvit_hf.data.media import decode_image, find_media
from turingvit_hf.data.rows import DatasetRows, JsonLinesRows, Rows, TableRows, TarRows
from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.data.sources import Source, count_rows, open_source
from turingvit_hf.data.streams import RowStream
from turingvit_hf.errors import BadRowError, InputError
from turingvit_hf.evaluation.classes import Classes, make_classes, numbers_of


LABEL_COLUMNS = ("label", "labels", "cls", "class", "fine_label", "class_name", "category", "caption")


@dataclass(frozen=True)
class EvaluationData:
    """Images by index.

    Attributes:
        source: where they are, opened.
        rows: its rows.
        text_column: of classes or captions.
        crop_border: so many pixels are cut off on each side.
    """

    source: Source
    rows: Rows
    text_column: str
    crop_border: int = 0

    def __len__(self) -> int:
        return count_rows(self.rows, self.source.recipe)

    def image(self, row: dict[str, Any]) -> np.ndarray:
        """The image of a row, uint8 (3, H, W).

        Raises:
            BadRowError: it has none that can be read, or nothing of it is left inside its border.
        """
        value = next((row[name] for name in self.source.media_columns if row.get(name) is not None), None)
        media = find_media(value, "image", root=self.source.root, is_confined=self.source.is_confined)
        image = decode_image(media)
        border = self.crop_border
        if border and min(image.shape[1:]) <= 2 * border:
            raise BadRowError("image is no larger than its border", f"{image.shape[1:]}, border {border}")
        return image[:, border:-border, border:-border] if border else image

    def captions(self, row: dict[str, Any]) -> list[str]:
        """The captions of a row: a list of texts, or one text; of a sample in a tar, one on each line.

        Raises:
            BadRowError: there is none.
        """
        value = row.get(self.text_column)
        if isinstance(value, str):
            value = value.splitlines() if isinstance(self.rows, TarRows) else [value]
        texts = [text.strip() for text in value if isinstance(text, str)] if isinstance(value, Iterable) else []
        if not (texts := [text for text in texts if text]):
            raise BadRowError("row has no caption", f"{value!r:.100}")
        return texts

    def own_classes(self) -> Classes:
        """The classes that the data itself names: those of a hub data set, or the sub-folders of a folder.

        Raises:
            InputError: it names none.
        """
        names: list[Any] | None = self.source.class_names.get(self.text_column)
        if names is None and isinstance(self.rows, TableRows):
            labels = (self.rows[number].get(self.text_column) for number in range(len(self.rows)))
            names = sorted({label for label in labels if label})
        if not names:
            raise InputError(f"{self.source.recipe.path!r} does not name its classes: give a file of them")
        return make_classes([(name, name) for name in names], self.source.recipe.path)

    def numbers_of_own_classes(self, classes: Classes) -> list[int | None] | None:
        """What numbers of classes mean where the data name their own, as a hub data set does; see `numbers_of`."""
        names = self.source.class_names.get(self.text_column)
        return None if names is None else numbers_of(names, classes)


def open_evaluation_data(
    path: str,
    *,
    texts: str,
    split: str = "test",
    media_column: str | None = None,
    text_column: str | None = None,
    images: str | Path | None = None,
    max_samples: int | None = None,
    crop_border: int = 0,
) -> EvaluationData:
    """The data at a path, opened so that any row can be read.

    Args:
        path: as `SourceRecipe` has it: hub id, folder, parquet, tars, JSON lines; for captions also the JSON files of
            COCO (`captions_val2017.json`) and of Karpathy's splits (`dataset_coco.json`, `dataset_flickr30k.json`).
        texts: what is wanted beside the images, `"label"` or `"caption"`.
        split: of a hub data set, or of Karpathy's.
        media_column: of the images; None looks for the usual names.
        text_column: of labels or captions; None looks for the usual names.
        images: the folder that a JSON file's names start from; None: the file's own.
        max_samples: read no more images than these, from the front.
        crop_border: pixels to cut off on each side, such as ObjectNet's red border of 2.

    Raises:
        InputError: there is nothing there, it cannot be read, has no rows, or lacks a column.
    """
    if crop_border < 0:
        raise InputError(f"crop_border={crop_border}: it is 0 or more")
    recipe = SourceRecipe(path, split=split, streaming=False, media_column=media_column, max_samples=max_samples)
    if texts == "caption" and (table := _rows_of_json(path, split)) is not None:
        root = Path(images or Path(path).parent).expanduser()
        return EvaluationData(Source(recipe, table, ("image",), {}, {}, root), table, "caption", crop_border)
    source = open_source(recipe, captions=False)
    rows = source.rows
    assert not isinstance(rows, RowStream), "a source that is not streamed has an index"
    wanted = [text_column] if text_column else LABEL_COLUMNS if texts == "label" else CAPTION_COLUMNS
    found = next((name for name in wanted if name in rows.columns and name not in source.media_columns[:1]), None)
    if found is None:
        raise InputError(f"{path!r} has no {texts} column: it has {sorted(rows.columns)}, looked for {list(wanted)}")
    data = EvaluationData(replace(source, root=Path(images)) if images else source, rows, found, crop_border)
    return _joined_by_image(data) if texts == "caption" else data


def _joined_by_image(data: EvaluationData) -> EvaluationData:
    """Data in which rows that name the same file are one row with all their captions; the others are as they were."""
    media_column = data.source.media_columns[0]
    if isinstance(data.rows, DatasetRows) and not isinstance(data.rows[0].get(media_column), str):
        return data  # pictures, which may be too many for memory
    if not isinstance(data.rows, TableRows | JsonLinesRows | DatasetRows):
        return data
    joined: dict[Any, tuple[int, list[str]]] = {}
    for index in range(len(data.rows)):
        try:
            row = data.rows[index]
        except BadRowError:
            joined[index] = index, []
            continue
        file = row.get(media_column)
        _, captions = joined.setdefault(file if isinstance(file, str) else index, (index, []))
        with suppress(BadRowError):  # others of the same file may have some
            captions += data.captions(row)
    rows = _JoinedRows(data.rows, list(joined.values()), data.text_column)
    return replace(data, rows=rows, source=replace(data.source, rows=rows))


class _JoinedRows:
    """Rows of others, each with captions of its own; one that cannot be read is one still, and fails where it is read.

    Args:
        rows: the others.
        entries: the number of a row, and its captions.
        text_column: where captions are put.
    """

    def __init__(self, rows: Rows, entries: Sequence[tuple[int, list[str]]], text_column: str):
        self._rows, self._entries, self._text_column = rows, entries, text_column
        self.columns = rows.columns

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, captions = self._entries[index]
        return {**self._rows[number], self._text_column: captions}


def _rows_of_json(path: str, split: str) -> TableRows | None:
    """The rows of a JSON file in the form of COCO's captions or Karpathy's splits; None if it is neither."""
    file = Path(path).expanduser()
    if file.suffix != ".json" or not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None  # JSON lines, perhaps
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return None
    rows: list[dict[str, Any]] = []
    try:
        if "annotations" in content:
            captions: dict[Any, list[str]] = {}
            for entry in content["annotations"]:
                captions.setdefault(entry["image_id"], []).append(entry["caption"])
            rows = [{"image": image["file_name"], "caption": captions.get(image["id"])} for image in content["images"]]
        else:
            rows = [
                {
                    "image": str(Path(image.get("filepath", ""), image["filename"])),
                    "caption": [sentence["raw"] for sentence in image["sentences"]],
                }
                for image in content["images"]
                if image["split"] == split
            ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path!r} is neither COCO's captions nor a split of Karpathy's: {error!r}") from error
    if not rows:
        splits = sorted({image.get("split", "") for image in content["images"]})
        raise InputError(f"{path!r} has no images of the split {split!r}; it has {splits}")
    return TableRows(rows)
