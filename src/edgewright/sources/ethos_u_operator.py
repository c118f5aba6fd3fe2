"""What lies in the custom operators of a model that Vela compiled for an Arm Ethos-U."""

from __future__ import annotations

from collections import Counter

from edgewright.sources.tflite_file import FlatModel

OPERATOR = "ethos-u"
# The first inputs of the operator, as Vela writes them: what the NPU does, and the constants that it reads.
_COMMANDS, _CONSTANTS, _SCRATCH = 0, 1, 2


def ethos_u_notes(model: FlatModel) -> tuple[str, ...]:
    """Return the sizes of each part for the NPU, and what stays on the CPU."""
    notes, left = [], Counter[str]()
    for graph in model.graphs:
        for operator in graph.operators:
            if operator.name != OPERATOR:
                left[operator.name] += 1
                continue
            tensors = [graph.tensors[i] if i >= 0 else None for i in operator.inputs[: _SCRATCH + 1]]
            if len(tensors) <= _SCRATCH or any(tensor is None for tensor in tensors):
                notes.append(
                    "compiled for an Arm Ethos-U, but without the tensors that Vela gives the operator"
                )
                continue
            commands, constants, scratch = (tensor for tensor in tensors if tensor is not None)
            notes.append(
                f"compiled for an Arm Ethos-U: commands {commands.data_bytes:,} bytes, constants "
                f"{constants.data_bytes:,} bytes, scratch {scratch.shape[0] if scratch.shape else 0:,} bytes"
            )
    kinds = ", ".join(f"{count} {name}" for name, count in left.most_common())
    notes.append(f"on the CPU: {kinds}" if kinds else "no operator stays on the CPU")
    return tuple(notes)
