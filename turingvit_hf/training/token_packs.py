# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Best-fit packing: items of any length into packs of one budget, several packs being open at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


# a pack that so many times `num_open` others were finished before is finished as it is
PATIENCE = 4


@dataclass(eq=False)
class TokenPack:
    """Items that share a pack.

    Attributes:
        num_before: packs that were finished when it was opened.
        num_tokens: tokens in it.
        items: in the order they came.
    """

    num_before: int
    num_tokens: int = 0
    items: list[Any] = field(default_factory=list)


class OpenPacks:
    """Fills packs of at most `budget` tokens; an item goes where it leaves the least room.

    Where an item fits nowhere and `num_open` packs are open, the fullest is finished. A pack without room is finished
    at once, one that has waited for `PATIENCE * num_open` others too, so no item stays for ever. What comes out
    depends on the items and their order alone.

    Args:
        budget: tokens a pack, at least 1.
        num_open: packs that are filled at a time, at least 1.
    """

    def __init__(self, budget: int, num_open: int):
        if budget < 1 or num_open < 1:
            raise ValueError(f"budget and num_open must be at least 1, got {budget=} and {num_open=}")
        self.budget = budget
        self.num_open = num_open
        self._open: list[TokenPack] = []
        self._finished: list[TokenPack] = []
        self._num_finished = 0

    def add(self, item: Any, length: int) -> None:
        """Put an item of `length` tokens into a pack; `take` gives the packs that this finishes.

        Raises:
            ValueError: if the item is empty or larger than a whole pack.
        """
        if not 1 <= length <= self.budget:
            raise ValueError(f"an item of {length} tokens does not fit a pack of {self.budget}")
        fitting = [pack for pack in self._open if pack.num_tokens + length <= self.budget]
        if fitting:
            pack = max(fitting, key=lambda pack: pack.num_tokens)
        else:
            if len(self._open) == self.num_open:
                self._finish(max(self._open, key=lambda pack: pack.num_tokens))
            pack = TokenPack(self._num_finished)
            self._open.append(pack)
        pack.num_tokens += length
        pack.items.append(item)
        if pack.num_tokens == self.budget:
            self._finish(pack)
        for pack in [pack for pack in self._open if self._num_finished - pack.num_before > PATIENCE * self.num_open]:
            self._finish(pack)

    def take(self) -> list[Any] | None:
        """Give the items of the pack that was finished first, in the order they came, or None if there is none."""
        return self._finished.pop(0).items if self._finished else None

    def items(self) -> list[Any]:
        """Return all items that have not been taken yet."""
        return [item for pack in (*self._finished, *self._open) for item in pack.items]

    def state(self, describe: Callable[[Any], Any]) -> dict[str, Any]:
        """Return what `restore` needs; `describe(item)` is what stands for an item."""
        return {
            "num_finished": self._num_finished,
            "open": [_map(pack, describe) for pack in self._open],
            "finished": [_map(pack, describe) for pack in self._finished],
        }

    def restore(self, state: dict[str, Any], revive: Callable[[Any], Any]) -> None:
        """Take over a `state`; `revive` turns what stands for an item back into the item."""
        self._num_finished = state["num_finished"]
        self._open = [TokenPack(*_map(TokenPack(*pack), revive)) for pack in state["open"]]
        self._finished = [TokenPack(*_map(TokenPack(*pack), revive)) for pack in state["finished"]]

    def _finish(self, pack: TokenPack) -> None:
        self._open.remove(pack)
        self._finished.append(pack)
        self._num_finished += 1


def _map(pack: TokenPack, function: Callable[[Any], Any]) -> list[Any]:
    """Return the fields of a pack with `function` of each item."""
    return [pack.num_before, pack.num_tokens, [function(item) for item in pack.items]]
