# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The stamps: captions from a tree like the package's, the cache, and what is said where the package cannot be had."""

import shutil
import subprocess
from types import SimpleNamespace

import pytest
from PIL import Image

from turingvit_hf.errors import InputError
from turingvit_hf.training.data import stamps
from turingvit_hf.training.data.stamps import STAMPS_FOLDER, cache_folder, fetch_stamps, iterate_stamps


def make_stamps(folder):
    """A tree like that of the package: captions with translations, one blank, one missing."""
    for name, text in (
        ("cat", "A cat.\nde.utf8=Eine Katze."),
        ("ant", "An ant.\n"),
        ("blank", "\nde.utf8=x"),
        ("none", None),
    ):
        (folder / "animals").mkdir(parents=True, exist_ok=True)
        Image.new("LA", (9, 7)).save(folder / "animals" / f"{name}.png")
        if text is not None:
            (folder / "animals" / f"{name}.txt").write_text(text, encoding="utf-8")


@pytest.fixture
def fake_debian(monkeypatch):
    """apt-get and dpkg that need no network; the list holds the commands that were run."""
    commands = []

    def run(command, cwd, **options):
        commands.append(command[:2])
        if command[0] == "apt-get":
            (stamps.Path(cwd) / f"{stamps.PACKAGE}_1_all.deb").touch()
        else:
            make_stamps(stamps.Path(command[3]) / STAMPS_FOLDER)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_captions_are_the_first_lines(tmp_path):
    make_stamps(tmp_path)
    found = [(path.name, caption) for path, caption in iterate_stamps(tmp_path)]
    assert found == [("ant.png", "An ant."), ("cat.png", "A cat.")]


def test_the_package_is_fetched_once(tmp_path, fake_debian):
    folder = fetch_stamps(tmp_path / "cache")
    assert len(list(iterate_stamps(folder))) == 2
    assert fetch_stamps(tmp_path / "cache") == folder
    assert fake_debian == [["apt-get", "download"], ["dpkg", "-x"]]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [stamps.PACKAGE]


def test_another_process_may_be_faster(tmp_path, fake_debian, monkeypatch):
    rename = stamps.Path.rename

    def rename_after_the_other(self, target):
        make_stamps(target / STAMPS_FOLDER)
        return rename(self, target)

    monkeypatch.setattr(stamps.Path, "rename", rename_after_the_other)
    assert len(list(iterate_stamps(fetch_stamps(tmp_path)))) == 2


def test_a_failed_download_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: program)
    failed = SimpleNamespace(returncode=100, stderr="Reading lists\nE: Unable to locate package tuxpaint\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(InputError, match=r"Unable to locate package.*try `apt-get update` as root first"):
        fetch_stamps(tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_systems_are_told_what_to_do_instead(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(InputError, match="needs apt-get, which is not here; use --data shapes"):
        fetch_stamps(tmp_path)


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "turingvit_hf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "turingvit_hf"
