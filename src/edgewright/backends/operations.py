"""Worker operations of backends: each takes and returns JSON and runs in a child process."""

from __future__ import annotations

from pathlib import Path

from edgewright.backends import registry
from edgewright.core.contracts import Calibration
from edgewright.core.errors import FormatMismatchError
from edgewright.core.program import Program
from edgewright.core.target import Target


def convert(arguments: dict[str, object]) -> dict[str, object]:
    """Convert a program for a target.

    Args:
        arguments: {"program": Program, "target": Target, "calibration": Calibration or None,
            "workdir": folder}; records as their `to_json` gives them.
    Returns:
        {"artifact": Artifact, "program": the Program that was converted, with what bridges have noted in it}
    Raises:
        UnknownNameError, FormatMismatchError, ConversionError, UnavailableError: see `Backend.convert`.
    """
    program = Program.from_json(_record(arguments["program"]))
    target = Target.from_json(_record(arguments["target"]))
    given = arguments.get("calibration")
    calibration = None if given is None else Calibration.from_json(_record(given))
    backend = registry.get(target.runtime)
    reason = backend.refuses(program, target)
    if reason is not None:
        raise FormatMismatchError(reason)
    workdir = Path(str(arguments["workdir"]))
    workdir.mkdir(parents=True, exist_ok=True)
    artifact = backend.convert(program, target, calibration, workdir)
    return {"artifact": artifact.to_json(), "program": program.to_json()}


def _record(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
