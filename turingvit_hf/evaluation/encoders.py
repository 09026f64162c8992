# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Features of images and texts from any dual encoder or vision tower of transformers, TuringViT's own included."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor

from turingvit_hf.errors import InputError
from turingvit_hf.modeling.packing import split_by_image
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


# a tokenizer that knows no limit says something like 1e30
NO_LIMIT = 100_000
FEATURES = ("embedding", "pooled", "mean")
TOWERS = ("turingvit", "vision_model")
# patches of an image of which neither processor nor configuration tells
USUAL_PATCHES = 256


class Encoder(Protocol):
    """Anything whose images, and texts if it has them, become vectors; all that the evaluations ask of a model."""

    def image_features(self, images: Sequence[np.ndarray], kind: str) -> Tensor:
        """The features (N, D) float32 on the CPU of uint8 images (3, H, W), at least one; `kind`: see FEATURES."""
        ...

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The features (M, E) float32 on the CPU of texts, at least one, in the space of `"embedding"`."""
        ...

    def patch_tokens(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """The patch tokens (L, D) float32 on the CPU of each uint8 image (3, H, W), at least one."""
        ...


class TransformersEncoder:
    """What `AutoModel` loads: CLIP, SigLIP, SigLIP2, a `TuringViTDualEncoderModel`, or a vision tower by itself.

    Features are not normalized. A TuringViT takes images at their own resolution unless a size is given.

    Args:
        model: hub id or folder.
        revision: of a hub model.
        dtype: of the weights, such as `"bfloat16"`; features are float32 in any case.
        device: such as `"cuda:1"`.
        image_size: side in pixels of the squares that images are resized to; None: as the processor says.
        max_patches: of one image, where it keeps its aspect ratio; larger ones are made smaller. None: as the
            processor says.
        tokens_per_batch: most patches of the images of a batch together; a larger image is a batch of its own.
        texts_per_batch: how many texts are encoded at a time.
        max_text_tokens: texts are cut there; None takes what the text encoder was made for.

    Raises:
        InputError: there is no such model, it has no image encoder, or its processor does not know an option.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        image_size: int | None = None,
        max_patches: int | None = None,
        tokens_per_batch: int = 16_384,
        texts_per_batch: int = 256,
        max_text_tokens: int | None = None,
    ):
        if min(tokens_per_batch, texts_per_batch) < 1:
            raise InputError(f"tokens_per_batch={tokens_per_batch}, texts_per_batch={texts_per_batch}: both are 1 up")
        self.tokens_per_batch, self.texts_per_batch = tokens_per_batch, texts_per_batch
        network = _load(AutoModel, model, revision, dtype=dtype)
        self.has_texts = hasattr(network, "get_text_features")
        if not self.has_texts and network.main_input_name != "pixel_values":
            name = type(network).__name__
            raise InputError(
                f"{model!r} has no image encoder that can be asked, and is no dual encoder: {name} has no "
                "get_image_features"
            )
        self.network: Any = network.to(device).eval()
        self.processor: Any = _load(AutoProcessor, model, revision) if self.has_texts else None
        self.image_processor: Any = (
            self.processor.image_processor if self.processor else _load(AutoImageProcessor, model, revision)
        )
        self._max_text_tokens = max_text_tokens
        self.image_options = self._options_of(image_size, max_patches)

    @torch.inference_mode()
    def image_features(self, images: Sequence[np.ndarray], kind: str = "embedding") -> Tensor:
        """The features (N, D) float32 on the CPU of uint8 images (3, H, W).

        Args:
            images: at least one, of any sizes.
            kind: `"embedding"`, in the space shared with texts; `"pooled"`, what the vision tower pools;
                `"mean"`, the mean of its patch tokens.

        Raises:
            InputError: the kind is another, or the model has none of that kind.
        """
        if kind not in FEATURES:
            raise InputError(f"features={kind!r}: allowed are {', '.join(FEATURES)}")
        return torch.cat([self._encode(self.prepare_images(batch), kind) for batch in self._batches(images)])

    @torch.inference_mode()
    def patch_tokens(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """The patch tokens of the vision tower, (L, D) float32 on the CPU for each uint8 image (3, H, W).

        They are in row-major order; class and register tokens and padding are left out.
        """
        tokens: list[Tensor] = []
        for batch in self._batches(images):
            tower, moved = self._tower, self._move(self.prepare_images(batch))
            hidden = tower(**moved).last_hidden_state.float()
            tokens += [image.cpu() for image in _patches_of_images(hidden, moved, tower.config)]
        return tokens

    @torch.inference_mode()
    def features_of_inputs(self, images: Sequence[Mapping[str, Tensor]], kind: str = "embedding") -> Tensor:
        """`image_features` of images that were prepared one by one, each with what `prepare_images` makes of it."""
        first = images[0]["pixel_values"]
        # packed (T, P), padded (1, L, P) or pixels (1, 3, H, W)
        sizes = [
            self._usual_patches() if first.dim() == 4 else image["pixel_values"].shape[:-1].numel() for image in images
        ]
        batches = _in_budget(images, sizes, self.tokens_per_batch)
        joined = ({name: torch.cat([image[name] for image in batch]) for name in batch[0]} for batch in batches)
        return torch.cat([self._encode(inputs, kind) for inputs in joined])

    @torch.inference_mode()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """The features (M, E) float32 on the CPU of texts, of which those that are too long are cut.

        Raises:
            InputError: the model has no text encoder.
        """
        self._require_texts()
        features = []
        for start in range(0, len(texts), self.texts_per_batch):
            inputs = self._move(self.prepare_texts(texts[start : start + self.texts_per_batch]))
            features.append(_pooled(self.network.get_text_features(**inputs)).float().cpu())
        return torch.cat(features)

    @torch.inference_mode()
    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """The logits (N, M) that the model gives these images and texts, scaled and, with a sigmoid, biased."""
        self._require_texts()
        images_NE, texts_ME = (nn.functional.normalize(x, dim=-1) for x in (image_features, text_features))
        logits_NM = images_NE @ texts_ME.T * self.network.logit_scale.float().exp().cpu()
        bias = getattr(self.network, "logit_bias", None)
        return logits_NM if bias is None else logits_NM + bias.float().cpu()

    def prepare_images(self, images: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        """What the model is called with for uint8 images (3, H, W)."""
        # pictures out of a decoder may be read-only, of which torchvision's processors make tensors that may not be
        writable = [image if image.flags.writeable else image.copy() for image in images]
        return self.image_processor(
            writable, return_tensors="pt", input_data_format="channels_first", **self.image_options
        )

    def prepare_texts(self, texts: Sequence[str]) -> Mapping[str, Tensor]:
        """What the model is called with for texts."""
        self._require_texts()
        # SigLIP reads its embedding off the last token, padding or not
        padding = "max_length" if self.network.config.model_type.startswith("siglip") else True
        return self.processor(
            text=list(texts), padding=padding, truncation=True, max_length=self.text_limit, return_tensors="pt"
        )

    @property
    def text_limit(self) -> int:
        """Tokens of the longest text; longer ones are cut."""
        config = self.network.config.text_config
        limits = [self._max_text_tokens, self.processor.tokenizer.model_max_length]
        limits.append(getattr(config, "max_position_embeddings", None))
        return min(limit for limit in [*limits, NO_LIMIT] if limit is not None)

    def _options_of(self, image_size: int | None, max_patches: int | None) -> dict[str, Any]:
        """What the image processor is called with beside its own settings."""
        if image_size is not None and max_patches is not None:
            raise InputError(f"image_size={image_size} and max_patches={max_patches}: give one of them")
        name = type(self.image_processor).__name__
        if isinstance(self.image_processor, TuringViTImageProcessor):
            # sizes may differ, and packed ones need no padding
            options: dict[str, Any] = {"do_pack": True}
            if image_size is not None:
                options |= {"resolution": "fixed", "size": {"height": image_size, "width": image_size}}
            options |= {} if max_patches is None else {"max_patches": max_patches}
            try:
                self.image_processor.get_number_of_image_patches(32, 32, options)
            except ValueError as error:
                raise InputError(str(error)) from error
            return options
        if image_size is not None:
            raise InputError(f"image_size={image_size} is for TuringViT; {name} resizes as it is saved")
        if max_patches is not None and not hasattr(self.image_processor, "max_num_patches"):
            raise InputError(f"max_patches={max_patches} is for towers of native resolution; {name} knows none")
        return {} if max_patches is None else {"max_num_patches": max_patches}

    def _batches(self, images: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """The images in order, in batches of no more patches than allowed."""
        return _in_budget(images, map(self._num_patches, images), self.tokens_per_batch)

    def _num_patches(self, image: np.ndarray) -> int:
        if isinstance(self.image_processor, TuringViTImageProcessor):
            height, width = image.shape[1:]
            return self.image_processor.get_number_of_image_patches(height, width, self.image_options)
        if hasattr(self.image_processor, "max_num_patches"):
            return self.image_options.get("max_num_patches", self.image_processor.max_num_patches)
        return self._usual_patches()

    def _usual_patches(self) -> int:
        """Patches of an image of a fixed size."""
        config = getattr(self.network.config, "vision_config", self.network.config)
        size, patch_size = getattr(config, "image_size", None), getattr(config, "patch_size", None)
        return (size // patch_size) ** 2 if isinstance(size, int) and isinstance(patch_size, int) else USUAL_PATCHES

    def _encode(self, inputs: Mapping[str, Tensor], kind: str) -> Tensor:
        """The features (N, D) of one batch, float32 on the CPU."""
        moved = self._move(inputs)
        if kind == "embedding":
            self._require_texts()
            return _pooled(self.network.get_image_features(**moved)).float().cpu()
        tower = self._tower
        outputs = tower(**moved)
        if kind == "mean":
            hidden = outputs.last_hidden_state.float()
            return torch.stack([image.mean(0) for image in _patches_of_images(hidden, moved, tower.config)]).cpu()
        if getattr(outputs, "pooler_output", None) is None:
            raise InputError(f"{type(tower).__name__} pools nothing; take features='mean'")
        return outputs.pooler_output.float().cpu()

    @property
    def _tower(self) -> Any:
        """The vision tower of a dual encoder, or the network that is one."""
        return next((getattr(self.network, name) for name in TOWERS if hasattr(self.network, name)), self.network)

    def _move(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensors on the model's device, those of floats in its dtype."""
        parameter = next(self.network.parameters())
        return {
            name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    def _require_texts(self) -> None:
        if not self.has_texts:
            raise InputError(
                f"{type(self.network).__name__} has no text encoder: it has no embedding, and k-NN and probes take "
                "its features 'pooled' or 'mean'"
            )


def _load(auto_class: Any, model: str, revision: str | None, **options: Any) -> Any:
    """What `auto_class.from_pretrained` makes of a hub id or folder."""
    try:
        AutoConfig.from_pretrained(model, revision=revision)
        return auto_class.from_pretrained(model, revision=revision, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())  # of packages that are missing it has many lines
        raise InputError(f"{auto_class.__name__} cannot load {model!r}: {reason}") from error


def _in_budget(items: Sequence[Any], sizes: Iterable[int], budget: int) -> Iterator[list[Any]]:
    """Items in order, in lists whose sizes together stay within a budget; a larger item is alone."""
    batch: list[Any] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if batch and total + size > budget:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    yield batch


def _pooled(output: Any) -> Tensor:
    """The pooled vectors of what `get_image_features` and `get_text_features` return."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _patches_of_images(tokens: Tensor, inputs: Mapping[str, Tensor], config: Any) -> Sequence[Tensor]:
    """The patch tokens (L, D) of each image, where they are packed (T, D), padded (N, L, D) with a mask, or follow
    class tokens.
    """
    if "image_grid_thw" in inputs:
        return split_by_image(tokens.flatten(0, -2), inputs["image_grid_thw"])
    if "pixel_attention_mask" in inputs:
        return [image[mask.bool()] for image, mask in zip(tokens, inputs["pixel_attention_mask"], strict=True)]
    height, width = inputs["pixel_values"].shape[-2:]
    num_patches = (height // config.patch_size) * (width // config.patch_size)
    return tokens[:, -num_patches:].unbind()
