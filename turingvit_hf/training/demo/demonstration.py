# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What a saved tower is good for: loaded by AutoModel, asked zero-shot questions, put into a LLaVA."""

import logging
import random
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    pipeline,
)

from turingvit_hf.data.shapes import alternatives
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.processing.processing_turingvit import TuringViTProcessor
from turingvit_hf.training.text import NUM_BYTES, NUM_SPECIAL_TOKENS


NUM_CHOICES = 5
NUM_GENERATED = 12
NUM_QUESTIONS = 3
SHAPES_ATTRIBUTES = ("color", "shape", "background")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A zero-shot question about one held-out picture, the right answer, and the model's scores, best first."""

    question: str
    row: int
    caption: str
    truth: str
    scores: list[tuple[str, float]]

    @property
    def is_right(self) -> bool:
        """Whether the best score belongs to the right answer."""
        return self.scores[0][0] == self.truth


def check_reload(model: TuringViTDualEncoderModel, folder: Path, batch: dict[str, Tensor]) -> None:
    """Loads `model/` and `vision_tower/` through AutoModel and compares weights and outputs bit by bit.

    Args:
        model: the dual encoder that was saved.
        folder: where its two checkpoints are.
        batch: keyword arguments of its forward.

    Raises:
        RuntimeError: something differs; saving or loading is broken.
    """
    batch = {name: value.to(model.device) for name, value in batch.items()}
    pixels = {name: batch[name] for name in ("pixel_values", "image_grid_thw")}
    model.eval()
    checkpoints: list[tuple[str, PreTrainedModel, dict[str, Tensor], str]] = [
        ("model", model, batch, "logits_per_image"),
        ("vision_tower", model.turingvit, pixels, "pooler_output"),
    ]
    for name, saved, inputs, output in checkpoints:
        loaded = AutoModel.from_pretrained(folder / name).to(model.device).eval()
        weights = loaded.state_dict()
        for key, value in saved.state_dict().items():
            if key not in weights or not torch.equal(value, weights[key]):
                raise RuntimeError(f"{key} of {name}/ is not what was saved")
        with torch.inference_mode():
            if not torch.equal(saved(**inputs)[output], loaded(**inputs)[output]):
                raise RuntimeError(f"{output} of {name}/ is not what the saved model gives")
    logger.info("reloaded model/ and vision_tower/ through AutoModel: weights and outputs are equal bit by bit")


def ask_zero_shot(model_folder: Path, test: datasets.Dataset, *, is_shapes: bool, seed: int) -> list[Answer]:
    """Three zero-shot questions about held-out pictures, answered by transformers' pipeline and logged.

    Args:
        model_folder: checkpoint of a dual encoder with its processor.
        test: held-out pairs with the columns `image` and `caption`.
        is_shapes: whether captions come from the shapes data; then the questions are about color, shape and
            background, with every possible answer to choose from. Other data is asked which of five held-out captions
            is the right one.
        seed: chooses pictures and captions.
    """
    rng = random.Random(seed)
    classify = pipeline("zero-shot-image-classification", model=str(model_folder))
    answers = []
    for number, row in enumerate(rng.sample(range(len(test)), min(NUM_QUESTIONS, len(test)))):
        image, caption = test[row]["image"], test[row]["caption"]
        if is_shapes:
            attribute = SHAPES_ATTRIBUTES[number]
            choices = alternatives(caption, attribute)
            question = f"which {attribute}? {_with_blank(caption, choices[0][0])}"
        else:
            others = sorted(set(test["caption"]) - {caption})
            captions = [caption, *rng.sample(others, min(NUM_CHOICES - 1, len(others)))]
            choices = list(zip(captions, captions, strict=True))
            question = f"which of these {len(captions)} captions?"
        word_of = {text: word for word, text in choices}
        found = classify(image, candidate_labels=list(word_of), hypothesis_template="{}")
        scores = [(word_of[entry["label"]], entry["score"]) for entry in found]
        answer = Answer(question, row, caption, choices[0][0], scores)
        best = ", ".join(f"{word} {score:.0%}" for word, score in scores[:3])
        verdict = "right" if answer.is_right else f"wrong, it is {answer.truth}"
        logger.info("  %s\n    picture %d, %d x %d pixels: %s (%s)", question, row, *image.size, best, verdict)
        answers.append(answer)
    return answers


def generate_with_llava(tower_folder: Path, processor: TuringViTProcessor, image: Image.Image) -> str:
    """What a LLaVA with this tower and a tiny language model of random weights writes about a picture: proof of the
    plug, not of wit.

    Args:
        tower_folder: checkpoint of a tower; loaded without its pooling head, which a LLaVA does not use.
        processor: gives the picture's pixels and the prompt's tokens.
        image: any picture.
    """
    tower = AutoModel.from_pretrained(tower_folder, vision_use_head=False)
    tokenizer = processor.tokenizer
    image_token_id = len(tokenizer)
    text_config = LlamaConfig(
        vocab_size=len(tokenizer) + 1,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text_config,
        image_token_index=image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    vlm = LlavaForConditionalGeneration(config).eval()
    vlm.model.vision_tower.load_state_dict(tower.state_dict())

    pixel_values = processor.image_processor(image, do_pack=False, return_tensors="pt")["pixel_values"]
    num_image_tokens = (pixel_values.shape[-2] // tower.patch_size) * (pixel_values.shape[-1] // tower.patch_size)
    prompt = tokenizer("this is", add_special_tokens=False)["input_ids"]
    input_ids = torch.tensor([[tokenizer.bos_token_id, *[image_token_id] * num_image_tokens, *prompt]])
    with torch.inference_mode():
        generated = vlm.generate(  # pyrefly: ignore[bad-argument-type]
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values=pixel_values,
            max_new_tokens=NUM_GENERATED,
            min_new_tokens=NUM_GENERATED,
            do_sample=False,
            # words only: an untrained model would mostly choose single bytes, which do not print
            suppress_tokens=[*range(NUM_BYTES + NUM_SPECIAL_TOKENS), image_token_id],
        )
    text = tokenizer.decode(generated[0, input_ids.shape[1] :]).strip()
    logger.info(
        "in LlavaForConditionalGeneration: %d image tokens in, %d tokens out: %r (its language model is untrained)",
        num_image_tokens,
        NUM_GENERATED,
        text,
    )
    return text


def _with_blank(caption: str, word: str) -> str:
    words = caption.split()
    words[words.index(word)] = "___"
    return " ".join(words)
