# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A stage's folder: a start that failed leaves nothing and blocks nothing, and a chain may be moved."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from turingvit_hf.cli import app
from turingvit_hf.errors import InputError
from turingvit_hf.training import pretraining
from turingvit_hf.training.pretraining import run_chain, run_pretraining
from turingvit_hf.training.recipes import load_chain, load_recipe
from turingvit_hf.training.stages.folder import is_finished, is_untrained


SMALL = [
    "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6, num_attention_heads: 2, patch_size: 16}",
    "data.sources=[{path: shapes}]",
    "data.tokens_per_pack=64",
    "data.resolution={mode: native, max_patches: 16}",
    "evaluation=null",
    "training.max_steps=2",
    "training.warmup_steps=1",
    "training.save_steps=1",
    "training.save_total_limit=null",
    "training.use_cpu=true",
]
TEXT = "text={encoder: small, projection_dim: 16}"


@pytest.fixture
def chain_file(tmp_path):
    """The file of a chain of two stages."""
    path = tmp_path / "chain.yaml"
    path.write_text("stages: [tiny/stage1, tiny/stage2]\n")
    return path


def cut(stage):
    """Makes of a finished stage one that was killed after its first step."""
    for name in ("checkpoint-2", "model", "vision_tower"):
        shutil.rmtree(stage / name)
    (stage / "report.json").unlink()


def test_a_chain_that_was_moved_is_resumed(chain_file, tmp_path):
    chain = load_chain(chain_file, [*SMALL, f"stage2.{TEXT}"])
    run_chain(chain, out=tmp_path / "one" / "chain")
    cut(tmp_path / "one" / "chain" / "stage2")
    (tmp_path / "one" / "chain" / "chain.json").unlink()
    moved = (tmp_path / "one").rename(tmp_path / "another") / "renamed"
    (moved.parent / "chain").rename(moved)
    assert run_chain(chain, out=moved, resume=True) == moved / "stage2"
    runs = json.loads((moved / "stage2" / "environment.json").read_text())["runs"]
    assert [run["resumed_from"] for run in runs] == [None, "checkpoint-1"]
    assert runs[1]["folder"] == str(moved / "stage2")
    # finished, and moved once more
    again = moved.rename(tmp_path / "again")
    assert run_chain(chain, out=again, resume=True) == again / "stage2"


def test_a_stage_that_was_moved_is_resumed_and_one_from_another_tower_is_not(chain_file, tmp_path):
    chain = load_chain(chain_file, [*SMALL, f"stage2.{TEXT}"])
    run_chain(chain, out=tmp_path / "chain")
    (first, _), (_, second) = chain.in_folder(tmp_path / "chain")
    cut(tmp_path / "chain" / "stage2")
    moved = (tmp_path / "chain" / "stage2").rename(tmp_path / "alone")
    other = shutil.copytree(first, tmp_path / "other")
    elsewhere = load_recipe("tiny/stage2", [*SMALL, TEXT, f"init_from={other}"])
    with pytest.raises(InputError, match=r"init_from\.path was '.*stage1', is '.*other'"):
        run_pretraining(elsewhere, out=moved, resume=True)
    assert is_finished(run_pretraining(second, out=moved, resume=True))


@pytest.mark.parametrize(
    "fault",
    [
        "data.sources=[{path: shapes, media_column: pixels}]",
        "text.vocabulary=./vocabulary",
        "data.sources=[{path: ./nowhere}]",
        "data.sources=[{path: shapes, caption_columns: {nothing: 1}}]",
    ],
)
def test_a_start_that_failed_leaves_nothing_and_blocks_nothing(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs" / "stage2"
    if "vocabulary" in fault:
        (tmp_path / "vocabulary").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        run_pretraining(load_recipe("tiny/stage2", [*SMALL, TEXT, fault]), out=out)
    assert sorted(tmp_path.rglob("*")) == before
    assert is_finished(run_pretraining(load_recipe("tiny/stage2", [*SMALL, TEXT]), out=out))


def test_a_start_that_was_killed_blocks_nothing(tmp_path, monkeypatch):
    """With a tokenizer of other captions, which the next start must not take over."""
    out = tmp_path / "stage2"
    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "make_dual_encoder", lambda *args, **kwargs: 1 / 0)
        patched.setattr("turingvit_hf.training.stages.folder._remove_start", lambda folder: None)
        recipe = load_recipe("tiny/stage2", [*SMALL, TEXT, "text.max_tokens=8"])
        with pytest.raises(ZeroDivisionError):
            run_pretraining(recipe, out=out)
    assert {path.name for path in out.iterdir()} == {"recipe.yaml", "environment.json", "tokenizer"}
    assert is_untrained(out)
    for resume in (False, True):
        again = shutil.copytree(out, tmp_path / f"again-{resume}")
        recipe = load_recipe("tiny/stage2", [*SMALL, TEXT, "text.max_tokens=9"])
        assert is_finished(run_pretraining(recipe, out=again, resume=resume))
        assert json.loads((again / "tokenizer" / "tokenizer_config.json").read_text())["model_max_length"] == 9


def test_a_chain_whose_first_stage_failed_is_not_blocked(chain_file, tmp_path):
    out = tmp_path / "chain"
    with pytest.raises(InputError, match="pixels"):
        run_chain(load_chain(chain_file, [*SMALL, f"stage2.{TEXT}", "data.sources.0.media_column=pixels"]), out=out)
    assert not out.exists()
    assert run_chain(load_chain(chain_file, [*SMALL, f"stage2.{TEXT}"]), out=out) == out / "stage2"


def test_a_fault_of_a_later_stage_is_told_before_the_first_one_starts(chain_file, tmp_path):
    chain = load_chain(chain_file, [*SMALL, "stage2.text={encoder: ./nowhere}"])
    with pytest.raises(InputError, match=r"stage2: text\.encoder='\./nowhere': there is no such folder"):
        run_chain(chain, out=tmp_path / "chain")
    assert not (tmp_path / "chain").exists()


@pytest.mark.parametrize("names", [["recipe.yaml"], ["recipe.yaml", "notes.txt"], ["tokenizer"], ["runs"]])
def test_what_a_person_may_miss_is_left_alone(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("stage: mim\n")
    with pytest.raises(InputError, match="is not empty"):
        run_pretraining(load_recipe("tiny/stage1", SMALL), out=tmp_path)
    with pytest.raises(InputError, match="not the output of a stage"):
        run_pretraining(load_recipe("tiny/stage1", SMALL), out=tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_an_empty_name_is_no_folder(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in ("", " "):
        result = CliRunner().invoke(app, ["pretrain", "--recipe", "tiny/stage1", "--out", out, *options])
        assert result.exit_code == 1
        assert f"--out {out!r} names no folder; the current one is called ." in result.output
    with pytest.raises(InputError, match="names no folder"):
        run_chain(load_chain("tiny/all"), out="")
    assert not list(tmp_path.iterdir())
