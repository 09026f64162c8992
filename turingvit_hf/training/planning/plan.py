# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the stages of a recipe will cost on so many GPUs: operations, parameters, memory, days and money."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.training.arguments import StageRecipe
from turingvit_hf.training.data.step_loader import check_room
from turingvit_hf.training.planning.gpus import Gpu, find_gpu
from turingvit_hf.training.planning.memory import MemoryPlan, Setting, parameters_by_part, plan_memory
from turingvit_hf.training.planning.operations import StepOperations, checkpoints_layers, step_operations
from turingvit_hf.training.planning.report_hours import ReportedStage, reported_stage
from turingvit_hf.training.planning.workload import FRAME_PATCHES, NATIVE_PATCHES, PackShape, pack_shapes, plan_model
from turingvit_hf.training.recipes import ChainRecipe, is_chain, load_chain, load_recipe


# more than any training has; beyond, numbers overflow
MOST_STEPS = 1e12


@dataclass(frozen=True)
class Fit:
    """Whether a way to run a stage fits the GPU.

    Attributes:
        sharding: `"none"`, `"ddp"` or `"fsdp2"`.
        checkpointing: whether layers are computed again in backward.
        total_bytes: that a process holds with the recipe's packs.
        fits: whether that is no more than the GPU's usable memory.
        most_tokens: the largest pack that fits, in patches, a multiple of 1,024; 0: none does.
    """

    sharding: str
    checkpointing: bool
    total_bytes: int
    fits: bool
    most_tokens: int


@dataclass(frozen=True)
class StagePlan:
    """What one stage costs.

    Attributes:
        name: of its recipe.
        parameters: exact, by part of the model.
        num_trained: of them that are trained.
        teacher_parameters: beside them, of stage `mim`.
        images_per_step: images, or clips, of a step on average.
        num_images: of the whole stage, each as often as it is seen.
        max_steps: steps.
        num_tokens: patches of the whole stage, packs taken as full.
        step: the operations of a step.
        days: wall clock, at the given utilization.
        gpu_hours: days times GPUs.
        cost: gpu_hours times the price; None without one.
        hardware_utilization: that `mfu` means, recomputation included.
        packs_per_process: of a step.
        memory: by sharding and checkpointing as the recipe says.
        sharding: that `memory` is of: DDP, FSDP2 where DDP does not fit or the recipe asks for it, none for one GPU.
        fits: all ways to run it.
        reported: what the technical report says of this stage, for towers as large as its own.
        report_mfu: that the report's hours would mean for this stage as planned.
        report_epochs: that the report's hours would mean over its images at the given utilization.
        assumptions: what was not in the recipe.
    """

    name: str
    parameters: dict[str, int]
    num_trained: int
    teacher_parameters: int
    images_per_step: float
    num_images: float
    max_steps: int
    num_tokens: int
    step: StepOperations
    days: float
    gpu_hours: float
    cost: float | None
    hardware_utilization: float
    packs_per_process: float
    memory: MemoryPlan
    sharding: str
    fits: tuple[Fit, ...]
    reported: ReportedStage | None
    report_mfu: float | None
    report_epochs: float | None
    assumptions: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        """All of the model, without the teacher."""
        return sum(self.parameters.values())

    @property
    def model_flops(self) -> float:
        """Operations of the whole stage that its mathematics needs, the teacher's included."""
        return self.step.useful * self.max_steps

    @property
    def hardware_flops(self) -> float:
        """Operations of the whole stage that are done."""
        return self.step.hardware * self.max_steps


@dataclass(frozen=True)
class TrainingPlan:
    """What a stage or a chain costs.

    Attributes:
        name: of the recipe.
        gpu: the kind.
        num_gpus: how many.
        mfu: operations that the mathematics needs, of those that the GPUs could do.
        price: of a GPU and hour; None if not given.
        stages: one or several.
    """

    name: str
    gpu: Gpu
    num_gpus: int
    mfu: float
    price: float | None
    stages: tuple[StagePlan, ...]

    @property
    def days(self) -> float:
        """Of all stages."""
        return sum(stage.days for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Of all stages."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def cost(self) -> float | None:
        """Of all stages; None without a price."""
        return None if self.price is None else self.gpu_hours * self.price

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, totals included."""
        values = dataclasses.asdict(self)
        for stage, plan in zip(values["stages"], self.stages, strict=True):
            stage |= {"model_flops": plan.model_flops, "hardware_flops": plan.hardware_flops}
        return values | {"days": self.days, "gpu_hours": self.gpu_hours, "cost": self.cost}

    def describe(self) -> str:
        """The plan as text for people."""
        from turingvit_hf.training.planning.describe import describe_training

        return describe_training(self)


def plan_training(
    recipe: str | StageRecipe | ChainRecipe,
    *,
    num_gpus: int,
    gpu: str,
    overrides: Sequence[str] = (),
    mfu: float = 0.3,
    images: Sequence[float] = (),
    epochs: Sequence[float] = (),
    price: float | None = None,
    native_patches: int = NATIVE_PATCHES,
    frame_patches: int = FRAME_PATCHES,
) -> TrainingPlan:
    """What a stage or a chain will cost. Nothing is downloaded, no weight is made and no GPU is needed.

    Args:
        recipe: name or file of a stage's or a chain's recipe, or one that is loaded.
        num_gpus: processes, one for each GPU.
        gpu: its kind, such as `"H100"`.
        overrides: `"key=value"`, for a name or file.
        mfu: the share of the GPUs' peak that goes into operations that the mathematics needs, 0 to 1.
        images: images of the data set, of all stages or one number a stage; with `epochs` they give the steps instead
            of the recipe's `max_steps`. In stage `image_video` images and clips count alike.
        epochs: how often each is seen, likewise; 1 where only `images` is given.
        price: of a GPU and hour, in any currency.
        native_patches: patches of an image of native resolution on average.
        frame_patches: patches of a clip's frame on average.

    Raises:
        InputError: a number is out of its range, the recipe or the GPU is not known, a size of the recipe's models is
            not, or a picture may be larger than a pack.
    """
    _check(num_gpus=num_gpus, mfu=mfu, price=price, native_patches=native_patches, frame_patches=frame_patches)
    name, stages = _stages(recipe, overrides)
    if epochs and not images:
        raise InputError(f"epochs={list(epochs)} of how many images? Give images too")
    num_images = _for_stages("images", images, len(stages))
    num_epochs = _for_stages("epochs", epochs, len(stages))
    kind = find_gpu(gpu)
    plans = [
        _plan_stage(
            stage,
            gpu=kind,
            num_gpus=num_gpus,
            mfu=mfu,
            seen=None if count is None else count * (1.0 if times is None else times),
            price=price,
            native_patches=native_patches,
            frame_patches=frame_patches,
        )
        for stage, count, times in zip(stages, num_images, num_epochs, strict=True)
    ]
    return TrainingPlan(name, kind, num_gpus, mfu, price, tuple(plans))


def _plan_stage(
    recipe: StageRecipe,
    *,
    gpu: Gpu,
    num_gpus: int,
    mfu: float,
    seen: float | None,
    price: float | None,
    native_patches: int,
    frame_patches: int,
) -> StagePlan:
    check_room(recipe.data, TuringViTConfig(**recipe.model).patch_size)
    planned = plan_model(recipe)
    shapes, sizes = pack_shapes(recipe, native_patches=native_patches, frame_patches=frame_patches)
    data = recipe.data
    packs = data.packs_per_step / num_gpus
    full = [shape.num_images * data.tokens_per_pack / shape.num_patches for shape in shapes]
    images_per_step = data.packs_per_step * sum(shape.share * n for shape, n in zip(shapes, full, strict=True))
    if seen is not None and not seen / images_per_step < MOST_STEPS:
        raise InputError(f"images times epochs is {seen:g}: {recipe.name} takes fewer than {MOST_STEPS:g} steps")
    max_steps = int(recipe.training.get("max_steps", 0)) if seen is None else max(1, round(seen / images_per_step))
    step = step_operations(recipe, planned, shapes, packs_per_process=packs)
    seconds = step.useful * max_steps / (num_gpus * gpu.peak_flops * mfu)
    gpu_hours = seconds / 3600 * num_gpus
    fits, memory, sharding = _memory(recipe, planned, shapes, gpu=gpu, num_gpus=num_gpus)
    parameters = planned.model.parameters()
    reported = reported_stage(recipe)
    plan = StagePlan(
        name=recipe.name,
        parameters=dict(parameters_by_part(planned.model)),
        num_trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        teacher_parameters=planned.teacher.num_parameters if planned.teacher else 0,
        images_per_step=images_per_step,
        num_images=images_per_step * max_steps,
        max_steps=max_steps,
        num_tokens=max_steps * data.packs_per_step * data.tokens_per_pack,
        step=step,
        days=seconds / 86400,
        gpu_hours=gpu_hours,
        cost=None if price is None else gpu_hours * price,
        hardware_utilization=mfu * step.hardware / step.useful,
        packs_per_process=packs,
        memory=memory,
        sharding=sharding,
        fits=fits,
        reported=reported,
        report_mfu=None,
        report_epochs=None,
        assumptions=(*planned.assumptions, *sizes),
    )
    if reported is None:
        return plan
    # the report's number of the last stage is one of clips, and images are replayed beside them
    counted = [(s.share * n) for s, n in zip(shapes, full, strict=True) if s.kind == "video" or len(shapes) == 1]
    epoch = step.useful / (data.packs_per_step * sum(counted)) * reported.num_images
    return dataclasses.replace(
        plan,
        report_mfu=plan.model_flops / reported.operations,
        report_epochs=reported.operations * mfu / epoch,
    )


def _memory(
    recipe: StageRecipe, planned: Any, shapes: Sequence[PackShape], *, gpu: Gpu, num_gpus: int
) -> tuple[tuple[Fit, ...], MemoryPlan, str]:
    """Every way to run the stage, and the one that the recipe's checkpointing and the GPU's memory ask for."""

    def memory_of(sharding: str, checkpointing: bool, tokens: int) -> MemoryPlan:
        setting = Setting(sharding, num_gpus, checkpointing, tokens)
        plans = [
            plan_memory(recipe, planned.model, shape, setting=setting, teacher=planned.teacher) for shape in shapes
        ]
        return max(plans, key=lambda plan: plan.total)

    budget = recipe.data.tokens_per_pack
    fits = []
    for sharding in ("none",) if num_gpus == 1 else ("ddp", "fsdp2"):
        for checkpointing in (False, True):
            total = memory_of(sharding, checkpointing, budget).total
            most = _largest(lambda n, s=sharding, c=checkpointing: memory_of(s, c, n).total <= gpu.usable_bytes)
            fits.append(Fit(sharding, checkpointing, total, total <= gpu.usable_bytes, most))
    is_checkpointed = checkpoints_layers(recipe)
    own = [fit for fit in fits if fit.checkpointing == is_checkpointed]
    if recipe.training.get("fsdp") and num_gpus > 1:
        own = [fit for fit in own if fit.sharding == "fsdp2"]
    chosen = next((fit for fit in own if fit.fits), own[-1])
    return tuple(fits), memory_of(chosen.sharding, is_checkpointed, budget), chosen.sharding


def _largest(fits: Any, *, unit: int = 1024, limit: int = 4096) -> int:
    """The largest number up to unit x limit, a multiple of `unit`, that fits; by bisection, as what is larger needs
    more."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * unit) else (low, middle - 1)
    return low * unit


def _stages(recipe: str | StageRecipe | ChainRecipe, overrides: Sequence[str]) -> tuple[str, tuple[StageRecipe, ...]]:
    if isinstance(recipe, str):
        loaded = load_chain(recipe, overrides) if is_chain(recipe) else load_recipe(recipe, overrides)
    elif overrides:
        raise InputError(f"overrides={list(overrides)} are for a name or file, this recipe is loaded already")
    else:
        loaded = recipe
    return loaded.name, loaded.stages if isinstance(loaded, ChainRecipe) else (loaded,)


def _for_stages(key: str, values: Sequence[float], num_stages: int) -> list[float | None]:
    if any(not 0 < value < math.inf for value in values):
        raise InputError(f"{key}={list(values)} must be numbers above 0")
    if len(values) not in (0, 1, num_stages):
        raise InputError(f"{key}={list(values)}: give one number, or one for each of the {num_stages} stages")
    return list(values) if len(values) == num_stages else [*values, *[None] * (1 - len(values))] * num_stages


def _check(*, mfu: float, price: float | None, **counts: int) -> None:
    if not 0 < mfu <= 1:
        raise InputError(f"mfu={mfu} must be above 0 and at most 1")
    if price is not None and not 0 <= price < math.inf:
        raise InputError(f"price={price} must be a number and not negative")
    for key, value in counts.items():
        if value < 1:
            raise InputError(f"{key}={value} must be at least 1")
