# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Packing: items of any length into packs of one budget, chosen so that as little of it as possible stays empty."""

from collections.abc import Callable, Sequence
from typing import Any


# items that are tried together; the search takes about 0.2 ms with so many
MAX_CHOICES = 256


class TokenPool:
    """Keeps items until they are worth `num_packs` packs, then gives one pack after the other.

    A pack is the item that waited longest and those of the others that, together with it, come closest to the budget.
    So an item waits for no more packs than there were items before it. What comes out depends on the items and their
    order alone.

    Args:
        budget: tokens a pack, at least 1.
        num_packs: packs' worth of items to choose from, at least 1.
    """

    def __init__(self, budget: int, num_packs: int):
        if budget < 1 or num_packs < 1:
            raise ValueError(f"budget and num_packs must be at least 1, got {budget=} and {num_packs=}")
        self.budget = budget
        self.num_packs = num_packs
        self._waiting: list[tuple[Any, int]] = []
        self._num_tokens = 0

    def add(self, item: Any, length: int) -> None:
        """Put in an item of `length` tokens.

        Raises:
            ValueError: if the item is empty or larger than a whole pack.
        """
        if not 1 <= length <= self.budget:
            raise ValueError(f"an item of {length} tokens does not fit a pack of {self.budget}")
        self._waiting.append((item, length))
        self._num_tokens += length

    def take(self) -> list[Any] | None:
        """Give the items of a pack, in the order they came, or None where too few are waiting."""
        if self._num_tokens < self.num_packs * self.budget:
            return None
        lengths = [length for _, length in self._waiting]
        first, room = 1, self.budget - lengths[0]
        # of very many small items the oldest are taken unseen, until there is enough to choose from for the rest
        to_choose_from = sum(lengths[first : first + MAX_CHOICES])
        while len(lengths) - first > MAX_CHOICES and to_choose_from < 2 * room and lengths[first] <= room:
            to_choose_from += lengths[first + MAX_CHOICES] - lengths[first]
            room -= lengths[first]
            first += 1
        best = best_subset(lengths[first : first + MAX_CHOICES], room)
        chosen = {*range(first), *(first + place for place in best)}
        pack = [self._waiting[place][0] for place in sorted(chosen)]
        self._waiting = [entry for place, entry in enumerate(self._waiting) if place not in chosen]
        self._num_tokens -= sum(lengths[place] for place in chosen)
        return pack

    def items(self) -> list[Any]:
        """Return the items that wait."""
        return [item for item, _ in self._waiting]

    def state(self, describe: Callable[[Any], Any]) -> list[list[Any]]:
        """Return what `restore` needs; `describe(item)` is what stands for an item."""
        return [[describe(item), length] for item, length in self._waiting]

    def restore(self, state: list[list[Any]], revive: Callable[[Any], Any]) -> None:
        """Take over a `state`; `revive` turns what stands for an item back into the item."""
        self._waiting = [(revive(item), length) for item, length in state]
        self._num_tokens = sum(length for _, length in state)


def best_subset(lengths: Sequence[int], room: int) -> list[int]:
    """Return the places of the lengths whose sum is the greatest that fits `room`, the last place first.

    Exact, by the sums that the first lengths can reach, as the bits of a number (Bellman's subset sum).
    """
    mask = (1 << (room + 1)) - 1
    reachable = [1]
    for length in lengths:
        reachable.append((reachable[-1] | reachable[-1] << length) & mask)
    total, places = reachable[-1].bit_length() - 1, []
    for place in reversed(range(len(lengths))):
        if not reachable[place] >> total & 1:
            places.append(place)
            total -= lengths[place]
    return places
