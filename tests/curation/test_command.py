# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""`turingvit curate`: what it prints, its exit codes, and what it leaves alone."""

import errno
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.curation.run_cases import make_config, write_bad_rows, write_listing, write_pictures
from turingvit_hf import curation
from turingvit_hf.curation.command import app
from turingvit_hf.curation.config_files import dump_config
from turingvit_hf.curation.models.answers import Answer
from turingvit_hf.curation.plans import plan
from turingvit_hf.curation.progress import RunProgress


@pytest.fixture
def case(tmp_path):
    folder = tmp_path / "pictures"
    rows = write_pictures(folder, 6)
    rows += [{"file_name": name, "caption": "A bad one."} for name in write_bad_rows(folder)]
    write_listing(folder, rows)
    config = make_config(folder, log=tmp_path / "log", failing=tmp_path / "failing")
    path = tmp_path / "curate.yaml"
    path.write_text(dump_config(config))
    return config, path, tmp_path / "run"


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.output


def test_plan_counts_and_touches_nothing(case, tmp_path):
    config, path, out = case
    before = sorted(tmp_path.rglob("*"))
    code, text = call("plan", "--config", path)
    assert code == 0
    assert text.startswith(f"# hash {config.hash()}\n")
    for line in (
        "sources:       pictures (15 rows)",
        "stages:        measure, deduplicate, caption, embed, score",
        "model calls:   75 to 300 of captioner tests.curation.stand_ins:CountingCaptioner (the most if",
        "not installed: nothing that is needed",
    ):
        assert line in text
    assert sorted(tmp_path.rglob("*")) == before
    assert not out.exists()
    code, text = call("plan", "--config", path, "--limit", "5", "--json")
    assert json.loads(text)["num_rows"] == 5


def test_plan_names_what_comes_from_the_hub_and_what_is_missing(case, monkeypatch):
    config, _, _ = case
    monkeypatch.setattr("turingvit_hf.curation.plans.is_installed", lambda module: module != "faiss")
    served = {"model": "served", "base_url": "http://localhost:1/v1"}
    found = plan(
        make_config(config.sources[0].path, caption={"captioners": [served]}, embed={}, verify={"verifiers": [served]})
    )
    assert found.not_local == ["openai/clip-vit-large-patch14"]
    assert found.missing == ["faiss-cpu"]
    assert found.calls == {"captioner served": 15 * 5, "verifier served": 15 * 6}
    # a rule broken, and both captions first as no answer; a verdict once more
    assert found.most_calls == {"captioner served": 15 * 5 * 4, "verifier served": 15 * 6 * 2}
    assert found.most_tokens[1] == 40 * (15 * 5 * 4 + 15 * 6 * 2)
    free = {"captions": {"max_words": None, "min_noun_ratio": None}}
    found = plan(make_config(config.sources[0].path, caption={"captioners": [served]}, thresholds=free))
    assert found.most_calls == {"captioner served": 15 * 5 * 2}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            "verify.verifiers=[{model: m, base_url: 'http://a/v1', warmth: 1}]",
            "config: the verifier 'endpoint' has no",
        ),
        (
            "verify.verifiers=[{model: m}, {model: m, max_tokens: 9}]",
            "config: two verifiers are called 'm'; give each",
        ),
        ("ground={enabled: true, detector: {kind: nothing}}", "config: no detector 'nothing'; there are transformers"),
        ("caption.tagger={kind: spacy, weights: en}", "config: the tagger 'spacy' has no option 'weights'"),
    ],
)
def test_a_model_that_is_described_wrongly_is_refused_before_anything_is_done(case, change, text):
    _, path, out = case
    for command in (("plan",), ("run", out)):
        code, output = call(*command, "--config", path, "--set", change)
        assert (code, text in output) == (1, True)
    assert not out.exists()


class Useless:
    """A model whose answers are a refusal at first, and then a caption that breaks every rule."""

    name = model = "useless"
    revision, parameters = None, {}
    asked = 0

    def answer(self, questions, done):
        for index, _ in enumerate(questions):
            text = "I'm sorry, I cannot." if Useless.asked % 2 == 0 else "and so it goes " * 9
            Useless.asked += 1
            done(index, Answer(text, "stop"))


def test_no_model_is_asked_more_often_than_the_plan_says(tmp_path):
    folder = tmp_path / "pictures"
    write_listing(folder, write_pictures(folder, 1))
    caption = {"captioners": [{"kind": "tests.curation.test_command:Useless"}], "styles": ["overall"]}
    config = make_config(folder, caption=caption)
    curation.run(config, tmp_path / "out")
    assert Useless.asked == plan(config).most_calls["captioner tests.curation.test_command:Useless"] == 4


def test_run_status_retry_score_and_export(case, tmp_path):
    _, path, out = case
    (tmp_path / "failing").touch()
    code, text = call("run", out, "--config", path, "--log-json")
    assert code == 0
    assert "15 rows in =" in text
    assert "errors in caption" in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert {line["stage"] for line in lines} == {"measure", "deduplicate", "caption", "embed", "score"}
    assert all(line["shards_done"] <= line["shards"] for line in lines)
    (tmp_path / "failing").unlink()
    code, text = call("retry", out)
    assert (code, "errors in" in text) == (0, False)
    code, text = call("run", out)
    assert code == 0, "the run goes on with its own config"
    code, text = call("run", out, "--limit", "5")
    assert (code, "limit was None, is 5; --force goes on" in text) == (1, True), text
    code, text = call("run", out, "--limit", "14", "--sample", "1", "--set", "limit=null")
    assert code == 1
    code, text = call("status", out)
    assert "run: finished" in text
    code, text = call("status", out, "--json")
    assert json.loads(text)["is_finished"]
    code, text = call("score", out, "--set", "score.num_batchings=2")
    assert code == 0
    code, text = call("export", out, tmp_path / "curated")
    assert (code, "rows in" in text) == (0, True)


def test_exit_codes(case, tmp_path):
    _, path, out = case
    (tmp_path / "failing").touch()
    code, text = call("run", out, "--config", path, "--set", "max_error_rate=0.01")
    assert (code, "more than max_error_rate=0.01" in text) == (3, True)
    code, text = call("run", out, "--config", path)
    assert (code, "error: " in text, "--force goes on" in text) == (1, True, True)
    for arguments, message in (
        (("status", tmp_path), "is no run folder"),
        (("run", out, "--config", path, "--shards", "3"), "--shards 3: it must read A:B"),
        (("run", out, "--config", path, "--num-gpus", "embd=1"), "there is no stage 'embd'"),
        (("run", out, "--num-gpus", "1"), "num_gpus: only the engine ray takes this"),
        (("run", out, "--num-cpus", "2", "--address", "x"), "num_cpus, address: only the engine ray takes this"),
        (("run", out, "--engine", "ray", "--num-gpus", "measure=1"), "stage measure has no use for them; those that"),
        (("run", out, "--engine", "ray", "--num-cpus", "deduplicate=1"), "stage deduplicate has no use for them"),
        (("run", out, "--engine", "ray", "--num-gpus", "score=-1"), "score=-1 must be 0 or more"),
        (("run", out, "--config", path, "--engine", "spark"), "no engine 'spark'"),
        (("run", out, "--from-stage", "grade"), "no such stage"),
    ):
        code, text = call(*arguments)
        assert (code, message in text) == (1, True), text


def test_every_command_has_help_with_an_example():
    for name in ("plan", "run", "retry", "status", "score", "export"):
        code, text = call(name, "--help")
        assert (code, f"turingvit curate {name}" in " ".join(text.split())) == (0, True)


def test_a_bar_is_drawn_where_there_is_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    progress = RunProgress(as_json=False)
    progress.begin("measure", 2)
    progress.advance({"rows": 10, "kept": 5, "errors": 1, "usage": {}})
    progress.end()
    assert "measure" in capsys.readouterr().err


def test_the_api_is_lazy_and_its_names_are_functions():
    code = (
        "import sys, turingvit_hf.curation as c; assert 'turingvit_hf.curation.runs' not in sys.modules; c.run, c.plan"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in curation.EXPORTS:
        assert callable(getattr(curation, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        curation.nothing  # noqa: B018


def test_a_place_that_cannot_be_written_to_is_one_line(case, monkeypatch):
    _, path, out = case
    for number, fault in ((errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")):

        def full(*_, number=number, fault=fault, **__):
            raise OSError(number, fault, "rows.parquet")

        with monkeypatch.context() as patched:
            patched.setattr("turingvit_hf.curation.outcomes.write_tables", full)
            code, text = call("run", out, "--config", path)
        assert (code, f"error: rows.parquet: {fault}; what is stored stays" in text) == (1, True), text
    code, text = call("run", out, "--config", path)
    assert (code, "15 rows in =" in text) == (0, True)
    with monkeypatch.context() as patched:
        patched.setattr("turingvit_hf.curation.report.page.written_file", full)
        code, text = call("report", out)
    assert (code, "error: rows.parquet: Read-only" in text) == (1, True), text
