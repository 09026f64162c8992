# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Tux Paint's stamps: about 800 small photographs and drawings with an English caption each, from a Debian package.

The package is downloaded by `apt-get download` and unpacked by `dpkg -x` into the user's cache folder; neither needs
root. The pictures are under free licenses that the package's own documentation names.
"""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from turingvit_hf.errors import InputError


PACKAGE = "tuxpaint-stamps-default"
STAMPS_FOLDER = Path("usr/share/tuxpaint/stamps")

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder for downloaded data: `turingvit_hf` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turingvit_hf"


def fetch_stamps(cache: Path | None = None) -> Path:
    """The folder with the unpacked stamps, downloaded (161 MB) if it is not in the cache yet.

    Args:
        cache: where to keep it; None: `cache_folder()`.

    Raises:
        InputError: this system has no apt-get or dpkg, or the download failed.
    """
    instead = "use --data shapes, or a folder of your own"
    return fetch_debian_package(PACKAGE, cache or cache_folder(), instead=instead) / STAMPS_FOLDER


def fetch_debian_package(package: str, cache: Path, *, instead: str) -> Path:
    """The folder with a package's unpacked files, downloaded if it is not in the cache yet.

    The folder appears complete or not at all, so a run that is killed while it downloads leaves nothing to repair.

    Args:
        package: its name.
        cache: where to keep it.
        instead: what to do where packages cannot be had; ends the error message.

    Raises:
        InputError: this system has no apt-get or dpkg, or the download failed.
    """
    target = cache / package
    if target.exists():
        return target
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise InputError(
                f"the data comes from the Debian package {package} and needs {program}, which is not here; {instead}"
            )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{package}.") as scratch:
        logger.info("downloading the Debian package %s into %s", package, cache)
        _run(["apt-get", "download", package], scratch, hint="try `apt-get update` as root first")
        archive = next(Path(scratch).glob(f"{package}_*.deb"))
        unpacked = Path(scratch) / "unpacked"
        _run(["dpkg", "-x", str(archive), str(unpacked)], scratch, hint="the download may be damaged")
        try:
            unpacked.rename(target)
        except OSError:
            # another process was faster; its copy is the same
            if not target.exists():
                raise
    return target


def iterate_stamps(folder: Path) -> Iterator[tuple[Path, str]]:
    """Pairs of picture file and caption, in the order of their paths; pictures without a caption are left out.

    The caption of `NAME.png` is the first line of `NAME.txt`; the lines below it are translations.
    """
    for picture in sorted(folder.rglob("*.png")):
        text = picture.with_suffix(".txt")
        if text.exists():
            first_line = text.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
            if first_line:
                yield picture, first_line


def _run(command: list[str], folder: str, *, hint: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last_lines = " ".join(done.stderr.split("\n")[-4:]).strip()
        raise InputError(f"`{' '.join(command)}` failed ({last_lines}); {hint}")
