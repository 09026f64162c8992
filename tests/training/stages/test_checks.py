# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""A dry run finds what a start finds, in the same words, and says what looks unintended."""

import pytest
from typer.testing import CliRunner

from turingvit_hf.cli import app
from turingvit_hf.errors import InputError
from turingvit_hf.training.pretraining import run_pretraining
from turingvit_hf.training.recipes import load_recipe
from turingvit_hf.training.stages.checks import find_faults, find_warnings, is_meant_locally


PICTURES = ["data.sources=[{path: shapes}]", "evaluation=null"]
TEXT = ["text={encoder: small}"]


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("18l/stage2", [], "data.sources is empty"),
        ("tiny/stage1", ["training.max_steps=null"], "training.max_steps=0"),
        ("tiny/stage1", ["data.num_workers=3"], "num_workers=3 must divide the 2 readers of a process"),
        ("tiny/stage1", ["data.tokens_per_pack=16"], "an image may have 64 patches"),
        ("tiny/stage1", ["data.sources=[{path: ./nowhere}]"], "data.sources.0='./nowhere': there is no such file"),
        ("tiny/stage1", ["data.sources=[{path: 'no/where/*.tar'}]"], "data.sources.0='no/where/*.tar': there is no"),
        ("tiny/stage1", ["data.sources=[{path: pairs.parquet}]"], "data.sources.0='pairs.parquet': there is no"),
        ("tiny/stage1", ["evaluation.retrieval={path: ./nowhere}"], "evaluation.retrieval='./nowhere': there is no"),
        ("tiny/stage1", ["teacher.model=./nowhere"], "teacher.model='./nowhere': there is no such folder"),
        ("tiny/stage2", ["init_from=./nowhere"], "init_from='./nowhere': there is no such folder"),
        ("tiny/stage2", ["init_from=empty"], "init_from='empty' has no config.json"),
        ("tiny/stage2", ["text.encoder=./nowhere"], "text.encoder='./nowhere': there is no such folder"),
        ("tiny/stage2", ["text.encoder=empty"], "text.encoder='empty' has no config.json"),
        ("tiny/stage1", ["teacher.model=./empty"], "teacher.model='./empty' has no config.json"),
        ("tiny/stage2", ["text.encoder=empty/encoder"], "text.encoder='empty/encoder': there is no such folder"),
        ("tiny/stage2", [*TEXT, "text.vocabulary=./nowhere"], "text.vocabulary='./nowhere': there is no such folder"),
        ("tiny/stage4", [*TEXT], "video_share=0.5 needs a source of kind 'video'"),
    ],
)
def test_a_dry_run_finds_what_a_start_finds(name, changes, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    changes = [*(PICTURES if name.startswith("tiny") else []), *changes, "training.use_cpu=true"]
    options = [part for change in changes for part in ("--set", change)]
    dry = CliRunner().invoke(app, ["pretrain", "--recipe", name, *options, "--dry-run"])
    assert dry.exit_code == 1
    assert f"error: {told}" in dry.output or f"error: data: {told}" in dry.output
    with pytest.raises(InputError) as caught:
        run_pretraining(load_recipe(name, changes), out=tmp_path / "out")
    assert told in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_dry_run_without_faults_is_a_success(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [part for change in [*PICTURES, *TEXT] for part in ("--set", change)]
    result = CliRunner().invoke(app, ["pretrain", "--recipe", "tiny/stage2", *options, "--dry-run"])
    assert result.exit_code == 0
    assert "error" not in result.output
    assert "warning: stage 'image_text' begins with a tower of random weights" in result.output
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, ["pretrain", "--recipe", "tiny/stage2", *options, "--dry-run"])
    assert result.exit_code == 1
    assert "packs_per_step=1 cannot be divided among 2 processes" in result.output


def test_a_chain_is_not_asked_for_the_folders_that_it_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = ["data.sources=[{path: shapes}]", "evaluation=null", "data.video_share=0.0"]
    chain = tmp_path / "chain.yaml"
    chain.write_text("stages: [tiny/stage1, tiny/stage2, tiny/stage3]\n")
    options = [part for change in [*changes, "stage2.text.encoder=small"] for part in ("--set", change)]
    result = CliRunner().invoke(app, ["pretrain", "--recipe", str(chain), *options, "--dry-run"])
    # stage 3 goes on from stage 2's dual encoder and does not read the text encoder that its recipe names
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output
    assert "not local:    nothing" in result.output


def test_only_stages_with_captions_are_expected_to_go_on_from_something():
    assert find_warnings(load_recipe("18l/stage1")) == []
    for number in (2, 3, 4):
        (warning,) = find_warnings(load_recipe(f"18l/stage{number}"))
        assert "random weights" in warning
        assert find_warnings(load_recipe(f"18l/stage{number}", ["init_from=stage1"])) == []


def test_what_a_name_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    recipe = load_recipe("tiny/stage2")
    local = ("./a", "/a/b", "~/a", "a/b/c", "a*", "a.tar", "here", "here/a", "pretraining_data/text_encoder")
    assert all(is_meant_locally(name, recipe) for name in local)
    others = ("a", "user/name", "hf://datasets/a/b/c", "s3://a/*.tar", "timm/a/b")
    assert not any(is_meant_locally(name, recipe) for name in others)
    # folders of stage 2's data that are not there: its text encoder is no id on a hub
    faults = find_faults(recipe, num_ranks=1)
    assert "text.encoder='pretraining_data/text_encoder': there is no such folder" in faults
