# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Recipes: every shipped one holds, each fault is named with file and key, and what is written reads back equal."""

import dataclasses

import pytest
import yaml

from turingvit_hf.data.source_recipe import SourceRecipe
from turingvit_hf.errors import InputError
from turingvit_hf.files.yaml_files import dump_yaml, parse_yaml
from turingvit_hf.training.arguments import (
    DataRecipe,
    EvaluationRecipe,
    ObjectiveRecipe,
    OptimizerRecipe,
    ResolutionRecipe,
    StageRecipe,
)
from turingvit_hf.training.recipe_checks import training_values
from turingvit_hf.training.recipes import is_chain, load_chain, load_recipe, shipped_recipes


STAGES = [name for name in shipped_recipes() if not is_chain(name)]


@pytest.fixture
def write(tmp_path):
    """Writes a recipe file and returns its path."""

    def write_file(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write_file


def fault_of(name, *overrides) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(name, overrides)
    return str(caught.value)


def test_shipped_recipes_are_all_there():
    names = {f"{size}/stage{number}" for size in ("18l", "24l", "tiny") for number in (1, 2, 3, 4)}
    assert set(shipped_recipes()) == names | {"18l/all", "24l/all", "tiny/all"}


@pytest.mark.parametrize("name", STAGES)
def test_a_shipped_recipe_is_complete_and_survives_its_own_file(name, write):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.training["max_steps"] > recipe.training["warmup_steps"] > 0
    assert recipe.stage == {"1": "mim", "2": "image_text", "3": "image_text", "4": "image_video"}[name[-1]]
    assert load_recipe(write("resolved.yaml", dump_yaml(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("size", ["18l", "24l"])
def test_the_reports_setting(size):
    first, second, third, fourth = (load_recipe(f"{size}/stage{number}") for number in (1, 2, 3, 4))
    assert all(recipe.model == {"num_hidden_layers": int(size[:2])} for recipe in (first, second, third, fourth))
    assert (first.data.resolution.mode, first.data.resolution.size, first.objective.mask_ratio) == ("fixed", 256, 0.4)
    assert "eva02_enormous" in first.teacher.model
    assert second.teacher is None
    bounded = second.data.resolution
    assert (bounded.mode, bounded.min_side, bounded.max_side) == ("bounded", 256, 512)
    assert (bounded.crop_scale, bounded.flip) == ((1.0, 1.0), 0.0)
    assert third.data.resolution.mode == fourth.data.resolution.mode == "native"
    assert (fourth.data.num_frames, fourth.data.video_share) == (8, 0.5)
    # Seed1.5-VL, table 1
    assert first.data.tokens_per_pack * first.data.packs_per_step == 55_296 * 256
    rates = [
        (r.training["learning_rate"], r.training["lr_scheduler_kwargs"]["min_lr"]) for r in (first, second, fourth)
    ]
    assert rates == [(7.06e-3, 1.05e-5), (1.0e-4, 1.2e-6), (5.0e-5, 2.02e-7)]
    assert (first.training["warmup_steps"], second.training["warmup_steps"]) == (1692, 2000)


def test_24_layers_differ_in_the_number_of_layers_only():
    for number in (1, 2, 3, 4):
        small, large = load_recipe(f"18l/stage{number}"), load_recipe(f"24l/stage{number}")
        assert dataclasses.replace(small, model=large.model, name=large.name) == large


def test_a_stage_file_shows_its_difference_only():
    assert load_recipe("18l/stage3").text == load_recipe("18l/stage2").text
    assert load_recipe("tiny/stage3").model == load_recipe("tiny/stage1").model


def test_a_chain_names_its_stages_and_takes_overrides_for_all_or_one():
    chain = load_chain("tiny/all", ["data.num_workers=1", "stage2.training.max_steps=7"])
    assert [stage.name for stage in chain.stages] == [f"tiny/stage{number}" for number in (1, 2, 3, 4)]
    assert [stage.data.num_workers for stage in chain.stages] == [1] * 4
    assert chain.stages[1].training["max_steps"] == 7 != chain.stages[2].training["max_steps"]
    with pytest.raises(InputError, match="the stages 1 to 4"):
        load_chain("tiny/all", ["stage5.training.max_steps=7"])
    assert "chain of stages" in fault_of("tiny/all")


def test_files_extend_files_and_shipped_names(write):
    write("base/one.yaml", "extends: tiny/stage2\ndata:\n  tokens_per_pack: 512\ntraining: {seed: 3}\n")
    recipe = load_recipe(write("two.yaml", "extends: base/one.yaml\ndata: {sources: [{path: shapes}]}\n"))
    assert recipe.data.tokens_per_pack == 512
    assert recipe.data.sources == (SourceRecipe("shapes"),)
    assert recipe.data.resolution == load_recipe("tiny/stage2").data.resolution
    assert recipe.training["seed"] == 3
    assert recipe.name.endswith("two")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.tokens_per_pak=3", ["there is no key data.tokens_per_pak", "did you mean tokens_per_pack?"]),
        ("tokens_per_pack=3", ["did you mean data.tokens_per_pack?"]),
        ("learning_rate=3", ["did you mean training.learning_rate?"]),
        ("training.learnin_rate=1", ["did you mean learning_rate?"]),
        ("model.hiden_size=3", ["did you mean hidden_size?"]),
        ("data.sources.0.pth=1", ["there is no key data.sources.0.pth", "did you mean path?"]),
        ("evaluation.retrieval.pat=1", ["there is no key evaluation.retrieval.pat", "path"]),
        ("nonsense=1", ["allowed are stage, data, name"]),
        ("data.tokens_per_pack=many", ["data.tokens_per_pack='many'", "integer"]),
        ("data.tokens_per_pack=0", ["data.tokens_per_pack=0", "greater than or equal to 1"]),
        ("data.num_workers=off", ["data.num_workers='off'", "integer"]),
        ("data.num_workers=true", ["data.num_workers=True", "integer"]),
        ("data.resolution.mode=nativ", ["'native', 'bounded' or 'fixed'"]),
        ("data.resolution.max_side=1", ["min_side=96 is above max_side=1"]),
        ("data.resolution.crop_scale=[0.5, 2]", ["crop_scale=(0.5, 2.0)"]),
        ("data.video_share=0.5", ["clips are for 'image_video'"]),
        ("text=null", ["the section text is missing"]),
        ("text.lowercase=maybe", ["text.lowercase='maybe'", "boolean"]),
        ("training.learning_rate=no", ["training.learning_rate='no'", "number"]),
        ("training.max_steps=1.5", ["training.max_steps=1.5", "integer"]),
        ("training.output_dir=x", ["not for recipes", "--out"]),
        ("training.gradient_accumulation_steps=2", ["data.packs_per_step"]),
        ("training.num_train_epochs=2", ["training.max_steps"]),
        ("model.hidden_size=190", ["hidden_size=190 is not a multiple of num_attention_heads=3"]),
        ("data.sources.3.path=x", ["data.sources has 1 elements"]),
        ("data.sources=shapes", ["data.sources='shapes'", "a list"]),
    ],
)
def test_a_fault_names_place_key_and_what_was_allowed(override, told):
    fault = fault_of("tiny/stage2", override)
    assert fault.startswith(("--set", "tiny/stage"))
    for part in told:
        assert part in fault, fault


SECTIONS = {
    "init_from": None,
    "model": {},
    "teacher": None,
    "objective": ObjectiveRecipe(),
    "optimizer": OptimizerRecipe(),
    "evaluation": EvaluationRecipe(),
    "training": {},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_null_takes_a_section_away_in_a_file_and_on_the_command_line(section, write):
    changes = {
        "init_from": "stage1",
        "model": {"rope_theta": 50},
        "teacher": None,
        "objective": {"siglip": 2},
        "optimizer": {"text": 0.5},
        "evaluation": {"num_samples": 7},
        "training": {"seed": 3},
    }
    base = write("base.yaml", dump_yaml({"extends": "tiny/stage2", **changes}))
    child = load_recipe(write("child.yaml", f"extends: base.yaml\n{section}: null\n"))
    assert getattr(child, section) == SECTIONS[section]
    assert getattr(load_recipe(base, [f"{section}=null"]), section) == SECTIONS[section]
    # the others are as they were
    assert all(getattr(child, other) == getattr(load_recipe(base), other) for other in SECTIONS if other != section)


def test_null_takes_away_what_stands_in_sections(write):
    recipe = load_recipe(
        "tiny/stage4",
        [
            "data.resolution=null",
            "data.tokens_per_pack=null",
            "evaluation.retrieval=null",
            "evaluation.resolution=null",
            "training.warmup_steps=null",
            "data.sources.0.caption_columns={short: 1, long: null}",
        ],
    )
    assert (recipe.data.resolution, recipe.data.tokens_per_pack) == (ResolutionRecipe(), DataRecipe().tokens_per_pack)
    assert recipe.evaluation.retrieval is recipe.evaluation.resolution is None
    assert recipe.evaluation.video_retrieval is not None
    assert "warmup_steps" not in recipe.training
    assert recipe.data.sources[0].caption_columns == {"short": 1.0}
    # of these None is a value
    values = load_recipe("tiny/stage2", ["model.pos_embed_rescale=null", "training.lr_scheduler_kwargs=null"])
    assert values.model["pos_embed_rescale"] is None
    assert values.training["lr_scheduler_kwargs"] is None
    # and what a child says after that stands alone
    write("base.yaml", "extends: tiny/stage2\nevaluation: null\n")
    child = load_recipe(write("child.yaml", "extends: base.yaml\nevaluation: {num_samples: 5}\n"))
    assert child.evaluation == EvaluationRecipe(num_samples=5)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data=null", "data is missing"),
        ("stage=null", "stage is missing"),
        ("text=null", "the section text is missing"),
        ("data.sources.0.path=null", "data.sources.0.path is missing"),
        ("data.open_pack=null", "there is no key data.open_pack; did you mean open_packs?"),
        ("model.hiden_size=null", "did you mean hidden_size?"),
        ("training.learnin_rate=null", "did you mean learning_rate?"),
        ("evaluaton=null", "did you mean evaluation?"),
    ],
)
def test_what_must_be_there_or_is_unknown_is_not_taken_away_by_null(override, told):
    assert told in fault_of("tiny/stage2", override)


def test_an_empty_mapping_that_would_change_nothing_is_refused(write):
    fault = fault_of(write("child.yaml", "extends: tiny/stage2\nevaluation: {}\n"))
    assert "child.yaml: evaluation: {} adds nothing to what is inherited; null takes it away" in fault
    assert load_recipe("tiny/stage2", ["evaluation={}"]).evaluation == EvaluationRecipe()


@pytest.mark.parametrize(
    ("name", "override", "told"),
    [
        ("tiny/stage1", "text.encoder=small", "--set: text: stage 'mim' reads no captions"),
        ("tiny/stage2", "teacher.model=hog", "--set: teacher: stage 'image_text' learns from captions"),
        ("tiny/stage4", "teacher.model=hog", "--set: teacher: stage 'image_video' learns from captions"),
        ("tiny/stage2", "data.sources=[{path: a, kind: video}]", "stage 'image_text' trains on no clips"),
        ("tiny/stage1", "data.sources=[{path: a}, {path: b, kind: video}]", "data.sources.1 is of kind 'video' (b)"),
        ("tiny/stage4", "evaluation.video_retrieval.kind=image", "it must be video"),
        ("tiny/stage4", "evaluation.retrieval.kind=video", "it must be image"),
        ("tiny/stage1", "evaluation.classification={path: shapes}", "stage 'mim' has no text encoder"),
        ("tiny/stage1", "evaluation.video_retrieval={path: a, kind: video}", "measures its loss only"),
        ("tiny/stage1", "training.lr_scheduler_type=cosin", "did you mean cosine?"),
        ("tiny/stage1", "training.save_strategy=sometimes", "it must be one of no, steps, epoch"),
    ],
)
def test_what_a_stage_would_not_read_is_refused(name, override, told):
    assert told in fault_of(name, override)


def test_a_stage_file_takes_away_what_it_inherits_and_does_not_read(write):
    fault = fault_of(write("child.yaml", "extends: tiny/stage1\nstage: image_text\ntext: {encoder: small}\n"))
    assert "tiny/stage1.yaml: teacher: stage 'image_text' learns" in fault
    assert "teacher: null takes it away" in fault
    changed = "extends: tiny/stage1\nstage: image_text\nteacher: null\ntext: {encoder: small}\n"
    assert load_recipe(write("child.yaml", changed)).teacher is None


def test_a_fault_names_the_file_it_stands_in(write):
    base = write("base.yaml", "extends: tiny/stage2\ndata: {open_pack: 3}\n")
    fault = fault_of(write("child.yaml", "extends: base.yaml\nname: child\ntext: {max_tokens: -1}\n"))
    assert f"{base}: there is no key data.open_pack; did you mean open_packs?" in fault
    assert "child.yaml: text.max_tokens=-1" in fault


def test_recipes_do_not_extend_in_circles(write):
    write("b.yaml", "extends: a.yaml\n")
    fault = fault_of(write("a.yaml", "extends: b.yaml\n"))
    assert "a.yaml extends" in fault
    assert fault.count("a.yaml") == 2
    assert "circle" in fault_of(write("self.yaml", "extends: self.yaml\n"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data: {open_packs: 1}\ndata: {open_packs: 2}\n", "line 2: data was already given in line 1"),
        ("stage: [mim\n", "line"),
        ("- stage\n", "a recipe is a mapping"),
        ("extends: tiny/stge1\n", "did you mean tiny/stage1?"),
        ("extends: other.yaml\n", "there is no recipe file"),
        ("extends: [tiny/stage1]\n", "must be one file or one shipped name"),
        ("stage: mim\n", "data is missing"),
        ("", "stage is missing"),
    ],
)
def test_files_that_are_no_recipes(write, text, told):
    fault = fault_of(write("recipe.yaml", text))
    assert "recipe.yaml" in fault
    assert told in fault


def test_unknown_names_and_overrides_without_a_value():
    assert "did you mean tiny/stage2?" in fault_of("tiny/stge2")
    assert "there is no recipe file nowhere.yaml" in fault_of("nowhere.yaml")
    assert "must read key=value" in fault_of("tiny/stage2", "training.max_steps")


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", "1E-4", "+1e-4"])
def test_a_number_is_a_number_with_and_without_a_point(text, write):
    path = write("recipe.yaml", f"extends: tiny/stage2\ntraining: {{learning_rate: {text}}}\n")
    assert load_recipe(path).training["learning_rate"] == 1e-4
    assert load_recipe("tiny/stage2", [f"optimizer.tower={text}"]).optimizer.tower == 1e-4


def test_words_stay_words_and_switches_are_switches():
    recipe = load_recipe("tiny/stage2", ["data.sources.0.split=no", "text.frozen=on", "training.bf16=off"])
    assert recipe.data.sources[0].split == "no"
    assert recipe.text.frozen is True
    assert training_values(recipe.training)["bf16"] is False
    assert training_values({"max_steps": 1e5})["max_steps"] == 100_000
    assert parse_yaml("[010, 12:30, 1_000, ~, .5, yes]", "text") == ["010", "12:30", 1000, None, 0.5, "yes"]


def test_what_is_written_reads_back_equal_here_and_for_others():
    values = {"words": ["no", "1e-4", "null", "010", "12:30"], "numbers": [1e-5, 3, 2.5], "switch": True, "none": None}
    assert parse_yaml(dump_yaml(values), "text") == values
    plain = {"number": 1e-5, "word": "mim", "list": (1, 2)}
    assert yaml.safe_load(dump_yaml(plain)) == {**plain, "list": [1, 2]}


def test_the_last_override_wins_and_the_recipe_is_frozen():
    recipe = load_recipe("tiny/stage2", ["training.max_steps=5", "training={max_steps: 6}"])
    assert recipe.training == {"max_steps": 6}
    assert isinstance(recipe, StageRecipe)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.stage = "mim"
