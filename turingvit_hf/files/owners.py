# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Which process something on disk belongs to, and whether that process is gone: folders are shared by machines."""

import os
import socket
from pathlib import Path


def this_machine() -> str:
    """Return what tells machines apart, and containers, whose processes have numbers of their own."""
    try:
        space = os.readlink("/proc/self/ns/pid")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        space = boot = ""
    return f"{socket.gethostname()} {boot} {space}"


def is_gone(pid: int) -> bool:
    """Return whether this machine has no process of a number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
