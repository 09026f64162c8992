# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the logs say of the steps since the last log: losses by name, throughput, waiting, and how full packs were."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from turingvit_hf.training.distributed import sum_over_ranks, world_size


TOTAL = "loss"  # the sum of a step's losses, among the names


class NamedLosses:
    """Means of named losses over what was added since the last reading, kept on the device until then."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = defaultdict(float)

    def add(self, losses: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Adds the losses of a step, or of a batch with its number of images as weight."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss.detach().float() * weight
            self._weights[name] += weight

    def read(self) -> dict[str, float]:
        """The means over all ranks, by name; starts again. Collective: ranks have added the same names."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = torch.stack([self._sums[name].reshape(()) for name in names])
        weights = sums.new_tensor([self._weights[name] for name in names])
        sums, weights = sum_over_ranks(torch.stack([sums, weights])).unbind()
        self.__init__()
        return dict(zip(names, (sums / weights).tolist(), strict=True))


class Throughput:
    """Images, patches and operations a second, all ranks together, and the share of time spent waiting for data.

    Args:
        device: where ranks exchange their numbers.
        peak_flops: of one device; None leaves out `mfu`.
    """

    def __init__(self, device: torch.device, peak_flops: float | None):
        self.device = device
        self.peak_flops = peak_flops
        self.num_images = 0
        self.num_patches = 0
        self.restart()

    def restart(self) -> None:
        """Forgets what was added since the last reading."""
        self._began = time.monotonic()
        self._since = {"images": 0, "patches": 0, "flops": 0.0, "waiting": 0.0}

    def add(self, packs: Sequence[Mapping[str, Any]], flops: float) -> None:
        """Counts the packs of a step on this rank. Shapes are read and no values, so no device is waited for."""
        for pack in packs:
            if "image_grid_thw" in pack:
                self._since["images"] += len(pack["image_grid_thw"])
                self._since["patches"] += len(pack["pixel_values"])
        self._since["flops"] += flops

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that waits for data."""
        start = time.monotonic()
        yield
        self._since["waiting"] += time.monotonic() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time does not count, such as an evaluation."""
        start = time.monotonic()
        yield
        self._began += time.monotonic() - start

    def read(self) -> dict[str, float]:
        """The rates since the last reading, and what was seen since the run began; starts again. Collective."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        numbers = torch.tensor([*self._since.values(), seconds], device=self.device, dtype=torch.float32)
        images, patches, flops, waiting, all_seconds = sum_over_ranks(numbers).tolist()
        self.restart()
        self.num_images += round(images)
        self.num_patches += round(patches)
        seconds = all_seconds / world_size()
        rates = {
            "images_per_second": images / seconds,
            "tokens_per_second": patches / seconds,
            "data_wait_share": waiting / all_seconds,
            "tflops": flops / seconds / 1e12,
            "images_seen": self.num_images,
            "tokens_seen": self.num_patches,
        }
        if self.peak_flops is not None:
            rates["mfu"] = flops / all_seconds / self.peak_flops
        return rates

    def state_dict(self) -> dict[str, int]:
        """What all ranks have seen since the run began. Collective."""
        numbers = [self._since["images"], self._since["patches"]]
        images, patches = sum_over_ranks(torch.tensor(numbers, device=self.device)).tolist()
        return {"num_images": self.num_images + images, "num_patches": self.num_patches + patches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes what was seen from a checkpoint."""
        self.num_images, self.num_patches = state["num_images"], state["num_patches"]
