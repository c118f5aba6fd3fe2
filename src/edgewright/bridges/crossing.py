"""Cross a program to another format, each bridge in a worker of its own."""

from __future__ import annotations

from pathlib import Path

from edgewright.bridges.registry import route
from edgewright.core.program import Program
from edgewright.workers.limits import limits_from_environment
from edgewright.workers.pool import Limits, call_once

_LIMITS = Limits(timeout_s=1800.0, memory_bytes=16 << 30)


def to_pt2(program: Program, workdir: Path, *, what: str) -> Program:
    """Return `program` as `.pt2`, over as few bridges as there are; a `.pt2` program as it is.

    Args:
        what: who needs it, for messages: "compression".
    Raises:
        UnavailableError: there is no way, or a toolchain on it is not here.
        ConversionError: a bridge cannot write it.
    """
    for bridge in route(program.format, ("pt2",), runtime=what):
        answer = call_once(
            "edgewright.bridges.operations:cross",
            {"bridge": bridge.name, "program": program.to_json(), "workdir": str(workdir / bridge.name)},
            limits=limits_from_environment(_LIMITS),
            environment=bridge.environment,
        )
        record = answer["program"]
        assert isinstance(record, dict)
        program = Program.from_json(record)
    return program
