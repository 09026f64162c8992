# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether what `report_to` names is there: Trainer would ask only when models and data have been loaded."""

import difflib
from collections.abc import Sequence

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK


# what the extra `tracking` installs
OF_EXTRA = ("tensorboard", "trackio")
# not trackers: as many as there are, and none at all
WORDS = ("all", "none")
# trackers whose packages transformers does not look for by these names
NOT_LOOKED_FOR = ("azure_ml", "flyte")


def tracker_faults(report_to: str | Sequence[str] | None) -> list[str]:
    """Return a sentence for each name in `report_to` of TrainingArguments that nothing can be reported to.

    Trackers are those of transformers; a name is at fault if it is none of them, or its package is not installed.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    available = get_available_reporting_integrations()
    faults = []
    for name in names:
        if name in (*WORDS, *NOT_LOOKED_FOR, *available):
            continue
        if name in INTEGRATION_TO_CALLBACK:
            extra = ": pip install 'turingvit_hf[tracking]'" if name in OF_EXTRA else ""
            faults.append(f"training.report_to={name}: its package is not installed{extra}")
        else:
            nearest = difflib.get_close_matches(name, [*INTEGRATION_TO_CALLBACK, *WORDS], n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(INTEGRATION_TO_CALLBACK)}"
            faults.append(f"training.report_to={name}: transformers knows no such tracker; {hint}")
    return faults
