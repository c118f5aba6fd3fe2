"""Limits of long steps, which the user may change for a slow machine or a large model."""

from __future__ import annotations

import math
import os
from dataclasses import replace

from edgewright.core.errors import UsageError
from edgewright.workers.pool import Limits

TIMEOUT_VARIABLE = "EDGEWRIGHT_TIMEOUT_S"
MEMORY_VARIABLE = "EDGEWRIGHT_MEMORY_MB"


def limits_from_environment(default: Limits) -> Limits:
    """Return `default` with what $EDGEWRIGHT_TIMEOUT_S (seconds) and $EDGEWRIGHT_MEMORY_MB (10^6 bytes) say.

    Raises:
        UsageError: a variable is set to something that is no number above 0.
    """
    timeout_s, memory_mb = _number(TIMEOUT_VARIABLE), _number(MEMORY_VARIABLE)
    limits = default
    if timeout_s is not None:
        limits = replace(limits, timeout_s=timeout_s)
    if memory_mb is not None:
        limits = replace(limits, memory_bytes=int(memory_mb * 1e6))
    return limits


def _number(variable: str) -> float | None:
    text = os.environ.get(variable, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise UsageError(f"${variable} is {text!r}; expected a number above 0. Change or unset it.")
    return number
