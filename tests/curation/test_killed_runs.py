# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs that are killed at any moment and go on: the same result to the byte, and no answered call asked again."""

import multiprocessing
import random
import time
from collections import Counter

import psutil
import pytest

from tests.curation.run_cases import make_config, write_bad_rows, write_listing, write_pictures
from tests.processes import PATIENCE
from turingvit_hf.curation.runs import run


NUM_KILLS = 10
NUM_PICTURES = 40


def run_again(config, out):
    run(config, out)


def progress_of(out, log):
    """How much has happened: questions, and files that were finished."""
    return len(log.read_text().splitlines()) if log.exists() else 0, len(list(out.rglob("*.parquet")))


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_gives_the_same_rows_and_asks_nothing_twice(tmp_path):
    folder, log, out = tmp_path / "pictures", tmp_path / "log", tmp_path / "run"
    rows = write_pictures(folder, NUM_PICTURES)
    rows += [{"file_name": name, "caption": "A bad one."} for name in write_bad_rows(folder)]
    write_listing(folder, rows)
    config = make_config(folder, log=log)
    run(config, tmp_path / "whole")
    log.rename(tmp_path / "other-log")  # the captioner of the others writes under the same name: it is in their config
    whole = (tmp_path / "whole" / "rows.parquet").read_bytes()
    total = sum(progress_of(tmp_path / "whole", tmp_path / "other-log"))

    # a process that has everything imported forks those that are killed
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["turingvit_hf.curation.runs", "tests.curation.stand_ins", "cv2", "datasets"])
    rng = random.Random(0)
    moments = sorted(rng.randrange(total) for _ in range(NUM_KILLS))
    kills = Counter()
    for moment in moments:
        process = context.Process(target=run_again, args=(config, out))
        process.start()
        while process.is_alive() and sum(progress_of(out, log)) < moment:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        process.kill()
        process.join()
        kills["killed" if process.exitcode == -9 else "finished"] += 1
    assert kills["killed"] >= NUM_KILLS - 2, kills
    run(config, out)

    assert (out / "rows.parquet").read_bytes() == whole
    answered, asked = set(), Counter()
    for line in log.read_text().splitlines():
        what, key = line.split()
        assert what == "answered" or key not in answered, "asked although it had been answered"
        if what == "answered":
            answered.add(key)
        else:
            asked[key] += 1
    uninterrupted = [line for line in (tmp_path / "other-log").read_text().splitlines() if line.startswith("asked")]
    assert len(asked) == len(uninterrupted)
    # a question that was under way when the process was killed had no answer yet
    assert asked.total() <= len(asked) + NUM_KILLS


def test_workers_end_with_the_process_that_started_them(tmp_path):
    folder = tmp_path / "pictures"
    write_listing(folder, write_pictures(folder, 4))
    context = multiprocessing.get_context("spawn")
    pids = context.Queue()
    process = context.Process(target=start_workers, args=(pids,))
    process.start()
    workers = pids.get(timeout=PATIENCE)
    process.kill()
    process.join()
    deadline = time.monotonic() + PATIENCE
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not any(is_alive(pid) for pid in workers)


def start_workers(pids):
    from turingvit_hf.curation.engines import EngineOptions
    from turingvit_hf.curation.engines.local import LocalEngine

    engine = LocalEngine(EngineOptions(num_workers=2))
    pool = engine._workers()
    futures = [pool.submit(time.sleep, 0.5) for _ in range(4)]
    for future in futures:
        future.result()
    pids.put([*pool._processes])
    time.sleep(600)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_does_not_wait_for_the_shards_of_workers():
    from turingvit_hf.curation.engines import EngineOptions
    from turingvit_hf.curation.engines.local import LocalEngine

    started = {}

    def interrupted():
        with LocalEngine(EngineOptions(num_workers=2)) as engine:
            pool = engine._workers()
            pool.submit(time.sleep, 0).result()
            pool.submit(time.sleep, 2 * PATIENCE)
            started["at"], started["pids"] = time.monotonic(), [*pool._processes]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started["at"] < PATIENCE
    assert not any(is_alive(pid) for pid in started["pids"])
