# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a checkpoint holds beside Trainer's own files, so that a resumed run is the run that was not interrupted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from turingvit_hf.training.distributed import gather_objects
from turingvit_hf.training.loop.checkpoints import read_json, read_tensors, write_json
from turingvit_hf.training.loop.ema import WeightAverage
from turingvit_hf.training.loop.guard import StepGuard
from turingvit_hf.training.loop.meter import Throughput
from turingvit_hf.training.loop.step_source import StepSource
from turingvit_hf.training.objective import Objective


DATA_STATE = "data_state.json"
OBJECTIVE_STATE = "objective.pt"
AVERAGES = "ema.safetensors"
COUNTS = "counts.json"


class RunState:
    """Saves and loads the state of the parts of a run. All methods are collective.

    Args:
        step_loader: its state is merged over ranks; None: Trainer reads its data again.
        objective: its state is the same on all ranks.
        guard: counts skipped steps.
        throughput: counts images and tokens.
    """

    def __init__(
        self, *, step_loader: StepSource | None, objective: Objective, guard: StepGuard, throughput: Throughput
    ):
        self.step_loader = step_loader
        self.objective = objective
        self.guard = guard
        self.throughput = throughput

    def save(self, folder: Path, average: WeightAverage | None, *, is_writer: bool) -> None:
        """Writes the state into a folder that is there.

        Args:
            folder: the checkpoint's.
            average: of the weights, if one is kept.
            is_writer: whether this rank writes.
        """
        if average is not None:
            average.save(folder / AVERAGES, is_writer=is_writer)
        counts = {"guard": self.guard.state_dict(), "throughput": self.throughput.state_dict()}
        data_state = None
        if self.step_loader is not None:
            data_state = self.step_loader.merge_states(gather_objects(self.step_loader.state_dict()))
        if is_writer:
            write_json(folder / COUNTS, counts)
            torch.save(self.objective.state_dict(), folder / OBJECTIVE_STATE)
            if data_state is not None:
                write_json(folder / DATA_STATE, data_state)

    def load(self, folder: Path, average: WeightAverage | None) -> None:
        """Takes the state from a folder, whichever number of ranks wrote it.

        Raises:
            InputError: a file is missing, or the averages are of other parameters.
        """
        if average is not None:
            average.load(folder / AVERAGES)
        counts: Mapping[str, Any] = read_json(folder / COUNTS)
        self.guard.load_state_dict(counts["guard"])
        self.throughput.load_state_dict(counts["throughput"])
        self.objective.load_state_dict(read_tensors(folder / OBJECTIVE_STATE))
        if self.step_loader is not None:
            self.step_loader.load_state_dict(read_json(folder / DATA_STATE))
