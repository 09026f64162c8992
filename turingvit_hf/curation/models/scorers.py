# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Scorers: frozen models with a space that images and texts share, from transformers or trained by this package."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from turingvit_hf.curation.models.loading import pick_device
from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


class TextEmbeddings(NamedTuple):
    """Embeddings of texts.

    Args:
        vectors: (M, E) float16, of length 1.
        is_cut: for each text, whether it was longer than the text encoder takes, so that its end does not count.
    """

    vectors: np.ndarray
    is_cut: list[bool]


class Scorer(Protocol):
    """Anything that embeds images and texts into one space.

    Attributes:
        name: of the model.
        revision: of its weights where it is known.
        tau: the temperature that it was trained with, 1 / exp(logit_scale).
        is_sigmoid: whether it was trained with a sigmoid; a softmax over its similarities is not calibrated then.
    """

    name: str
    revision: str | None

    @property
    def tau(self) -> float: ...

    @property
    def is_sigmoid(self) -> bool: ...

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, E) float16 of length 1 for uint8 images (H, W, 3), at least one."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Return the embeddings of texts, at least one."""
        ...


class TransformersScorer:
    """A dual encoder that `AutoModel` loads: CLIP, SigLIP and their like, or a `TuringViTDualEncoderModel`.

    Loaded when it is first asked. A TuringViT takes images at their own resolution.

    Args:
        model: hub id or folder.
        name: how reports call it; empty: `model`.
        revision: of a hub model.
        dtype: of the weights.
        device: None takes an accelerator where there is one.
        batch_size: images or texts at a time.
        max_patches: of the images of a batch together, where they have their own resolution.
        max_tokens: of a text; None takes what the text encoder was made for.
        lowercase: whether texts are lower-cased, for encoders that were trained so.

    Raises:
        InputError: when it is first asked, and there is no such model or it is no dual encoder.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str = "",
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        batch_size: int = 32,
        max_patches: int = 16_384,
        max_tokens: int | None = None,
        lowercase: bool = False,
    ):
        if batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, not {batch_size}")
        self.model = model
        self.name = name or model
        self.revision = revision
        self._dtype = dtype
        self._device = device
        self._batch_size = batch_size
        self._max_patches = max_patches
        self._max_tokens = max_tokens
        self._lowercase = lowercase
        self._encoder: TransformersEncoder | None = None

    @property
    def tau(self) -> float:
        """1 / exp(logit_scale), what similarities were divided by in training."""
        return float(torch.exp(-self._loaded().network.logit_scale.detach().double()).item())

    @property
    def is_sigmoid(self) -> bool:
        """Whether it has a bias on its logits, as models trained with a sigmoid loss do."""
        return hasattr(self._loaded().network, "logit_bias")

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return (N, E) float16 of length 1 for uint8 images (H, W, 3)."""
        encoder = self._loaded()
        batches = self._batches_of(images, encoder.image_processor)
        features = [encoder.image_features([image.transpose(2, 0, 1) for image in batch]) for batch in batches]
        return _unit(torch.cat(features))

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Return the embeddings of texts; the end of those that are too long is cut off, and told."""
        encoder = self._loaded()
        read = [text.lower() if self._lowercase else text for text in texts]
        whole = encoder.processor.tokenizer(read, truncation=False, padding=False, verbose=False)["input_ids"]
        return TextEmbeddings(_unit(encoder.text_features(read)), [len(ids) > encoder.text_limit for ids in whole])

    def _loaded(self) -> TransformersEncoder:
        if self._encoder is None:
            self._device = pick_device(self._device)
            encoder = TransformersEncoder(
                self.model,
                revision=self.revision,
                dtype=self._dtype,
                device=self._device,
                tokens_per_batch=sys.maxsize,  # batches are made here
                texts_per_batch=self._batch_size,
                max_text_tokens=self._max_tokens,
            )
            for method in ("get_image_features", "get_text_features", "logit_scale"):
                if not hasattr(encoder.network, method):
                    name = type(encoder.network).__name__
                    raise InputError(f"{self.model!r} is no dual encoder: {name} has no {method}")
            self._encoder = encoder
        return self._encoder

    def _batches_of(self, images: Sequence[np.ndarray], processor: Any) -> list[list[np.ndarray]]:
        """The images in order, in batches of no more images, and of native ones no more patches, than allowed."""
        batches: list[list[np.ndarray]] = [[]]
        num_patches = 0
        for image in images:
            patches = 0
            if isinstance(processor, TuringViTImageProcessor):
                patches = processor.get_number_of_image_patches(*image.shape[:2])
            is_full = len(batches[-1]) == self._batch_size or num_patches + patches > self._max_patches
            if batches[-1] and is_full:
                batches.append([])
                num_patches = 0
            batches[-1].append(image)
            num_patches += patches
        return batches

    def __getstate__(self) -> dict[str, Any]:
        # each process loads it for itself
        return self.__dict__ | {"_encoder": None}


def _unit(features: Tensor) -> np.ndarray:
    """Vectors of length 1 as float16."""
    return nn.functional.normalize(features, dim=-1).half().numpy()
