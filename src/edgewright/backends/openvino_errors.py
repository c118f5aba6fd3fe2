"""OpenVINO's errors in one sentence: what it could not do, and which operators stood in the way."""

from __future__ import annotations

import re

from edgewright.core.errors import first_line

_UNSUPPORTED = (
    re.compile(r"No conversion rule found for operations?: ([^\n]+)"),
    re.compile(r"does not support the following ONNX operations?: ([^\n]+)"),
    re.compile(r"No translator found for ([\w.:-]+)"),
    re.compile(r"Conversion is failed for: ([^\n]+)"),
    re.compile(r"(?:[Nn]ot supported|[Uu]nsupported)[^\n]*?(?:operation|op|node)[^\n]*?: ?([\w.:]+)"),
    re.compile(r"\b(aten[.:]+[\w.]+)"),
)


def explain(err: Exception, name: str) -> str:
    """Return why the model called `name` cannot be converted, with every operator that OpenVINO names."""
    text = str(err)
    for pattern in _UNSUPPORTED:
        found = pattern.findall(text)
        if found:
            names = sorted({operator.strip(" .") for part in found for operator in part.split(",")} - {""})
            return (
                f"OpenVINO cannot convert the operator{'s' if len(names) > 1 else ''} {', '.join(names)} "
                f"({reason_of(err)}). Replace them in the model, or leave this runtime out."
            )
    return f"OpenVINO cannot convert {name}: {reason_of(err)}. Change the model, or leave this runtime out."


_PLACES = (
    "Exception from",
    "Check '",
    "[ ERROR",
    "FrontEnd API failed",
    "While validating",
    "-- ",
    "Summary:",
    "Converting input model",
)


def reason_of(err: BaseException) -> str:
    """Return the line that says what went wrong: OpenVINO puts places in its own source code around it."""
    lines = [line.strip() for line in str(err).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_PLACES)]
    # "Model wasn't fully converted" heads a list of nodes, each with its reason.
    telling = [
        line for line in telling if "fully converted" not in line and "Conversion failed for" not in line
    ] or telling
    return (telling[0] if telling else first_line(err))[:400].rstrip(".")
