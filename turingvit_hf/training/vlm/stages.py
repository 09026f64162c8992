# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The two stages of LLaVA: alignment trains the projector alone, instruction tuning adapts the language model too."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin, Trainer, TrainingArguments

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.training.vlm.chat_data import ConversationCollator, ConversationDataset
from turingvit_hf.training.vlm.parts import VlmParts, find_parts


Stage = Literal["align", "instruct"]
TowerTraining = Literal["frozen", "lora", "full"]


@dataclass(frozen=True)
class VlmStage:
    """What of a VLM is trained.

    Attributes:
        stage: `"align"`: the projector alone, tower and language model frozen. `"instruct"`: the projector, LoRA
            adapters on every linear layer of the language model, and the tower as `tower` says.
        tower: `"frozen"`, `"lora"` or `"full"`; in stage `align` frozen.
        lora_rank: rank of the adapters.
        lora_alpha: their scale times the rank; None: twice the rank, as in LLaVA.
        lora_dropout: of the adapters' input.
        tower_learning_rate: for what is trained of the tower; None: that of everything else.
    """

    stage: Stage
    tower: TowerTraining = "frozen"
    lora_rank: int = 64
    lora_alpha: int | None = None
    lora_dropout: float = 0.05
    tower_learning_rate: float | None = None

    def __post_init__(self):
        if self.stage not in get_args(Stage):
            raise InputError(f"stage={self.stage!r}, allowed are {get_args(Stage)}")
        if self.tower not in get_args(TowerTraining):
            raise InputError(f"tower={self.tower!r}, allowed are {get_args(TowerTraining)}")
        if self.stage == "align" and self.tower != "frozen":
            raise InputError(f"tower={self.tower!r} in stage 'align', which trains the projector alone")
        if self.lora_rank < 1:
            raise InputError(f"lora_rank={self.lora_rank}, it must be at least 1")


def prepare_stage(vlm: PreTrainedModel, stage: VlmStage) -> PreTrainedModel | PeftModel:
    """Return the model to train: the VLM with all but its projector frozen, or with adapters around it.

    The VLM is changed in place. In stage `instruct` what trains is in the adapters' checkpoint, the projector and a
    tower that is trained in full included; `merge_and_unload` gives the VLM back with all of it inside. A parameter
    between tower and language model that is in no module of its own (LLaVA-NeXT's `image_newline`) stays frozen
    there, since adapters' checkpoints hold modules.

    Raises:
        InputError: the VLM has adapters already, no TuringViT, or no projector; what is trained is quantized.
    """
    if isinstance(vlm, PeftModel) or getattr(vlm, "peft_config", None):
        raise InputError("the VLM has adapters already: merge them first, model.merge_and_unload()")
    parts = find_parts(vlm)
    if not parts.projector:
        raise InputError(f"{type(vlm).__name__} has no module between tower and language model")
    _check_not_quantized(vlm, [*parts.projector, *([parts.tower] if stage.tower == "full" else [])])
    if stage.stage == "align":
        vlm.requires_grad_(False)
        for name in parts.projector:
            vlm.get_submodule(name).requires_grad_(True)
        for name in parts.loose:
            vlm.get_parameter(name).requires_grad_(True)
        return vlm
    return get_peft_model(vlm, lora_config(vlm, parts, stage))


def _check_not_quantized(vlm: PreTrainedModel, names: Sequence[str]) -> None:
    """Raises InputError if one of the modules that are trained themselves has weights that cannot be."""
    for name in names:
        if any(not parameter.is_floating_point() for parameter in vlm.get_submodule(name).parameters()):
            raise InputError(
                f"{name} is to be trained and is quantized: load the VLM with that whole name in the "
                "llm_int8_skip_modules of its BitsAndBytesConfig; adapters can be put on quantized layers"
            )


def lora_config(vlm: PreTrainedModel, parts: VlmParts, stage: VlmStage) -> LoraConfig:
    """Return the configuration of the adapters of stage `instruct`.

    Tower and language model share names, `q_proj` for one: targets are told by a pattern of whole names, never by
    their last part.
    """
    patterns = [linear_pattern(vlm, parts.language_model)]
    saved = list(parts.projector)
    if stage.tower == "lora":
        patterns.append(linear_pattern(vlm, parts.tower, leave_out=("patch_embed",)))
    if stage.tower == "full":
        saved.append(parts.tower)
    return LoraConfig(
        r=stage.lora_rank,
        lora_alpha=2 * stage.lora_rank if stage.lora_alpha is None else stage.lora_alpha,
        lora_dropout=stage.lora_dropout,
        target_modules="|".join(patterns),
        modules_to_save=saved,
    )


def linear_pattern(model: nn.Module, name: str, *, leave_out: Sequence[str] = ()) -> str:
    """Return a regular expression of the whole names of all linear layers in a module, and of nothing outside it.

    Args:
        model: the model that names start from.
        name: the module in it; empty: all of it.
        leave_out: last parts of the names of layers that are left out.
    """
    inside = model.get_submodule(name).named_modules()
    paths = [key for key, module in inside if isinstance(module, nn.Linear)]
    leaves = sorted({path.rpartition(".")[2] for path in paths} - set(leave_out))
    prefix = re.escape(f"{name}.") if name else ""
    return rf"{prefix}(?:.*\.)?(?:{'|'.join(map(re.escape, leaves))})"


@contextmanager
def tower_held_still(model: nn.Module) -> Iterator[None]:
    """Inside, a TuringViT in a model in training does nothing at random; `model.train()` ends this.

    A tower in which nothing is trained goes into evaluation mode as a whole. One that is trained, adapters count, goes
    on without the rescaling of its positions (`pos_embed_rescale`). That prepares a tower for sizes that it has not
    seen; here the stages of pretraining at native resolution are past. And it is drawn for each image from the
    process's generator, in the order in which a batch is packed: with it a run would depend on how its rows are spread
    over processes and batches.
    """
    with ExitStack() as stack:
        for tower in model.modules():
            if not isinstance(tower, TuringViTModel):
                continue
            if any(parameter.requires_grad for parameter in tower.parameters()):
                tower.rope.eval()
                continue
            tower.eval()
            # With activation checkpointing transformers wants a gradient of what every embedding gives, that of
            # patches too; in evaluation mode nothing is checkpointed, and all of the tower would be kept for it.
            stack.callback(tower.patch_embed.register_forward_hook(_detached).remove)
        yield


def _detached(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    """What a module gives, as a forward hook, without its gradient."""
    return output.detach()


class VlmTrainer(Trainer):
    """Trainer with a learning rate of its own for the tower, which reads the checkpoints of VLMs that it writes.

    Whatever the tower's `pos_embed_rescale`, positions are not rescaled in training, see `tower_held_still`.

    `save_pretrained` writes some families, LLaVA among them, under the names of older versions of transformers;
    Trainer of 5.23 looks for today's and goes on from the weights that a run began with, with a warning.

    Args:
        tower_name: the tower's name in the VLM.
        tower_learning_rate: None: that of everything else.
        **kwargs: what Trainer takes.
    """

    def __init__(self, *, tower_name: str, tower_learning_rate: float | None = None, **kwargs):
        self.tower_name = tower_name
        self.tower_learning_rate = tower_learning_rate
        super().__init__(**kwargs)
        # Qwen's classes say no, from a time when they left out tokens that Trainer had counted, and the loss of a step
        # would be the mean of its batches' means; in 5.23 every family divides by the number that it is given
        self.model_accepts_loss_kwargs = True

    def compute_loss(self, model: nn.Module, *args, **kwargs) -> Any:
        """Return Trainer's loss; before each batch Trainer puts the whole model into training mode, so here."""
        with tower_held_still(model):
            return super().compute_loss(model, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_weights(resume_from_checkpoint) or super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._load_weights(str(self.state.best_model_checkpoint)) or super()._load_best_model()

    def _load_weights(self, checkpoint: str) -> bool:
        """Whether a whole VLM was loaded here; adapters and sharded checkpoints are for Trainer."""
        if isinstance(self.model, PeftModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False
        vlm: Any = self.model
        vlm.load_state_dict(type(vlm).from_pretrained(checkpoint, dtype=vlm.dtype).state_dict())
        return True

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return Trainer's optimizer, its groups split where the tower has another rate."""
        optimizer = super().create_optimizer(model)
        if self.tower_learning_rate is None:
            return optimizer
        inside = re.compile(rf"(^|\.){re.escape(self.tower_name)}\.")
        trained: Any = self.model if model is None else model
        tower = {id(p) for name, p in trained.named_parameters() if inside.search(name)}
        for group in list(optimizer.param_groups):
            moved = [parameter for parameter in group["params"] if id(parameter) in tower]
            if moved:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in tower]
                options = {key: value for key, value in group.items() if key != "params"}
                optimizer.add_param_group({**options, "params": moved, "lr": self.tower_learning_rate})
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer


def make_vlm_trainer(
    vlm: PreTrainedModel,
    processor: ProcessorMixin,
    stage: VlmStage,
    *,
    arguments: TrainingArguments,
    train_dataset: ConversationDataset,
    eval_dataset: ConversationDataset | None = None,
) -> VlmTrainer:
    """Return a trainer for one stage; `train(resume_from_checkpoint=True)` goes on where a run has ended.

    The loss is the mean over all trained tokens of a step, however they are spread over devices and accumulation.

    Args:
        vlm: a VLM with a TuringViT in it; changed in place, see `prepare_stage`.
        processor: its processor.
        stage: what is trained.
        arguments: Trainer's; `remove_unused_columns` is switched off, since samples are no dicts, and evaluation
            keeps the loss alone.
        train_dataset: made with the same processor; in stage `align` with `needs_images=True`.
        eval_dataset: likewise.

    Raises:
        InputError: see `prepare_stage`; also for stage `align` on conversations without images, and where a
            conversation is longer than the language model's context.
    """
    if stage.stage == "align" and not train_dataset.needs_images:
        raise InputError("stage 'align' learns nothing without images: make the data set with needs_images=True")
    context = getattr(vlm.config.get_text_config(decoder=True), "max_position_embeddings", None)
    longest = max(length for dataset in (train_dataset, eval_dataset) if dataset for length in dataset.lengths)
    if context is not None and longest > context:
        raise InputError(
            f"the longest conversation has {longest} tokens, those of its images included, the language model takes "
            f"{context}: make the data set with max_length={context}, or swap with a smaller max_image_tokens or "
            "image_size"
        )
    tower_name = find_parts(vlm).tower
    arguments.remove_unused_columns = False
    # the logits of a whole vocabulary at each token of a data set do not fit into memory
    arguments.prediction_loss_only = True
    return VlmTrainer(
        model=prepare_stage(vlm, stage),
        args=arguments,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=ConversationCollator(processor),
        processing_class=processor,
        tower_name=tower_name,
        tower_learning_rate=stage.tower_learning_rate,
    )
