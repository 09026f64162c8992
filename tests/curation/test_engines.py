# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Engines have no part in what comes of a run: one worker, four, and Ray give the same bytes."""

import os

import pytest

from tests.curation.run_cases import make_config, write_bad_rows, write_listing, write_pictures
from turingvit_hf.curation.engines import EngineOptions
from turingvit_hf.curation.engines.local import LocalEngine
from turingvit_hf.curation.engines.ray import ContrastActor
from turingvit_hf.curation.optional import is_installed
from turingvit_hf.curation.runs import run
from turingvit_hf.errors import InputError


NUM_PICTURES = 24


class DyingStep:
    """Ends its process, as a machine does that is out of memory."""

    def __call__(self, batch):
        os._exit(9)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    base = tmp_path_factory.mktemp("engines")
    folder = base / "pictures"
    rows = write_pictures(folder, NUM_PICTURES)
    rows += [{"file_name": name, "caption": "A bad one."} for name in write_bad_rows(folder)]
    write_listing(folder, rows)
    config = make_config(folder, log=base / "log")
    run(config, base / "one")
    return config, base, (base / "one" / "rows.parquet").read_bytes()


@pytest.mark.slow
def test_four_workers_are_one(case):
    config, base, expected = case
    run(config, base / "four", engine=EngineOptions(num_workers=4))
    assert (base / "four" / "rows.parquet").read_bytes() == expected
    candidates = (base / "four" / "candidates.parquet").read_bytes()
    assert candidates == (base / "one" / "candidates.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("ray"), reason="ray is not installed: pip install 'turingvit_hf[ray]'")
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_ray_is_one_worker(case, monkeypatch):
    config, base, expected = case
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    options = EngineOptions("ray", num_workers=2, num_cpus={"": 0.5, "embed": 1})
    run(config, base / "ray", engine=options)
    assert (base / "ray" / "rows.parquet").read_bytes() == expected


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("ray"), reason="ray is not installed: pip install 'turingvit_hf[ray]'")
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_gpus_of_a_stage_are_asked_for_by_its_workers(case, monkeypatch):
    import ray

    config, base, expected = case
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    asked = {}
    map_batches = ray.data.Dataset.map_batches

    def recorded(self, worker, **options):
        stage = "score" if worker is ContrastActor else "shards"
        asked.setdefault(stage, set()).add(options["num_gpus"])
        return map_batches(self, worker, **options)

    monkeypatch.setattr(ray.data.Dataset, "map_batches", recorded)
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        run(config, base / "gpus", engine=EngineOptions("ray", num_gpus={"score": 0.5, "": 0.25}))
    finally:
        ray.shutdown()
    assert asked == {"score": {0.5}, "shards": {0.0, 0.25}}  # measuring has no use for one
    assert (base / "gpus" / "rows.parquet").read_bytes() == expected


@pytest.mark.skipif(is_installed("ray"), reason="ray is installed")
def test_without_ray_the_extra_is_named(case):
    config, base, _ = case
    with pytest.raises(InputError, match=r"pip install 'turingvit_hf\[ray\]'"):
        run(config, base / "no-ray", engine=EngineOptions("ray"))


@pytest.mark.slow
def test_what_a_worker_finds_at_fault_is_one_line(tmp_path):
    write_listing(tmp_path / "pictures", write_pictures(tmp_path / "pictures", 20))
    broken = make_config(
        tmp_path / "pictures", embed={"scorer": {"kind": "transformers", "model": str(tmp_path / "nothing")}}
    )
    with pytest.raises(InputError, match="nothing"):
        run(broken, tmp_path / "run", engine=EngineOptions(num_workers=2))


@pytest.mark.slow
def test_a_worker_that_dies_among_the_scores_is_one_line():
    with (
        LocalEngine(EngineOptions(num_workers=2)) as engine,
        pytest.raises(InputError, match="a worker died, perhaps for want of memory"),
    ):
        list(engine.contrast(DyingStep(), 3))
