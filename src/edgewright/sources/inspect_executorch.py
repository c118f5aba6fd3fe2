"""Operators, delegates and signature of an ExecuTorch `.pte`, read without ExecuTorch.

Numbers of fields are those of `program.fbs` of ExecuTorch 1.5.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edgewright.backends.mnn_file import Table
from edgewright.core.errors import IntegrityError
from edgewright.core.files import sha256_of
from edgewright.core.tensors import MAX_RANK, TensorSpec
from edgewright.sources.flat_tables import damage_of, read_root
from edgewright.sources.inspection import Inspection, Layer, product, summary

_PLANS = 1  # Program
_NAME, _VALUES, _INPUTS, _OUTPUTS, _CHAINS, _OPERATORS, _DELEGATES = 0, 2, 3, 4, 5, 6, 7  # ExecutionPlan
_INSTRUCTIONS = 2  # Chain
_KIND, _CONTENT = 0, 1  # of a union
_KERNEL_CALL, _DELEGATE_CALL, _TENSOR = 1, 2, 5
_SCALAR_TYPE, _SIZES, _BUFFER = 0, 2, 5  # Tensor
_HEADER_BYTES = 40
_OPERATOR_NAME, _OVERLOAD = 0, 1
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}


def inspect_executorch(path: Path) -> Inspection:
    """Return the description of the first method of the `.pte` at `path`.

    What a delegate runs is its own blob: of it the file tells the name alone.

    Raises:
        FormatMismatchError: too large, or no ExecuTorch program.
        IntegrityError: an offset, a count or an index leads outside.
    """
    root = read_root(path, b"ET", "an ExecuTorch program (.pte)")
    _check_end(path)
    with damage_of(path):
        plans = root.tables(_PLANS)
        if not plans:
            raise IntegrityError(f"{path.name} has no method. Build it again.")
        plan = plans[0]
        values = plan.tables(_VALUES)
        layers = _layers(plan)
        constants = [_constant_elements(value) for value in values]
        delegates = Counter(delegate.text(0)[:80] for delegate in plan.tables(_DELEGATES))
        notes = [
            f"{name} runs {count} {'part' if count == 1 else 'parts'} of it; their weights and operators are its own"
            for name, count in delegates.items()
        ]
        notes += (
            [f"it has {len(plans)} methods; {plan.text(_NAME)[:80]!r} is described"] if len(plans) > 1 else []
        )
        return summary(
            name=path.name,
            model_format="pte",
            sha256=sha256_of(path),
            size_bytes=path.stat().st_size,
            inputs=_specs(plan.integers(_INPUTS), values, "input"),
            outputs=_specs(plan.integers(_OUTPUTS), values, "output"),
            layers=layers,
            parameters=sum(constants),
            precision="unknown" if delegates else "fp32",
            notes=notes,
        )


def _check_end(path: Path) -> None:
    """Check the ends that the extended header (bytes 8 on) states: of the program, and of the segments after it.

    Raises:
        IntegrityError: the file is shorter.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if head[8:12] != b"eh00" or len(head) < _HEADER_BYTES:
        return
    length = int.from_bytes(head[12:16], "little")
    program, start, segments = (int.from_bytes(head[at : at + 8], "little") for at in (16, 24, 32))
    end = max(program, start + (segments if length >= _HEADER_BYTES - 8 else 0))
    size = path.stat().st_size
    if end > size:
        raise IntegrityError(
            f"{path} is truncated: it has {size} bytes, but states {end}. Copy it again, or build it again."
        )


def _layers(plan: Table) -> list[Layer]:
    operators = [
        ".".join(part for part in (op.text(_OPERATOR_NAME)[:120], op.text(_OVERLOAD)[:40]) if part)
        for op in plan.tables(_OPERATORS)
    ]
    delegates = [delegate.text(0)[:80] for delegate in plan.tables(_DELEGATES)]
    layers: list[Layer] = []
    for chain in plan.tables(_CHAINS):
        for instruction in chain.tables(_INSTRUCTIONS):
            kind, call = instruction.integer(_KIND, form="<B"), instruction.table(_CONTENT)
            names = {_KERNEL_CALL: operators, _DELEGATE_CALL: delegates}.get(kind)
            if names is None or call is None:
                continue
            index = call.integer(0)
            if not 0 <= index < len(names):
                raise IntegrityError(f"an instruction calls number {index} of {len(names)}. Build it again.")
            layers.append(
                Layer(
                    name=f"{len(layers)}:{names[index]}",
                    operator=names[index],
                    output_shape=(),
                    parameters=0,
                    macs=None if kind == _DELEGATE_CALL else 0,
                )
            )
    return layers


def _tensor(value: Table) -> Table | None:
    return value.table(_CONTENT) if value.integer(_KIND, form="<B") == _TENSOR else None


def _constant_elements(value: Table) -> int:
    """Return the elements of a float tensor whose values are in the file."""
    tensor = _tensor(value)
    if tensor is None or tensor.integer(_BUFFER, form="<I") == 0:
        return 0
    is_float = tensor.integer(_SCALAR_TYPE, form="<b") in (5, 6, 7)
    return (product(tensor.integers(_SIZES)) or 0) if is_float else 0


def _specs(indices: tuple[int, ...], values: list[Table], title: str) -> list[TensorSpec]:
    specs = []
    for number, index in enumerate(indices):
        if not 0 <= index < len(values):
            raise IntegrityError(f"{title} {number} is value {index} of {len(values)}. Build it again.")
        tensor = _tensor(values[index])
        if tensor is None:
            continue
        sizes = tensor.integers(_SIZES)
        if len(sizes) > MAX_RANK:
            raise IntegrityError(
                f"{title} {number} has {len(sizes)} dimensions; at most {MAX_RANK} are read."
            )
        dtype = _DTYPES.get(tensor.integer(_SCALAR_TYPE, form="<b"), "float32")
        name = title if len(indices) == 1 else f"{title}_{number}"
        specs.append(TensorSpec(name=name, shape=sizes, dtype=dtype))
    return specs
