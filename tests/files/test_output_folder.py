# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Output folders: free names, nothing lost, complete or absent."""

import os
import signal
import sys

import pytest

from tests.processes import run_command
from turingvit_hf.errors import InputError
from turingvit_hf.files.output_folder import choose_folder, written_in_one_piece


def choose(out, overwrite=False):
    return choose_folder(out, default="result", marker="done.json", overwrite=overwrite)


def test_without_a_name_the_first_free_one_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("result", "result-2", "result-3"):
        assert str(choose(None)) == expected
        (tmp_path / expected).mkdir()


def test_new_and_empty_folders_are_free(tmp_path):
    (tmp_path / "empty").mkdir()
    assert choose(tmp_path / "empty") == tmp_path / "empty"
    assert choose(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"


def test_nothing_but_an_earlier_result_is_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not empty"):
        choose(tmp_path)
    with pytest.raises(InputError, match=r"has no done\.json, so it is not the result of an earlier run and stays"):
        choose(tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"thesis\.txt is a file; the output is a folder"):
        choose(tmp_path / "thesis.txt", overwrite=True)
    (tmp_path / "done.json").write_text("{}")
    assert choose(tmp_path, overwrite=True) == tmp_path
    with pytest.raises(InputError, match="is not empty"):
        choose(tmp_path)


@pytest.mark.parametrize("before", ["absent", "empty", "earlier result"])
def test_a_folder_appears_at_the_end_and_complete(tmp_path, before):
    target = tmp_path / "deep" / "result"
    if before != "absent":
        target.mkdir(parents=True)
    if before == "earlier result":
        (target / "old.txt").touch()
    with written_in_one_piece(target) as folder:
        (folder / "new.txt").touch()
        assert not (target / "new.txt").exists()
    assert [path.name for path in target.iterdir()] == ["new.txt"]
    assert [path.name for path in target.parent.iterdir()] == ["result"]


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    target = tmp_path / "result"
    target.mkdir()
    (target / "old.txt").touch()

    def fail():
        with written_in_one_piece(target) as folder:
            (folder / "new.txt").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["result", "old.txt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from turingvit_hf.files import output_folder

move = Path.rename

def rename(path, target):
    move(path, target)
    if sys.argv[2] == "while it takes its place":
        os.kill(os.getpid(), signal.SIGKILL)

Path.rename = rename
with output_folder.written_in_one_piece(Path(sys.argv[1])) as folder:
    (folder / "half.txt").touch()
    if sys.argv[2] == "while it is written":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["while it is written", "while it takes its place"])
def test_what_a_killed_process_left_goes_and_what_it_moved_away_comes_back(tmp_path, when):
    target = tmp_path / "result"
    target.mkdir()
    (target / "old.txt").touch()
    other = tmp_path / f".other.partial-0-{os.getpid()}"
    other.mkdir()
    assert run_command([sys.executable, "-c", KILLED, target, when]).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) > 2
    with written_in_one_piece(target) as folder:
        assert (target / "old.txt").exists()
        with written_in_one_piece(tmp_path / "result2"):
            assert folder.exists()
        (folder / "new.txt").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"result", "result2", other.name}
    assert [path.name for path in target.iterdir()] == ["new.txt"]


def test_a_place_that_cannot_be_written_is_the_users_to_change(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"), written_in_one_piece(tmp_path / "file" / "result"):
        pass
