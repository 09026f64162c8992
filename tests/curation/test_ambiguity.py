# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The ambiguity of captions against sums written out in float64."""

import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.special import logsumexp

from turingvit_hf.curation import ambiguity as module
from turingvit_hf.curation.ambiguity import (
    Contrast,
    ContrastBatches,
    alignment,
    ambiguity,
    batch_of_job,
    digests_of,
    mean_ambiguity,
    number_of_jobs,
)
from turingvit_hf.curation.embedding_table import EmbeddingPart, EmbeddingTable, open_table, write_table


POOLS = ("all_candidates", "per_style", "one_per_image")


def unit(vectors):
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_table(num_images=23, num_styles=3, width=16, *, seed=0, closeness=0.6):
    generator = np.random.default_rng(seed)
    images = unit(generator.normal(size=(num_images, width)))
    owners = np.repeat(np.arange(num_images), num_styles)
    captions = unit(closeness * images[owners] + (1 - closeness) * unit(generator.normal(size=(len(owners), width))))
    keys = np.array([f"sample {number}" for number in range(num_images)])
    styles = np.tile(np.arange(num_styles), num_images)
    return EmbeddingTable(keys, images.astype(np.float32), captions.astype(np.float32), owners, styles)


def reference(table, contrast):
    """All pairs of every batch in float64, others' terms multiplied by what the batch lacks; not one_per_image."""
    v, t = unit(table.images), unit(table.captions)
    digests, full = digests_of(table.keys), min(contrast.batch_size, len(table.keys))
    total = np.zeros(len(t))
    for job in range(number_of_jobs(len(v), contrast)):
        images = batch_of_job(digests, contrast, job).images
        lacking = math.log((full - 1) / (len(images) - 1)) if len(images) > 1 else 0
        for m in np.flatnonzero(np.isin(table.owners, images)):
            of_pool = np.flatnonzero(np.isin(table.owners, images))
            if contrast.pool == "per_style":
                of_pool = of_pool[table.styles[of_pool] == table.styles[m]]
            weights = np.where(table.owners[of_pool] == table.owners[m], 0, lacking)
            by_image = logsumexp(t[of_pool] @ v[table.owners[m]] / contrast.tau + weights)
            by_caption = logsumexp(v[images] @ t[m] / contrast.tau + np.where(images == table.owners[m], 0, lacking))
            total[m] += contrast.tau / 2 * (by_image + by_caption)
    return total / contrast.num_batchings


@pytest.mark.parametrize("tau", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 23, 100])
@pytest.mark.parametrize("pool", ["all_candidates", "per_style"])
def test_equals_float64_for_any_batches(pool, batch_size, tau):
    table = make_table()
    contrast = Contrast(tau=tau, batch_size=batch_size, num_batchings=3, pool=pool)
    np.testing.assert_allclose(ambiguity(table, contrast), reference(table, contrast), atol=3e-7, rtol=0)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("blocks", [(1, 1), (3, 5), (2048, 2048)])
def test_blocks_change_nothing(monkeypatch, pool, blocks):
    table, contrast = make_table(), Contrast(tau=0.02, batch_size=12, num_batchings=2, pool=pool)
    whole = ambiguity(table, contrast)
    monkeypatch.setattr(module, "BLOCK_ROWS", blocks[0])
    monkeypatch.setattr(module, "BLOCK_COLUMNS", blocks[1])
    np.testing.assert_allclose(ambiguity(table, contrast), whole, atol=3e-7, rtol=0)


def test_one_per_image_with_one_candidate_is_all_candidates():
    table = make_table(num_styles=1)
    of = {pool: ambiguity(table, Contrast(tau=0.05, batch_size=8, num_batchings=2, pool=pool)) for pool in POOLS}
    np.testing.assert_allclose(of["one_per_image"], of["all_candidates"], atol=3e-7, rtol=0)
    np.testing.assert_allclose(of["per_style"], of["all_candidates"], atol=3e-7, rtol=0)


def test_one_per_image_holds_the_candidate_itself_and_one_of_each_other_image():
    table, contrast = make_table(num_images=2, num_styles=2), Contrast(tau=0.1, num_batchings=1, pool="one_per_image")
    v, t = unit(table.images), unit(table.captions)
    for m, value in enumerate(ambiguity(table, contrast)):
        owner = table.owners[m]
        allowed = [
            0.05 * (logsumexp(t[[m, other]] @ v[owner] / 0.1) + logsumexp(v @ t[m] / 0.1))
            for other in np.flatnonzero(table.owners != owner)
        ]
        assert min(abs(value - expected) for expected in allowed) < 1e-6


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("num_images", [1, 9, 40])
def test_alignment_minus_ambiguity_is_never_positive(pool, num_images):
    # captions that equal their image in half the rows: similarity 1 at the smallest usual temperature
    table = make_table(num_images, closeness=1.0)
    contrast = Contrast(tau=0.01, batch_size=4, num_batchings=5, pool=pool)
    values = ambiguity(table, contrast)
    assert np.isfinite(values).all()
    assert (alignment(table) - values <= 0).all()


def test_equal_vectors_do_not_overflow():
    vectors = np.tile(unit(np.ones((1, 8))), (6, 1)).astype(np.float16)
    table = EmbeddingTable(np.array(list("abcdef")), vectors, vectors, np.arange(6), np.zeros(6, int))
    # six equal terms on both sides: 1 + tau log 6
    values = ambiguity(table, Contrast(tau=0.001, num_batchings=1))
    np.testing.assert_allclose(values, 1 + 0.001 * math.log(6), atol=1e-6)


@pytest.mark.parametrize("pool", POOLS[:2])
def test_order_of_rows_plays_no_part(pool):
    table, contrast = make_table(), Contrast(tau=0.03, batch_size=6, num_batchings=2, pool=pool)
    order = np.random.default_rng(1).permutation(len(table.keys))
    captions = (order[:, None] * 3 + np.arange(3)).ravel()
    shuffled = EmbeddingTable(
        table.keys[order], table.images[order], table.captions[captions], table.owners, table.styles
    )
    np.testing.assert_allclose(ambiguity(shuffled, contrast), ambiguity(table, contrast)[captions], atol=1e-7, rtol=0)


def test_every_image_is_in_one_batch_of_each_batching_and_seeds_differ():
    digests, contrast = (
        digests_of([str(number) for number in range(50)]),
        Contrast(tau=1, batch_size=12, num_batchings=3),
    )
    jobs = [batch_of_job(digests, contrast, job) for job in range(number_of_jobs(50, contrast))]
    for batching in range(3):
        parts = [job.images for job in jobs if job.batching == batching]
        assert sorted(np.concatenate(parts)) == list(range(50))
        assert {len(part) for part in parts} == {10}
    assert len({tuple(sorted(job.images)) for job in jobs}) == len(jobs)
    other = batch_of_job(digests, Contrast(tau=1, batch_size=12, num_batchings=3, seed=1), 0)
    assert set(other.images) != set(jobs[0].images)


@pytest.mark.parametrize(
    ("tau", "closeness"), [(0.2, 0.0), (0.02, 0.6)], ids=["others outweigh the pair", "the pair outweighs others"]
)
def test_smaller_batches_are_made_up_for(tau, closeness):
    """Batches of 500 that stand for 999, against the whole table of 1000."""
    table = make_table(1000, 1, 64, closeness=closeness)
    normalizers = [
        (ambiguity(table, Contrast(tau=tau, batch_size=size, num_batchings=4)) - alignment(table)).mean()
        for size in (999, 1000)
    ]
    # uncorrected they would be tau * log 2 apart in the first case; so would they be in the second, were all terms
    # multiplied by 2 and not those of others alone
    assert abs(normalizers[0] - normalizers[1]) < 0.03 * tau


def write_parts(folder, table):
    num_styles = len(np.unique(table.styles))
    parts = [
        EmbeddingPart(
            list(table.keys[start : start + 5]),
            table.images[start : start + 5],
            table.captions[start * num_styles : (start + 5) * num_styles],
            table.owners[start * num_styles : (start + 5) * num_styles] - start,
            [str(style) for style in table.styles[start * num_styles : (start + 5) * num_styles]],
        )
        for start in range(0, len(table.keys), 5)
    ]
    return write_table(folder, parts)


@pytest.mark.parametrize("pool", POOLS)
def test_one_worker_and_four_give_the_same(tmp_path, pool):
    written = write_parts(tmp_path, make_table(40))
    contrast = Contrast(tau=0.02, batch_size=7, num_batchings=3, pool=pool)
    step = ContrastBatches(tmp_path, contrast)
    jobs = number_of_jobs(40, contrast)
    # jobs in fours to one worker, and one at a time to four; both in order
    alone = [step({"job": list(range(start, min(start + 4, jobs)))}) for start in range(0, jobs, 4)]
    copies = [pickle.loads(pickle.dumps(step)) for _ in range(4)]
    with ThreadPoolExecutor(4) as workers:
        spread = list(workers.map(lambda job: copies[job % 4]({"job": [job]}), range(jobs)))
    joined = [
        mean_ambiguity(
            ((c, g) for columns in results for c, g in zip(columns["captions"], columns["ambiguity"], strict=True)),
            len(written.owners),
            contrast,
        )
        for results in (alone, spread)
    ]
    np.testing.assert_array_equal(joined[0], joined[1])
    np.testing.assert_array_equal(joined[0], ambiguity(open_table(tmp_path), contrast))


def test_tables_that_do_not_fit_together_are_refused(tmp_path):
    table = make_table(4)
    with pytest.raises(ValueError, match="5 keys for 4 images"):
        EmbeddingTable(np.array(list("abcde")), table.images, table.captions, table.owners, table.styles)
    with pytest.raises(ValueError, match="ascend"):
        EmbeddingTable(table.keys, table.images, table.captions, table.owners[::-1], table.styles)
    with pytest.raises(ValueError, match="0 to 3"):
        EmbeddingTable(table.keys, table.images, table.captions, table.owners + 1, table.styles)
    parts = [EmbeddingPart(["a"], np.ones((1, w)), np.ones((1, w)), np.zeros(1, int), ["raw"]) for w in (4, 5)]
    with pytest.raises(ValueError, match="5 numbers after such of 4"):
        write_table(tmp_path, parts)
    with pytest.raises(ValueError, match="tau"):
        Contrast(tau=0.0)
