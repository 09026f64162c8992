# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The model card of an exported checkpoint: what it is and how to load it; the rest is for its author to write."""

CARD = """\
---
library_name: transformers
pipeline_tag: {task}
tags:
- turingvit
- custom_code
---

# {name}

{description}

The code is in this folder. Loading runs it, so transformers asks for `trust_remote_code=True`; read the files first,
or install `turingvit_hf`, import it, and leave that argument out.

```python
{snippet}
```
{notes}"""

LOAD = """\
from transformers import {classes}


checkpoint = "{name}"  # this folder, or user/name once it is on the Hub
model = {model_class}.from_pretrained(checkpoint, trust_remote_code=True).eval()"""

LOAD_PROCESSOR = """
processor = {processor_class}.from_pretrained(checkpoint, trust_remote_code=True)"""

RUN_TOWER = """

images = [Image.new("RGB", (320, 240)), Image.new("RGB", (160, 480))]  # of any sizes: packed, without padding
outputs = model(**processor(images, return_tensors="pt"))
print(outputs.{result}.shape)"""

PIPELINE_NOTE = """
In a pipeline the argument is needed too: `pipeline("{task}", model=checkpoint, trust_remote_code=True)`. Without it a
pipeline waits 15 seconds for an answer on the terminal, even where `turingvit_hf` is imported;
`trust_remote_code=False` avoids that there. Images of different sizes need `batch_size=1`.
"""

BACKBONE_NOTE = """
On the Hub, `AutoBackbone.from_pretrained("user/name", trust_remote_code=True)` gives feature maps for detection and
segmentation heads.
"""


def tower_card(name: str, *, is_classifier: bool, has_processor: bool) -> str:
    """The card of a tower or a classifier in a folder of that name."""
    task = "image-classification" if is_classifier else "image-feature-extraction"
    model_class = "AutoModelForImageClassification" if is_classifier else "AutoModel"
    snippet = _load(name, model_class, "AutoImageProcessor" if has_processor else None)
    if has_processor:
        result = "logits" if is_classifier else "last_hidden_state"
        snippet = "from PIL import Image\n" + snippet + RUN_TOWER.format(result=result)
    return CARD.format(
        name=name,
        task=task,
        description="A TuringViT vision tower" + (" with an image classifier." if is_classifier else "."),
        snippet=snippet,
        notes=(PIPELINE_NOTE.format(task=task) if has_processor else "") + ("" if is_classifier else BACKBONE_NOTE),
    )


def vlm_card(name: str, config_class: str, *, has_processor: bool) -> str:
    """The card of a VLM in a folder of that name, whose configuration is of the named class."""
    return CARD.format(
        name=name,
        task="image-text-to-text",
        description=f"A vision-language model ({config_class}) whose vision tower is a TuringViT.",
        snippet=_load(name, "AutoModelForImageTextToText", "AutoProcessor" if has_processor else None),
        notes="",
    )


def _load(name: str, model_class: str, processor_class: str | None) -> str:
    """The lines that load a model and, if it has one, its processor."""
    classes = ", ".join(sorted(filter(None, (model_class, processor_class))))
    lines = LOAD.format(name=name, classes=classes, model_class=model_class)
    return lines if processor_class is None else lines + LOAD_PROCESSOR.format(processor_class=processor_class)
