# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Configs: strict, overridden from the command line, written resolved with their hash."""

import pytest

from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.config_files import config_from_dict, dump_config, load_config, with_overrides
from turingvit_hf.errors import InputError
from turingvit_hf.files.yaml_files import parse_yaml


def test_the_defaults_name_real_models_and_no_captioner():
    config = load_config()
    assert config == CurationConfig()
    assert config.caption.captioners == config.verify.verifiers == ()
    assert config.embed.scorer["model"] == "openai/clip-vit-large-patch14"
    assert config.ground.detector["model"] == "google/owlv2-base-patch16-ensemble"


def test_a_file_and_overrides_differ_from_the_defaults_only_where_they_say(tmp_path):
    path = tmp_path / "curate.yaml"
    path.write_text("sources: [{path: a}, {path: b}]\nthresholds: {quality: {min_side: 64}}\n")
    config = load_config(path, ["sources.1.name=second", "score.tau=1e-2", "embed.enabled=yes", "seed=3"])
    assert [source.path for source in config.sources] == ["a", "b"]
    assert (config.sources[1].name, config.score.tau, config.seed) == ("second", 0.01, 3)
    assert config.thresholds.quality.min_side == 64
    assert config.thresholds.quality.max_aspect == CurationConfig().thresholds.quality.max_aspect


def test_what_is_written_is_read_as_the_same_config_with_the_same_hash():
    captioner = {"kind": "endpoint", "model": "m", "base_url": "http://localhost:8000/v1"}
    config = config_from_dict({"sources": [{"path": "x"}], "caption": {"captioners": [captioner]}}, "test")
    text = dump_config(config)
    assert text.startswith(f"# hash {config.hash()}\n")
    again = config_from_dict(parse_yaml(text, "text"), "test")
    assert again == config
    assert again.hash() == config.hash()
    assert with_overrides(config, ["seed=1"]).hash() != config.hash()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sourcex=[]"], r"--set: there is no key sourcex; did you mean sources\?"),
        (["thresholds.quality.min_sid=3"], r"there is no key thresholds.quality.min_sid; did you mean min_side\?"),
        (["measure.x=3"], r"there is no key measure.x; allowed are batch_size, long_side"),
        (["shard_size=many"], r"shard_size='many': it must be a valid integer"),
        (["shard_size=20000"], r"less than or equal to 10000"),
        (["sources=[{path: a}]", "sources.3.path=b"], r"sources has 1 elements, '3' is none of them"),
        (["seed.x=3"], r"--set seed.x"),
        (["seed"], r"--set seed: it must read key=value"),
        (["sources=[{path: a}, {path: b, kind: video}]"], "images and videos are curated in runs of their own"),
        (["embed.enabled=no"], r"score.enabled needs embed.enabled"),
        (["score.pool=all"], r"score.pool='all'"),
    ],
)
def test_a_fault_is_named(overrides, message):
    with pytest.raises(InputError, match=message):
        load_config(None, ["sources=[]", "seed=0", *overrides])


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "curate.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="a config is a mapping"):
        load_config(tmp_path / "curate.yaml")
    with pytest.raises(InputError, match="cannot read"):
        load_config(tmp_path / "nothing.yaml")
