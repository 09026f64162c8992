# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Packages that only curation uses: imported where they are used, named where they are missing."""

import importlib
import importlib.util
from types import ModuleType

from turingvit_hf.errors import InputError


# what `pip install` calls a module
PACKAGES = {
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "imagehash": "ImageHash",
    "openai": "openai",
    "tenacity": "tenacity",
    "textblob": "textblob",
    "spacy": "spacy",
    "scenedetect": "scenedetect-headless",
    "av": "av",
    "ray": "ray[data]",
    "matplotlib": "matplotlib",
}


def require(module: str, extra: str = "curate") -> ModuleType:
    """Return a module of an optional package.

    Args:
        module: its name, such as `"cv2"` or `"matplotlib.pyplot"`.
        extra: the extra of this package that brings it along.

    Raises:
        InputError: the package is not installed; the text says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise  # the package is there, and something of its own is not
        name = PACKAGES.get(root, root)
        raise InputError(f"this needs the package {name}: pip install 'turingvit_hf[{extra}]'") from error


def is_installed(module: str) -> bool:
    """Return whether a module of an optional package could be imported, without importing it."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None
