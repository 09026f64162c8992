# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Patch tokens of whole data sets: they stay in their files, and come a few images at a time."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from turingvit_hf.errors import InputError


TOKEN_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# files that are open at a time
OPEN_FILES = 128
# tokens, padding included, that are in memory as float32 at a time
TOKENS_AT_ONCE = 32_768


class TokenFiles:
    """The patch tokens of images in files, each image at its place; any of them can be read by itself.

    Attributes:
        labels: (N,) int64 the class of each image.
        left_out: how many images could not be used, by reason.
        name: differs where tokens do.

    Args:
        paths: safetensors with `tokens` (T, D) and the `lengths` (I,) of their images.
        labels: of all images, in the order of the files.
        left_out: see above.
        name: see above.

    Raises:
        InputError: a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, left_out: dict[str, int], name: str):
        self.labels = labels
        self.left_out = left_out
        self.name = name
        self._paths = list(paths)
        self._open: OrderedDict[int, Any] = OrderedDict()
        lengths = [self._file(number).get_tensor("lengths") for number in range(len(paths))]
        self._first_images = [0, *accumulate(len(file) for file in lengths)]
        self._starts = [torch.cat([file.new_zeros(1), file.cumsum(0)]).tolist() for file in lengths]
        self.lengths = torch.cat(lengths)
        self.width = int(self._file(0).get_slice("tokens").get_shape()[1])

    @property
    def num_images(self) -> int:
        """How many could be used."""
        return len(self.labels)

    def image(self, row: int) -> Tensor:
        """The tokens (L, D) of an image, float32.

        Raises:
            InputError: its file cannot be read.
        """
        number = bisect_right(self._first_images, row) - 1
        start, stop = self._starts[number][row - self._first_images[number] :][:2]
        return self._file(number).get_slice("tokens")[start:stop].float()

    def chunks(self, rows: Tensor) -> list[Tensor]:
        """The rows by length, in chunks that take no more than TOKENS_AT_ONCE tokens with their padding."""
        ordered = rows[self.lengths[rows].argsort(descending=True, stable=True)].tolist()
        chunks, start = [], 0
        while start < len(ordered):
            # the first of a chunk is its longest
            size = max(1, TOKENS_AT_ONCE // int(self.lengths[ordered[start]]))
            chunks.append(torch.tensor(ordered[start : start + size]))
            start += size
        return chunks

    def load(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens (N, L, D) of images, padded with zeros, and their true numbers (N,)."""
        images = [self.image(row) for row in rows.tolist()]
        return nn.utils.rnn.pad_sequence(images, batch_first=True), self.lengths[rows]

    def statistics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) over all tokens of images, summed in float64; the deviation is 1 where it was 0."""
        sums, squares = torch.zeros(2, self.width, dtype=torch.float64)
        for row in rows.sort().values.tolist():
            tokens = self.image(row).double()
            sums += tokens.sum(0)
            squares += tokens.square().sum(0)
        mean = sums / self.lengths[rows].sum()
        variance = (squares / self.lengths[rows].sum() - mean.square()).clamp(min=0)
        # a constant's variance is what rounding leaves of it
        is_constant = variance <= 1e-12 * (1 + mean.square())
        return mean.float(), torch.where(is_constant, 1.0, variance.sqrt()).float()

    def _file(self, number: int) -> Any:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        try:
            self._open[number] = safe_open(self._paths[number], framework="pt")
        except (OSError, SafetensorError) as error:
            raise InputError(f"features in {self._paths[number]} cannot be read: {error}; delete that file") from error
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)
        return self._open[number]


class FeatureRows:
    """Features in memory, in the form that probes are trained from.

    Args:
        features: (N, D).
        labels: (N,) int64.
        name: differs where features do.
    """

    def __init__(self, features: Tensor, labels: Tensor, name: str = ""):
        self.features, self.labels, self.name = features, labels, name
        self.width = features.shape[1]

    def chunks(self, rows: Tensor) -> list[Tensor]:
        """All rows at once."""
        return [rows]

    def load(self, rows: Tensor) -> tuple[Tensor]:
        """The features (N, D) of rows."""
        return (self.features[rows],)

    def statistics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) of rows; the deviation is 1 where it was 0."""
        std, mean = torch.std_mean(self.features[rows].double(), dim=0, correction=0)
        return mean.float(), torch.where(std > 0, std, 1.0).float()
