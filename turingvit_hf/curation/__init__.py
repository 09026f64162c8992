# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Curation of image-text and video-text data: measured, recaptioned, verified, scored and grounded, with a reason for
every row.

`import turingvit_hf.curation` loads nothing heavy; the functions below load what they need when they are first used.
"""

import importlib
from typing import Any


EXPORTS = {
    "CurationConfig": "config",
    "load_config": "config_files",
    "plan": "plans",
    "run": "runs",
    "retry": "runs",
    "status": "runs",
    "score": "runs",
    "export": "exports",
    "RunFolder": "state",
    "EngineOptions": "engines",
    "Outcomes": "outcomes",
    "TooManyErrorsError": "runs",
}

__all__ = sorted(EXPORTS)


def __getattr__(name: str) -> Any:
    """Return a function or class of the Python API, loaded on its first use."""
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{EXPORTS[name]}"), name)
