# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The processor of a LLaVA around a TuringViT: as many image tokens as there are features, image by image."""

from typing import Any

from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessorMixin

from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor


class TuringViTLlavaProcessor(ProcessorMixin):
    """Prepares texts and images of any sizes for `LlavaForConditionalGeneration` with a TuringViT in it.

    LLaVA's own processor counts the tokens of an image by the padded batch, and so cannot take images of unlike sizes
    together; this one counts by each image's own size.

    `processor(images=[[a, b], [c]], text=["<image> <image> ...", "<image> ..."], padding=True, return_tensors="pt")`
    gives `input_ids`, `attention_mask`, `pixel_values` (B, C, Hmax, Wmax) and `image_sizes` (B, 2).

    Args:
        image_processor: A `TuringViTImageProcessor` with `return_image_sizes=True`, whose `merge_size` is that of the
            token reduction, 1 if there is none.
        tokenizer: That of the language model; it has the image token.
        chat_template: A Jinja template, in place of the tokenizer's.
        image_token: What stands for an image in a text.
        context_length: Most tokens the language model takes; longer texts are refused before the model sees them.
            None refuses nothing.

    Raises:
        ValueError: The image processor gives no sizes, or the tokenizer does not know the image token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | dict | None = None,
        image_token: str = "<image>",
        context_length: int | None = None,
        **kwargs: Any,
    ):
        if not isinstance(image_processor, TuringViTImageProcessor) or not image_processor.return_image_sizes:
            raise ValueError("image_processor must be a TuringViTImageProcessor with return_image_sizes=True")
        token_id = tokenizer.convert_tokens_to_ids(image_token)
        if token_id is None or token_id == tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer does not know image_token={image_token!r}")
        self.image_token = image_token
        self.image_token_id = token_id
        self.context_length = context_length
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def patch_size(self) -> int:
        """Side in pixels of what one image token stands for."""
        return self.image_processor.patch_size * self.image_processor.merge_size

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Return the model's inputs, each image token in a text multiplied to the number of the image's features.

        Args:
            images: One image, a list, or a list of lists, one for each text, in the order of the texts.
            text: One text or several; each image token in them stands for an image.
            **kwargs: Options of the tokenizer and of the image processor.

        Raises:
            ValueError: There are more or fewer images than image tokens, or a text with its images is longer than
                `context_length`.
        """
        inputs = super().__call__(images=images, text=text, **kwargs)
        if self.context_length is not None and "input_ids" in inputs:
            self._check_length(inputs)
        return inputs

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """Return the image token as often as this image has features."""
        height, width = (int(side) for side in image_inputs["image_sizes"][image_idx])
        return self.image_token * ((height // self.patch_size) * (width // self.patch_size))

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **kwargs: Any) -> MultiModalData:
        """Return how many tokens images of these (height, width) take, without touching a pixel."""
        if image_sizes is None:
            return MultiModalData()
        options = self._merge_kwargs(**kwargs)["images_kwargs"]
        options = {name: value for name, value in options.items() if name in self.image_processor._valid_kwargs_names}
        merged = self.image_processor.merge_size**2
        tokens = [
            self.image_processor.get_number_of_image_patches(height, width, options) // merged
            for height, width in image_sizes
        ]
        return MultiModalData(num_image_tokens=tokens, num_image_patches=[1] * len(tokens))

    def _check_length(self, inputs: BatchFeature) -> None:
        for index, ids in enumerate(inputs["input_ids"]):
            ids = ids.tolist() if hasattr(ids, "tolist") else ids
            if len(ids) > self.context_length:
                raise ValueError(
                    f"text {index} has {len(ids)} tokens, {ids.count(self.image_token_id)} of them for images; the "
                    f"language model takes {self.context_length}. Give fewer or smaller images: the image processor's "
                    f"max_patches, now {self.image_processor.max_patches}, bounds each"
                )


__all__ = ["TuringViTLlavaProcessor"]
