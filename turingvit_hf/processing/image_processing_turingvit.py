# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The image processor: pictures of any kind and size to packed patches, one dense batch, or a padded batch."""

import copy
import inspect
import os
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, ImageInput, PILImageResampling
from transformers.processing_utils import ImagesKwargs
from transformers.utils import TensorType, logging

from turingvit_hf.processing.batching import check_images, pack, resize_images, resized_size, resized_sizes, stack
from turingvit_hf.processing.geometry import RESOLUTIONS
from turingvit_hf.processing.pixels import flatten_images, height_and_width, keep_picture, open_image, to_pixels


logger = logging.get_logger(__name__)


def _feature_pipeline_calls() -> bool:
    """Return whether transformers' pipeline for features of images is what called the image processor.

    Its calls look like anyone's, and it drops results without an error where the tower's first dimension is not the
    batch; so the callers' frames are read, and only where a flag was set that leads there.
    """
    frame = inspect.currentframe()
    for _ in range(5):  # this function, preprocess, __call__ and the pipeline's own preprocess, and one to spare
        frame = frame.f_back if frame else None
        if frame and getattr(frame.f_locals.get("self"), "task", None) == "image-feature-extraction":
            return True
    return False


class TuringViTImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    patch_size (`int`, *optional*, defaults to 16):
        The side of a square patch in pixels.
    merge_size (`int`, *optional*, defaults to 1):
        Sides are rounded to multiples of `patch_size * merge_size`, for a consumer that pools `merge_size`² tokens.
    resolution (`str`, *optional*, defaults to `"native"`):
        `"native"` keeps size and aspect ratio and shrinks only above `max_patches`; `"bounded"` keeps the aspect ratio
        and brings the longer side into [`min_side`, `max_side`]; `"fixed"` resizes to `size`.
    min_side (`int`, *optional*, defaults to 256):
        The least longer side in pixels under `"bounded"`.
    max_side (`int`, *optional*, defaults to 512):
        The greatest longer side in pixels under `"bounded"`.
    max_patches (`int`, *optional*, defaults to 9216):
        The most patches an image may have under `"native"` and `"bounded"`; 9216 is 1536 x 1536 pixels.
    seed (`int`, *optional*):
        For training under `"bounded"`: draws a longer side for each image. The other modes draw nothing.
    do_pack (`bool`, *optional*):
        None packs when the sizes differ and gives one dense batch when they agree; True always packs; False never
        does, and pads where sizes differ.
    return_image_sizes (`bool`, *optional*, defaults to `False`):
        Whether to give the padded form with `image_sizes` even where sizes agree, for LLaVA-style callers. Saved
        with a VLM's processor, and not with an image processor alone.
    check_finite (`bool`, *optional*, defaults to `False`):
        Whether to look for NaN and infinite pixels in float images, and refuse them.
    """

    patch_size: int
    merge_size: int
    resolution: str
    min_side: int
    max_side: int
    max_patches: int
    seed: int | None
    do_pack: bool | None
    return_image_sizes: bool
    check_finite: bool


class TuringViTImageProcessor(PilBackend):
    """Prepares images for TuringViT: (C, H, W) pixels resized by `resolution`, normalized, and packed where needed.

    | flags | `pixel_values` (float32) | also |
    |---|---|---|
    | default, all sizes agree (or one image) | (B, C, H, W) | |
    | default and sizes differ, or `do_pack=True` | (T, C·p·p) | `image_grid_thw` (N, 3) int64 |
    | `do_pack=False` | (B, C, Hmax, Wmax), zeros right and below | `image_sizes` (B, 2) int64 where sizes differ |
    | `return_image_sizes=True` | (B, C, Hmax, Wmax) | `image_sizes` (B, 2) int64, true (height, width) in pixels |

    A patch is flattened channel first, patches are row-major, a grid row is (1, rows, columns). In packed form
    `image_grid_thw` is the first key, since Trainer takes the batch size from the first tensor it finds: there it is
    the number of images. `return_tensors` is `"pt"`, `"np"` or None, the latter two giving NumPy arrays.

    Float images are not quantized by resizing. As in all of transformers, `do_rescale` (the default) expects pixels
    in 0…255, and float images in 0…1 want `do_rescale=False`. PixtralProcessor passes the patches it merges as one
    `patch_size`: leave `merge_size` at 1 for it and count `max_patches` in those.
    """

    valid_kwargs = TuringViTImageProcessorKwargs
    do_resize = True
    size = None
    resample = PILImageResampling.BICUBIC
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_convert_rgb = True
    patch_size = 16
    merge_size = 1
    resolution = "native"
    min_side = 256
    max_side = 512
    max_patches = 9216
    seed = None
    do_pack = None
    return_image_sizes = False
    check_finite = False

    def __init__(self, **kwargs: Unpack[TuringViTImageProcessorKwargs]):
        super().__init__(**kwargs)
        self._validate_preprocess_kwargs(**{name: getattr(self, name) for name in self._valid_kwargs_names})

    @property
    def model_input_names(self) -> list[str]:
        """The keys that the flags promise. Where neither flag is set, a second key comes only with unlike sizes."""
        if self.do_pack:
            return ["pixel_values", "image_grid_thw"]
        return ["pixel_values", "image_sizes"] if self.return_image_sizes else ["pixel_values"]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they are saved; `do_pack=True` is not, and comes back as None.

        Pipelines join the outputs of single images along the first dimension. Packs joined so are one pack again, and
        a pipeline would return a wrong number of results without an error.
        """
        settings = super().to_dict()
        if settings.get("do_pack"):
            settings["do_pack"] = None
        return settings

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Return the files written: `preprocessor_config.json`, where `return_image_sizes=True` becomes False.

        This is the file beside a tower, which pipelines read. With `image_sizes` the tower gives the tokens of a batch
        as one row, (1, T, D), and the pipeline would return a wrong number of results without an error. A VLM's
        processor writes its image processor into its own file, through `to_dict`, and keeps the flag.

        Args:
            save_directory: the folder, made if it does not exist.
            push_to_hub: whether to upload it afterwards.
            **kwargs: passed to transformers' `push_to_hub`.
        """
        if not self.return_image_sizes:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        logger.warning_once(
            "return_image_sizes=True is not saved with an image processor alone, since pipelines on a tower would "
            "return a wrong number of results. Save a VLM's processor as a whole, which keeps it, or pass "
            "return_image_sizes=True to from_pretrained or to the call."
        )
        saved = copy.copy(self)
        saved.return_image_sizes = False
        return saved.save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def preprocess(self, images: ImageInput, **kwargs: Unpack[TuringViTImageProcessorKwargs]) -> BatchFeature:
        """Return the images as model inputs, in the form that the class's table names.

        Args:
            images: one image, a batch array, or any nesting of lists: PIL images of any mode, NumPy arrays or torch
                tensors (H, W), (H, W, C) or (C, H, W), paths, URLs, base64. Nested lists come out flat, in order.
            **kwargs: any of `TuringViTImageProcessorKwargs`, for this call only.

        Raises:
            ValueError: for no images, for options that contradict each other, for an image that is empty, has a wrong
                number of channels or cannot be read, naming its index, and for a form that the pipeline for features
                of images cannot cut into images again.
        """
        for flag in ("do_pack", "return_image_sizes"):
            if kwargs.get(flag, getattr(self, flag)) and _feature_pipeline_calls():
                raise ValueError(
                    f"{flag}=True is not for pipeline('image-feature-extraction'): the tower then runs a batch as one "
                    "row of tokens, and the pipeline would return a wrong number of results. Leave the flag out, or "
                    "call processor and model directly"
                )
        return super().preprocess(images, **self._without_foreign_size(kwargs))

    def get_number_of_image_patches(self, height: int, width: int, images_kwargs: dict | None = None) -> int:
        """Return how many patches an image of `height` x `width` pixels becomes, without touching a pixel.

        `images_kwargs` overrides the processor's options as in a call. A drawn longer side (`seed`) is not applied: it
        depends on the image's place in its batch.
        """
        rows, columns = self.get_grid(height, width, images_kwargs)
        return rows * columns

    def get_grid(self, height: int, width: int, images_kwargs: dict | None = None) -> tuple[int, int]:
        """Return the rows and columns of patches of that image; arguments as in `get_number_of_image_patches`."""
        options = {name: getattr(self, name) for name in self._valid_kwargs_names}
        options = self._standardize_kwargs(**(options | self._without_foreign_size(images_kwargs or {})))
        self._validate_preprocess_kwargs(**options)
        if options["do_resize"]:
            height, width = resized_size((height, width), options)
        return height // options["patch_size"], width // options["patch_size"]

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Return the same nesting with paths, URLs and base64 strings opened in their own mode, not yet in RGB."""
        if isinstance(image_url_or_urls, list | tuple):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if isinstance(image_url_or_urls, str | os.PathLike):
            return open_image(image_url_or_urls)
        return image_url_or_urls

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        as_picture: bool = False,
        **kwargs: Any,
    ) -> np.ndarray | Image.Image:
        """Return one image as (C, H, W), uint8 or float32, or with `as_picture` a picture that is RGB as it is."""
        if as_picture and do_convert_rgb and (picture := keep_picture(image)) is not None:
            return picture
        return to_pixels(image, do_convert_rgb=bool(do_convert_rgb), input_data_format=input_data_format)

    def _prepare_image_like_inputs(self, images: ImageInput, **kwargs: Any) -> list[np.ndarray | Image.Image]:
        prepared = []
        for index, image in enumerate(flatten_images(images)):
            try:
                prepared.append(self.process_image(image, as_picture=True, **kwargs))
            except ValueError as error:
                raise ValueError(f"image {index}: {error}") from error
        return prepared

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        # transformers asks for a size wherever do_resize is set; here the size comes from the image
        super()._validate_preprocess_kwargs(**(kwargs | {"do_resize": None}))
        if kwargs["resolution"] not in RESOLUTIONS:
            raise ValueError(f"unknown resolution {kwargs['resolution']!r}; expected one of {RESOLUTIONS}")
        size = kwargs["size"]
        if size is not None and (kwargs["resolution"] != "fixed" or not (size.height and size.width)):
            raise ValueError(
                f"size={dict(size)} with resolution={kwargs['resolution']!r}: size is a height and a width for "
                "resolution='fixed'; min_side and max_side bound the longer side under 'bounded', and max_patches the "
                "area under 'native'"
            )
        if kwargs.get("do_pack") and kwargs.get("return_image_sizes"):
            raise ValueError("do_pack=True gives image_grid_thw, return_image_sizes=True the padded form: choose one")
        if kwargs["do_center_crop"] or kwargs["do_pad"]:
            raise ValueError("do_center_crop and do_pad are not supported; do_pack=False pads images of unlike sizes")
        if ChannelDimension(kwargs["data_format"] or "channels_first") != ChannelDimension.FIRST:
            raise ValueError(f"pixels come out channels_first, got data_format={kwargs['data_format']!r}")
        if kwargs["do_normalize"] and not np.all(kwargs["image_std"]):
            raise ValueError(f"image_std must not hold a zero, got {kwargs['image_std']}")
        resized_size((1, 1), kwargs)  # refuses patch sizes, sides and budgets that fit no image at all

    def _preprocess(
        self,
        images: list[np.ndarray | Image.Image],
        do_resize: bool | None,
        resample: PILImageResampling | int | None,
        do_pack: bool | None,
        return_image_sizes: bool,
        return_tensors: str | TensorType | None,
        **options: Any,
    ) -> BatchFeature:
        names = [f"image {index}" for index in range(len(images))]
        sizes: list[tuple[int, int] | None] = [None] * len(images)
        if do_resize:
            sizes = [*resized_sizes([*map(height_and_width, images)], options)]
        pixels = resize_images(images, sizes, self.resample if resample is None else resample)
        check_images(names, pixels, options)
        if options["do_rescale"]:
            self._warn_of_scaled_floats(pixels)

        same_size = len({array.shape for array in pixels}) == 1
        if do_pack or (do_pack is None and not return_image_sizes and not same_size):
            data = pack([[array] for array in pixels], options)
        else:
            data = stack(pixels, options, with_sizes=return_image_sizes or not same_size)
        return BatchFeature(data=data, tensor_type=return_tensors)

    @staticmethod
    def _without_foreign_size(kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the call's options; a call that leaves the mode a size was stored for leaves that size behind."""
        return {**kwargs} if kwargs.get("resolution", "fixed") == "fixed" else {"size": None, **kwargs}

    @staticmethod
    def _warn_of_scaled_floats(images: list[np.ndarray]) -> None:
        if any(image.dtype != np.uint8 and 0 < image.max() <= 1 for image in images):
            logger.warning_once(
                "An image of floats in 0...1 is rescaled as if it were in 0...255. Pass do_rescale=False for it."
            )
