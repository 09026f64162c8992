# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The same small pictures and captions in each form that data come in, for the tests of sources and readers."""

import csv
import io
import json
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


NUM_PICTURES = 60
FORMS = ("folder jsonl", "folder csv", "classes", "jsonl", "parquet", "webdataset")


def picture(number: int) -> Image.Image:
    """Picture number `number`, whose size and colors are its own."""
    width, height = 16 + (number * 37) % 80, 16 + (number * 53) % 64
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def caption(number: int) -> str:
    """The caption of a picture."""
    return f"picture number {number}"


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write(form: str, folder: Path, num_pictures: int = NUM_PICTURES, num_shards: int = 3) -> Path:
    """Write the pictures in one of `FORMS` into a new folder; the path to give as a source."""
    folder.mkdir(parents=True)
    if form == "parquet":
        return _write_parquet(folder, num_pictures, num_shards)
    if form == "webdataset":
        return _write_tars(folder, num_pictures, num_shards)
    names = []
    for number in range(num_pictures):
        path = folder / (f"class_{number % 3}" if form == "classes" else "pictures") / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        picture(number).save(path)
        names.append(str(path.relative_to(folder)))
    rows = [{"file_name": name, "caption": caption(number)} for number, name in enumerate(names)]
    if form in ("folder jsonl", "jsonl"):
        path = folder / ("metadata.jsonl" if form == "folder jsonl" else "list.jsonl")
        path.write_text("\n".join(map(json.dumps, rows)))
        return folder if form == "folder jsonl" else path
    if form == "folder csv":
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "caption"])
            writer.writeheader()
            writer.writerows(rows)
    return folder


def _write_parquet(folder: Path, num_pictures: int, num_shards: int) -> Path:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    for shard in range(num_shards):
        numbers = range(shard, num_pictures, num_shards)
        table = pyarrow.table(
            {
                "image": [{"bytes": encoded(picture(number)), "path": None} for number in numbers],
                "caption": [caption(number) for number in numbers],
            },
            schema=features.arrow_schema,
        )
        pyarrow.parquet.write_table(table, folder / f"{shard}.parquet", row_group_size=7)
    return folder


def _write_tars(folder: Path, num_pictures: int, num_shards: int) -> Path:
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard, num_pictures, num_shards):
                add_to_tar(tar, f"{number:03}.png", encoded(picture(number)))
                if number % 2:
                    add_to_tar(tar, f"{number:03}.txt", caption(number).encode())
                else:
                    add_to_tar(tar, f"{number:03}.json", json.dumps({"txt": caption(number), "id": number}).encode())
    return folder


def write_videos(folder: Path, num_videos: int, num_frames: int = 6) -> Path:
    """Write short videos of several sizes with captions into a new folder, every fifth of them damaged."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(num_videos):
        path = folder / f"{number}.mp4"
        rows.append({"file_name": path.name, "caption": f"clip number {number}"})
        if number % 5 == 4:
            path.write_bytes(b"no video")
            continue
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=Fraction(10))
            stream.width, stream.height, stream.pix_fmt = 32 + 16 * (number % 3), 48, "yuv420p"
            for shade in range(num_frames):
                pixels = np.full((stream.height, stream.width, 3), 40 * shade, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
            container.mux(stream.encode(None))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def add_to_tar(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    """Put a file into an open tar."""
    member = tarfile.TarInfo(name)
    member.size = len(body)
    tar.addfile(member, io.BytesIO(body))
