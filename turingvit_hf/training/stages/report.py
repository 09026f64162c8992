# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a stage leaves for people: curves of its losses and measurements, and a model card with its numbers."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turingvit_hf.training.arguments import StageRecipe


LOSSES = ("cosine", "siglip", "superclass", "video_siglip")
CURVES = "curves.png"
CARD = """\
---
library_name: transformers
pipeline_tag: {task}
tags:
- turingvit
---

# {title}

{summary}

```python
import turingvit_hf
from transformers import AutoImageProcessor, AutoModel

tower = AutoModel.from_pretrained("vision_tower")
processor = AutoImageProcessor.from_pretrained("vision_tower")
```

{model_note}

{curves}
| measured after step {num_steps} | | |
|---|---|---|
{table}

| | |
|---|---|
| stage | {stage} |
| started from | {init_from} |
| data | {data} |
| steps | {num_steps} |
| images and clips seen | {num_images} |
| patches seen | {num_patches} |
| parameters | {num_parameters} |

`recipe.yaml` is the resolved recipe and runs again with `turingvit pretrain --recipe recipe.yaml --out FOLDER`;
`environment.json` says on what it ran, `report.json` has every logged number.
"""

logger = logging.getLogger(__name__)


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(path: Path, history: Sequence[Mapping[str, float]], *, title: str) -> bool:
    """Draws losses, and recalls where some were measured, over the steps; whether there was anything to draw.

    Args:
        path: of the PNG.
        history: the logs, each with its `step`.
        title: one line above.
    """
    losses = {name: found for name in LOSSES if (found := _curve(history, name))}
    measured = sorted({key for logs in history for key in logs if _is_shown(key)})
    if not losses or not can_draw():
        return False
    # not at the top: whoever trains without pictures needs no matplotlib
    import matplotlib
    from matplotlib.figure import Figure

    from turingvit_hf.training.demo.report import GRID, STYLE, tidy

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.8), facecolor="white", layout="constrained")
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.02, ha="left")
        areas = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
        for name, points in losses.items():
            areas[0].plot(*zip(*points, strict=True), label=name, linewidth=1.6)
        for key in measured:
            points = _curve(history, key)
            areas[-1].plot(*zip(*points, strict=True), marker="o", markersize=4, label=_label(key), linewidth=1.6)
        for axes, heading in zip(areas, ("Losses", "Held-out measurements"), strict=False):
            axes.set(xlabel="step")
            tidy(axes, heading)
            axes.grid(axis="y", color=GRID, linewidth=0.8)
            axes.legend(frameon=False, fontsize=8.5)
        figure.savefig(path, dpi=110, format="png")
    return True


def model_card(recipe: StageRecipe, report: Mapping[str, Any], *, has_curves: bool) -> str:
    """The model card of a finished stage.

    Args:
        recipe: the stage's.
        report: what `report.json` gets.
        has_curves: whether `curves.png` is there.
    """
    is_dual = recipe.stage != "mim"
    kind = {
        "mim": "masked feature distillation",
        "image_text": "image-text pretraining with SigLIP and SuperClass",
        "image_video": "pretraining on images and clips with captions",
    }[recipe.stage]
    note = (
        '`model/` holds the tower with its text encoder: `pipeline("zero-shot-image-classification", "model")`.'
        if is_dual
        else "`model/` holds the tower with its mask token and the decoder to the teacher's features."
    )
    sources = ", ".join(f"{source.path} ({source.kind}s)" for source in recipe.data.sources)
    counts = {key: f"{report[key]:,}" for key in ("num_steps", "num_images", "num_patches", "num_parameters")}
    return CARD.format(
        task="zero-shot-image-classification" if is_dual else "image-feature-extraction",
        title=f"TuringViT after {recipe.name or recipe.stage}",
        summary=f"A TuringViT vision tower after a stage of {kind}, trained by turingvit_hf.",
        model_note=note,
        curves=f"![Losses and measurements over the steps]({CURVES})\n" if has_curves else "",
        table="\n".join(_rows(report["metrics"])) or "| nothing was measured on held-out data | | |",
        stage=recipe.stage,
        init_from=f"`{recipe.init_from}`" if recipe.init_from else "random weights",
        data=sources,
        **counts,
    )


def _rows(metrics: Mapping[str, float]) -> list[str]:
    """Rows of a table: a recall or accuracy beside its chance level, a held-out loss alone."""
    rows = []
    for key, value in metrics.items():
        if "_R@" in key or "_top" in key:
            chance = metrics.get(key.replace("_R@", "_chance@").replace("_top", "_chance"))
            beside = f"chance {chance:.2%}" if chance is not None else ""
            rows.append(f"| {_label(key)} | {value:.1%} | {beside} |")
        elif key.startswith("eval_held_out_"):
            rows.append(f"| {_label(key)} | {value:.4f} | |")
    return rows


def _curve(history: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(logs["step"], logs[key]) for logs in history if key in logs]


def _is_shown(key: str) -> bool:
    return key.startswith("eval_") and (key.endswith(("_R@1", "_top1")) or key.startswith("eval_held_out_"))


def _label(key: str) -> str:
    return key.removeprefix("eval_").replace("_", " ")
