# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A thin layer on Hugging Face Trainer: an objective's named losses over the packs of a step, and runs that survive.

Batches come from a `StepLoader`, whose state is kept in checkpoints, or from any dataset and collator as usual.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_utils import TrainOutput

from turingvit_hf.errors import InputError
from turingvit_hf.training.arguments import OptimizerRecipe
from turingvit_hf.training.loop.callbacks import StepCallback
from turingvit_hf.training.loop.checkpoints import (
    FINGERPRINT,
    check_checkpoint,
    find_last_checkpoint,
    remove_torn_checkpoints,
    write_json,
)
from turingvit_hf.training.loop.ema import WeightAverage
from turingvit_hf.training.loop.evaluations import Evaluation
from turingvit_hf.training.loop.flops import TrainingFlops, peak_flops
from turingvit_hf.training.loop.guard import StepGuard
from turingvit_hf.training.loop.meter import Throughput
from turingvit_hf.training.loop.optimizer import base_learning_rate, is_decayed, scale_learning_rates
from turingvit_hf.training.loop.run_state import RunState
from turingvit_hf.training.loop.sharding import allow_sharding_on_cpus, gathered, plain_name, reshard
from turingvit_hf.training.loop.signals import StopSignals
from turingvit_hf.training.loop.step_logs import StepLogs
from turingvit_hf.training.loop.step_source import StepSource, WaitedFor
from turingvit_hf.training.loop.whole_checkpoints import WholeCheckpointsTrainer
from turingvit_hf.training.objective import Objective
from turingvit_hf.training.pack_seeds import with_seeds
from turingvit_hf.training.packs import PIXELS


class TuringViTTrainer(WholeCheckpointsTrainer):
    """Trainer for an objective over packs.

    Logs, beside Trainer's: each loss under its name and `loss`, their weighted sum, as means over the steps since the
    last log that were not skipped; images, tokens (patches) and floating-point operations a second over all ranks
    since the last log; `data_wait_share`, `padding_share`, `skipped_steps`, and `data_skipped/<reason>` when it
    changed. Evaluation writes `eval_<name>`.

    Args:
        objective: turns model and packs into named losses and gradients.
        step_loader: endless source of `{"packs": [...], "kind": ...}`; None takes `train_dataset` and `data_collator`
            as Trainer does, where a batch is one pack.
        optimizer_recipe: learning rates of the parts, average of the weights, limits.
        fingerprint: plain values that must be the same when a run is resumed; see `recipe_fingerprint`.
        evaluations: what `evaluate` measures, with the averaged weights where there are such.
        **kwargs: for `transformers.Trainer`.

    Attributes:
        stopped_by: name of the signal that ended the last `train`, or that another rank got it; or None.

    Raises:
        ValueError: one process drives several GPUs, which would slice packed pixels in the wrong places; or there is
            a step loader and no `max_steps`, or gradients are to be accumulated over its steps.
    """

    model: PreTrainedModel
    optimizer: Any  # None until it is made

    # a step's losses are means: batches that are accumulated are averaged
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        *,
        objective: Objective,
        step_loader: StepSource | None = None,
        optimizer_recipe: OptimizerRecipe | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        evaluations: Sequence[Evaluation] = (),
        **kwargs: Any,
    ):
        if evaluations and kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = {}  # Trainer wants one before it evaluates; these bring their own data
        super().__init__(**kwargs)
        self._check_arguments(has_step_loader=step_loader is not None)
        self.args.remove_unused_columns = False
        # it would hide what the guard reports, and the guard keeps such values out of the sums
        self.args.logging_nan_inf_filter = False
        self.loss_of = objective
        self.step_loader = step_loader
        self.optimizer_recipe = optimizer_recipe or OptimizerRecipe()
        self.fingerprint = fingerprint
        self.evaluations = list(evaluations)
        if step_loader is not None:
            self.args.ignore_data_skip = True  # the loader itself goes on where it was
        self.average: WeightAverage | None = None
        self.guard = StepGuard(self.optimizer_recipe.max_skipped_steps, self.args.device)
        self.signals = StopSignals()
        self.stopped_by: str | None = None
        self.gradient_norm: float | Tensor | None = None
        self.throughput = Throughput(self.args.device, peak_flops(self.args.device))
        self._run_state = RunState(
            step_loader=step_loader, objective=objective, guard=self.guard, throughput=self.throughput
        )
        self._flops = TrainingFlops(self.model)
        self.step_logs = StepLogs(step_loader=step_loader, guard=self.guard, throughput=self.throughput)
        self.add_callback(StepCallback(self))

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        arguments = super()._build_accelerator_args(**kwargs)
        allow_sharding_on_cpus(arguments)
        return arguments

    def _check_arguments(self, *, has_step_loader: bool) -> None:
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would cut packed images apart; start one process a GPU with "
                "`torchrun` or `accelerate launch`"
            )
        if has_step_loader and self.args.max_steps <= 0:
            raise ValueError(f"max_steps={self.args.max_steps}: steps have no end, so max_steps must say where it is")
        if has_step_loader and self.args.gradient_accumulation_steps != 1:
            raise ValueError(
                f"gradient_accumulation_steps={self.args.gradient_accumulation_steps}: leave it at 1 and raise "
                "packs_per_step of the recipe, the packs that a step accumulates"
            )

    # ---- Training ----

    def train(self, resume_from_checkpoint: str | Path | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Trains, from the beginning or from a checkpoint, and ends at `max_steps` or when a signal asks for it.

        On the first SIGTERM or SIGINT a checkpoint is written after the step that all ranks are in, and training ends;
        `stopped_by` tells. With `save_strategy="no"` signals act as always.

        Args:
            resume_from_checkpoint: folder of a checkpoint, or True for the last complete one of the output folder.
            **kwargs: for `Trainer.train`.

        Raises:
            InputError: there is no such checkpoint, or another stage or configuration made it; it says which keys
                differ.
            DivergedError: too many steps in a row had no finite loss or gradient.
        """
        checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
        if self.args.should_save:
            remove_torn_checkpoints(str(self.args.output_dir))
        self.stopped_by = None
        with self.signals if self.args.save_strategy != "no" else nullcontext():
            return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def _checkpoint_to_resume(self, wanted: str | Path | bool | None) -> str | None:
        if wanted is None or wanted is False:
            return None
        checkpoint = find_last_checkpoint(str(self.args.output_dir)) if wanted is True else Path(wanted)
        if checkpoint is None:
            raise InputError(f"{self.args.output_dir} has no complete checkpoint to resume from")
        check_checkpoint(checkpoint, self.fingerprint)
        return str(checkpoint)

    def get_train_dataloader(self) -> Any:
        """The step loader as it is: it knows ranks and devices are none of its business; else Trainer's loader."""
        if self.step_loader is None:
            return super().get_train_dataloader()
        return WaitedFor(self.step_loader, self.throughput)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        epoch, skipped = super()._init_training_state(*args, **kwargs)
        if self.step_loader is not None and self.state.global_step >= self.state.max_steps > 0:
            # Trainer does at least one step of data without length; a run that was complete has none left
            epoch = sys.maxsize
        return epoch, skipped

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward over the packs of a step; a scalar whose mean over ranks is the step's loss."""
        model.train()
        self.optimizer.train()  # of optimizers that know modes, such as schedule-free ones
        self.throughput.add(inputs.get("packs", [inputs]), self.floating_point_ops(inputs))
        packs = self._prepare_packs(inputs.get("packs", [inputs]))
        if "kind" in inputs:
            packs = [{**pack, "kind": inputs["kind"]} for pack in packs]
        if self.step_loader is not None:
            packs = with_seeds(packs, seed=self.args.seed, step=self.state.global_step)
        share = self.current_gradient_accumulation_steps
        with self.compute_loss_context_manager():
            losses = self.loss_of.step(
                model,
                packs,
                backward=lambda loss: self.accelerator.backward(loss / share),
                no_sync=lambda: self.accelerator.no_sync(model),
            )
        total = self.loss_of.total({name: loss.float() for name, loss in losses.items()}).detach()
        self.step_logs.add(losses, total, share=share)
        return self.guard.see_loss(total) / share

    def _prepare_packs(self, packs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The packs on the model's device, but for their pixels, which would fill it where a step has many packs."""
        others = [{name: value for name, value in pack.items() if name not in PIXELS} for pack in packs]
        pixels = [{name: pack[name] for name in PIXELS if name in pack} for pack in packs]
        prepared: Mapping[str, Any] = self._prepare_inputs({"packs": others})
        return [{**pack, **waiting} for pack, waiting in zip(prepared["packs"], pixels, strict=True)]

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """The operations of forward and backward that the packs of a step need; see `TrainingFlops`."""
        return sum(self._flops(pack) for pack in inputs.get("packs", [inputs]))

    def start_average(self) -> None:
        """Begins the average of the weights, if the recipe wants one and there is none yet."""
        if self.average is None and self.optimizer_recipe.ema_decay is not None:
            self.average = WeightAverage(self.model, self.optimizer_recipe.ema_decay)

    # ---- Optimizer ----

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """Trainer's optimizer, its groups split by the learning rates of the recipe."""
        if self.optimizer is None:
            optimizer = super().create_optimizer(model)
            scale_learning_rates(optimizer, self.model if model is None else model, self.optimizer_recipe)
        return self.optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to: matrices, no norms, biases, scalars or lone tokens."""
        return [name for name in super().get_decay_parameter_names(model) if is_decayed(name)]

    def _get_learning_rate(self) -> float:
        return base_learning_rate(super()._get_learning_rate(), self.optimizer)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.gradient_norm = gathered(norm) if isinstance(norm, Tensor) else norm
        return self.gradient_norm

    # ---- Evaluation ----

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """A block in which the model has its averaged weights, if an average is kept. Collective."""
        with self.average.swapped_in() if self.average is not None else nullcontext():
            yield

    def trained_weights(self) -> dict[str, Tensor]:
        """The complete weights on the CPU, averaged where an average is kept; empty but on rank 0. Collective."""
        with self.averaged_weights():
            weights = self.accelerator.get_state_dict(self.model)
            if not self.is_world_process_zero():
                return {}
            return {plain_name(name): weight.detach().cpu().clone() for name, weight in weights.items()}

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """What Trainer measures on an `eval_dataset` and what the evaluations measure, all with averaged weights."""
        nested = bool(args) or kwargs.get("eval_dataset") is not None
        if nested or not self.evaluations:
            return super().evaluate(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        with self.throughput.paused(), self.averaged_weights(), self.accelerator.autocast():
            metrics = super().evaluate(metric_key_prefix=metric_key_prefix, **kwargs)
            device = next(self.model.parameters()).device
            measured = {}
            for evaluation in self.evaluations:
                measured |= {f"{metric_key_prefix}_{k}": v for k, v in evaluation(self.model, device).items()}
            reshard(self.model)
        self.log(measured)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return metrics | measured

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the objective's losses of one batch by itself; with `return_outputs` also by name."""
        losses = self.loss_of(model, inputs)
        total = self.loss_of.total({name: loss.float() for name, loss in losses.items()})
        if not model.training:
            self.step_logs.add_evaluation(losses, weight=len(next(iter(inputs.values()))))
        return (total, losses) if return_outputs else total

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, None, None]:
        """The loss of an evaluation batch, always: Trainer's own drops it for batches without labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, _ = self.compute_loss(model, inputs, return_outputs=True)
        return loss.detach(), None, None

    # ---- Logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs as Trainer does, with named losses, throughput and what was skipped."""
        self.step_logs.complete(logs)
        super().log(logs, start_time)

    # ---- Checkpoints ----

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.throughput.paused():
            super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        self._run_state.save(Path(output_dir), self.average, is_writer=self.args.should_save)
        if self.args.should_save and self.fingerprint is not None:
            write_json(Path(output_dir) / FINGERPRINT, self.fingerprint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.start_average()
            self._run_state.load(Path(checkpoint), self.average)
