# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Hashes of many pictures: one record of fixed width each, so that those of all rows of a run fit into memory."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np


# bytes of each hash, by the name of its column, which holds twice as many hex digits
WIDTHS = {"sha256": 32, "phash": 8, "dhash": 8, "color_grid": 48, "thumbnail": 256}
# sha256 comes first: what follows it is what a picture looks like
RECORD = np.dtype(
    [field for name, width in WIDTHS.items() for field in ((name, "u1", (width,)), (f"has_{name}", "?"))]
)
_LOOKS_FROM = WIDTHS["sha256"] + 1


class PictureHashes(NamedTuple):
    """Hashes of N pictures; a row without one is a duplicate of nothing by it.

    Attributes:
        sample_ids: N of them, each once.
        records: (N,) of `RECORD`: each hash as bytes, and whether it is there.
    """

    sample_ids: Sequence[str]
    records: np.ndarray

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "PictureHashes":
        """Return the hashes of rows with `sample_id` and the columns of `WIDTHS`, hex digits or None, as far as they
        have them.

        Raises:
            ValueError: a hash is not in hex, or of another length.
        """
        sample_ids: list[str] = []
        records = bytearray()  # grows in place, where a list of all texts would take many times the room
        for row in rows:
            sample_ids.append(row["sample_id"])
            records += _record(row)
        return cls(sample_ids, np.frombuffer(records, RECORD))

    def looks(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return 16 bytes (len(rows), 16) that are equal for pictures all of whose hashes but sha256 are."""
        as_bytes = self.records.view(np.uint8).reshape(-1, RECORD.itemsize)[:, _LOOKS_FROM:]
        digests = b"".join(blake2b(as_bytes[row], digest_size=16).digest() for row in rows)
        return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def first_of_equal(values: np.ndarray) -> np.ndarray:
    """Return for each row of bytes (N, width) the number of the first one that equals it, (N,)."""
    as_items = np.ascontiguousarray(values).view(np.dtype((np.void, values.shape[1]))).ravel()
    _, first, number = np.unique(as_items, return_index=True, return_inverse=True)
    return first[number]


def _record(row: Mapping[str, Any]) -> bytes:
    parts = []
    for name, width in WIDTHS.items():
        digits = row.get(name) or ""
        try:
            value = bytes.fromhex(digits)
        except (ValueError, TypeError):  # as is what is no text
            value = b""
        if digits and len(value) != width:
            raise ValueError(f"{name} is {digits!r:.70}, not {2 * width} hex digits")
        parts += [value.ljust(width, b"\0"), b"\1" if digits else b"\0"]
    return b"".join(parts)
