# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The video processor: clips as frames, arrays or files to packed patches, a grid row (frames, rows, columns) each.

transformers' `BaseVideoProcessor` refuses to exist without torchvision. What it adds to `VideoProcessorMixin`, the
saving, loading and call contract, is torchvision's way of handling pixels; here the image processor does that.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoInput, VideoMetadata

from turingvit_hf.processing.batching import check_images, pack, resize_images, resized_sizes
from turingvit_hf.processing.geometry import uniform_frame_indices
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.pixels import height_and_width
from turingvit_hf.processing.video_files import read_frames


DEFAULT_NUM_FRAMES = 8  # technical report, stage 4

Clip = list[Any] | np.ndarray | torch.Tensor


class TuringViTVideoProcessorKwargs(VideosKwargs, total=False):
    r"""
    patch_size (`int`, *optional*, defaults to 16):
        The side of a square patch in pixels.
    merge_size (`int`, *optional*, defaults to 1):
        Sides are rounded to multiples of `patch_size * merge_size`, for a consumer that pools `merge_size`² tokens.
    resolution (`str`, *optional*, defaults to `"native"`):
        `"native"`, `"bounded"` or `"fixed"`, as in the image processor; all frames of a clip share one size.
    min_side (`int`, *optional*, defaults to 256):
        The least longer side in pixels under `"bounded"`.
    max_side (`int`, *optional*, defaults to 512):
        The greatest longer side in pixels under `"bounded"`.
    max_patches (`int`, *optional*, defaults to 9216):
        The most patches a frame may have under `"native"` and `"bounded"`.
    seed (`int`, *optional*):
        For training under `"bounded"`: draws a longer side for each clip.
    check_finite (`bool`, *optional*, defaults to `False`):
        Whether to look for NaN and infinite pixels in float frames, and refuse them.
    """

    patch_size: int
    merge_size: int
    resolution: str
    min_side: int
    max_side: int
    max_patches: int
    seed: int | None
    check_finite: bool


class TuringViTVideoProcessor(VideoProcessorMixin, TuringViTImageProcessor):
    """Prepares clips for TuringViT: each frame as `TuringViTImageProcessor` prepares an image, all packed.

    Gives `image_grid_thw` (N, 3) int64, a row (frames, rows, columns) per clip, and `pixel_values` (T, C·p·p) float32,
    frame after frame. The keys are those of images because the tower takes a clip where it takes an image.

    `do_sample_frames` says which frames: None (the default) samples files, and what is already frames only where the
    call names `num_frames` or `fps`; True samples both; False takes every frame there is. Sampling keeps `num_frames`
    (8 unless said otherwise) or `fps` frames a second, evenly spread; a clip with fewer frames gives all it has.
    """

    valid_kwargs = TuringViTVideoProcessorKwargs
    model_input_names = ["pixel_values", "image_grid_thw"]
    do_sample_frames = None
    num_frames = None
    fps = None
    return_metadata = False

    def __init__(self, **kwargs: Unpack[TuringViTVideoProcessorKwargs]):
        super().__init__(**kwargs)

    def preprocess(self, videos: VideoInput, **kwargs: Unpack[TuringViTVideoProcessorKwargs]) -> BatchFeature:
        """Return the clips as model inputs.

        Args:
            videos: one clip or any nesting of lists of clips. A clip is a list of frames (PIL, NumPy, torch), an array
                (frames, H, W, C) or (frames, C, H, W), or the path of a video file, which PyAV decodes. A lone image
                is a clip of one frame.
            **kwargs: any of `TuringViTVideoProcessorKwargs`, for this call only. `video_metadata` holds a
                `VideoMetadata` or dict per clip; `fps` needs its `fps` for clips that are not files.

        Raises:
            ValueError: for no clips, unlike frames in a clip, contradicting options, and what the image processor
                refuses, naming clip and frame.
            ImportError: for a file, where PyAV is not installed.
        """
        if kwargs.get("num_frames") is not None or kwargs.get("fps") is not None:
            # what the call asks for replaces what is stored, also the other way to say it
            kwargs = {"num_frames": None, "fps": None, "do_sample_frames": True} | kwargs
        return super().preprocess(videos, **self._without_foreign_size(kwargs))

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs: Any
    ) -> list[int]:
        """Return the indices of the frames to keep of a clip with `metadata.total_num_frames` frames."""
        if num_frames is None and fps is None:
            num_frames = DEFAULT_NUM_FRAMES
        return uniform_frame_indices(
            metadata.total_num_frames, num_frames=num_frames, fps=fps, source_fps=metadata.fps
        )

    def _decode_and_sample_videos(
        self,
        videos: VideoInput,
        video_metadata: VideoMetadata | dict | list | None,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Callable | None = None,
    ) -> tuple[list[Clip], list[VideoMetadata]]:
        clips, given = list(_clips(videos)), list(_metadata(video_metadata))
        if not clips:
            raise ValueError("expected at least one clip, got none")
        if given and len(given) != len(clips):
            raise ValueError(f"got {len(clips)} clips, but video_metadata for {len(given)}")
        choose_of_file = sample_indices_fn
        if do_sample_frames is None:
            choose_of_file = partial(self.sample_frames, num_frames=self.num_frames, fps=self.fps)
        sampled: list[tuple[Clip, VideoMetadata]] = []
        for index, clip in enumerate(clips):
            try:
                if isinstance(clip, str | os.PathLike):
                    sampled.append(read_frames(clip, choose_of_file))
                else:
                    sampled.append(_sample(clip, dict(given[index]) if given else {}, sample_indices_fn))
            except ValueError as error:
                raise ValueError(f"clip {index}: {error}") from error
        return [clip for clip, _ in sampled], [metadata for _, metadata in sampled]

    def _prepare_input_videos(
        self,
        videos: list[Clip],
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        device: str | torch.device | None = None,
    ) -> list[list[np.ndarray | Image.Image]]:
        prepared = []
        for index, clip in enumerate(videos):
            frames = []
            for number, frame in enumerate(clip):
                try:
                    frames.append(self.process_image(frame, do_convert_rgb, input_data_format, as_picture=True))
                except ValueError as error:
                    raise ValueError(f"clip {index}, frame {number}: {error}") from error
                if (size := height_and_width(frames[-1])) != height_and_width(frames[0]):
                    raise ValueError(
                        f"clip {index}, frame {number} has {size} pixels, its first frame has "
                        f"{height_and_width(frames[0])}: the frames of a clip share one size"
                    )
            prepared.append(frames)
        return prepared

    def _preprocess(
        self,
        videos: list[list[np.ndarray | Image.Image]],
        do_resize: bool | None,
        resample: PILImageResampling | int | None,
        return_tensors: str | TensorType | None,
        **options: Any,
    ) -> BatchFeature:
        clip_sizes: list[tuple[int, int] | None] = [None] * len(videos)
        if do_resize:
            clip_sizes = [*resized_sizes([height_and_width(clip[0]) for clip in videos], options)]
        sizes = [size for clip, size in zip(videos, clip_sizes, strict=True) for _ in clip]
        frames = [frame for clip in videos for frame in clip]
        pixels = resize_images(frames, sizes, self.resample if resample is None else resample)
        names = [f"clip {index}, frame {number}" for index, clip in enumerate(videos) for number in range(len(clip))]
        check_images(names, pixels, options)
        if options["do_rescale"]:
            self._warn_of_scaled_floats(pixels)
        arrays = iter(pixels)
        return BatchFeature(
            data=pack([[next(arrays) for _ in clip] for clip in videos], options), tensor_type=return_tensors
        )


def _clips(videos: Any) -> Iterator[Clip | str | os.PathLike]:
    """Yield the clips of any nesting: paths, arrays with a frame dimension, lists of frames."""
    if isinstance(videos, str | os.PathLike):
        yield videos
    elif _is_frame(videos):
        yield [videos]
    elif isinstance(videos, np.ndarray | torch.Tensor):
        if videos.ndim < 4:
            raise ValueError(f"an array of shape {tuple(videos.shape)} is no clip")
        if videos.ndim == 4:
            yield videos
        else:
            for clip in videos:
                yield from _clips(clip)
    elif isinstance(videos, list | tuple):
        if videos and all(_is_frame(frame) for frame in videos):
            yield list(videos)
        else:
            for clip in videos:
                yield from _clips(clip)
    else:
        raise ValueError(f"expected clips as lists of frames, arrays or paths, got {type(videos)}")


def _is_frame(candidate: Any) -> bool:
    if isinstance(candidate, np.ndarray | torch.Tensor):
        return candidate.ndim in (2, 3)
    return isinstance(candidate, Image.Image)


def _metadata(video_metadata: Any) -> Iterator[Mapping]:
    if isinstance(video_metadata, Mapping):
        yield video_metadata
    else:
        for entry in video_metadata or ():
            yield from _metadata(entry)


def _sample(clip: Clip, given: dict[str, Any], choose: Callable | None) -> tuple[Clip, VideoMetadata]:
    """Return the chosen frames of a clip that is already frames, and what is known of it."""
    if len(clip) == 0:
        raise ValueError("there are no frames in it")
    metadata = VideoMetadata(**(given | {"total_num_frames": len(clip)}))
    metadata.frames_indices = choose(metadata=metadata) if choose else list(range(len(clip)))
    return [clip[index] for index in metadata.frames_indices], metadata
