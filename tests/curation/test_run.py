# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs: outcomes, resuming, retrying, scoring anew."""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from tests.curation.run_cases import LENIENT, make_config, write_bad_rows, write_listing, write_pictures
from turingvit_hf.curation.engines import EngineOptions
from turingvit_hf.curation.runs import TooManyErrorsError, retry, run, score, status
from turingvit_hf.curation.state import RunFolder
from turingvit_hf.errors import InputError


NUM_GOOD = 20


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, NUM_GOOD)
    reasons = write_bad_rows(folder)
    rows += [{"file_name": name, "caption": "A bad one."} for name in reasons]
    rows.append({"file_name": "001.png", "caption": "Another caption of the same picture."})
    rows[2] |= {"opt_out": True}
    write_listing(folder, rows)
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("this is no JSON\n")
    return folder, reasons


def rows_of(out):
    return pq.read_table(out / "rows.parquet").to_pylist()


def asked(log):
    return [line for line in log.read_text().splitlines() if line.startswith("asked")]


def test_every_row_has_an_outcome_with_its_reason(pictures, tmp_path):
    folder, reasons = pictures
    outcomes = run(make_config(folder, log=tmp_path / "log"), tmp_path / "run")
    rows = {row["key"]: row for row in rows_of(tmp_path / "run")}
    assert outcomes.num_rows == len(rows) == NUM_GOOD + len(reasons) + 2
    assert outcomes.num_rows == outcomes.num_kept + outcomes.num_dropped + outcomes.num_errors
    found = {key: rows[key]["drop_reason"] or "" for key in reasons}
    # of the two the one with the smaller id is kept
    found["twice.png"] = found["twice.png"] or rows.pop("000.png")["drop_reason"]
    assert found == reasons
    assert rows["moving.gif"]["status"] == "kept"
    assert (rows["tiny.png"]["drop_stage"], rows["tiny.png"]["drop_value"], rows["tiny.png"]["drop_threshold"]) == (
        "measure",
        16,
        LENIENT["min_side"],
    )
    others = Counter(row["drop_reason"] for key, row in rows.items() if key not in reasons and row["status"] != "kept")
    assert others == {"row has the key of an earlier row": 1, "row is no JSON object": 1, "owner opted out": 1}


def test_kept_rows_have_a_caption_scores_and_where_they_come_from(pictures, tmp_path):
    folder, _ = pictures
    config = make_config(folder, log=tmp_path / "log")
    run(config, tmp_path / "run")
    kept = [row for row in rows_of(tmp_path / "run") if row["status"] == "kept"]
    assert kept
    for row in kept:
        assert row["caption"]
        assert row["overall"] == pytest.approx(0.5 * row["T"] + 0.5 * (1 + row["A"] - row["G"]))
        assert row["A"] <= row["G"]
        assert (row["tau"], row["K"], row["batch_size"], row["scorer"]) == (0.05, 3, 16, "hash")
        assert row["config_hash"] == config.hash()
        # five styles and its own; one of two copies of a file is kept, with the captions of both
        assert row["num_candidates"] == 6 + (row["key"] in ("000.png", "twice.png"))
    candidates = pq.read_table(tmp_path / "run" / "candidates.parquet").to_pylist()
    best = {row["sample_id"]: row["text"] for row in candidates if row["is_best"]}
    assert best == {row["sample_id"]: row["caption"] for row in kept}


def test_a_second_run_does_nothing(pictures, tmp_path):
    folder, _ = pictures
    config = make_config(folder, log=tmp_path / "log")
    run(config, tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "shards").rglob("*.*")}
    number = len(asked(tmp_path / "log"))
    run(config, tmp_path / "run")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(asked(tmp_path / "log")) == number


def test_another_config_is_refused_unless_forced(pictures, tmp_path):
    folder, _ = pictures
    run(make_config(folder, log=tmp_path / "log"), tmp_path / "run")
    number = len(asked(tmp_path / "log"))
    other = make_config(folder, log=tmp_path / "log", thresholds={"quality": LENIENT | {"min_side": 200}})
    with pytest.raises(InputError, match=r"thresholds.quality.min_side was 32, is 200.*--force"):
        run(other, tmp_path / "run")
    outcomes = run(other, tmp_path / "run", force=True)
    assert outcomes.num_kept == 0
    assert len(asked(tmp_path / "log")) == number
    # and back: what was dropped is taken up again, and no caption is asked for
    assert run(make_config(folder, log=tmp_path / "log"), tmp_path / "run", force=True).num_kept
    assert len(asked(tmp_path / "log")) == number


def test_stages_can_be_switched_off(pictures, tmp_path):
    folder, _ = pictures
    off = {"enabled": False}
    config = make_config(folder, deduplicate=off, embed=off, score=off)
    outcomes = run(config, tmp_path / "run")
    kept = [row for row in rows_of(tmp_path / "run") if row["status"] == "kept"]
    assert len(kept) == outcomes.num_kept == NUM_GOOD + 1  # the animation and the copy
    assert all(row["caption"] == row["raw_caption"] and row["caption_origin"] == "raw" for row in kept)


def test_only_errors_are_tried_again_and_not_for_ever(pictures, tmp_path):
    folder, _ = pictures
    failing, log = tmp_path / "failing", tmp_path / "log"
    failing.touch()
    config = make_config(folder, log=log, failing=failing, max_attempts=2)
    first = run(config, tmp_path / "run")
    assert first.num_errors == first.num_retriable > 0
    assert first.num_kept > 0
    errors = [row for row in rows_of(tmp_path / "run") if row["status"] == "error"]
    assert {row["error_stage"] for row in errors} == {"caption"}
    assert all("500" in row["error"] and row["attempts"] == 1 for row in errors)
    number = len(asked(log))
    assert run(config, tmp_path / "run").num_errors == first.num_errors
    assert len(asked(log)) == number, "the same command does not try errors again"
    failing.unlink()
    second = retry(tmp_path / "run")
    assert second.num_errors == 0
    assert second.num_kept == first.num_kept + first.num_errors
    assert len(asked(log)) == number + 5 * first.num_errors
    whole = make_config(folder, log=tmp_path / "other", max_attempts=2)
    run(whole, tmp_path / "whole")
    columns = ["sample_id", "status", "caption", "overall"]
    assert pq.read_table(tmp_path / "run" / "rows.parquet", columns=columns) == pq.read_table(
        tmp_path / "whole" / "rows.parquet", columns=columns
    )


def test_attempts_end(pictures, tmp_path):
    folder, _ = pictures
    failing = tmp_path / "failing"
    failing.touch()
    run(make_config(folder, log=tmp_path / "log", failing=failing, max_attempts=2), tmp_path / "run")
    assert retry(tmp_path / "run").num_retriable == 0
    number = len(asked(tmp_path / "log"))
    outcomes = retry(tmp_path / "run")
    assert outcomes.num_errors
    assert len(asked(tmp_path / "log")) == number
    assert {row["attempts"] for row in rows_of(tmp_path / "run") if row["status"] == "error"} == {2}
    assert f"{outcomes.num_errors} of the errors were tried max_attempts times" in outcomes.describe()
    failing.unlink()
    more = make_config(folder, log=tmp_path / "log", failing=failing, max_attempts=3)
    assert run(more, tmp_path / "run", force=True).num_retriable == outcomes.num_errors
    assert status(tmp_path / "run")["stages"][2]["retriable"] == outcomes.num_errors
    assert retry(tmp_path / "run").num_errors == 0


def test_what_is_said_of_too_many_errors_is_so(pictures, tmp_path):
    folder, _ = pictures
    failing = tmp_path / "failing"
    failing.touch()
    config = make_config(folder, log=tmp_path / "log", failing=failing, max_error_rate=0.01, max_attempts=2)
    with pytest.raises(TooManyErrorsError, match="`retry` tries them again"):
        run(config, tmp_path / "run")
    with pytest.raises(TooManyErrorsError, match="each was tried max_attempts=2 times"):
        retry(tmp_path / "run")


def test_too_many_errors_end_the_run_but_not_its_results(pictures, tmp_path):
    folder, _ = pictures
    failing = tmp_path / "failing"
    failing.touch()
    config = make_config(folder, log=tmp_path / "log", failing=failing, max_error_rate=0.01)
    with pytest.raises(TooManyErrorsError, match=r"ended as errors in stage caption, more than max_error_rate=0\.01"):
        run(config, tmp_path / "run")
    failing.unlink()
    assert retry(tmp_path / "run").num_errors == 0


def test_scores_are_made_anew_from_stored_embeddings(pictures, tmp_path):
    folder, _ = pictures
    run(make_config(folder, log=tmp_path / "log"), tmp_path / "run")
    for file in folder.iterdir():
        file.unlink()
    before = {row["sample_id"]: row["G"] for row in rows_of(tmp_path / "run")}
    outcomes = score(tmp_path / "run", ["score.tau=0.2", "thresholds.score.top_fraction=0.5"])
    rows = rows_of(tmp_path / "run")
    assert outcomes.dropped["score", "not in the top fraction"] > 0
    assert {row["tau"] for row in rows} == {0.2}
    assert any(row["G"] != before[row["sample_id"]] for row in rows if row["G"] is not None)
    with pytest.raises(InputError, match=r"score changes score, .* only"):
        score(tmp_path / "run", ["shard_size=3"])


def test_from_a_stage_on_everything_is_done_anew_but_no_call(pictures, tmp_path):
    folder, _ = pictures
    config = make_config(folder, log=tmp_path / "log")
    run(config, tmp_path / "run")
    number, rows = len(asked(tmp_path / "log")), (tmp_path / "run" / "rows.parquet").read_bytes()
    run(config, tmp_path / "run", from_stage="caption")
    assert len(asked(tmp_path / "log")) == number
    assert (tmp_path / "run" / "rows.parquet").read_bytes() == rows
    with pytest.raises(InputError, match="--from-stage ground: there is no such stage"):
        run(config, tmp_path / "run", from_stage="ground")


def test_shards_can_be_shared_out(pictures, tmp_path):
    folder, _ = pictures
    config = make_config(folder)
    run(config, tmp_path / "whole")
    assert run(config, tmp_path / "run", shards=range(0, 2)) is None
    assert run(config, tmp_path / "run", shards=range(2, 100)) is None or RunFolder(tmp_path / "run")
    assert run(config, tmp_path / "run").num_rows
    assert (tmp_path / "run" / "rows.parquet").read_bytes() == (tmp_path / "whole" / "rows.parquet").read_bytes()


def test_limit_and_sample_take_the_same_path(pictures, tmp_path):
    folder, _ = pictures
    run(make_config(folder), tmp_path / "whole")
    whole = {row["sample_id"]: row["sha256"] for row in rows_of(tmp_path / "whole")}
    assert run(make_config(folder, limit=5), tmp_path / "limited").num_rows == 5
    run(make_config(folder, sample=0.5), tmp_path / "sampled")
    sampled = {row["sample_id"]: row["sha256"] for row in rows_of(tmp_path / "sampled")}
    assert 0 < len(sampled) < len(whole)
    assert sampled.items() <= whole.items()


def test_status_counts_by_stage(pictures, tmp_path):
    folder, _ = pictures
    run(make_config(folder, log=tmp_path / "log"), tmp_path / "run")
    found = status(tmp_path / "run")
    assert found["is_finished"]
    assert [entry["stage"] for entry in found["stages"]] == ["measure", "deduplicate", "caption", "embed", "score"]
    assert all(entry["done"] == entry["of"] for entry in found["stages"])
    for entry in found["stages"]:
        assert entry["rows"] == entry["kept"] + sum(entry["dropped"].values()) + entry["errors"]
    caption = found["stages"][2]
    assert caption["usage"]["num_calls"] == len(asked(tmp_path / "log"))
    assert caption["usage"]["completion_tokens"] == 3 * caption["usage"]["num_calls"]


def test_what_cannot_be_run_is_refused(pictures, tmp_path):
    folder, _ = pictures
    with pytest.raises(InputError, match="names no sources"):
        run(make_config(folder, sources=[]), tmp_path / "run")
    with pytest.raises(InputError, match="two sources are called 'pictures'"):
        run(make_config(folder, sources=[{"path": str(folder)}] * 2), tmp_path / "run")
    with pytest.raises(InputError, match="is not empty and no run folder"):
        run(make_config(folder), folder)
    with pytest.raises(InputError, match="no engine 'spark'; there are local, ray"):
        EngineOptions("spark")
    with pytest.raises(InputError, match="has no option 'colour'"):
        run(
            make_config(folder, embed={"scorer": {"kind": "transformers", "model": "x", "colour": 1}}),
            tmp_path / "run",
        )
    with pytest.raises(InputError, match="is no run folder"):
        retry(tmp_path)
