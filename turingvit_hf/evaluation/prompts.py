# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Prompts for zero-shot classification: templates that ship, their canonical form, and what they are filled with."""

import string
from collections.abc import Sequence

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.imagenet_names import clip_templates


# The seven that CLIP's authors found to do about as well as all of their eighty
# (https://github.com/openai/CLIP/blob/main/notebooks/Prompt_Engineering_for_ImageNet.ipynb).
CLIP_BEST = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
TEMPLATES: dict[str, tuple[str, ...]] = {
    "name": ("{}",),
    "photo": ("a photo of a {}.",),
    "clip-7": CLIP_BEST,
    # what SigLIP is evaluated with, together with canonical prompts (https://github.com/google-research/big_vision)
    "siglip": (*CLIP_BEST, "{}"),
}
# CLIP's eighty, out of another package
CLIP_ALL = "clip-80"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonical(text: str) -> str:
    """The text in lower case, without ASCII punctuation ("_" counts as a space), words one space apart.

    SigLIP's evaluation prepares class names and prompts so (https://github.com/google-research/big_vision).
    """
    return " ".join(text.replace("_", " ").translate(_NO_PUNCTUATION).lower().split())


def templates_of(templates: str | Sequence[str]) -> Sequence[str]:
    """The prompts of a name: one of TEMPLATES or CLIP_ALL; or the prompts that were given.

    Raises:
        InputError: the package that has the eighty is not installed.
    """
    if not isinstance(templates, str):
        return templates
    return clip_templates() if templates == CLIP_ALL else TEMPLATES[templates]


def make_prompts(class_names: Sequence[str], templates: Sequence[str], *, canonicalize: bool = False) -> list[str]:
    """The prompts of all classes, C times the number of templates, those of one class after the other.

    Args:
        class_names: the C names.
        templates: each with `{}` where the name goes.
        canonicalize: whether they come in their `canonical` form.

    Raises:
        InputError: there is no class or no template, or a template has no place for the name.
    """
    if not class_names or not templates:
        raise InputError(f"{len(class_names)} classes and {len(templates)} templates: there must be one of each")
    if without := [template for template in templates if "{}" not in template]:
        raise InputError(f"a template needs {{}} where the name goes, {without[0]!r} has none")
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    return [canonical(prompt) for prompt in prompts] if canonicalize else prompts
