# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Videos to clips: cut at their shots, read as a few frames each, and measured."""

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from turingvit_hf.curation.models.registry import build
from turingvit_hf.curation.models.scorers import Scorer
from turingvit_hf.curation.steps.base import Batch, Step
from turingvit_hf.curation.steps.decode import changed_text, media_hash
from turingvit_hf.curation.video.motion import MIN_SIDE, measure_consistency, measure_motion, motion_frame_indices
from turingvit_hf.curation.video.shots import cut_into_chunks, find_shots, read_rate
from turingvit_hf.processing.geometry import uniform_frame_indices
from turingvit_hf.processing.video_files import ClipError, read_frames


class CutVideos(Step):
    """Cuts each video into shots, and shots into chunks of nearly equal length.

    It reads `media`. It makes `chunks`: for each chunk `sha256`, over the file and the chunk's place in it,
    `start_ms`, `end_ms`, `first_frame`, `num_frames`, `fps` and `shot`, which become columns of a row of its own;
    `sha256` of the file for a video without chunks; `fault` and `fault_detail` where the file
    holds no frames or no shot is long enough, `error` where reading it failed for a reason that may pass.

    Args:
        adaptive_threshold, min_shot_frames: see `find_shots`.
        min_seconds, max_seconds: see `cut_into_chunks`.
    """

    name = "cut"
    reads = ("media",)

    def __init__(
        self,
        *,
        adaptive_threshold: float = 3.0,
        min_shot_frames: int = 8,
        min_seconds: float = 1.0,
        max_seconds: float = 10.0,
    ):
        self._shots = {"adaptive_threshold": adaptive_threshold, "min_shot_frames": min_shot_frames}
        self._seconds = {"min_seconds": min_seconds, "max_seconds": max_seconds}

    def __call__(self, batch: Batch) -> Batch:
        """Return `sha256`, `chunks`, `fault`, `fault_detail` and `error`; faults that the reader found are kept."""
        size = len(batch["media"])
        faults, details = (batch.get(name) or [None] * size for name in ("fault", "fault_detail"))
        columns: Batch = {name: [] for name in ("sha256", "chunks", "fault", "fault_detail", "error")}
        for media, fault, detail in zip(batch["media"], faults, details, strict=True):
            row = self._cut(media) if fault is None else {"fault": fault, "fault_detail": detail}
            for name, values in columns.items():
                values.append(row.get(name))
        return columns

    def _cut(self, media: bytes | str | None) -> dict[str, Any]:
        if media is None:
            return {"fault": "row has no video"}
        try:
            found: dict[str, Any] = {"sha256": media_hash(media)}
        except OSError as error:
            return {"error": f"cannot read {media}: {error.strerror or error}"}
        try:
            boundaries, fps = find_shots(media, **self._shots), read_rate(media)
        except ClipError as error:
            return found | {"fault": error.reason, "fault_detail": str(error)}
        chunks = cut_into_chunks(boundaries, fps, **self._seconds)
        if not chunks:
            longest = max(stop - start for start, stop in itertools.pairwise(boundaries)) / fps
            return found | {"fault": "no shot is long enough", "fault_detail": f"the longest has {longest:.2f} s"}
        return found | {
            "chunks": [
                {
                    "sha256": chunk_hash(found["sha256"], chunk.first_frame, chunk.num_frames),
                    "start_ms": chunk.start_ms,
                    "end_ms": chunk.end_ms,
                    "first_frame": chunk.first_frame,
                    "num_frames": chunk.num_frames,
                    "fps": chunk.fps,
                    "shot": chunk.shot,
                }
                for chunk in chunks
            ]
        }


class ReadClips(Step):
    """Reads a few frames of each chunk, at the centers of equal stretches.

    It reads `media`, `first_frame`, `num_frames` and, where there is one, `sha256`. It makes `image`, a tuple of uint8
    (H, W, 3) frames, None where they cannot be read; `width` and `height`; and `error`, since its video could be read
    before, and where it is another video now.

    Args:
        num_frames: frames a clip.
    """

    name = "read clips"
    reads = ("media", "first_frame", "num_frames")
    drafts = ("image",)

    def __init__(self, *, num_frames: int = 8):
        self._num_frames = num_frames

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns."""
        columns: Batch = {name: [] for name in ("image", "width", "height", "error")}
        for media, first, count, known in _stretches(batch):
            row = self._read(media, first, count, known)
            for name, values in columns.items():
                values.append(row.get(name))
        return columns

    def _read(self, media: bytes | str, first: int, count: int, known: str | None) -> dict[str, Any]:
        wanted = [first + index for index in uniform_frame_indices(count, num_frames=self._num_frames)]
        try:
            if not is_chunk_of(media, first, count, known):
                return {"error": changed_text("cut")}
            frames = _frames_at(media, wanted)
        except (ClipError, OSError) as error:
            return {"error": f"cannot read frames {wanted[0]} to {wanted[-1]}: {error}"}
        return {"image": tuple(frames), "height": frames[0].shape[0], "width": frames[0].shape[1]}


class MeasureMotion(Step):
    """Measures how clips move, on frames of its own, which follow one another more closely.

    It reads `media`, `first_frame`, `num_frames`, `fps` and, where there is one, `sha256`. It makes `motion` and
    `motion_variation`, see `measure_motion`, `min_side` and `aspect` of the frames, and `error` as `ReadClips` does.

    Args:
        rate: frames a second that are compared.
        max_frames: of a clip.
    """

    name = "motion"
    reads = ("media", "first_frame", "num_frames", "fps")

    def __init__(self, *, rate: float = 8.0, max_frames: int = 33):
        self._rate, self._max_frames = rate, max_frames

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns and `error`."""
        columns: Batch = {name: [] for name in ("motion", "motion_variation", "min_side", "aspect", "error")}
        for (media, first, count, known), fps in zip(_stretches(batch), batch["fps"], strict=True):
            row = self._measure(media, first, count, fps, known) if first is not None else {}
            for name, values in columns.items():
                values.append(row.get(name))
        return columns

    def _measure(self, media: bytes | str, first: int, count: int, fps: float, known: str | None) -> dict[str, Any]:
        wanted, apart = motion_frame_indices(first, count, fps, rate=self._rate, max_frames=self._max_frames)
        try:
            if not is_chunk_of(media, first, count, known):
                return {"error": changed_text("cut")}
            frames = _frames_at(media, wanted)
        except (ClipError, OSError) as error:
            return {"error": f"cannot read frames {wanted[0]} to {wanted[-1]}: {error}"}
        sides = sorted(frames[0].shape[:2])
        shape = {"min_side": sides[0], "aspect": sides[1] / sides[0]}
        # smaller frames have no flow, and are dropped by their side
        return shape | (measure_motion(frames, apart) if sides[0] >= MIN_SIDE else {})


class MeasureConsistency(Step):
    """Measures how alike the frames of clips are, by a scorer's embeddings.

    It reads `image`, the tuple of frames of `ReadClips`. It makes the columns of `measure_consistency`, and `error`
    where the embedding of a frame is no unit vector.

    Args:
        scorer: a model, as `registry.build` takes it or built already.
    """

    name = "consistency"
    reads = ("image",)

    def __init__(self, *, scorer: Any):
        self.scorer: Scorer = build("scorer", scorer)

    def __call__(self, batch: Batch) -> Batch:
        """Return the new columns, None where there are no frames."""
        names = ("adjacent_mean", "adjacent_min", "first_mean", "first_min", "error")
        columns: Batch = {name: [] for name in names}
        for vectors in embed_clips(self.scorer, batch["image"]):
            try:
                row: dict[str, Any] = {} if vectors is None else measure_consistency(vectors)
            except ValueError as error:
                row = {"error": f"{self.scorer.name}: {error}"}
            for name, values in columns.items():
                values.append(row.get(name))
        return columns


def embed_clips(scorer: Scorer, clips: list[tuple[np.ndarray, ...] | None]) -> list[np.ndarray | None]:
    """Return (F, E) float16 unit vectors of the frames of each clip, None where there are none."""
    frames = [frame for clip in clips for frame in clip or ()]
    vectors = iter(scorer.embed_images(frames)) if frames else iter(())
    return [np.stack([next(vectors) for _ in clip]) if clip else None for clip in clips]


def mean_embedding(vectors: np.ndarray | None) -> np.ndarray | None:
    """Return the mean of (F, E) unit vectors as a (E,) float16 unit vector, as stage 4 of pretraining takes clips."""
    if vectors is None:
        return None
    mean = vectors.astype(np.float32).mean(0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float16)


def chunk_hash(file_hash: str, first_frame: int, num_frames: int) -> str:
    """Return what names a chunk: the sha256 in hex over that of its file and its place in it."""
    return hashlib.sha256(f"{file_hash}:{first_frame}+{num_frames}".encode()).hexdigest()


def is_chunk_of(media: bytes | str, first_frame: int, num_frames: int, known_hash: str | None) -> bool:
    """Return whether a video is the one that a chunk was cut from.

    Args:
        media: the video.
        first_frame, num_frames: the chunk's place in it.
        known_hash: the chunk's `chunk_hash` when it was cut; None: nobody knows, which is taken for a yes.

    Raises:
        OSError: the file cannot be read, or not now.
    """
    return known_hash in (None, chunk_hash(media_hash(media), first_frame, num_frames))


def _stretches(batch: Batch) -> Iterator[tuple[Any, Any, Any, str | None]]:
    """The media, first frame, number of frames and known hash of each row."""
    hashes = batch.get("sha256") or [None] * len(batch["media"])
    return zip(batch["media"], batch["first_frame"], batch["num_frames"], hashes, strict=True)


def _frames_at(media: bytes | str, wanted: list[int]) -> list[np.ndarray]:
    frames, _ = read_frames(media, lambda metadata: [index for index in wanted if index < metadata.total_num_frames])
    if not frames:
        raise ClipError("video has no frames", f"none of the frames {wanted} is there any more")
    return [np.ascontiguousarray(frame) for frame in frames]
