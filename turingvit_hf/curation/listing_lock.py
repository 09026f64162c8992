# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""One process at a time lists the sources of a run folder, on any file system that can make a file exclusively.

A lock is a file `listing.N.lock`, made with O_EXCL, which NFS has too. The owner touches it every few seconds. Whoever
finds it untouched for long, or its process gone from the same machine, makes `listing.N+1.lock` and is the owner from
then on: no lock is taken away from a place where another one could have come meanwhile. An owner that had only slept
finds the higher number before it writes, and gives up.
"""

import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turingvit_hf.curation.tables import read_json
from turingvit_hf.errors import InputError
from turingvit_hf.files.owners import is_gone, this_machine


# seconds between two signs of life, and without one after which an owner is taken to be gone
BEAT, PATIENCE = 2.0, 30.0
POLL = 0.2
NAME = re.compile(r"listing\.(\d+)\.lock")

logger = logging.getLogger(__name__)


class ListingLock:
    """The right to list the sources of a run folder, while it lasts.

    Args:
        path: of the lock's file.
    """

    def __init__(self, path: Path, owner: dict[str, Any]):
        self.path = path
        self._owner = owner
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()

    def check(self) -> None:
        """Raises an `InputError` where another process took this one to be gone, and lists instead."""
        if read_json(self.path) != self._owner or _newest(self.path.parent) != self.path:
            raise InputError(
                f"{self.path.parent}: another process took over the listing, as this one gave no sign of life for "
                f"{PATIENCE:.0f} s; the same command goes on from it"
            )

    def release(self) -> None:
        """Gives the right back; those of owners that are gone go first, so that none of them looks like one."""
        self._ended.set()
        self._beats.join()
        for path in sorted(_locks(self.path.parent), key=_number):
            if _number(path) < _number(self.path) or (path == self.path and read_json(path) == self._owner):
                path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:
                return  # gone, or out of reach: `check` finds out


@contextmanager
def listing_lock(folder: Path) -> Iterator[ListingLock]:
    """The lock of a run folder, which is waited for; what another process listed meanwhile is there to be read then.

    Raises:
        InputError: nothing can be written there.
    """
    owner = {"machine": this_machine(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    seen: tuple[Path | None, int, float] = (None, 0, 0.0)
    is_told = False
    while True:
        newest = _newest(folder)
        if newest is None or _is_gone(newest) or (seen[0] == newest and _is_silent(newest, seen)):
            path = folder / f"listing.{0 if newest is None else _number(newest) + 1:03d}.lock"
            if _make(path, owner):
                break
            continue
        touched = _touched(newest)
        if seen[:2] != (newest, touched):
            seen = newest, touched, time.monotonic()
        if not is_told:
            logger.info("another process is listing the sources of %s: waiting for it", folder)
            is_told = True
        time.sleep(POLL)
    lock = ListingLock(path, owner)
    try:
        yield lock
    finally:
        lock.release()


def _make(path: Path, owner: dict[str, Any]) -> bool:
    """Whether the lock was made, by this process and no other."""
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(owner, file)
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(f"cannot write to {path.parent}: {error.strerror}") from error
    return True


def _locks(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if NAME.fullmatch(path.name)]


def _newest(folder: Path) -> Path | None:
    return max(_locks(folder), key=_number, default=None)


def _number(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    assert found is not None
    return int(found.group(1))


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _is_silent(path: Path, seen: tuple[Path | None, int, float]) -> bool:
    """Whether nothing has happened to a lock for long, by this machine's own clock: those of others may be wrong."""
    return _touched(path) == seen[1] and time.monotonic() - seen[2] > PATIENCE


def _is_gone(path: Path) -> bool:
    """Whether the owner was a process of this machine and is none any more."""
    try:
        owner = read_json(path)
    except ValueError:
        return False  # it is being written, or its owner died at that: silence will tell
    return owner is not None and owner["machine"] == this_machine() and is_gone(owner["pid"])
