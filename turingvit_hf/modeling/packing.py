# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Pure functions of the image grid: where images begin, where patches lie, and how pixels become packed patches.

`image_grid_thw` has a row (frames, rows of patches, columns of patches) for each image or clip; a still image is a
clip of one frame. Tokens are in row-major patch order, frame after frame, image after image. Whatever can be derived
from the grid is derived here and nowhere carried along, so it can never disagree with it.
"""

import torch
import torch.nn.functional as F


def cu_seqlens_from_grid(image_grid_thw: torch.Tensor) -> torch.Tensor:
    """Where each frame begins among the packed tokens, and where the last one ends: (F + 1,) int32."""
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():  # a compiler knows only the first
        # A tensor that counts its changes, unlike those of inference mode: kernels keep what they derive from it.
        with torch.inference_mode(False):
            return cu_seqlens_from_grid(image_grid_thw)
    frames, height, width = image_grid_thw.unbind(-1)
    return F.pad((height * width).repeat_interleave(frames).cumsum(0), (1, 0)).to(torch.int32)


def image_index_from_grid(image_grid_thw: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Which image or clip each packed token belongs to: (T,) int64.

    Args:
        image_grid_thw: (N, 3) int64.
        num_tokens: T, known from the patches; giving it avoids waiting for the device.
    """
    images = torch.arange(image_grid_thw.shape[0], device=image_grid_thw.device)
    return images.repeat_interleave(image_grid_thw.prod(-1), output_size=num_tokens)


def patch_centers(height: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """The (y, x) of each patch center of one image, on each axis from -1 to 1: (height·width, 2) float32."""
    y, x = ((torch.arange(side, dtype=torch.float32, device=device) + 0.5) / side * 2 - 1 for side in (height, width))
    return torch.stack((y[:, None].expand(height, width), x.expand(height, width)), dim=-1).flatten(0, 1)


def positions_from_grid(image_grid_thw: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """`patch_centers` of every frame of a pack, without a loop over images: (T, 2) float32.

    Args:
        image_grid_thw: (N, 3) int64.
        num_tokens: T, known from the patches.
    """
    image_index = image_index_from_grid(image_grid_thw, num_tokens)
    _, height, width = image_grid_thw[image_index].unbind(-1)
    num_patches = image_grid_thw.prod(-1)
    starts = num_patches.cumsum(0) - num_patches
    patch = (torch.arange(num_tokens, device=image_grid_thw.device) - starts[image_index]) % (height * width)
    y = (patch // width + 0.5) / height * 2 - 1
    x = (patch % width + 0.5) / width * 2 - 1
    return torch.stack((y, x), dim=-1).to(torch.float32)


def patchify(pixel_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Images (B, C, H, W) cut into patches (B, H/p · W/p, C·p·p), row-major, each flattened channel first.

    Raises:
        ValueError: A side is no multiple of the patch size, or shorter than one patch.
    """
    *_, height, width = pixel_values.shape
    if height % patch_size or width % patch_size or min(height, width) < patch_size:
        raise ValueError(
            f"images of {height}x{width} pixels cannot be cut into {patch_size}x{patch_size} patches: both sides must "
            "be positive multiples of patch_size (TuringViTImageProcessor resizes to them)"
        )
    # (B, C, H, W) -> (B, C, h, p, w, p) -> (B, h, w, C, p, p) -> (B, h·w, C·p·p)
    grid = pixel_values.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def pack_images(pixel_values: torch.Tensor, patch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of images of one size (B, C, H, W) in packed form.

    Returns:
        Patches (T, C·p·p) and image_grid_thw (B, 3) int64.

    Raises:
        ValueError: A side is no multiple of the patch size.
    """
    batch, _, height, width = pixel_values.shape
    row = torch.tensor([1, height // patch_size, width // patch_size], device=pixel_values.device)
    return patchify(pixel_values, patch_size).flatten(0, 1), row.repeat(batch, 1)


def pack_padded(pixel_values: torch.Tensor, image_sizes, patch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A padded batch (B, C, Hmax, Wmax) with each image's true (height, width), in packed form; padding is dropped.

    Args:
        pixel_values: Images in the top left corner of their frame; what lies beyond the true size is not read.
        image_sizes: (B, 2) true sizes in pixels, tensor or nested list, multiples of the patch size.
        patch_size: Side of a patch in pixels.

    Returns:
        Patches (T, C·p·p) and image_grid_thw (B, 3) int64.

    Raises:
        ValueError: The sizes are not one pair of whole numbers an image, no multiples of the patch size, or larger
            than the frame.
    """
    sizes = [torch.as_tensor(size).tolist() for size in image_sizes]
    if any(not isinstance(size, list) or len(size) != 2 for size in sizes):
        raise ValueError(f"image_sizes must be (B, 2), a (height, width) for each image, got {sizes}")
    if any(side < 0 or side != int(side) for size in sizes for side in size):
        raise ValueError(f"image_sizes must be whole numbers of pixels, got {sizes}")
    sizes = [(int(height), int(width)) for height, width in sizes]
    if len(sizes) != len(pixel_values):
        raise ValueError(f"image_sizes describes {len(sizes)} images, pixel_values holds {len(pixel_values)}")
    for index, (height, width) in enumerate(sizes):
        if height > pixel_values.shape[-2] or width > pixel_values.shape[-1]:
            raise ValueError(
                f"image_sizes[{index}]={height, width} is larger than its frame {tuple(pixel_values.shape[-2:])}"
            )
    patches = [
        patchify(image[None, :, :height, :width], patch_size)[0]
        for image, (height, width) in zip(pixel_values, sizes, strict=True)
    ]
    grid = [(1, height // patch_size, width // patch_size) for height, width in sizes]
    return torch.cat(patches), torch.tensor(grid, device=pixel_values.device)


def split_by_image(tokens: torch.Tensor, image_grid_thw: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The packed tokens (T, ...) of each image or clip, as N views.

    Raises:
        ValueError: The grid describes another number of tokens.
    """
    lengths = image_grid_thw.prod(-1).tolist()
    if sum(lengths) != tokens.shape[0]:
        raise ValueError(f"image_grid_thw describes {sum(lengths)} patches, there are {tokens.shape[0]} tokens")
    return tokens.split(lengths)


def check_packed(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, patch_dim: int) -> None:
    """Raises ValueError if packed patches (T, C·p·p) and their grid (N, 3) cannot belong together.

    Values of the grid are looked at where that is free: on the CPU, outside of a compiler.
    """
    if image_grid_thw.dim() != 2 or image_grid_thw.shape[1] != 3:
        raise ValueError(
            f"image_grid_thw must be (N, 3), rows of (frames, height, width), got {tuple(image_grid_thw.shape)}"
        )
    if image_grid_thw.is_floating_point():
        raise ValueError(f"image_grid_thw must hold whole numbers, got {image_grid_thw.dtype}")
    if image_grid_thw.shape[0] == 0:
        raise ValueError("image_grid_thw is empty: a pack holds at least one image")
    if pixel_values.shape[1] != patch_dim:
        raise ValueError(
            f"a packed patch holds num_channels * patch_size ** 2 = {patch_dim} values, got {pixel_values.shape[1]}"
        )
    if image_grid_thw.is_cpu and not torch.compiler.is_compiling():
        if (image_grid_thw < 1).any():
            raise ValueError(f"every entry of image_grid_thw must be at least 1, got {image_grid_thw.tolist()}")
        if (expected := int(image_grid_thw.prod(-1).sum())) != pixel_values.shape[0]:
            raise ValueError(f"image_grid_thw describes {expected} patches, pixel_values has {pixel_values.shape[0]}")
