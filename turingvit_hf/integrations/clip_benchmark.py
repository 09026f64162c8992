# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints in CLIP_benchmark: `python -m turingvit_hf.integrations.clip_benchmark eval --model_type turingvit ...`.

CLIP_benchmark asks a model for a transform of one picture, a tokenizer, `encode_image` and `encode_text`. Pictures of
a fixed size are tensors. Those of native resolution differ in their number of patches, and its loaders could not stack
them: for these the transform returns a type of its own, and torch's `default_collate` learns how they become a batch.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data._utils.collate import default_collate_fn_map

from turingvit_hf.errors import InputError
from turingvit_hf.evaluation.encoders import TransformersEncoder
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


MODEL_TYPE = "turingvit"


class PreparedImage:
    """One picture as the model is called with it.

    Args:
        inputs: what its image processor makes of the picture alone.
    """

    def __init__(self, inputs: Mapping[str, Tensor]):
        self.inputs = dict(inputs)


class ImageBatch:
    """Pictures that go to a device together and to the model a few at a time.

    Args:
        images: each with its inputs.
    """

    def __init__(self, images: Sequence[PreparedImage]):
        self.images = list(images)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: Any) -> "ImageBatch":
        """These pictures; the model moves each part of them itself."""
        return self

    def pin_memory(self) -> "ImageBatch":
        """These pictures, pinned."""
        pinned = [{name: value.pin_memory() for name, value in image.inputs.items()} for image in self.images]
        return ImageBatch([PreparedImage(inputs) for inputs in pinned])


class TransformOfOne:
    """Prepares one picture, in a loader's process: a tensor where all pictures get one size, else a `PreparedImage`.

    Args:
        encoder: whose processor it is.
    """

    def __init__(self, encoder: TransformersEncoder):
        self._processor = encoder.image_processor
        self._options = encoder.image_options
        # WebDataset's batches, too, are stacked tensors
        self._is_fixed = "size" in self._options or not _is_native(self._processor)

    def __call__(self, picture: Image.Image) -> Tensor | PreparedImage:
        pixels = np.array(picture.convert("RGB")).transpose(2, 0, 1)
        inputs = self._processor([pixels], return_tensors="pt", input_data_format="channels_first", **self._options)
        if not self._is_fixed:
            return PreparedImage(inputs)
        values = inputs["pixel_values"]
        return values if "image_grid_thw" in inputs else values[0]


class ClipOfBenchmark(nn.Module):
    """A dual encoder with the two methods that CLIP_benchmark calls.

    Args:
        encoder: the model.
    """

    def __init__(self, encoder: TransformersEncoder):
        super().__init__()
        self.network = encoder.network
        self._encoder = encoder

    def encode_image(self, images: Tensor | ImageBatch) -> Tensor:
        """The embeddings (N, E) of pictures, on the model's device, computed in parts of the encoder's budget.

        Args:
            images: what a loader made of the transform's: tensors (N, 3, H, W), or patches of squares (N, T, P).
        """
        if isinstance(images, ImageBatch):
            inputs = [image.inputs for image in images.images]
        elif images.dim() == 4:
            inputs = [{"pixel_values": image[None]} for image in images]
        else:
            grid = torch.tensor([[1, *[math.isqrt(images.shape[1])] * 2]])
            inputs = [{"pixel_values": image, "image_grid_thw": grid} for image in images]
        return self._encoder.features_of_inputs(inputs).to(next(self.parameters()).device)

    def encode_text(self, texts: Mapping[str, Tensor]) -> Tensor:
        """The embeddings (M, E) of what the tokenizer made."""
        output = self.network.get_text_features(**texts)
        return output if isinstance(output, Tensor) else output.pooler_output


def load_turingvit(
    model_name: str,
    pretrained: str = "",
    cache_dir: str | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> tuple[ClipOfBenchmark, TransformOfOne, Any]:
    """The (model, transform, tokenizer) of a checkpoint, as CLIP_benchmark's registry asks for them.

    Args:
        model_name: folder or hub id of any dual encoder of transformers.
        pretrained: settings such as `image_size=384` or `max_patches=1024,dtype=bfloat16`, which CLIP_benchmark names
            its results after; any other word, such as `native`, is a name and nothing else.
        cache_dir: not used; transformers has a cache of its own.
        device: where the model goes.
        options: of `TransformersEncoder`.

    Raises:
        InputError: the checkpoint is no dual encoder, cannot be loaded, or has no such setting.
    """
    encoder = TransformersEncoder(model_name, device=str(device), **{**_settings(pretrained), **options})
    if not encoder.has_texts:
        raise InputError(f"{model_name!r} has no text encoder: CLIP_benchmark compares images with texts")
    return ClipOfBenchmark(encoder), TransformOfOne(encoder), encoder.prepare_texts


def register() -> None:
    """Makes `--model_type turingvit` known to CLIP_benchmark in this process.

    Raises:
        InputError: CLIP_benchmark is not installed.
    """
    try:
        models = importlib.import_module("clip_benchmark.models")
    except ModuleNotFoundError as error:
        raise InputError(
            f"this needs clip-benchmark, and {error.name} is missing: pip install clip-benchmark"
        ) from error
    models.TYPE2FUNC[MODEL_TYPE] = load_turingvit
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)


def main() -> None:
    """CLIP_benchmark's own command, which knows our checkpoints."""
    register()
    importlib.import_module("clip_benchmark.cli").main()


def _collate(batch: Sequence[PreparedImage], *, collate_fn_map: Any = None) -> ImageBatch:
    return ImageBatch(batch)


# when the module is imported, and so in the processes of a loader as well
default_collate_fn_map[PreparedImage] = _collate


def _is_native(processor: Any) -> bool:
    """Whether images keep their aspect ratio, and so their own number of patches."""
    return isinstance(processor, TuringViTImageProcessor) or hasattr(processor, "max_num_patches")


def _settings(pretrained: str) -> dict[str, Any]:
    """The options in a text such as `"image_size=384,dtype=bfloat16"`."""
    kinds: dict[str, Callable[[str], Any]] = {
        "image_size": int,
        "max_patches": int,
        "tokens_per_batch": int,
        "dtype": str,
        "revision": str,
    }
    settings: dict[str, Any] = {}
    for part in pretrained.split(","):
        name, is_given, value = part.partition("=")
        if not is_given:
            continue
        try:
            settings[name.strip()] = kinds[name.strip()](value.strip())
        except (KeyError, ValueError) as error:
            raise InputError(f"pretrained={pretrained!r}: settings are {', '.join(kinds)}, not {part!r}") from error
    return settings


if __name__ == "__main__":
    main()
