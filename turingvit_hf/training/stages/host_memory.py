# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""How much host memory the data take: rows of streams, samples that wait for a pack, packs that are read ahead."""

from dataclasses import dataclass

from turingvit_hf.data.sources import is_streamed
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.data.samples import max_patches_of


# of an encoded row, where nothing is known: a web picture of half a megapixel, a clip of ten seconds
IMAGE_BYTES, CLIP_BYTES = 100_000, 2_000_000
CHANNELS = 3
# torch.utils.data.DataLoader's default prefetch_factor
PACKS_A_WORKER = 2


@dataclass(frozen=True)
class HostMemory:
    """What one process, its loader workers included, holds of its data.

    Attributes:
        num_readers: of images, and as many of clips where the stage has clips.
        num_rows: rows of streams in shuffle windows, encoded.
        row_bytes: of these rows.
        waiting_bytes: of samples that wait for their pack: pictures encoded, frames of clips decoded.
        num_packs: packs that loader workers have ready.
        pack_bytes: of these packs' pixels, float32.
    """

    num_readers: int
    num_rows: int
    row_bytes: int
    waiting_bytes: int
    num_packs: int
    pack_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.row_bytes + self.waiting_bytes + self.pack_bytes


def estimate_host_memory(
    recipe: StageRecipe, *, num_ranks: int, image_bytes: int = IMAGE_BYTES, clip_bytes: int = CLIP_BYTES
) -> HostMemory:
    """What a process of the stage will hold when all of its readers have begun.

    Every reader has a window of `data.shuffle_window` rows of each streamed source of its kind, and a pool of
    `data.open_packs` packs' worth of samples. Of sources that are read by index it has no rows, and of pictures that
    are files here no more than their paths.

    Args:
        recipe: the stage's.
        num_ranks: processes it runs on.
        image_bytes: of an encoded picture on average.
        clip_bytes: of an encoded clip on average.
    """
    data = recipe.data
    patch_values = CHANNELS * TuringViTConfig(**recipe.model).patch_size ** 2
    num_readers = -(-data.packs_per_step // num_ranks) * data.num_readers
    streamed = [source.kind for source in data.sources if is_streamed(source)]
    windows = {kind: num_readers * streamed.count(kind) * data.shuffle_window for kind in ("image", "video")}
    waiting = 0
    if "image" in streamed:
        images = data.open_packs * data.tokens_per_pack // _patches_of_an_image(recipe)
        waiting += num_readers * images * image_bytes
    if data.video_share > 0:
        waiting += num_readers * data.open_packs * data.tokens_per_pack * patch_values  # a byte a value
    num_packs = data.num_workers * PACKS_A_WORKER
    return HostMemory(
        num_readers=num_readers,
        num_rows=sum(windows.values()),
        row_bytes=windows["image"] * image_bytes + windows["video"] * clip_bytes,
        waiting_bytes=waiting,
        num_packs=num_packs,
        pack_bytes=num_packs * data.tokens_per_pack * patch_values * 4,
    )


def _patches_of_an_image(recipe: StageRecipe) -> int:
    """The most patches of an image, or the middle of those that are drawn."""
    resolution, patch_size = recipe.data.resolution, TuringViTConfig(**recipe.model).patch_size
    most = max_patches_of(recipe.data, "image")
    if resolution.mode == "fixed":
        return max(1, (resolution.size // patch_size) ** 2)
    if resolution.mode == "bounded":
        return max(1, min(most, ((resolution.min_side + resolution.max_side) // 2 // patch_size) ** 2))
    return most
