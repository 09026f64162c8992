# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What `turingvit evaluate` can be told, and what of it fits together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import FEATURES
from turingvit_hf.evaluation.imagenet_names import CLIP
from turingvit_hf.evaluation.prompts import CLIP_ALL, TEMPLATES
from turingvit_hf.evaluation.tokens import TOKEN_DTYPES


TASKS = ("zero-shot", "retrieval", "knn", "linear-probe", "attentive-probe")
# these learn from images whose classes are known
PROBES = ("knn", "linear-probe", "attentive-probe")
FITS = ("lbfgs", "sgd")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate on what.

    Attributes:
        model: a folder or hub id of a dual encoder, or for k-NN and linear probes of a tower.
        task: one of TASKS.
        data: the images, see `open_evaluation_data`.
        out: the folder of results and features.
        name: of the data, such as `"imagenet-v2"`; the report's figures stand beside those of the same name. None:
            the last part of its path.
        split: of a hub data set, or of Karpathy's.
        train_data: for k-NN and linear probes, the images whose classes are known.
        train_split: of it.
        images: the folder that a JSON file of captions names its files from.
        classes: a file of class names, or one of the lists that `read_classes` knows; None: those of the data.
        templates: a name that `templates_of` knows, or prompts with `{}`.
        canonicalize: whether prompts and captions are lower-cased and lose their punctuation.
        features: what k-NN and linear probes look at, see `TransformersEncoder.image_features`.
        shots: images of each class to train on; None: all.
        neighbors: k of k-NN.
        probe: how a linear probe is fitted, one of FITS.
        epochs: of attentive probes, and of linear ones by SGD.
        learning_rates: of these, to choose from; None: those of their recipes.
        token_dtype: in which an attentive probe's tokens are kept, one of TOKEN_DTYPES.
        media_column: column of the images; None looks for the usual names.
        text_column: column of labels or captions; None looks for the usual names.
        max_samples: images of the data, from the front.
        max_captions: of one image, from the front, such as 5 for COCO.
        crop_border: pixels to cut off on each side.
        image_size: see `TransformersEncoder`, as the four below.
        max_patches: of one image.
        tokens_per_batch: patches of a batch.
        revision: of a hub model.
        dtype: of the weights, one of DTYPES.
        device: None takes an accelerator where there is one.
        seed: of bootstrap, of few shots and of what the sweep of a probe holds out.
    """

    model: str
    task: str
    data: str
    out: str | Path
    name: str | None = None
    split: str = "test"
    train_data: str | None = None
    train_split: str = "train"
    images: str | None = None
    classes: str | None = None
    templates: str | Sequence[str] = "photo"
    canonicalize: bool = False
    features: str = "pooled"
    shots: int | None = None
    neighbors: int = 20
    probe: str = "lbfgs"
    epochs: int = 20
    learning_rates: Sequence[float] | None = None
    token_dtype: str = "float16"
    media_column: str | None = None
    text_column: str | None = None
    max_samples: int | None = None
    max_captions: int | None = None
    crop_border: int = 0
    image_size: int | None = None
    max_patches: int | None = None
    tokens_per_batch: int = 16_384
    revision: str | None = None
    dtype: str = "float32"
    device: str | None = None
    seed: int = 0


def check(options: EvaluationOptions) -> None:
    """Refuses options that fit no evaluation, before anything is loaded.

    Raises:
        InputError: naming the option.
    """
    allowed_values = {"task": TASKS, "features": FEATURES, "probe": FITS, "token_dtype": TOKEN_DTYPES, "dtype": DTYPES}
    for name, allowed in allowed_values.items():
        if (value := getattr(options, name)) not in allowed:
            raise InputError(f"{name}={value!r}: allowed are {', '.join(allowed)}")
    if options.task == "attentive-probe" and options.features != "pooled":
        raise InputError(f"features={options.features!r}: an attentive probe looks at patch tokens alone")
    rates = options.learning_rates
    if rates is not None and not (rates and all(0 < rate < math.inf for rate in rates)):
        raise InputError(f"learning_rates={rates}: they are above 0 and finite, and one at least")
    needs_training = options.task in PROBES
    if needs_training != (options.train_data is not None):
        raise InputError(
            f"task={options.task!r} {'needs' if needs_training else 'has no use for'} train_data, images whose "
            "classes are known"
        )
    named = (*TEMPLATES, CLIP_ALL)
    if isinstance(options.templates, str) and options.templates not in named:
        raise InputError(f"templates={options.templates!r}: allowed are {', '.join(named)}, or prompts with {{}}")
    for name in ("shots", "neighbors", "max_samples", "max_captions", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: it is 1 or more")
    if (out := Path(options.out).expanduser()).is_file():
        raise InputError(f"{out} is a file; the output is a folder")


def describe(options: EvaluationOptions) -> str:
    """A few words on what tells results of one model, task and data set apart, such as `"pooled, 5 shots"`."""
    words = []
    if options.task == "zero-shot":
        named = isinstance(options.templates, str)
        words.append(str(options.templates) if named else " / ".join(options.templates))
    if options.task in PROBES and options.task != "attentive-probe":
        words.append(options.features)
    if options.task == "linear-probe" and options.probe == "sgd":
        words.append("sgd")
    if options.task == "attentive-probe" or "sgd" in words:
        words.append(f"{options.epochs} epochs")
        words += [] if options.learning_rates is None else [f"rates {' '.join(map(str, options.learning_rates))}"]
    if options.task == "knn":
        words.append(f"{options.neighbors} neighbors")
    if options.canonicalize and options.task not in PROBES:
        words.append("canonical")
    for name, text in (
        ("shots", "{} shots"),
        ("max_captions", "{} captions"),
        ("max_samples", "first {}"),
        ("image_size", "{} px"),
        ("max_patches", "{} patches"),
    ):
        if (value := getattr(options, name)) is not None:
            words.append(text.format(value))
    if options.classes is not None and options.classes.endswith(CLIP):
        words.append("CLIP's names")
    words += [] if options.split == "test" else [options.split]
    words += [] if options.dtype == "float32" else [options.dtype]
    words += [] if options.seed == 0 else [f"seed {options.seed}"]
    return ", ".join(words)
