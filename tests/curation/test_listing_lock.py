# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Processes that begin one run at the same moment: one lists the sources, the others take what it found."""

import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.curation.run_cases import make_config, write_pictures
from tests.processes import PATIENCE
from turingvit_hf.curation import beginning, listing_lock
from turingvit_hf.curation.beginning import begin
from turingvit_hf.errors import InputError
from turingvit_hf.files.owners import this_machine


@pytest.fixture
def config(tmp_path):
    write_pictures(tmp_path / "pictures", 5)
    return make_config(tmp_path / "pictures", shard_size=2)


WAITING = "another process is listing the sources"


def wait_for(condition):
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def listings(monkeypatch):
    """What is called when a listing begins, which goes on when all of it has returned."""
    called, list_shards = [], beginning.list_shards

    def watched(*arguments):
        for function in called:
            function()
        return list_shards(*arguments)

    monkeypatch.setattr(beginning, "list_shards", watched)
    return called


def lock_of(folder, number=0, **owner):
    folder.mkdir(exist_ok=True)
    path = folder / f"listing.{number:03d}.lock"
    path.write_text(json.dumps({"machine": "another", "pid": 1, "token": "x"} | owner))
    return path


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_of_two_at_once_one_lists_and_the_other_waits(config, tmp_path, listings, caplog):
    caplog.set_level(logging.INFO)
    begun = []
    listings += [lambda: begun.append(None), lambda: wait_for(lambda: caplog.text.count(WAITING) == 2)]
    with ThreadPoolExecutor(3) as threads:
        runs = list(threads.map(lambda _: begin(tmp_path / "out", config), range(3)))
    assert len(begun) == 1
    assert all(run.shards == runs[0].shards and len(run.shards) == 3 for run in runs)
    assert left_in(tmp_path / "out") == ["config.yaml", "run.json", "sources"]


def test_one_with_another_config_is_told_so_when_it_has_waited(config, tmp_path, listings, caplog):
    caplog.set_level(logging.INFO)
    other = make_config(tmp_path / "pictures", shard_size=3)
    with ThreadPoolExecutor(2) as threads:
        begun = []
        listings += [lambda: begun.append(None), lambda: wait_for(lambda: WAITING in caplog.text)]
        first = threads.submit(begin, tmp_path / "out", config)
        wait_for(lambda: begun)
        second = threads.submit(begin, tmp_path / "out", other)
        assert len(first.result().shards) == 3
        with pytest.raises(InputError, match="shard_size was 2, is 3"):
            second.result()


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock_of(tmp_path / "out", machine=this_machine(), pid=gone.pid)
    (tmp_path / "out" / "sources.listing.000.tmp").mkdir()
    begin(tmp_path / "out", config)
    assert WAITING not in caplog.text
    assert left_in(tmp_path / "out") == ["config.yaml", "run.json", "sources"]


@pytest.mark.parametrize("content", ["", "{"])
def test_a_lock_that_was_never_written_out_is_taken_over(config, tmp_path, monkeypatch, content):
    monkeypatch.setattr(listing_lock, "PATIENCE", 0.3)
    lock_of(tmp_path / "out").write_text(content)
    begin(tmp_path / "out", config)
    assert left_in(tmp_path / "out") == ["config.yaml", "run.json", "sources"]


def test_on_another_machine_signs_of_life_count(config, tmp_path, listings, monkeypatch):
    path, now, begun = lock_of(tmp_path / "out"), [0.0], []
    alive_until = 3 * listing_lock.PATIENCE

    def sleep(seconds):
        now[0] += seconds
        if now[0] < alive_until:
            os.utime(path, (now[0], now[0]))

    monkeypatch.setattr(listing_lock, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    listings.append(lambda: begun.append(now[0]))
    begin(tmp_path / "out", config)
    assert begun == [pytest.approx(alive_until + listing_lock.PATIENCE, abs=2 * listing_lock.POLL)]
    assert left_in(tmp_path / "out") == ["config.yaml", "run.json", "sources"]


def test_who_was_taken_to_be_gone_writes_nothing(config, tmp_path, monkeypatch):
    list_shards, out = beginning.list_shards, tmp_path / "out"

    def overtaken(*arguments):
        lock_of(out, number=1)
        return list_shards(*arguments)

    monkeypatch.setattr(beginning, "list_shards", overtaken)
    with pytest.raises(InputError, match="another process took over the listing"):
        begin(out, config)
    assert not (out / "run.json").exists()
    assert (out / "listing.001.lock").exists()
    assert not (out / "listing.000.lock").exists()


def test_the_owner_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(listing_lock, "BEAT", 0.05)
    with listing_lock.listing_lock(tmp_path) as lock:
        os.utime(lock.path, (0, 0))
        wait_for(lambda: lock.path.stat().st_mtime > 0)
    assert left_in(tmp_path) == []


def test_a_listing_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image files"):
        begin(tmp_path / "out", make_config(tmp_path / "empty"))
    assert not (tmp_path / "out").exists()
