# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Texts and names that are no Unicode, or more than one expects: each row ends with an outcome, and is read again."""

import json
import os

import pyarrow.parquet as pq
import pytest

from tests.curation.run_cases import make_config, picture, write_listing
from turingvit_hf.curation.exports import export
from turingvit_hf.curation.report.page import write_report
from turingvit_hf.curation.runs import run
from turingvit_hf.curation.steps.decode import DecodeImages
from turingvit_hf.data.media import find_media
from turingvit_hf.errors import BadRowError


OFF = {"enabled": False}


def rows_of(out):
    return {row["key"]: row for row in pq.read_table(out / "rows.parquet").to_pylist()}


def test_halves_of_surrogate_pairs_are_replaced(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for number, caption in enumerate(["A dog \ud83d", "كلب في الحديقة", "one\ntwo\n\tthree", "kite " * 2000, "a\0b"]):
        picture(number).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "caption": caption, "license": "CC\udc00"})
    rows += [{"file_name": "gone\ud800.png", "caption": "Nothing."}, {"file_name": "gone\udfff.png"}]
    picture(9).save(folder / "9.png")
    rows += [{"file_name": "9.png", "caption": "\u200b \u200f"}]  # marks of no width alone
    write_listing(folder, rows)
    outcomes = run(make_config(folder), tmp_path / "run")
    assert outcomes.num_rows == 8
    rows = rows_of(tmp_path / "run")
    assert rows["0.png"]["caption"] == "A dog \ufffd"
    assert rows["0.png"]["license"] == "CC\ufffd"
    assert rows["1.png"]["caption"] == "كلب في الحديقة"
    assert rows["2.png"]["caption"] == "one two three"
    assert rows["3.png"]["caption"] == " ".join(["kite"] * 2000)  # no limit of a prompt holds for a row's own
    assert [rows[key]["drop_reason"] for key in ("gone\\ud800.png", "gone\\udfff.png")] == ["file is missing"] * 2
    assert rows["9.png"]["drop_reason"] == "no caption"
    write_report(tmp_path / "run")
    assert export(tmp_path / "run", tmp_path / "out").num_rows == outcomes.num_kept == 5


@pytest.mark.parametrize(
    "name", ["a\0b.png", "a" * 5000, "\ud800.png", "~nobody-of-that-name.png", "~/.gone.png", "."]
)
def test_no_path_ends_a_run(tmp_path, name):
    with pytest.raises(BadRowError):
        find_media(name, "image", root=tmp_path, is_confined=True)
    with pytest.raises(BadRowError):
        find_media(name, "image", root=tmp_path, is_confined=False)


def test_names_of_files_need_not_be_utf_8(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate([b"a\xff.png", b"a\xfe.png", "ä.png".encode()]):
        picture(number).save(os.fsdecode(os.path.join(os.fsencode(folder), name)), format="PNG")
    config = make_config(folder, caption=OFF, embed=OFF, score=OFF)
    assert run(config, tmp_path / "run").num_kept == 3
    assert set(rows_of(tmp_path / "run")) == {"a\\udcff.png", "a\\udcfe.png", "ä.png"}
    export(tmp_path / "run", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "export.json").read_text())["rows"] == 3


def test_what_is_said_of_a_broken_file_is_the_same_in_every_process():
    step, files = DecodeImages(), [b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0" + b"x" * 40]
    found = step({"media": files})
    assert found["fault"] == ["image cannot be read"] * len(files)
    assert found["fault_detail"][0] == "10 bytes: it is no picture that Pillow knows"
    assert not any("0x" in detail for detail in found["fault_detail"])
