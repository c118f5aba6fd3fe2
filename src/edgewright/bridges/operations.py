"""The worker operation of bridges."""

from __future__ import annotations

from pathlib import Path

from edgewright.bridges import registry
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.program import Program


def cross(arguments: dict[str, object]) -> dict[str, object]:
    """Return {"program": Program} in the bridge's format.

    Args:
        arguments: {"bridge": name, "program": Program, "workdir": folder}.
    Raises:
        FormatMismatchError: the bridge does not read this format.
        ConversionError: see `Bridge.convert`; or the result has another signature than the source.
    """
    bridge = registry.get(str(arguments["bridge"]))
    record = arguments["program"]
    assert isinstance(record, dict)
    program = Program.from_json(record)
    if program.format not in bridge.reads:
        raise FormatMismatchError(f"{bridge.name} reads {', '.join(bridge.reads)}, but got {program.format}.")
    workdir = Path(str(arguments["workdir"]))
    workdir.mkdir(parents=True, exist_ok=True)
    made = bridge.convert(program, workdir)
    for kind, before, after in (
        ("inputs", program.inputs, made.inputs),
        ("outputs", program.outputs, made.outputs),
    ):
        if [spec.name for spec in before] != [spec.name for spec in after]:
            raise ConversionError(
                f"{bridge.name} changed the {kind} from {', '.join(map(str, before))} to "
                f"{', '.join(map(str, after))}. This is a bug of the bridge."
            )
    return {"program": made.to_json()}
