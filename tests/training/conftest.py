# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What the tests of training share: a dual encoder that takes milliseconds, its processor, and pairs to feed it."""

import json

import av
import datasets
import numpy as np
import pytest
import torch

from turingvit_hf.modeling.configuration_dual_encoder import TuringViTDualEncoderConfig
from turingvit_hf.modeling.configuration_turingvit import TuringViTConfig
from turingvit_hf.modeling.modeling_dual_encoder import TuringViTDualEncoderModel
from turingvit_hf.processing.image_processing_turingvit import TuringViTImageProcessor
from turingvit_hf.processing.processing_turingvit import TuringViTProcessor
from turingvit_hf.training.collators import ImageTextCollator
from turingvit_hf.training.datasets import load_pairs
from turingvit_hf.training.text import small_text_config, train_tokenizer


@pytest.fixture(scope="session")
def pairs() -> datasets.Dataset:
    """Forty pictures of colored shapes with captions."""
    return load_pairs("shapes", num_examples=40, max_pixels=64 * 64, seed=0)


@pytest.fixture(scope="session")
def processor(pairs) -> TuringViTProcessor:
    """Image processor and a tokenizer for these captions."""
    return TuringViTProcessor(TuringViTImageProcessor(max_patches=16), train_tokenizer(pairs["caption"]))


@pytest.fixture(scope="session")
def collate(processor) -> ImageTextCollator:
    """The collator of that processor."""
    return ImageTextCollator(processor.image_processor, processor.tokenizer)


@pytest.fixture
def model(processor) -> TuringViTDualEncoderModel:
    """A dual encoder with two layers in its tower, one of each kind."""
    torch.manual_seed(0)
    vision_config = TuringViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        layer_types=["linear_attention", "full_attention"],
        pos_embed_rescale=None,
    )
    return TuringViTDualEncoderModel(
        TuringViTDualEncoderConfig(
            vision_config=vision_config,
            text_config=small_text_config(processor.tokenizer, hidden_size=64, num_layers=1),
            projection_dim=16,
            text_pooling="mean",
            logit_bias_init_value=-2.0,
        )
    )


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of eight clips of moving squares, one of them broken, with captions."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number in range(8):
        name = f"clip{number}.mp4"
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for step in range(10):
                frame = np.full((32, 48, 3), 20 * number, np.uint8)
                frame[8:20, 3 * step : 3 * step + 12] = 255 - 20 * number
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        rows.append({"file_name": name, "caption": f"a square of brightness {number} moves right"})
    (folder / "clip3.mp4").write_bytes(b"this is no video")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
