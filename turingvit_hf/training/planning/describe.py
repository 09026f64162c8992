# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A plan as text for people."""

from turingvit_hf.training.planning.plan import StagePlan, TrainingPlan


FORMULA = (
    "operations: 2 a parameter and patch, token or image; 3 passes where trained, 1 where frozen;",
    "  attention 4 T D K a linear layer, 4 D sum(n^2) a softmax layer; 6 B^2 E for all pairs of the sigmoid loss.",
    "  T patches in frames of n, D the width, K that of a head; B images of a step, E the width of embeddings.",
    "  MFU counts these and the teacher's forward, not GradCache's first forward nor checkpointing's second.",
)
SHARDINGS = {"none": "one GPU", "ddp": "DDP", "fsdp2": "FSDP2"}
# what well-tuned training of large transformers reaches of all operations done; more is hard to believe
BELIEVABLE = 0.6


def describe_training(plan: TrainingPlan) -> str:
    """The plan as lines: each stage, then all of them."""
    memory = plan.gpu.memory_bytes / 2**30
    lines = [
        f"{plan.name} on {plan.num_gpus} x {plan.gpu.name} ({plan.gpu.peak_flops / 1e12:g} TFLOP/s dense bfloat16, "
        f"{memory:.0f} GiB), MFU {plan.mfu:.0%}",
        *FORMULA,
    ]
    for stage in plan.stages:
        lines += ["", f"---- {stage.name} ----", *_describe_stage(stage, plan)]
    if len(plan.stages) > 1:
        lines += ["", f"in all: {_hours(plan.gpu_hours, 0)} GPU hours, {_days(plan.days, 1)}{_cost(plan.cost)}"]
        reported = [stage.reported.hours for stage in plan.stages if stage.reported]
        if reported:
            lines.append(f"the report's: {sum(reported):,.0f} H800 hours for these stages")
    return "\n".join(lines)


def _describe_stage(stage: StagePlan, plan: TrainingPlan) -> list[str]:
    parts = ", ".join(f"{name} {number:,}" for name, number in stage.parameters.items())
    frozen = stage.num_parameters - stage.num_trained
    facts = [("parameters", f"{stage.num_parameters:,}: {parts}")]
    if frozen:
        facts.append(("", f"{frozen:,} of them frozen"))
    if stage.teacher_parameters:
        facts.append(("teacher", f"{stage.teacher_parameters:,} parameters, frozen"))
    facts += [
        (
            "a step",
            f"{stage.images_per_step:,.0f} images or clips, {stage.num_tokens // max(1, stage.max_steps):,} patches",
        ),
        ("steps", f"{stage.max_steps:,}, so {stage.num_images:.3g} images seen and {stage.num_tokens:.3g} patches"),
        *_operations(stage),
        ("time", _time(stage)),
        ("packs", _packs(stage, plan)),
        *_memory(stage, plan),
        *_reported(stage, plan),
    ]
    facts += [("assumed", assumption) for assumption in stage.assumptions]
    lines = [f"{name + ':' if name else '':<14}{text}" for name, text in facts]
    if stage.hardware_utilization > BELIEVABLE:
        lines.append(
            f"warning: MFU {plan.mfu:.0%} means {stage.hardware_utilization:.0%} of the peak with what is computed "
            "twice; a lower --mfu is more likely"
        )
    return lines


def _operations(stage: StagePlan) -> list[tuple[str, str]]:
    step, steps = stage.step, stage.max_steps
    beside = {
        "GradCache's first forward": step.cached_forward,
        "checkpointing's second": step.recomputation,
        "attention's backward": step.attention_again,
    }
    also = ", ".join(f"{name} {value * steps:.3g}" for name, value in beside.items() if value)
    teacher = f" + teacher {step.teacher * steps:.3g}" if step.teacher else ""
    text = f" + text encoder {step.text * steps:.3g}" if step.text else ""
    return [
        (
            "model FLOPs",
            f"{step.model * steps:.3g}: tower {step.tower * steps:.3g}{text} + heads {step.heads * steps:.3g}",
        ),
        ("all FLOPs", f"{stage.hardware_flops:.3g}: model{teacher}" + (f" + {also}" if also else "")),
    ]


def _time(stage: StagePlan) -> str:
    return (
        f"{_hours(stage.gpu_hours, 1)} GPU hours, {_days(stage.days, 2)}{_cost(stage.cost)}; "
        f"{stage.hardware_utilization:.0%} of the peak with what is computed twice"
    )


def _hours(hours: float, digits: int) -> str:
    return f"{hours:,.{digits}f}" if hours >= 1 else f"{hours:.2g}"


def _days(days: float, digits: int) -> str:
    """Days, or what is less than an hour in minutes or seconds."""
    if days >= 1 / 24:
        return f"{days:.{digits}f} days"
    seconds = days * 86400
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.2g} seconds"


def _cost(cost: float | None) -> str:
    if cost is None:
        return ""
    return f", cost {cost:,.0f}" if cost >= 1 else f", cost {cost:.2g}"


def _packs(stage: StagePlan, plan: TrainingPlan) -> str:
    if stage.packs_per_process != int(stage.packs_per_process):
        packs = round(stage.packs_per_process * plan.num_gpus)
        return (
            f"NOT a whole number a process: {stage.packs_per_process:g} on {plan.num_gpus} GPUs; training refuses all "
            f"but those that divide packs_per_step={packs}"
        )
    return f"{stage.packs_per_process:g} a process and step, one after another"


def _memory(stage: StagePlan, plan: TrainingPlan) -> list[tuple[str, str]]:
    memory = stage.memory
    names = ("weights", "gradients", "optimizer", "averages", "copies", "activations", "losses", "pixels", "teacher")
    held = [(name, getattr(memory, name)) for name in names]
    listed = ", ".join(f"{name} {_gib(value)}" for name, value in held if value >= 5e6)
    # more than at any one time, but for what whole bytes round off
    overlap = sum(value for _, value in held) - memory.total > 2**20
    note = "; gradients come as activations go" if overlap else ""
    where = "" if stage.sharding == "none" else " a GPU"
    rows = [("memory", f"{SHARDINGS[stage.sharding]}: {_gib(memory.total)} GiB{where}: {listed}{note}")]
    for fit in stage.fits:
        state = "fits" if fit.fits else "does NOT fit"
        rows.append(
            (
                "",
                f"{SHARDINGS[fit.sharding]}, checkpointing {'on' if fit.checkpointing else 'off'}: "
                f"{_gib(fit.total_bytes)} of {_gib(plan.gpu.usable_bytes)} GiB, {state}; "
                + (f"packs of up to {fit.most_tokens:,} patches do" if fit.most_tokens else "no pack does"),
            )
        )
    return rows


def _reported(stage: StagePlan, plan: TrainingPlan) -> list[tuple[str, str]]:
    if stage.reported is None or stage.report_mfu is None:
        return []
    reported = stage.reported
    return [
        (
            "report",
            f"stage {reported.number} took {reported.hours:,.0f} H800 hours: MFU {stage.report_mfu:.1%} for this "
            "stage as planned,",
        ),
        ("", f"or at MFU {plan.mfu:.0%} {stage.report_epochs:.1f} epochs of its {reported.num_images / 1e6:,.0f} M"),
    ]


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f}"
