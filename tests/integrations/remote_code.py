# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Loads exported checkpoints in a process that has no turingvit_hf, and saves what came out; not a test module.

Run as `python remote_code.py FOLDER` where the folder holds the exports and `inputs.pt`; it leaves `outputs.pt` there.
`test_hub_export.py` writes the folder, runs this once, and compares.
"""

import importlib.util
import os
import sys
from pathlib import Path


PACKAGE = "turingvit_hf"


class WithoutPackage:
    """An import finder that knows no turingvit_hf, however it was installed, and is otherwise the one it wraps."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        """What the wrapped finder finds, except for the package."""
        return None if name.partition(".")[0] == PACKAGE else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def hide_package() -> None:
    """Makes the package unimportable."""
    sys.meta_path[:] = [WithoutPackage(finder) for finder in sys.meta_path]
    assert importlib.util.find_spec(PACKAGE) is None


def show_package() -> None:
    """Makes the package importable again."""
    sys.meta_path[:] = [finder.finder if isinstance(finder, WithoutPackage) else finder for finder in sys.meta_path]


def gradients(model, inputs):
    """The loss of a forward pass and all gradients, by name."""
    import torch

    model.zero_grad()
    torch.manual_seed(0)
    loss = model(**inputs).last_hidden_state.square().sum()
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def tower_outputs(model, inputs) -> dict:
    """Outputs of a tower for all input forms, and gradients."""
    import torch

    outputs = {}
    for form, form_inputs in inputs.items():
        with torch.no_grad():
            found = model(**form_inputs)
        outputs[form] = (found.last_hidden_state, found.pooler_output)
        outputs[f"{form} gradients"] = gradients(model, form_inputs)
    return outputs


def main(folder: Path) -> None:
    """Loads every export of the folder."""
    hide_package()
    import torch
    from transformers import (
        AutoBackbone,
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForImageTextToText,
        AutoProcessor,
        pipeline,
    )

    inputs = torch.load(folder / "inputs.pt", weights_only=False)
    torch.set_num_threads(inputs["threads"])
    os.chdir(folder)
    trust = {"trust_remote_code": True}
    results = {}

    tower = AutoModel.from_pretrained("tower (v1)", **trust)
    results["tower class"] = f"{type(tower).__module__}.{type(tower).__qualname__}"
    results["tower"] = tower_outputs(tower, inputs["forms"])
    compiled = torch.compile(tower, fullgraph=True, backend="eager")
    results["compiled"] = compiled(**inputs["forms"]["packed"]).last_hidden_state.detach()

    processor = AutoImageProcessor.from_pretrained("tower (v1)", **trust)
    results["processor class"] = f"{type(processor).__module__}.{type(processor).__qualname__}"
    results["processed"] = dict(processor(inputs["pictures"], return_tensors="pt"))
    extract = pipeline("image-feature-extraction", model="tower (v1)", **trust)
    results["pipeline"] = extract(inputs["pictures"], return_tensors=True)

    classifier = AutoModelForImageClassification.from_pretrained("classifier", **trust)
    with torch.no_grad():
        results["classifier"] = classifier(**inputs["forms"]["packed"]).logits
    results["labels"] = classifier.config.id2label
    assert AutoModel.from_pretrained("classifier", **trust).head is not None

    config = AutoConfig.from_pretrained("backbone", **trust)
    backbone_class = type(AutoBackbone.from_config(config, **trust))
    backbone = backbone_class.from_pretrained("backbone")
    with torch.no_grad():
        results["backbone"] = backbone(inputs["forms"]["dense"]["pixel_values"]).feature_maps
    assert AutoModel.from_pretrained("backbone", **trust).head is None

    tower.save_pretrained("saved again")
    processor.save_pretrained("saved again")
    again = AutoModel.from_pretrained("saved again", **trust)
    assert type(again) is not type(tower)
    results["saved again"] = tower_outputs(again, inputs["forms"])
    results["processed again"] = dict(
        AutoImageProcessor.from_pretrained("saved again", **trust)(inputs["pictures"], return_tensors="pt")
    )

    vlm = AutoModelForImageTextToText.from_pretrained("llava", **trust)
    results["vlm classes"] = [type(vlm).__module__, type(vlm.model.vision_tower).__module__]
    vlm_processor = AutoProcessor.from_pretrained("llava", **trust)
    assert type(vlm_processor.image_processor).__module__.startswith("transformers_modules.llava.")
    chat = vlm_processor(**inputs["chat"], return_tensors="pt")
    results["vlm inputs"] = dict(chat)
    with torch.no_grad():
        results["vlm"] = vlm(**chat).logits

    other = AutoModelForImageTextToText.from_pretrained("mistral3", **trust)
    with torch.no_grad():
        results["other vlm"] = other(**inputs["other chat"]).logits

    # the code on the model card, as a reader would run it
    card = Path("tower (v1)", "README.md").read_text(encoding="utf-8")
    (snippet,) = [block.removeprefix("python\n") for block in card.split("```")[1::2]]
    names = {}
    exec(snippet, names)
    results["card"] = type(names["outputs"].last_hidden_state)

    # from here on the package is there too, imported after two copies of its code
    assert PACKAGE not in sys.modules
    show_package()
    import turingvit_hf

    local = turingvit_hf.TuringViTModel.from_pretrained("tower (v1)")
    results["package"] = tower_outputs(local, inputs["forms"])
    results["tower after package"] = tower_outputs(tower, inputs["forms"])
    results["saved again after package"] = tower_outputs(again, inputs["forms"])
    # the Auto classes now take the package's code, whatever the checkpoint says
    assert type(AutoModel.from_pretrained("tower (v1)", **trust)) is turingvit_hf.TuringViTModel
    torch.save(results, "outputs.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
