# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""The beginning of a run: its folder, the listing of its sources, and what a folder of another config keeps."""

import json
import platform
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from turingvit_hf import __version__
from turingvit_hf.curation.config import CurationConfig
from turingvit_hf.curation.config_files import dump_config
from turingvit_hf.curation.listing_lock import ListingLock, listing_lock
from turingvit_hf.curation.model_specs import check_models
from turingvit_hf.curation.rows import forget_sources
from turingvit_hf.curation.shards import Shard, list_shards
from turingvit_hf.curation.state import EARLIER_CALLS, MARKER, RunFolder, source_name
from turingvit_hf.curation.tables import write_json, written_file
from turingvit_hf.errors import InputError


VERSIONED = ("torch", "transformers", "pyarrow", "pillow", "numpy", "opencv-python-headless", "ImageHash", "faiss-cpu")


def begin(path: str | Path, config: CurationConfig, *, force: bool = False) -> RunFolder:
    """Return the run folder of a config: a new one, or the one that a run with the same config was begun in.

    Args:
        path: the folder.
        config: of the run.
        force: whether a folder of another config is taken over; what does not depend on the changes stays.

    Raises:
        InputError: the folder holds something else, or a run with another config and `force` is off; the config
            names no sources, or describes a model wrongly.
    """
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a run folder is wanted")
    known = _known(folder, config, force=force)
    if known is not None and known.facts["config_hash"] == config.hash():
        return known
    check_names(config)
    check_models(config)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with listing_lock(folder) as lock:
            known = _known(folder, config, force=force)  # another process may have begun it meanwhile
            if known is None or known.facts["config_hash"] != config.hash():
                _begin(folder, config, known, lock)
    finally:
        if is_new:
            with suppress(OSError):  # it holds something, as it should
                folder.rmdir()
    return RunFolder(folder)


def _known(folder: Path, config: CurationConfig, *, force: bool) -> RunFolder | None:
    """The run that was begun in a folder, if a run with this config may go on there."""
    if not RunFolder.exists(folder):
        if folder.exists() and not _is_begun(folder):
            raise InputError(f"{folder} is not empty and no run folder; choose another one")
        return None
    known = RunFolder(folder)
    if known.facts["config_hash"] != config.hash() and not force:
        changes = describe_changes(known.config.to_dict(), config.to_dict())
        raise InputError(
            f"{folder} was begun with another config: {'; '.join(changes[:5])}; --force goes on with the new one "
            "and keeps what does not depend on the changes"
        )
    return known


def _begin(folder: Path, config: CurationConfig, known: RunFolder | None, lock: ListingLock) -> None:
    """Writes what makes a folder the run folder of a config."""
    if known is not None and _lists_the_same(known.config, config):
        sources, shards = known.facts["sources"], known.shards  # the source may be gone by now
    else:
        sources, shards = _list(config, folder, lock)
    with written_file(folder / "config.yaml") as partial:
        partial.write_text(dump_config(config), encoding="utf-8")
    facts = {
        "config_hash": config.hash(),
        "config": config.to_dict(),
        "seed": config.seed,
        "versions": versions(),
        "sources": sources,
        "shards": [shard.to_dict() for shard in shards],
    }
    write_json(folder / MARKER, facts)  # last: with it the folder is one


def _lists_the_same(first: CurationConfig, second: CurationConfig) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in ("sources", "shard_size", "limit"))


def _list(config: CurationConfig, folder: Path, lock: ListingLock) -> tuple[list[dict[str, Any]], list[Shard]]:
    """The sources and shards of a config; what a folder has of more shards, or of another number of them, goes."""
    for left in folder.glob("sources*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    listed = folder / f"sources.{lock.path.stem}.tmp"
    try:
        shards, num_rows = list_shards(config, listed)
    except BaseException as error:  # all is as it was
        shutil.rmtree(listed, ignore_errors=True)
        if isinstance(error, OSError):
            lock.check()  # whoever took over has cleared the place
        raise
    lock.check()
    _keep_answers(folder)
    shutil.rmtree(folder / "sources", ignore_errors=True)
    if listed.exists():
        listed.rename(folder / "sources")
    forget_sources()
    for extra in sorted((folder / "shards").glob("*"))[len(shards) :]:
        shutil.rmtree(extra)
    shutil.rmtree(folder / "whole", ignore_errors=True)  # its row groups are numbered by shards
    return [{"name": source_name(config, number), "rows": count} for number, count in enumerate(num_rows)], shards


def _keep_answers(folder: Path) -> None:
    """Gathers the answers of all shards in one journal, since rows are about to move to other shards."""
    journals = sorted((folder / "shards").glob("*/calls.jsonl"))
    if not journals:
        return
    with written_file(folder / EARLIER_CALLS) as partial, partial.open("wb") as file:
        for journal in (folder / EARLIER_CALLS, *journals):
            if journal.is_file():
                file.writelines(
                    line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
                )
    for journal in journals:
        journal.unlink()


def versions() -> dict[str, str]:
    """Return the versions of what results may depend on."""
    found = {"turingvit_hf": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_changes(before: Any, after: Any, place: str = "") -> list[str]:
    """Return a phrase for each value in which two plain configs differ."""
    before, after = json.loads(json.dumps([before, after]))
    if isinstance(before, dict) and isinstance(after, dict):
        changes = []
        for key in dict.fromkeys((*before, *after)):
            changes += describe_changes(before.get(key), after.get(key), f"{place}.{key}" if place else key)
        return changes
    return [] if before == after else [f"{place} was {before!r:.60}, is {after!r:.60}"]


def _is_begun(folder: Path) -> bool:
    """Whether there is nothing here, or what a run leaves that is killed before its shard table is written."""
    return all(
        entry.name in ("sources", "config.yaml") or entry.name.endswith((".tmp", ".lock"))
        for entry in folder.iterdir()
    )


def check_names(config: CurationConfig) -> None:
    """Raises an `InputError` where a config has no sources, or two of one name."""
    if not config.sources:
        raise InputError("the config names no sources: --set 'sources=[{path: my/pictures}]'")
    names = [source_name(config, number) for number in range(len(config.sources))]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sources are called {name!r}; give each a name of its own (sources.N.name)")
