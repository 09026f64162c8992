# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The loader of pretraining: packs for each optimizer step, the same ones for any number of ranks and of workers.

A step has `packs_per_step` lanes, divided among the ranks in order. A lane's packs come from its `num_readers` readers
in turn, and each reader is deterministic by itself. So what a step holds depends on the seed and the recipe alone, and
the states of all readers together say where the data are.
"""

import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec.asyn
import torch
from torch.utils.data import DataLoader, IterableDataset

from turingvit_hf.data.draws import draws, seed_of
from turingvit_hf.data.sources import Source, count_rows, open_source
from turingvit_hf.data.streams import RowStream
from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import DataRecipe
from turingvit_hf.training.data.cursors import Share
from turingvit_hf.training.data.readers import Collate, PackReader
from turingvit_hf.training.data.samples import max_patches_of


KINDS = ("image", "video")

logger = logging.getLogger(__name__)


class StepLoader:
    """Iterates over `{"packs": [pack, ...], "kind": "image" | "video"}`, without end, one for each optimizer step.

    Args:
        data: sources and how they become packs.
        collate: makes a pack of samples.
        seed: of everything that is drawn.
        rank: number of this process, which gets its share of each step's packs.
        num_ranks: number of processes.

    Raises:
        InputError: a source cannot be used, the packs of a step or the workers cannot be divided evenly, or a picture
            may be larger than a pack.
    """

    def __init__(self, data: DataRecipe, collate: Collate, *, seed: int, rank: int = 0, num_ranks: int = 1):
        check_packs(data, collate.image_processor.patch_size, num_ranks)
        _check_kinds(data)
        self._data = data
        self._collate = collate
        self._seed = seed
        self._num_packs = data.packs_per_step // num_ranks
        self._first_lane = rank * self._num_packs
        self._sources = {kind: _open(data, kind, captions=collate.needs_captions) for kind in KINDS}
        self._step = 0
        self._kind_steps = dict.fromkeys(KINDS, 0)
        self._readers: dict[str, dict[str, Any]] = {}
        self._iterators: dict[str, Iterator[dict[str, Any]]] = {}
        self._reported: set[str] = set()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        """The packs of the next step.

        Raises:
            InputError: too many rows cannot be used.
        """
        kind = self._kind_of(self._step)
        if kind not in self._iterators:
            self._iterators[kind] = iter(self._loader(kind))
        packs = []
        for _ in range(self._num_packs):
            pack = next(self._iterators[kind])
            if "error" in pack:
                self.close()
                raise InputError(pack["error"])
            reader, state = pack.pop("reader_state")
            self._readers[reader] = state
            self._report(state)
            packs.append(pack)
        self._step += 1
        self._kind_steps[kind] += 1
        return {"packs": packs, "kind": kind}

    def state_dict(self) -> dict[str, Any]:
        """Return plain values that say where this rank's data are after the steps handed out so far."""
        return {"step": self._step, "kind_steps": dict(self._kind_steps), "readers": dict(self._readers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the steps that a state covers; states of readers of other ranks are left alone.

        Raises:
            InputError: the state is of another number of readers or lanes.
        """
        self.close()
        own = {
            self._reader_name(kind, lane, reader)
            for kind in KINDS
            for lane in range(self._first_lane, self._first_lane + self._num_packs)
            for reader in range(min(self._data.num_readers, state["kind_steps"][kind]))
        }
        if missing := own - set(state["readers"]):
            raise InputError(
                f"the state of the data has no reader {min(missing)!r}: packs_per_step or num_readers were others, or "
                "the state is of one rank and not merged"
            )
        self._step = state["step"]
        self._kind_steps = dict(state["kind_steps"])
        self._readers = {name: state["readers"][name] for name in own}

    @staticmethod
    def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the state of all ranks from those of each, which must be of the same step.

        Raises:
            ValueError: they are of different steps.
        """
        steps = [state["step"] for state in states]
        if len(set(steps)) != 1:
            raise ValueError(f"states of different steps: {steps}")
        readers = {name: reader for state in states for name, reader in state["readers"].items()}
        return {**states[0], "readers": dict(sorted(readers.items()))}

    def counts(self) -> dict[str, Any]:
        """Return what this rank's readers have read since the run began, as of the steps handed out.

        `rows`, `images` (or clips), `packs` and `patches` are counts; `skipped` and `noted` are counts by reason.
        """
        total: Counter[str] = Counter(rows=0, images=0, packs=0, patches=0)
        skipped: Counter[str] = Counter()
        noted: Counter[str] = Counter()
        for state in self._readers.values():
            total.update(state["counts"])
            skipped.update(state["skipped"])
            noted.update(state["noted"])
        return {**total, "skipped": dict(skipped), "noted": dict(noted)}

    @property
    def fill(self) -> float:
        """The share of the packs' budget that patches took; 1 minus this is what padding would be."""
        counts = self.counts()
        return counts["patches"] / (counts["packs"] * self._data.tokens_per_pack) if counts["packs"] else 1.0

    def close(self) -> None:
        """End the workers. The next step starts new ones after what was handed out."""
        self._iterators.clear()

    def _kind_of(self, step: int) -> str:
        share = self._data.video_share
        return "video" if share > 0 and draws("kind", self._seed, step).random() < share else "image"

    def _loader(self, kind: str) -> DataLoader:
        stream = PackStream(
            self._sources[kind],
            self._collate,
            self._data,
            kind=kind,
            seed=self._seed,
            lanes=range(self._first_lane, self._first_lane + self._num_packs),
            first_step=self._kind_steps[kind],
            states={name: state for name, state in self._readers.items() if name.startswith(f"{kind}/")},
        )
        # a generator of its own: DataLoader would draw from the one that dropout draws from
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self._data.num_workers,
            worker_init_fn=_start_worker,
            generator=torch.Generator().manual_seed(0),
            pin_memory=torch.cuda.is_available(),
        )

    def _report(self, state: dict[str, Any]) -> None:
        """Log each reason for leaving out rows once, with an example; `counts` has the numbers."""
        for reason in state["skipped"].keys() - self._reported:
            self._reported.add(reason)
            logger.warning("rows are left out: %s (the first: %s)", reason, state["examples"].get(reason, ""))
        for reason in state["noted"].keys() - self._reported:
            self._reported.add(reason)
            logger.info("%s; counted from here on", reason)

    @staticmethod
    def _reader_name(kind: str, lane: int, reader: int) -> str:
        return f"{kind}/{lane}/{reader}"


class PackStream(IterableDataset):
    """The packs of some lanes, step after step; in a loader worker, every n-th of them.

    Yields packs with `reader_state`, the name of the reader and its state after the pack; or, at the end,
    `{"error": text}` for an `InputError`, which would lose its text on the way out of a worker.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        collate: Collate,
        data: DataRecipe,
        *,
        kind: str,
        seed: int,
        lanes: range,
        first_step: int,
        states: dict[str, dict[str, Any]],
    ):
        self._sources = sources
        self._collate = collate
        self._data = data
        self._kind = kind
        self._seed = seed
        self._lanes = lanes
        self._first_step = first_step
        self._states = states

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        readers: dict[str, PackReader] = {}
        number = self._first_step * len(self._lanes) + first
        try:
            while True:
                kind_step, place = divmod(number, len(self._lanes))
                lane, reader = self._lanes[place], kind_step % self._data.num_readers
                name = StepLoader._reader_name(self._kind, lane, reader)
                if name not in readers:
                    readers[name] = self._reader(name, lane * self._data.num_readers + reader)
                pack = readers[name].next()
                yield pack | {"reader_state": (name, readers[name].state())}
                number += step
        except InputError as error:
            yield {"error": str(error)}

    def _reader(self, name: str, index: int) -> PackReader:
        num_shares = self._data.packs_per_step * self._data.num_readers
        share = Share(index, num_shares, seed_of(self._kind, self._seed))
        reader = PackReader(self._sources, self._collate, self._data, share=share)
        if name in self._states:
            reader.restore(self._states[name])
        return reader


def check_packs(data: DataRecipe, patch_size: int, num_ranks: int) -> None:
    """Checks numbers of packs, readers and workers, and that images and clips fit into a pack; nothing is opened.

    Raises:
        InputError: the packs of a step or the workers cannot be divided evenly, a picture may be larger than a pack,
            or there are sources, but none of a kind that steps are to train on.
    """
    if data.packs_per_step % num_ranks:
        raise InputError(f"packs_per_step={data.packs_per_step} cannot be divided among {num_ranks} processes")
    num_streams = data.packs_per_step // num_ranks * data.num_readers
    if data.num_workers and num_streams % data.num_workers:
        raise InputError(
            f"num_workers={data.num_workers} must divide the {num_streams} readers of a process (packs_per_step / "
            f"processes * num_readers)"
        )
    check_room(data, patch_size)
    if data.sources:
        _check_kinds(data)


def check_room(data: DataRecipe, patch_size: int) -> None:
    """Refuses a budget of packs that the largest picture or clip does not fit in.

    Args:
        data: the recipe's.
        patch_size: side of a patch in pixels.

    Raises:
        InputError: naming the budget and what may be larger.
    """
    resolution = data.resolution
    side = {"fixed": resolution.size, "bounded": resolution.max_side}.get(resolution.mode)
    largest = resolution.max_patches if side is None else (side // patch_size) ** 2
    if resolution.mode == "bounded":
        largest = min(largest, resolution.max_patches)
    if largest > data.tokens_per_pack:
        raise InputError(
            f"an image may have {largest} patches (resolution {resolution.mode!r}), a pack has room for "
            f"tokens_per_pack={data.tokens_per_pack}"
        )
    num_frames = data.num_frames
    if data.video_share > 0 and resolution.mode == "fixed" and largest * num_frames > data.tokens_per_pack:
        raise InputError(
            f"a clip of {num_frames} frames has {largest * num_frames} patches, a pack has room for "
            f"tokens_per_pack={data.tokens_per_pack}"
        )
    if data.video_share > 0 and max_patches_of(data, "video") * num_frames > data.tokens_per_pack:
        raise InputError(f"tokens_per_pack={data.tokens_per_pack} has no room for {num_frames} frames of one patch")


def _check_kinds(data: DataRecipe) -> None:
    for kind, share in (("image", 1 - data.video_share), ("video", data.video_share)):
        if share > 0 and all(source.kind != kind for source in data.sources):
            raise InputError(f"video_share={data.video_share} needs a source of kind {kind!r}, there is none")


def _open(data: DataRecipe, kind: str, *, captions: bool) -> list[Source]:
    sources = []
    num_shares = data.packs_per_step * data.num_readers
    share = data.video_share if kind == "video" else 1 - data.video_share
    for recipe in data.sources:
        if recipe.kind != kind or not share:
            continue
        source = open_source(recipe, captions=captions)
        sources.append(source)
        if not isinstance(source.rows, RowStream) and count_rows(source.rows, recipe) < num_shares:
            logger.warning(
                "%s has %d rows for %d readers: each of them reads all rows, in its own order",
                recipe.path,
                count_rows(source.rows, recipe),
                num_shares,
            )
    return sources


def _start_worker(worker: int) -> None:
    # launchers and terminals signal whole process groups; the trainer then takes its last steps, and these need packs.
    # Workers end when their loader does, or when its process is gone.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # the tokenizer would start threads of its own beside this worker's siblings
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # a lock that was held when this process was forked would never be released
    fsspec.asyn.reset_lock()
