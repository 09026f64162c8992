# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What may stand in a recipe, and the sentence that says what is wrong with what does."""

import dataclasses
import difflib
import enum
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import TrainingArguments

from turingvit_hf.files.sections import keys_at, section_in
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.training.arguments import StageRecipe


# keys of TrainingArguments that something else decides, and what does
NOT_FOR_RECIPES = {
    "output_dir": "the command line names the folder: --out",
    "resume_from_checkpoint": "the command line says so: --resume",
    "num_train_epochs": "the data has no end; say how long with training.max_steps",
    "per_device_train_batch_size": "a batch is a budget of patches: data.tokens_per_pack and data.packs_per_step",
    "gradient_accumulation_steps": "data.packs_per_step over the number of processes says what a process accumulates",
    "auto_find_batch_size": "a batch is a budget of patches: data.tokens_per_pack and data.packs_per_step",
    "average_tokens_across_devices": "losses are means over all ranks already",
    "remove_unused_columns": "packs hold what the model reads, and nothing is removed from them",
    "dataloader_num_workers": "it is data.num_workers",
    "dataloader_drop_last": "packs are full, and there is no last one",
    "dataloader_persistent_workers": "the loader keeps its workers for the whole stage",
    "dataloader_prefetch_factor": "the loader reads ahead as data.num_readers allows",
    "dataloader_in_order": "packs come in the order that the seed gives",
    "dataloader_multiprocessing_context": "the loader chooses how its workers start",
    "train_sampling_strategy": "packs are drawn by data.sources",
    "length_column_name": "packs are drawn by data.sources",
    "label_names": "captions are the labels",
    "label_smoothing_factor": "no loss of a stage has it",
    "accelerator_config": "each rank reads its own packs",
    "data_seed": "training.seed is the one seed",
    "ignore_data_skip": "a resumed stage reads on where it stopped",
    "save_only_model": "a checkpoint is there to be resumed",
    "load_best_model_at_end": "a stage ends with its last weights",
    "do_train": "a stage trains",
    "do_eval": "the section evaluation says what is measured",
    "do_predict": "the section evaluation says what is measured",
    "local_rank": "the launcher says",
    "use_cache": "a tower generates nothing",
    "neftune_noise_alpha": "it is for language models",
    "use_liger_kernel": "it is for language models",
    "liger_kernel_config": "it is for language models",
}
ARCHITECTURE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "patch_size",
    "image_size",
    "hidden_act",
    "rms_norm_eps",
    "layer_norm_eps",
    "initializer_range",
    "full_attention_interval",
    "layer_types",
    "rope_theta",
    "pos_embed_rescale",
    "tla_rope",
    "tla_output_projection",
)
# keys of a tower that None is a value of; taking any other away leaves its default
MODEL_NULLS = ("layer_types", "pos_embed_rescale")
# least and most of numbers of TrainingArguments that it takes without a look
RANGES = {
    "learning_rate": (0.0, None),
    "weight_decay": (0.0, None),
    "max_grad_norm": (0.0, None),
    "adam_beta1": (0.0, 0.999999),
    "adam_beta2": (0.0, 0.999999),
    "adam_epsilon": (0.0, None),
    "warmup_steps": (0, None),
    "warmup_ratio": (0.0, 1.0),
    "max_steps": (1, None),
    "logging_steps": (0.0, None),
    "save_steps": (0.0, None),
    "eval_steps": (0.0, None),
    "seed": (0, 2**32 - 1),
}
SWITCHES = {"no": False, "off": False, "yes": True, "on": True}

Place = tuple[str | int, ...]


def did_you_mean(key: str, allowed: Iterable[str]) -> str:
    """`; did you mean X?` with the allowed key nearest to this one, or nothing where none is near."""
    near = difflib.get_close_matches(key, list(allowed), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def describe_error(error: Mapping[str, Any]) -> tuple[Place, str]:
    """The place of one of pydantic's errors in a recipe, and a sentence about it."""
    place = tuple(error["loc"])
    path = ".".join(map(str, place))
    kind = error["type"]
    if kind == "unexpected_keyword_argument":
        return place, _unknown_key(place)
    if kind in ("missing", "missing_argument"):
        return place, f"{path} is missing"
    if kind == "value_error":
        return place, f"{path}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
    message = error["msg"].replace("Input should", "it must")
    for json_word, word in (("a valid array", "a list"), ("an object", "a mapping"), ("a valid string", "a text")):
        message = message.replace(json_word, word)
    return place, f"{path}={error['input']!r:.120}: {message}"


def check_model(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys of a recipe's section `model` that are at fault, each with a sentence; a fault of several together
    stands under the key `""`."""
    unknown = [key for key in values if key not in ARCHITECTURE]
    for key in unknown:
        yield key, _not_a_key(f"model.{key}", key, ARCHITECTURE)
    if not unknown:
        try:
            TuringViTConfig(**values)
        except (ValueError, TypeError, StrictDataclassError) as error:
            # huggingface_hub's strict dataclasses put the sentence behind the name of the check
            yield "", f"model: {_last_sentence(error)}"


def check_training(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys of a recipe's section `training` that are at fault, each with a sentence."""
    types_of = _types_of_training()
    allowed = [
        entry.name
        for entry in dataclasses.fields(TrainingArguments)
        if entry.init and entry.name not in NOT_FOR_RECIPES
    ]
    for key, value in values.items():
        if key in NOT_FOR_RECIPES:
            yield key, f"training.{key} is not for recipes: {NOT_FOR_RECIPES[key]}"
        elif key not in allowed:
            yield key, _not_a_key(f"training.{key}", key, allowed)
        elif (fault := _type_fault(types_of[key], value) or _range_fault(key, value)) is not None:
            yield key, f"training.{key}={value!r}: {fault}"


def _range_fault(key: str, value: Any) -> str | None:
    """What is wrong with a number, as a phrase; None where nothing is."""
    least, most = RANGES.get(key, (None, None))
    if least is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value >= least and (most is None or value <= most):
        return None
    return f"it must be at least {least:g}" + ("" if most is None else f" and at most {most:g}")


def check_sections(recipe: StageRecipe) -> Iterator[tuple[Place, str]]:
    """The places of what a recipe says and its stage would not read, each with a sentence."""
    if recipe.stage == "mim" and recipe.text is not None:
        yield ("text",), f"text: stage 'mim' reads no captions and has no text encoder; {_take_away('text')}"
    if recipe.stage != "mim" and recipe.teacher is not None:
        yield (
            ("teacher",),
            f"teacher: stage {recipe.stage!r} learns from captions and has no teacher; {_take_away('teacher')}",
        )
    objective = recipe.objective
    if recipe.stage != "mim" and not objective.siglip and not objective.superclass:
        yield ("objective",), "objective: siglip and superclass are both 0, so that nothing would be learned"
    for number, source in enumerate(recipe.data.sources):
        if source.kind == "video" and recipe.stage != "image_video":
            yield (
                ("data", "sources", number),
                f"data.sources.{number} is of kind 'video' ({source.path}), and stage {recipe.stage!r} trains on no "
                "clips; leave it out",
            )
    yield from _check_measured(recipe)


def _check_measured(recipe: StageRecipe) -> Iterator[tuple[Place, str]]:
    """The sources of the section `evaluation` that its stage does not measure on, or that are of the wrong kind."""
    stage, evaluation = recipe.stage, recipe.evaluation
    for name in ("video_retrieval", "classification"):
        if stage == "mim" and getattr(evaluation, name) is not None:
            path = f"evaluation.{name}"
            yield (
                ("evaluation", name),
                f"{path}: stage 'mim' has no text encoder and measures its loss only, on the images of "
                f"evaluation.retrieval; {_take_away(path)}",
            )
    kinds = {"retrieval": ("image",), "video_retrieval": ("video",)}
    for name, allowed in kinds.items():
        source = getattr(evaluation, name)
        if source is not None and source.kind not in allowed:
            fault = f"evaluation.{name}.kind={source.kind!r} ({source.path}): it must be {' or '.join(allowed)}"
            yield ("evaluation", name, "kind"), fault


def _take_away(path: str) -> str:
    """How to be rid of a section, whether it is one's own or inherited."""
    return f"where it is inherited, {path}: null takes it away; in a chain --set stage2.{path} is for its second stage"


def training_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a checked section `training` in the types of `TrainingArguments`: `off` is False where a switch is
    wanted, 1e5 is 100000 where a whole number is."""
    types_of = _types_of_training()
    return {key: _converted(types_of[key], value) for key, value in values.items()}


def without_nulls(values: Any, wanted: Any = StageRecipe) -> Any:
    """The plain values of a recipe without keys that are None, which are as if nobody had named them.

    In the sections `model` and `training` None is kept where it is a value that the key may have.

    Args:
        values: of a recipe, or of what a part of it holds.
        wanted: the recipe class of that part, None where it has none.
    """
    if isinstance(values, list):
        return [without_nulls(value, wanted) for value in values]
    if not isinstance(values, dict):
        return values
    section = section_in(wanted)
    if section is None:
        return {key: without_nulls(value, None) for key, value in values.items() if value is not None}
    hints = typing.get_type_hints(section)
    kept = {}
    for key, value in values.items():
        if section is StageRecipe and key in ("model", "training") and isinstance(value, dict):
            kept[key] = {
                name: without_nulls(given, None)
                for name, given in value.items()
                if given is not None or _may_be_none(key, name)
            }
        elif value is not None or key not in hints:  # an unknown key stays, to be named
            kept[key] = without_nulls(value, hints.get(key))
    return kept


def _may_be_none(section: str, key: str) -> bool:
    """Whether None is a value of a key of `model` or `training`; an unknown key keeps it, so that it is named."""
    if section == "model":
        return key not in ARCHITECTURE or key in MODEL_NULLS
    types_of = _types_of_training()
    return key not in types_of or _type_fault(types_of[key], None) is None


def _types_of_training() -> dict[str, Any]:
    # true means FSDP2 there, whatever the annotation says
    return {**typing.get_type_hints(TrainingArguments), "fsdp": bool | str | None}


def _converted(wanted: Any, value: Any) -> Any:
    parts = typing.get_args(wanted) or (wanted,)
    if bool in parts and isinstance(value, str) and value.lower() in SWITCHES:
        return SWITCHES[value.lower()]
    if int in parts and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _type_fault(wanted: Any, value: Any) -> str | None:
    """What is wrong with the type of a value, or with a word where there is a list of them; None if nothing is."""
    words = [str(word.value) for part in typing.get_args(wanted) if _is_enum(part) for word in part]
    if words and isinstance(value, str) and value.lower() not in words:
        return f"it must be one of {', '.join(words)}{did_you_mean(value, words)}"
    adapter = TypeAdapter(wanted, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        adapter.validate_python(_converted(wanted, value), strict=True)
    except ValidationError as error:
        wishes = {entry["msg"].replace("Input should be", "").strip() for entry in error.errors()}
        return f"it must be {' or '.join(sorted(wishes))}"
    return None


def _is_enum(wanted: Any) -> typing.TypeGuard[type[enum.Enum]]:
    return isinstance(wanted, type) and issubclass(wanted, enum.Enum)


def _unknown_key(place: Place) -> str:
    *section, key = place
    path, key = ".".join(map(str, place)), str(key)
    return _not_a_key(path, key, keys_at(StageRecipe, section))


def _not_a_key(path: str, key: str, allowed: Iterable[str]) -> str:
    """The sentence about an unknown key: the nearest key of its section, the section it belongs to, or all keys."""
    allowed = list(allowed)
    if near := did_you_mean(key, allowed):
        return f"there is no key {path}{near}"
    homes = [home for home in _homes() if home.rsplit(".", 1)[-1] == key]
    if homes:
        return f"there is no key {path}; did you mean {' or '.join(homes)}?"
    return f"there is no key {path}; allowed are {', '.join(allowed)}"


def _homes() -> list[str]:
    """The paths of all keys that sections of a recipe have."""
    homes = [f"model.{key}" for key in ARCHITECTURE]
    homes += [f"training.{entry.name}" for entry in dataclasses.fields(TrainingArguments) if entry.init]
    for section in keys_at(StageRecipe, []):
        homes += [f"{section}.{key}" for key in keys_at(StageRecipe, [section])]
    return homes


def _last_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
