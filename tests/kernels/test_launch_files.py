# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of launches that go before the table: what they may say, and what is said about all others."""

import json

import pytest

from turingvit_hf.kernels.linear_attention.launch_table import Launch, launch, read_launches


LAUNCH = {"tokens": 64, "num_warps": 8, "num_stages": 3}


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Writes a launch file and names it in the environment."""

    def write(content) -> str:
        file = tmp_path / "launches.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("TURINGVIT_LAUNCH_TABLE", str(file))
        read_launches.cache_clear()
        return str(file)

    yield write
    read_launches.cache_clear()


def nested(family="sm_90", bits="16", head_dim="64", kernel="backward_query", **changes):
    return {"launches": {family: {bits: {head_dim: {kernel: LAUNCH | changes}}}}}


def test_a_file_goes_before_the_table_where_it_has_an_entry(use):
    before = launch("forward_state", "sm_90", 16, 64)
    use(nested() | {"about": {"gpu": "any"}})
    assert launch("backward_query", "sm_90", 16, 64) == Launch(64, 8, 3)
    assert launch("forward_state", "sm_90", 16, 64) == before
    assert launch("backward_query", "sm_80", 16, 64) != Launch(64, 8, 3)
    assert launch("backward_query", "sm_90", 32, 64) != Launch(64, 8, 3)


def test_no_variable_or_an_empty_one_is_the_table(use, monkeypatch):
    use(nested())
    monkeypatch.setenv("TURINGVIT_LAUNCH_TABLE", "")
    table = launch("backward_query", "sm_90", 16, 64)
    monkeypatch.delenv("TURINGVIT_LAUNCH_TABLE")
    assert launch("backward_query", "sm_90", 16, 64) == table != Launch(64, 8, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nested(family="sm_70"), r"launches: 'sm_70' is none of \['sm_80', 'sm_90', .*'gfx9'\]"),
        (nested(bits="8"), r"launches, sm_90: '8' is none of \['16', '32'\]"),
        (nested(head_dim="48"), r"launches, sm_90, 16: '48' is none of \['32', '64', '128'\]"),
        (nested(bits="32", head_dim="128"), r"launches, sm_90, 32: '128' is none of \['32', '64'\]"),
        (nested(kernel="fwd"), r"launches, sm_90, 16, 64: 'fwd' is none of \['forward_state', "),
        (nested(tokens=48), r"sm_90, 16, 64, backward_query: tokens must be one of \(16, 32, .*\), not 48"),
        (nested(num_warps=6), r"num_warps must be one of \(1, 2, 4, 8, 16\), not 6"),
        (nested(num_stages=0), r"num_stages must be one of \(1, 2, 3, 4, 5\), not 0"),
        (nested(num_stages=True), r"num_stages must be one of .*, not True"),
        (nested(tokens="64"), r"tokens must be one of .*, not '64'"),
        (nested(tokens=None), r"tokens must be one of .*, not None"),
        (nested(warps=4), r"backward_query: 'warps' is none of \['tokens', 'num_warps', 'num_stages'\]"),
        ({"launches": {"sm_90": []}}, r"launches, sm_90: must be an object, not \[\]"),
        ({"launch": {}}, r"'launch' is none of \['launches', 'about'\]"),
        ({"about": {}}, r"launches: must be an object, not None"),
        ([], r"launches\.json: must be an object, not \[\]"),
        ("{", r"launches\.json is no JSON: "),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_any_other_file_names_its_fault(use, content, message):
    use(content)
    with pytest.raises(ValueError, match=message):
        launch("forward_state", "sm_80", 16, 64)


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TURINGVIT_LAUNCH_TABLE", str(tmp_path / "nowhere.json"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        launch("forward_state", "sm_80", 16, 64)
