# Copyright 2026 The turingvit_hf authors. Licensed under the Apache License, Version 2.0.
"""What went wrong with a request to an endpoint: whether it passes, and how long the server asks to wait."""

import email.utils
import json
import math
import time

from turingvit_hf.curation.models.answers import Failure
from turingvit_hf.curation.optional import require


# responses for which another try makes sense, beside all of 500 and above
PASSING_STATUS = {408: "time-out", 409: "server error", 425: "server error", 429: "rate limit"}
# responses that every other request would get as well
FATAL_STATUS = (401, 402, 403, 404, 405)
# what a 429 says when no waiting helps: the account is empty
OUT_OF_CREDIT = "insufficient_quota"


class BadResponseError(Exception):
    """A response of status 200 in which there is no answer."""


def failure_of(error: BaseException) -> Failure | None:
    """Return the failure of the one question, or None for an error that is the whole run's.

    Args:
        error: what sending a request raised.
    """
    openai = require("openai")
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Failure("time-out", "no response in time", passing=True)
    if isinstance(error, openai.APIConnectionError):
        return Failure("connection", f"{error.__cause__ or error}"[:200], passing=True)
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        if status in FATAL_STATUS or error.code == OUT_OF_CREDIT:
            return None
        if status in PASSING_STATUS or status >= 500:
            return Failure(PASSING_STATUS.get(status, "server error"), f"status {status}: {error}"[:200], passing=True)
        return Failure("rejected", f"status {status}: {error}"[:200], passing=False)
    if isinstance(error, BadResponseError | openai.APIResponseValidationError | json.JSONDecodeError):
        return Failure("bad response", f"{error}"[:200], passing=True)
    return None


def retry_after_of(error: BaseException | None) -> float | None:
    """Return for how many seconds the server asks not to be asked, None where it does not say.

    `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    response = getattr(error, "response", None)
    value = None if response is None else response.headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
