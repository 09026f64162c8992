# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Grids of patches that are a little smaller than an image's own, so that it fits what is left of a pack."""


def least_side(side: int, max_shrink: float) -> int:
    """Return the fewest patches that a side of `side` may have when it gives up at most the share `max_shrink`."""
    return side - int(max_shrink * side)


def least_patches(grid: tuple[int, int], max_shrink: float) -> int:
    """Return the fewest patches that an image of this grid (rows, columns) may have; see `smaller_grid`."""
    return least_side(grid[0], max_shrink) * least_side(grid[1], max_shrink)


def smaller_grid(grid: tuple[int, int], room: int, max_shrink: float) -> tuple[int, int]:
    """Return the (rows, columns) with the most patches that fit `room` and are `grid` but for size.

    Neither side is more than the share `max_shrink` shorter than it was, and the shorter one is within one patch of
    what the aspect ratio asks for.

    Raises:
        ValueError: if `room` is below `least_patches`.
    """
    longer, shorter = max(grid), min(grid)
    least = least_side(shorter, max_shrink)
    sizes = []
    for side in range(least_side(longer, max_shrink), longer + 1):
        for other in (shorter * side // longer, -(-shorter * side // longer)):
            if least <= other <= shorter and side * other <= room:
                sizes.append((side * other, side, other))
    if not sizes:
        raise ValueError(
            f"{grid[0]} x {grid[1]} patches cannot be {room} with sides at most {max_shrink:.0%} shorter: "
            f"{least_patches(grid, max_shrink)} are the least"
        )
    _, side, other = max(sizes)
    return (side, other) if grid[0] >= grid[1] else (other, side)
