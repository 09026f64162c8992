# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks of curation run; how fast anything is decides nothing here."""

import importlib
import json
from pathlib import Path

import cv2
import pytest


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


def test_filters_are_timed(tmp_path, monkeypatch):
    filters = importlib.import_module("curation_filters")
    # processes of their own take ten seconds to start
    monkeypatch.setattr(filters.multiprocessing, "get_context", lambda method: InThisProcess)
    filters.main(["--smoke", "--json", str(tmp_path / "figures.json")])
    content = json.loads((tmp_path / "figures.json").read_text())
    assert len(content["tables"]) == 2
    assert content["goals"]["pictures on 2 cores at a megapixel"]["value"] > 0


@pytest.mark.slow  # four processes that import everything
def test_the_command_is_timed_with_one_worker_and_two(tmp_path):
    filters = importlib.import_module("curation_filters")
    filters.main(["--smoke", "--end-to-end", "8", "--json", str(tmp_path / "figures.json")])
    content = json.loads((tmp_path / "figures.json").read_text())
    for figures in content["command"].values():
        parts = ("start", "measure", "deduplicate", "outcomes", "end")
        assert figures["seconds"] == pytest.approx(sum(figures[name] for name in parts))
        assert all(figures[name] >= 0 for name in parts)
        assert figures["shards"] > 0


class InThisProcess:
    """A pool without processes."""

    def __init__(self, *arguments):
        pass

    @classmethod
    def Pool(cls, *arguments):  # noqa: N802
        return cls()

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        return None

    def map(self, function, parts, chunksize):
        return [function(part) for part in parts]
