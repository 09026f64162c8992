# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What typed sections of YAML files share: unknown keys are refused, and switches are said as people say them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict


STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=False)


def _switch(value: Any) -> Any:
    """YAML's words for true and false as what they mean; anything else as it is."""
    words = {"yes": True, "on": True, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_switch)]
