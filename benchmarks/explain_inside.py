"""A worker operation that loads an artifact into its runtime and says, where the runtime tells, what was delegated."""

from __future__ import annotations

from edgewright.backends import registry
from edgewright.core.artifact import Artifact


def load(arguments: dict[str, object]) -> dict[str, object]:
    """Open an artifact.

    Returns:
        {"left": operators outside of the delegate, or None where nobody tells; "partitions": their number or None}
    """
    record = arguments["artifact"]
    assert isinstance(record, dict)
    artifact = Artifact.from_json(record)
    registry.get(artifact.target.runtime).open(artifact, artifact.target).close()
    if artifact.target.runtime == "executorch":
        return _executorch(artifact)
    return {"left": None, "partitions": None}


def _executorch(artifact: Artifact) -> dict[str, object]:
    """Read the program itself: its instructions call delegates or kernels."""
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import DelegateCall, KernelCall

    loaded = deserialize_pte_binary(artifact.path.read_bytes())
    program = getattr(loaded, "program", loaded)
    plan = program.execution_plan[0]
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    names = [
        f"{plan.operators[call.op_index].name}.{plan.operators[call.op_index].overload}"
        for call in calls
        if isinstance(call, KernelCall)
    ]
    # Views without a copy and arithmetic on sizes (executorch_prim) are no computation.
    left = sorted({name for name in names if not name.startswith("executorch_prim::")})
    return {"left": ", ".join(left), "partitions": sum(isinstance(call, DelegateCall) for call in calls)}
