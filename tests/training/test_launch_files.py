# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Every large recipe goes with every launch file, by what accelerate would tell processes; and stage 4 with DDP."""

import json
from pathlib import Path

import pytest
import torch.distributed.fsdp._fully_shard._fsdp_param_group as param_group
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tests.training.test_launched import FSDP2, OPTIONS, on_ranks, report
from tests.training.tiny_run import main
from turingvit_hf.training.distributed import rank
from turingvit_hf.training.pretraining import run_pretraining
from turingvit_hf.training.recipes import load_recipe
from turingvit_hf.training.stages.checks import find_faults


FILES = sorted((Path(__file__).parents[2] / "examples" / "accelerate").glob("*.yaml"))
LARGE = [f"{size}/stage{number}" for size in ("18l", "24l") for number in (1, 2, 3, 4)]


def launched_environment(path: Path) -> tuple[dict[str, str], int]:
    """What `accelerate launch` tells processes by environment variables, and how many it starts on all machines."""
    arguments = ["--config_file", str(path), "--main_process_port", "29500", "-m", "turingvit_hf.training"]
    found, *_ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    return prepare_multi_gpu_env(found), found.num_processes


def faults_of(name: str, path: Path, monkeypatch, *overrides: str) -> list[str]:
    environment, num_ranks = launched_environment(path)
    for key, value in environment.items():
        if key.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(key, value)
    source = "{path: user/pairs}" if name[-1] != "4" else "{path: user/pairs}, {path: user/clips, kind: video}"
    recipe = load_recipe(name, [f"data.sources=[{source}]", *overrides])
    return find_faults(recipe, num_ranks=num_ranks)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", LARGE)
def test_a_recipe_and_a_launch_file_do_not_contradict_each_other(name, path, monkeypatch):
    assert faults_of(name, path, monkeypatch) == []
    # the recipe decides these, and the launch file must not
    recipe = load_recipe(name)
    assert {"bf16", "activation_checkpointing"} <= recipe.training.keys()
    assert not {"fsdp", "fsdp_config", "ddp_find_unused_parameters"} & recipe.training.keys()


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("num_ranks", [1, 8, 16, 32])
def test_a_large_recipe_runs_on_whole_machines(name, num_ranks):
    recipe = load_recipe(name)
    assert [fault for fault in find_faults(recipe, num_ranks=num_ranks) if "data.sources is empty" not in fault] == []


def test_activation_checkpointing_by_both_is_refused(tmp_path, monkeypatch):
    text = next(path for path in FILES if path.stem == "fsdp2").read_text()
    path = tmp_path / "both.yaml"
    path.write_text(text.replace("fsdp_activation_checkpointing: false", "fsdp_activation_checkpointing: true"))
    (fault,) = faults_of("24l/stage2", path, monkeypatch)
    assert "one is enough" in fault
    assert faults_of("24l/stage2", path, monkeypatch, "training.activation_checkpointing=false") == []


def test_activation_checkpointing_by_both_is_refused_in_a_recipe():
    values = ["training.fsdp=true", "training.fsdp_config={activation_checkpointing: true}"]
    faults = find_faults(load_recipe("24l/stage2", values), num_ranks=8)
    assert any("one is enough" in fault for fault in faults)


@pytest.mark.parametrize("by", ["trainer", "fsdp"])
def test_under_fsdp2_activation_checkpointing_gathers_no_more_often(tmp_path, monkeypatch, by, plain_run):
    ours = {"activation_checkpointing": True} if by == "trainer" else {}
    config = {**FSDP2["fsdp_config"], "activation_checkpointing": by == "fsdp"}
    found = gathers_and_losses(tmp_path, monkeypatch, fsdp=True, fsdp_config=config, **ours)
    assert found[0] == plain_run[0] > 0
    assert found[1] == pytest.approx(plain_run[1], rel=1e-5)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """Gathers and losses of a run under FSDP2 that keeps all activations."""
    with pytest.MonkeyPatch.context() as patch:
        return gathers_and_losses(tmp_path_factory.mktemp("plain"), patch, **FSDP2)


def gathers_and_losses(folder, monkeypatch, **options) -> tuple[int, list[float]]:
    """How often rank 0 gathers parameters in a short run on two ranks, and the losses."""
    gather, counts = param_group.foreach_all_gather, []

    def counted(*args, **kwargs):
        counts.append(1)
        return gather(*args, **kwargs)

    def run():
        main(folder, {**OPTIONS, "save_strategy": "no", **options})
        if rank() == 0:
            (folder / "count").write_text(str(len(counts)))

    monkeypatch.setattr(param_group, "foreach_all_gather", counted)
    on_ranks(run)
    losses = [logs["loss"] for logs in report(folder)["history"] if "loss" in logs]
    return int((folder / "count").read_text()), losses


def test_clips_and_images_train_under_ddp_that_looks_for_no_unused_parameters(tmp_path, clips):
    """Stage 4 with its SuperClass head, on two processes; steps of clips do not use the head."""
    values = [
        "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6, num_attention_heads: 2, patch_size: 16}",
        f"data.sources=[{{path: shapes}}, {{path: {clips}, kind: video}}]",
        "data.resolution={mode: native, max_patches: 16}",
        "data.max_bad_share=0.5",
        "data.num_frames=2",
        "data.video_share=0.7",
        "data.tokens_per_pack=128",
        "data.packs_per_step=4",
        "data.num_workers=0",
        "text={encoder: small, projection_dim: 16}",
        "training.max_steps=3",
        "training.warmup_steps=1",
        "training.logging_steps=1",
        "training.save_strategy=no",
        "training.use_cpu=true",
        "training.bf16=false",
    ]
    recipe = load_recipe("18l/stage4", values)
    histories = []
    for num_ranks in (1, 2):
        folder = tmp_path / str(num_ranks)
        on_ranks(lambda folder=folder: run_pretraining(recipe, out=folder), num_ranks)
        histories.append(json.loads((folder / "report.json").read_text())["history"])
    names = {"siglip", "superclass", "video_siglip"}
    assert names == {name for logs in histories[0] for name in logs} & names
    for one, two in zip(*histories, strict=True):
        logged = names & one.keys()
        assert {name: two[name] for name in logged} == pytest.approx({name: one[name] for name in logged}, rel=2e-5)
