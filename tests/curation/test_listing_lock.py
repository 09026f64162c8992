# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Processes that begin one run at the same moment: one lists the sources, the others take what it found."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.curation.run_cases import make_config, write_pictures
from turingvit_hf.curation import beginning, listing_lock
from turingvit_hf.curation.beginning import begin
from turingvit_hf.errors import InputError


@pytest.fixture
def config(tmp_path):
    write_pictures(tmp_path / "pictures", 5)
    return make_config(tmp_path / "pictures", shard_size=2)


@pytest.fixture
def listed(monkeypatch):
    """When listings began; each takes half a second."""
    begun, list_shards = [], beginning.list_shards

    def slow(*arguments):
        begun.append(time.monotonic())
        time.sleep(0.5)
        return list_shards(*arguments)

    monkeypatch.setattr(beginning, "list_shards", slow)
    return begun


def lock_of(folder, number=0, **owner):
    folder.mkdir(exist_ok=True)
    path = folder / f"listing.{number:03d}.lock"
    path.write_text(json.dumps({"machine": "another", "pid": 1, "token": "x"} | owner))
    return path


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_of_two_at_once_one_lists_and_the_other_waits(config, tmp_path, listed, caplog):
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor(3) as threads:
        runs = list(threads.map(lambda _: begin(tmp_path / "out", config), range(3)))
    assert len(listed) == 1
    assert all(run.shards == runs[0].shards and len(run.shards) == 3 for run in runs)
    assert caplog.text.count("another process is listing the sources") == 2
    assert left_in(tmp_path / "out") == ["config.yaml", "run.json", "sources"]


def test_one_with_another_config_is_told_so_when_it_has_waited(config, tmp_path, listed):
    other = make_config(tmp_path / "pictures", shard_size=3)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(begin, tmp_path / "out", config)
        while not listed:
            time.sleep(0.01)
        second = threads.submit(begin, tmp_path / "out", other)
        assert len(first.result().shards) == 3
        with pytest.raises(InputError, match="shard_size was 2, is 3"):
            second.result()


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(config, tmp_path, listed):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock_of(tmp_path / "out", machine=listing_lock._machine(), pid=gone.pid)
    (tmp_path / "out" / "sources.listing.000.tmp").mkdir()
    started = time.monotonic()
    begin(tmp_path / "out", config)
    assert listed[0] - started < 0.5
    assert left_in(tmp_path / "out") == ["config.yaml", "run.json", "sources"]


@pytest.mark.parametrize("content", ["", "{"])
def test_a_lock_that_was_never_written_out_is_taken_over(config, tmp_path, listed, monkeypatch, content):
    monkeypatch.setattr(listing_lock, "PATIENCE", 0.3)
    lock_of(tmp_path / "out").write_text(content)
    begin(tmp_path / "out", config)
    assert left_in(tmp_path / "out") == ["config.yaml", "run.json", "sources"]


def test_on_another_machine_signs_of_life_count(config, tmp_path, listed, monkeypatch):
    monkeypatch.setattr(listing_lock, "PATIENCE", 0.6)
    path, ended = lock_of(tmp_path / "out"), threading.Event()
    alive_until = time.monotonic() + 1.5

    def beat():
        while time.monotonic() < alive_until:
            os.utime(path)
            time.sleep(0.1)
        ended.set()

    threading.Thread(target=beat, daemon=True).start()
    begin(tmp_path / "out", config)
    assert ended.is_set()
    assert listed[0] >= alive_until + 0.4
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
        time.sleep(0.5)
        assert lock.path.stat().st_mtime > 0
    assert left_in(tmp_path) == []


def test_a_listing_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image files"):
        begin(tmp_path / "out", make_config(tmp_path / "empty"))
    assert not (tmp_path / "out").exists()
