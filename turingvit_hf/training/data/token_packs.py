# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Packing: items of any length into packs of one budget, chosen so that as little of it as possible stays empty."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


# items that are tried together; the search takes about 0.2 ms with so many
MAX_CHOICES = 256
# a pack that is at least so full is good enough: no item has to give way for it
FULL = 0.97
# sums above the budget that are tried, the smallest first; nearly always the first one will do
MAX_SUMS = 32


class Waiting(NamedTuple):
    """An item in the pool: what it is, its length in tokens, and the fewest tokens that it may be made."""

    item: Any
    length: int
    least: int


class TokenPool:
    """Keeps items until they are worth `num_packs` packs, then gives one pack after the other.

    A pack is the item that waited longest and those of the others that, together with it, come closest to the budget.
    Where even these leave more than 3 % of it empty, the next larger choice is taken if its items can give way enough:
    each then gets a little less room than it is long. So an item waits for no more packs than there were items before
    it, and the pool holds less than `num_packs` packs and an item. What comes out depends on the items and their order
    alone.

    Args:
        budget: tokens a pack, at least 1.
        num_packs: packs' worth of items to choose from, at least 1.
    """

    def __init__(self, budget: int, num_packs: int):
        if budget < 1 or num_packs < 1:
            raise ValueError(f"budget and num_packs must be at least 1, got {budget=} and {num_packs=}")
        self.budget = budget
        self.num_packs = num_packs
        self._waiting: list[Waiting] = []
        self._num_tokens = 0

    def add(self, item: Any, length: int, least: int | None = None) -> None:
        """Put in an item of `length` tokens that may be made as short as `least`; None: it stays as it is.

        Raises:
            ValueError: if the item is empty or larger than a whole pack, or `least` is not in [1, `length`].
        """
        if not 1 <= length <= self.budget:
            raise ValueError(f"an item of {length} tokens does not fit a pack of {self.budget}")
        if least is not None and not 1 <= least <= length:
            raise ValueError(f"an item of {length} tokens cannot have {least} at least")
        self._waiting.append(Waiting(item, length, length if least is None else least))
        self._num_tokens += length

    def take(self) -> list[tuple[Any, int]] | None:
        """Give the items of a pack, in the order they came, each with its room: its length, or down to its `least`.

        None where too few are waiting.
        """
        if self._num_tokens < self.num_packs * self.budget:
            return None
        chosen = self._choose()
        pack = [self._waiting[place] for place in sorted(chosen)]
        self._waiting = [entry for place, entry in enumerate(self._waiting) if place not in chosen]
        self._num_tokens -= sum(entry.length for entry in pack)
        return [(entry.item, room) for entry, room in zip(pack, _rooms(pack, self.budget), strict=True)]

    def items(self) -> list[Any]:
        """Return the items that wait."""
        return [entry.item for entry in self._waiting]

    def state(self, describe: Callable[[Any], Any]) -> list[list[Any]]:
        """Return what `restore` needs; `describe(item)` is what stands for an item."""
        return [[describe(item), length, least] for item, length, least in self._waiting]

    def restore(self, state: list[list[Any]], revive: Callable[[Any], Any]) -> None:
        """Take over a `state`; `revive` turns what stands for an item back into the item."""
        self._waiting = [Waiting(revive(item), length, least) for item, length, least in state]
        self._num_tokens = sum(entry.length for entry in self._waiting)

    def _choose(self) -> set[int]:
        """Return the places of the items of the next pack."""
        lengths = [entry.length for entry in self._waiting]
        first, room = 1, self.budget - lengths[0]
        # of very many small items the oldest are taken unseen, until there is enough to choose from for the rest
        to_choose_from = sum(lengths[first : first + MAX_CHOICES])
        while len(lengths) - first > MAX_CHOICES and to_choose_from < 2 * room and lengths[first] <= room:
            to_choose_from += lengths[first + MAX_CHOICES] - lengths[first]
            room -= lengths[first]
            first += 1
        choices = lengths[first : first + MAX_CHOICES]
        best = best_subset(choices, room)
        if room - sum(choices[place] for place in best) > (1 - FULL) * self.budget:
            best = self._choose_above(first, choices, room) or best
        return {*range(first), *(first + place for place in best)}

    def _choose_above(self, first: int, choices: Sequence[int], room: int) -> list[int] | None:
        """Return a choice of the smallest sum above the room whose items can give way enough, or None."""
        gives = [entry.length - entry.least for entry in self._waiting[: first + MAX_CHOICES]]
        if not any(gives):
            return None
        # more than all of them can give is out of reach
        for places in subsets_above(choices, room, room + min(sum(gives), self.budget), max_sums=MAX_SUMS):
            excess = sum(choices[place] for place in places) - room
            if sum(gives[:first]) + sum(gives[first + place] for place in places) >= excess:
                return places
        return None


def best_subset(lengths: Sequence[int], room: int) -> list[int]:
    """Return the places of the lengths whose sum is the greatest that fits `room`, the last place first."""
    reachable = _reachable(lengths, room)
    return _places(lengths, reachable, reachable[-1].bit_length() - 1)


def subsets_above(lengths: Sequence[int], room: int, limit: int, *, max_sums: int) -> Iterator[list[int]]:
    """Yield, for each of the smallest sums in (`room`, `limit`] that lengths have, the places of lengths with it."""
    reachable = _reachable(lengths, limit)
    above, total = reachable[-1] >> (room + 1), room
    for _ in range(max_sums):
        if not above:
            return
        step = (above & -above).bit_length()
        above, total = above >> step, total + step
        yield _places(lengths, reachable, total)


def _reachable(lengths: Sequence[int], limit: int) -> list[int]:
    """Return, for each number of first lengths, the sums up to `limit` that they have, as the bits of a number.

    Exact (Bellman's subset sum).
    """
    mask = (1 << (limit + 1)) - 1
    reachable = [1]
    for length in lengths:
        reachable.append((reachable[-1] | reachable[-1] << length) & mask)
    return reachable


def _places(lengths: Sequence[int], reachable: Sequence[int], total: int) -> list[int]:
    """Return the places of lengths with a sum that is reachable: of equal choices the one of earlier places."""
    places = []
    for place in reversed(range(len(lengths))):
        if not reachable[place] >> total & 1:
            places.append(place)
            total -= lengths[place]
    return places


def _rooms(pack: Sequence[Waiting], budget: int) -> list[int]:
    """Return the tokens that each item of a pack may have: what is too much, in proportion to what each can give."""
    excess = sum(entry.length for entry in pack) - budget
    give = sum(entry.length - entry.least for entry in pack)
    rooms = []
    for entry in pack:
        own = entry.length - entry.least
        # rounded up, so that the last one does not have to give more than it can
        part = -(-excess * own // give) if excess > 0 and own else 0
        rooms.append(entry.length - part)
        excess, give = excess - part, give - own
    return rooms
