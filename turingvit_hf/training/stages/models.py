# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The model of a stage, new or continued from what an earlier stage left, with its image processor and tokenizer."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.dual_encoder_parts import load_tower
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.modeling.modeling_masked_image import TuringViTForMaskedImageModeling
from turingvit_hf.modeling.modeling_turingvit import TuringViTModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.training.arguments import StageRecipe, TextRecipe
from turingvit_hf.training.text import small_text_config


SMALL = "small"
SMALL_VOCABULARY = 2048

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where a stage starts from.

    Attributes:
        folder: checkpoint of a tower, of a model on top of one, or of a dual encoder.
        config: its configuration.
    """

    folder: str
    config: TuringViTConfig | TuringViTDualEncoderConfig

    @property
    def is_dual_encoder(self) -> bool:
        """Whether text encoder, projections and heads are there too."""
        return isinstance(self.config, TuringViTDualEncoderConfig)

    @property
    def vision_config(self) -> TuringViTConfig:
        """The tower's configuration."""
        # a configuration has turned what it was given into a TuringViTConfig
        return self.config.vision_config if isinstance(self.config, TuringViTDualEncoderConfig) else self.config  # pyrefly: ignore[bad-return]


def find_start(recipe: StageRecipe) -> Start | None:
    """What the recipe's `init_from` names, None where it names nothing.

    Raises:
        InputError: there is no checkpoint, it is no TuringViT, or its architecture is not that of the recipe.
    """
    if recipe.init_from is None:
        return None
    folder = checkpoint_in(recipe.init_from)
    with _errors_of_loading(f"init_from={recipe.init_from!r}"):
        config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, TuringViTConfig | TuringViTDualEncoderConfig):
        raise InputError(f"init_from={recipe.init_from!r} holds a {config.model_type!r} model, not a TuringViT")
    start = Start(folder, config)
    wrong = {
        key: getattr(start.vision_config, key)
        for key, value in recipe.model.items()
        if getattr(start.vision_config, key) != value
    }
    if wrong:
        there = ", ".join(f"{key} is {value!r} there" for key, value in wrong.items())
        here = ", ".join(f"{key}={recipe.model[key]!r}" for key in wrong)
        raise InputError(f"init_from={recipe.init_from!r} is another tower than the recipe says: {there}, not {here}")
    return start


def checkpoint_in(init_from: str) -> str:
    """The folder of a checkpoint: the one given, or `model/` or `vision_tower/` in the output of a stage.

    Raises:
        InputError: there is no such folder, or no checkpoint in it.
    """
    folder = Path(init_from).expanduser()
    if not folder.is_dir():
        if init_from.startswith((".", "/", "~")) or init_from.count("/") > 1:
            raise InputError(f"init_from={init_from!r}: there is no such folder")
        return init_from
    # the tower of a masked image model is what counts of it; a dual encoder is continued as a whole
    places = [folder, folder / "model", folder / "vision_tower"]
    found = [place for place in places if (place / "config.json").is_file()]
    if not found:
        raise InputError(
            f"init_from={init_from!r} has no config.json, model/ or vision_tower/; an output folder gets them when "
            "its stage is finished"
        )
    return str(found[0])


def make_image_processor(recipe: StageRecipe, start: Start | None) -> TuringViTImageProcessor:
    """The processor that prepares images for this tower as the stage's evaluation sees them."""
    resolution = recipe.data.resolution
    config = start.vision_config if start else TuringViTConfig(**recipe.model)
    values: dict[str, Any] = {"patch_size": config.patch_size, "resolution": resolution.mode}
    if resolution.mode == "fixed":
        values["size"] = {"height": resolution.size, "width": resolution.size}
    else:
        values |= {"max_patches": resolution.max_patches}
    if resolution.mode == "bounded":
        values |= {"min_side": resolution.min_side, "max_side": resolution.max_side}
    if start is not None and os.path.isfile(os.path.join(start.folder, "preprocessor_config.json")):
        earlier = AutoImageProcessor.from_pretrained(start.folder)
        values |= {"image_mean": earlier.image_mean, "image_std": earlier.image_std}
    return TuringViTImageProcessor(**values)


def make_masked_image_model(
    recipe: StageRecipe, start: Start | None, *, teacher_hidden_size: int
) -> TuringViTForMaskedImageModeling:
    """The model of stage `mim`, with a new decoder to the teacher's width."""
    values = {**(start.vision_config.to_dict() if start else recipe.model), "teacher_hidden_size": teacher_hidden_size}
    model = TuringViTForMaskedImageModeling(TuringViTConfig.from_dict(values))
    if start is not None:
        tower = _load_tower(start, has_head=False)
        model.turingvit.load_state_dict(tower.state_dict())
    return model.float()


def make_dual_encoder(
    recipe: StageRecipe, start: Start | None, *, tokenizer: PreTrainedTokenizerBase, num_superclasses: int
) -> TuringViTDualEncoderModel:
    """The model of the stages with captions.

    A whole dual encoder is continued; a tower, or a new one, is joined with the recipe's text encoder.

    Raises:
        InputError: the recipe's text section does not fit the dual encoder that is continued, or the text encoder
            cannot be loaded, or it takes fewer tokens than the recipe wants.
    """
    text = _text_section(recipe)
    if start is not None and start.is_dual_encoder:
        _check_agreement(text, start)
        with _errors_of_loading(f"init_from={recipe.init_from!r}"):
            # a head for another vocabulary cannot be continued; transformers says that it is new
            model = TuringViTDualEncoderModel.from_pretrained(
                start.folder, num_superclasses=num_superclasses, ignore_mismatched_sizes=True
            )
    else:
        model = _new_dual_encoder(recipe, start, tokenizer=tokenizer, num_superclasses=num_superclasses)
    limit = getattr(model.config.text_config, "max_position_embeddings", None)
    if limit is not None and text.max_tokens > limit:
        raise InputError(f"text.max_tokens={text.max_tokens} is above the {limit} tokens that the text encoder takes")
    if text.frozen:
        model.freeze_text()
    return model.float()


def _new_dual_encoder(
    recipe: StageRecipe, start: Start | None, *, tokenizer: PreTrainedTokenizerBase, num_superclasses: int
) -> TuringViTDualEncoderModel:
    text = _text_section(recipe)
    tower = _load_tower(start, has_head=True) if start else TuringViTModel(TuringViTConfig(**recipe.model))
    values = {
        "projection_dim": text.projection_dim,
        "text_pooling": text.pooling,
        "num_superclasses": num_superclasses,
        "logit_bias_init_value": text.initial_logit_bias,
    }
    if text.encoder != SMALL:
        with _errors_of_loading(f"text.encoder={text.encoder!r}"):
            return TuringViTDualEncoderModel.from_vision_text_pretrained(tower, text.encoder, **values)
    text_config = small_text_config(tokenizer)
    model = TuringViTDualEncoderModel(
        TuringViTDualEncoderConfig(vision_config=tower.config, text_config=text_config, **values)
    )
    model.turingvit.load_state_dict(tower.state_dict())
    return model


def load_tokenizer(recipe: StageRecipe, start: Start | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the text encoder; None where one has to be trained, for the small text encoder.

    Raises:
        InputError: it cannot be loaded.
    """
    text = _text_section(recipe)
    if start is not None and start.is_dual_encoder:
        return named_tokenizer(start.folder, f"init_from={recipe.init_from!r}")
    if text.encoder == SMALL:
        return None
    return named_tokenizer(text.encoder, f"text.encoder={text.encoder!r}")


def named_tokenizer(name: str, key: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or folder.

    Args:
        name: the id or folder.
        key: the part of the recipe that names it, for errors.

    Raises:
        InputError: it cannot be loaded.
    """
    with _errors_of_loading(key):
        tokenizer = AutoTokenizer.from_pretrained(name)
    if tokenizer is None:
        raise InputError(f"{key} has no tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # decoders have none; the mask says what is padding
    return tokenizer


def _text_section(recipe: StageRecipe) -> TextRecipe:
    assert recipe.text is not None, "StageRecipe refuses a stage with captions and no text section"
    return recipe.text


def _check_agreement(text: TextRecipe, start: Start) -> None:
    wanted = {"projection_dim": text.projection_dim, "text_pooling": text.pooling}
    for key, value in wanted.items():
        there = getattr(start.config, key)
        if there != value:
            raise InputError(
                f"the dual encoder in {start.folder} has {key}={there!r}, the recipe wants {value!r}; name its "
                "vision_tower/ in init_from to begin with a new text encoder"
            )


def _load_tower(start: Start, *, has_head: bool) -> TuringViTModel:
    with _errors_of_loading(f"init_from={start.folder!r}"):
        if start.is_dual_encoder:
            tower = TuringViTDualEncoderModel.from_pretrained(start.folder).turingvit
            tower.head = tower.head if has_head else None
            return tower
        if has_head:
            return load_tower(start.folder)
        return TuringViTModel.from_pretrained(start.folder, vision_use_head=False)


@contextmanager
def _errors_of_loading(what: str) -> Iterator[None]:
    """Turns what transformers raises for names it cannot load into an error that names the recipe's key."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{what} cannot be loaded: {reason}") from error
