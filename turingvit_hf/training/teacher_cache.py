# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A teacher's features on disk, one file for each sample and crop, so that a teacher runs once over a dataset.

Files are written under another name and renamed, so that processes can share a folder and a killed run leaves no half
file under a name that is read. What cannot be read is computed anew and counted.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn


if TYPE_CHECKING:
    from turingvit_hf.training.teachers import SquarePreprocess, Teacher


class CachedTeacher:
    """A teacher whose features are kept in a folder, under the same protocol.

    A feature is rounded to `dtype` whether it was just computed or read, so that a run does not depend on what the
    cache held when it began. Entries are told apart by the teacher's identity, `pack["sample_keys"]` (N strings that
    name each row of the grid across epochs and runs), the grid of the crop and its pixels, so that a file that was
    replaced under its name is computed anew.

    Args:
        teacher: computes what is not there.
        folder: is made if it does not exist; teachers may share one.
        identity: JSON values that name the teacher; others are other features.
        dtype: of stored features, `torch.float16` or `torch.bfloat16`. An entry that does not fit into float16's
            range is stored as bfloat16.
    """

    def __init__(self, teacher: "Teacher", folder: str | os.PathLike, *, identity: dict[str, Any], dtype: torch.dtype):
        self.teacher = teacher
        self.hidden_size = teacher.hidden_size
        self.preprocess: SquarePreprocess | None = teacher.preprocess
        self.dtype = dtype
        self.counts = {"hits": 0, "misses": 0, "corrupt": 0}
        text = json.dumps(identity | {"stored": str(dtype)}, sort_keys=True)
        self.folder = Path(folder) / _digest(text)[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "teacher.json", text.encode())

    def features(self, pack: Mapping[str, Any], device: torch.device | str) -> Tensor:
        """Features (T, Dt) float32 as the teacher's, rounded to the stored dtype; read where there are all of a pack.

        Raises:
            ValueError: `sample_keys` is missing or does not name each row of the grid.
        """
        grid = pack["image_grid_thw"].tolist()
        keys = pack.get("sample_keys")
        if keys is None or len(keys) != len(grid):
            found = "none" if keys is None else len(keys)
            raise ValueError(
                f"the cache of a teacher needs a name for each of {len(grid)} images; sample_keys: {found}"
            )
        lengths = [frames * rows * columns for frames, rows, columns in grid]
        named = zip(keys, grid, _pixels(pack, lengths), strict=True)
        paths = [self._path(key, row, pixels) for key, row, pixels in named]
        entries = [self._read(path, length) for path, length in zip(paths, lengths, strict=True)]
        missing = [index for index, entry in enumerate(entries) if entry is None]
        if missing:
            # the whole pack, since the last bits of a feature may depend on what it is computed with, and a run that
            # was killed between two files has to go on like one that was not
            computed = self.teacher.features(pack, device).cpu().split(lengths)
            for index in missing:
                entries[index] = self._store(paths[index], computed[index])
        self.counts["hits"] += len(grid) - len(missing)
        self.counts["misses"] += len(missing)
        return torch.cat([entry for entry in entries if entry is not None]).to(device)

    def _path(self, key: str, grid_row: list[int], pixels: Tensor) -> Path:
        content = hashlib.sha256(pixels.detach().cpu().numpy().tobytes()).hexdigest()
        name = _digest(json.dumps([key, grid_row, content]))
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, path: Path, num_patches: int) -> Tensor | None:
        """The features in float32, or None if they are not there or not whole."""
        try:
            features = load(path.read_bytes())["features"]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, OSError):
            self.counts["corrupt"] += 1
            return None
        if features.shape != (num_patches, self.hidden_size):
            self.counts["corrupt"] += 1
            return None
        return features.float()

    def _store(self, path: Path, features: Tensor) -> Tensor:
        """The features as they will be read."""
        stored = features.to(self.dtype)
        if not torch.isfinite(stored).all():
            stored = features.to(torch.bfloat16)
        path.parent.mkdir(exist_ok=True)
        _write(path, save({"features": stored.contiguous()}))
        return stored.float()


def weights_digest(network: nn.Module) -> str:
    """A hash of all weights and buffers of a network, with their names: another checkpoint is another hash."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _pixels(pack: Mapping[str, Any], lengths: list[int]) -> Sequence[Tensor]:
    """What the teacher sees of each image."""
    pixels = pack.get("teacher_pixel_values")
    return pack["pixel_values"].split(lengths) if pixels is None else pixels


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
