# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Scorers and the step of embeddings, with dual encoders of three families."""

import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoModel, AutoProcessor

from tests.curation import tiny_models
from tests.curation.run_cases import make_config, picture, write_listing, write_pictures
from tests.curation.stand_ins import HashScorer
from turingvit_hf.curation.models.scorers import TransformersScorer
from turingvit_hf.curation.runs import run
from turingvit_hf.curation.steps.embeddings import CUT_FOR_SCORER, EmbeddingStep
from turingvit_hf.curation.steps.videos import MeasureConsistency
from turingvit_hf.curation.text import entropy
from turingvit_hf.errors import InputError


SAVED = {
    "clip": tiny_models.save_clip,
    "siglip": tiny_models.save_siglip,
    "turingvit": tiny_models.save_dual_encoder,
}
TEXTS = ["a red dog", "a cat on a tree", "sky"]
LONG = "a cat and a dog under a tree " * 4
# float16 has 11 bits of mantissa, and a batch may round elsewhere than a single picture
TOLERANCE = 2e-3


def pictures() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(40, 80), (64, 33), (20, 20), (7, 5)]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorers")
    return {family: save(folder / family) for family, save in SAVED.items()}


@pytest.fixture(params=SAVED)
def scorer(request, folders):
    return TransformersScorer(str(folders[request.param]), device="cpu", batch_size=2)


def test_embeddings_are_unit_vectors_in_float16(scorer):
    images, texts = scorer.embed_images(pictures()), scorer.embed_texts(TEXTS)
    for vectors, number in ((images, 4), (texts.vectors, 3)):
        assert vectors.dtype == np.float16
        assert vectors.shape[0] == number
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=TOLERANCE)
    assert images.shape[1] == texts.vectors.shape[1]


def test_embeddings_are_those_of_the_model_itself(scorer):
    model, processor = (kind.from_pretrained(scorer.model) for kind in (AutoModel, AutoProcessor))
    padding = "max_length" if "siglip" in scorer.model else True
    for index, image in enumerate(pictures()):
        inputs = processor.image_processor([image], return_tensors="pt", input_data_format="channels_last")
        expected = model.get_image_features(**inputs).pooler_output[0].detach().numpy()
        vector = scorer.embed_images(pictures())[index]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=TOLERANCE)
    for index, text in enumerate(TEXTS):
        inputs = processor.tokenizer([text], padding=padding, return_tensors="pt")
        expected = model.get_text_features(**inputs).pooler_output[0].detach().numpy()
        vector = scorer.embed_texts(TEXTS).vectors[index]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=TOLERANCE)


def test_tau_is_the_inverse_of_the_models_scale(scorer):
    model = AutoModel.from_pretrained(scorer.model)
    assert scorer.tau == pytest.approx(1 / float(model.logit_scale.detach().exp()))
    assert scorer.is_sigmoid is not scorer.model.endswith("/clip")


def test_texts_that_are_too_long_are_cut_and_told(scorer):
    embedded = scorer.embed_texts([TEXTS[0], LONG, LONG + "sky"])
    assert embedded.is_cut == [False, True, True]
    np.testing.assert_array_equal(embedded.vectors[1], embedded.vectors[2])


def test_a_scorer_goes_to_another_process(scorer):
    before = scorer.embed_texts(TEXTS).vectors
    again = pickle.loads(pickle.dumps(scorer))
    np.testing.assert_array_equal(again.embed_texts(TEXTS).vectors, before)


def test_our_own_sees_images_at_their_own_resolution(folders):
    scorer = TransformersScorer(str(folders["turingvit"]), device="cpu", max_patches=150)
    large = np.zeros((40, 80, 3), np.uint8)  # 200 patches of 4 x 4, more than a batch may have
    seen = []
    network = scorer._loaded().network
    encode = network.get_image_features

    def watch(**inputs):
        seen.append(inputs["image_grid_thw"].tolist())
        return encode(**inputs)

    network.get_image_features = watch
    scorer.embed_images([large, large[:20, :20], large[:20, :40], large[:4, :4]])
    assert seen == [[[1, 10, 20]], [[1, 5, 5], [1, 5, 10], [1, 1, 1]]]


def test_lower_case_is_for_encoders_that_were_trained_so(folders):
    scorer = TransformersScorer(str(folders["clip"]), device="cpu", lowercase=True)
    vectors = scorer.embed_texts(["A RED dog", "a red dog"]).vectors
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_what_is_no_dual_encoder_is_an_error_of_one_line(tmp_path, folders):
    with pytest.raises(InputError, match="cannot load"):
        TransformersScorer(str(tmp_path / "missing"), device="cpu").embed_texts(["a"])
    model = AutoModel.from_pretrained(folders["turingvit"]).text_model
    model.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="is no dual encoder: BertModel has no get_image_features"):
        TransformersScorer(str(tmp_path / "bert"), device="cpu").embed_texts(["a"])


def candidate(text: str) -> dict:
    return {"text": text, "origin": "raw", "flags": []}


def test_the_step_adds_alignment_entropy_and_flags(folders):
    step = EmbeddingStep(scorer={"model": str(folders["clip"]), "device": "cpu"})
    first, second = pictures()[:2]
    batch = {
        "image": [first, None, second],
        "candidates": [[candidate("a red dog"), candidate(LONG)], [candidate("a cat")], []],
    }
    made = step(batch)
    assert {len(column) for column in made.values()} == {3}
    assert made["image_embedding"][1] is None
    assert [len(vectors) for vectors in made["candidate_embeddings"]] == [2, 1, 0]
    dog, long = made["candidates"][0]
    image, text = made["image_embedding"][0], made["candidate_embeddings"][0][0]
    assert dog["alignment"] == pytest.approx(float(image.astype(np.float32) @ text.astype(np.float32)))
    assert dog["entropy"] == entropy("a red dog")
    assert (dog["flags"], long["flags"]) == ([], [CUT_FOR_SCORER])
    assert made["candidates"][1][0]["alignment"] is None
    assert "alignment" not in batch["candidates"][0][0]  # what came in is as it was
    assert step.tau == pytest.approx(0.07, abs=1e-3)


def test_half_precision_stays_close(folders):
    whole = TransformersScorer(str(folders["clip"]), device="cpu").embed_images(pictures())
    half = TransformersScorer(str(folders["clip"]), device="cpu", dtype="bfloat16").embed_images(pictures())
    np.testing.assert_allclose(half, whole, atol=2**-5)


class Overflowing(HashScorer):
    """As a model in half precision: of red pictures, and of texts about lamps, it gives no numbers."""

    def embed_images(self, images):
        vectors = super().embed_images(images)
        vectors[[image[0, 0].tolist() == [255, 0, 0] for image in images]] = np.nan
        return vectors

    def embed_texts(self, texts):
        embedded = super().embed_texts(texts)
        embedded.vectors[["lamp" in text for text in texts], 0] = np.inf
        return embedded


def test_embeddings_that_are_no_numbers_are_errors_of_their_rows_alone(tmp_path):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 8)
    red = picture(20)
    red.putpixel((0, 0), (255, 0, 0))
    red.save(folder / "002.png")
    rows[5]["caption"] = "A lamp."
    write_listing(folder, rows)
    scorer = {"scorer": {"kind": f"{__name__}:Overflowing"}}
    outcomes = run(make_config(folder, embed=scorer), tmp_path / "run")
    assert (outcomes.num_kept, outcomes.errors) == (6, {"embed": 2})
    found = {row["key"]: row for row in pq.read_table(tmp_path / "run" / "rows.parquet").to_pylist()}
    assert found["002.png"]["error"] == "hash: the embedding of a picture is no number"
    assert found["005.png"]["error"] == "hash: the embedding of a candidate is no number"
    assert all(np.isfinite([row["A"], row["G"]]).all() for row in found.values() if row["status"] == "kept")


def test_frames_whose_embeddings_are_no_numbers_are_errors_of_their_clips():
    frames = [np.asarray(picture(seed)) for seed in range(4)]
    red = np.zeros_like(frames[0])
    red[0, 0] = (255, 0, 0)
    found = MeasureConsistency(scorer=Overflowing())({"image": [tuple(frames[:2]), (frames[2], red), None]})
    assert [error is None for error in found["error"]] == [True, False, True]
    assert found["adjacent_min"][0] is not None
    assert found["adjacent_min"][1:] == [None, None]
