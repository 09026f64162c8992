# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Loads exported checkpoints in a process that has no turingvit_hf, and saves what came out; not a test module.

Run as `python remote_code.py FOLDER` where the folder holds the exports and `inputs.pt`; it leaves `outputs.pt` there.
`test_hub_export.py` writes the folder, runs this once, and compares.
"""

import importlib.util
import os
import sys
from pathlib import Path

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
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


PACKAGE = "turingvit_hf"
TRUST = {"trust_remote_code": True}


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
    assert PACKAGE not in sys.modules
    assert importlib.util.find_spec(PACKAGE) is None


def show_package() -> None:
    """Makes the package importable again."""
    sys.meta_path[:] = [finder.finder if isinstance(finder, WithoutPackage) else finder for finder in sys.meta_path]


def full_name(thing) -> str:
    """Module and name of an object's class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def tower_outputs(model, forms: dict[str, dict]) -> dict:
    """Outputs of a tower for each input form, and the gradients of all its parameters."""
    outputs = {}
    for form, inputs in forms.items():
        model.zero_grad()
        found = model(**inputs)
        (found.last_hidden_state.square().sum() + found.pooler_output.sum()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        outputs[form] = (found.last_hidden_state.detach(), found.pooler_output.detach(), gradients)
    return outputs


def from_folder_and_hub(inputs: dict) -> dict:
    """What a tower gives, loaded from a folder and from the cache of a hub, and what a pipeline gives."""
    results = {}
    for place, checkpoint in {"folder": "tower (v1)", "hub": "someone/tower"}.items():
        tower = AutoModel.from_pretrained(checkpoint, **TRUST)
        processor = AutoImageProcessor.from_pretrained(checkpoint, **TRUST)
        results[place] = {
            "classes": (full_name(tower), full_name(processor)),
            "tower": tower_outputs(tower, inputs["forms"]),
            "processed": dict(processor(inputs["pictures"], return_tensors="pt")),
        }
    compiled = torch.compile(tower, fullgraph=True, backend="eager")
    results["compiled"] = compiled(**inputs["forms"]["packed"]).last_hidden_state.detach()
    extract = pipeline("image-feature-extraction", model="tower (v1)", **TRUST)
    results["pipeline"] = extract(inputs["pictures"], return_tensors=True)
    return results


def other_towers(inputs: dict) -> dict:
    """What the classifier and the backbone give."""
    classifier = AutoModelForImageClassification.from_pretrained("classifier", **TRUST)
    assert AutoModel.from_pretrained("classifier", **TRUST).head is not None

    # AutoBackbone.from_pretrained asks the hub for a repository of that name, even if it is a folder
    backbone_class = type(AutoBackbone.from_config(AutoConfig.from_pretrained("backbone", **TRUST), **TRUST))
    backbone = backbone_class.from_pretrained("backbone")
    assert AutoModel.from_pretrained("backbone", **TRUST).head is None
    with torch.no_grad():
        return {
            "classifier": classifier(**inputs["forms"]["packed"]).logits,
            "labels": classifier.config.id2label,
            "backbone": backbone(inputs["forms"]["dense"]["pixel_values"]).feature_maps,
        }


def vlms(inputs: dict) -> dict:
    """What VLMs give, which themselves are transformers' own."""
    llava = AutoModelForImageTextToText.from_pretrained("llava", **TRUST)
    processor = AutoProcessor.from_pretrained("llava", **TRUST)
    mistral3 = AutoModelForImageTextToText.from_pretrained("mistral3", **TRUST)
    assert "turingvit" not in CONFIG_MAPPING
    chat = processor(**inputs["chat"], return_tensors="pt")
    llava.save_pretrained("llava again")
    llava_again = AutoModelForImageTextToText.from_pretrained("llava again", **TRUST)
    assert type(llava_again.model.vision_tower) is not type(llava.model.vision_tower)
    with torch.no_grad():
        return {
            "vlm classes": [full_name(x) for x in (llava, llava.model.vision_tower, processor.image_processor)],
            "chat": dict(chat),
            "llava": llava(**chat).logits,
            "llava again": llava_again(**chat).logits,
            "mistral3": mistral3(**inputs["mistral3"]).logits,
            **swapped_vlm(inputs["pictures"]),
        }


def swapped_vlm(pictures: list) -> dict:
    """What a VLM gives whose tower was swapped, with fewer tokens and a processor of the package."""
    vlm = AutoModelForImageTextToText.from_pretrained("swapped", **TRUST)
    processor = AutoProcessor.from_pretrained("swapped", **TRUST)
    batch = processor(images=pictures, text=["<image> w9 <image> w10 <image>"], return_tensors="pt")
    return {
        "swapped classes": [full_name(x) for x in (vlm.model.vision_tower, processor)],
        "swapped inputs": dict(batch),
        "swapped": vlm(**batch).logits,
    }


def card() -> dict:
    """What the code on the model card gives."""
    text = Path("tower (v1)", "README.md").read_text(encoding="utf-8")
    (snippet,) = [block.removeprefix("python\n") for block in text.split("```")[1::2]]
    names = {}
    exec(snippet, names)
    return {"card": names["outputs"].last_hidden_state.detach()}


def copies_and_package(inputs: dict) -> dict:
    """What two copies of the code and then the package give in one process, and what the first copy gives then."""
    first = AutoModel.from_pretrained("tower (v1)", **TRUST)
    first.save_pretrained("saved again")
    AutoImageProcessor.from_pretrained("tower (v1)", **TRUST).save_pretrained("saved again")
    second = AutoModel.from_pretrained("saved again", **TRUST)
    processor = AutoImageProcessor.from_pretrained("saved again", **TRUST)
    assert type(second) is not type(first)
    results = {
        "saved again": tower_outputs(second, inputs["forms"]),
        "processed again": dict(processor(inputs["pictures"], return_tensors="pt")),
    }
    assert PACKAGE not in sys.modules
    show_package()
    import turingvit_hf

    package = turingvit_hf.TuringViTModel.from_pretrained("tower (v1)")
    for name, model in {"package": package, "first copy": first, "second copy": second}.items():
        results[name] = tower_outputs(model, inputs["forms"])
    vlm = AutoModelForImageTextToText.from_pretrained("llava", **TRUST)
    with torch.no_grad():
        results["llava beside package"] = vlm(**inputs["chat tensors"]).logits
    # from now on the Auto classes take the package's code, whatever a checkpoint brings
    assert type(AutoModel.from_pretrained("tower (v1)", **TRUST)) is turingvit_hf.TuringViTModel
    return results


def main(folder: Path) -> None:
    """Loads every export of the folder."""
    hide_package()
    inputs = torch.load(folder / "inputs.pt", weights_only=False)
    torch.set_num_threads(inputs["threads"])
    os.chdir(folder)
    results = from_folder_and_hub(inputs) | other_towers(inputs) | vlms(inputs) | card()
    inputs["chat tensors"] = results["chat"]
    torch.save(results | copies_and_package(inputs), "outputs.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
