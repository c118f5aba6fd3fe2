"""Rules for ExecuTorch: XNNPACK takes what its partitioner takes, portable kernels take the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.explain.coverage import Verdict
from edgewright.explain.findings import OK, Finding, blocked, fallback
from edgewright.explain.graph import Graph, Operation, parts_of
from edgewright.explain.partitions import count_partitions
from edgewright.explain.rules_torch import REMOVED, refusal
from edgewright.explain.tables import FormatTable

_FLOATS = ("float32", "float16")
_WEIGHTED = {"convolution.default": 1, "linear.default": 1, "addmm.default": 2, "mm.default": 1}


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """What XNNPACK gets.

    Attributes:
        findings: one per operation of the graph.
        partitions: pieces.
        is_accelerated: for each operation, whether all of it is inside a piece.
    """

    findings: tuple[Finding, ...]
    partitions: int
    is_accelerated: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """An operation as the partitioner sees it, and the operation of the program that it is a part of."""

    operation: Operation
    whole: int
    sources: tuple[int, ...]


def executorch_xnnpack(graph: Graph, table: FormatTable) -> Delegation:
    """Return what XNNPACK takes, what portable kernels run, and what neither does."""
    units = _units(graph, table)
    reasons = [_left_out(unit.operation, table) for unit in units]
    inside: dict[int, list[Finding]] = {}
    for unit, reason in zip(units, reasons, strict=True):
        inside.setdefault(unit.whole, []).append(_unit_finding(unit.operation, reason, table))
    findings = []
    for index, operation in enumerate(graph.operations):
        if operation.operator in REMOVED or index not in inside:
            findings.append(blocked("control flow is not lowered") if operation.depth else OK)
            continue
        worst = min(inside[index], key=lambda finding: _ORDER[str(finding.verdict)])
        tried = refusal(operation, table)
        if tried:
            worst = blocked(tried)
        elif tried == "" and worst.verdict is Verdict.BLOCKED:
            worst = fallback("it runs in a portable kernel", worst.cause)
        findings.append(worst)
    return Delegation(
        findings=tuple(findings),
        partitions=count_partitions([not reason for reason in reasons], [unit.sources for unit in units]),
        is_accelerated=tuple(
            index in inside and all(finding.verdict == "ok" for finding in inside[index])
            for index in range(len(graph.operations))
        ),
    )


_ORDER = {"blocked": 0, "unknown": 1, "fallback": 2, "ok": 3}


def _unit_finding(operation: Operation, reason: str, table: FormatTable) -> Finding:
    if not reason:
        return OK
    if any(value.dtype.startswith("complex") for value in operation.values):
        return blocked(f"{operation.operator} has complex numbers, which are not lowered", operation.operator)
    if operation.operator in table.operators:
        return fallback(f"{operation.operator} runs in a portable kernel: {reason}", operation.operator)
    return blocked(f"{operation.operator} has no kernel in the runtime, and {reason}", operation.operator)


def _units(graph: Graph, table: FormatTable) -> Sequence[_Unit]:
    """Return the operations after the decompositions that the partitioner lets happen."""
    parts = parts_of(graph)
    kept = {
        index
        for index, operation in enumerate(graph.operations)
        if operation.operator in table.kept_whole and not _left_out(operation, table)
    }
    chosen: list[tuple[Operation, int]] = []
    of_kept: dict[int, int] = {}
    reached: list[
        set[int]
    ] = []  # for each part the units whose result it passes on: itself, or those before it
    sources: list[set[int]] = []
    for part in graph.parts:
        before = {unit for source in part.sources for unit in reached[source]}
        whole = part.part_of
        if whole is None or part.operator in REMOVED or (whole not in kept and _is_idle(part)):
            reached.append(before)
            continue
        own = of_kept.get(whole) if whole in kept else None
        if own is None:
            own = len(chosen)
            chosen.append((graph.operations[whole] if whole in kept else part, whole))
            sources.append(set())
            if whole in kept:
                of_kept[whole] = own
        sources[own] |= before - {own}
        reached.append({own})
    assert all(index in parts for index in kept)
    return [
        _Unit(operation=operation, whole=whole, sources=tuple(sorted(s for s in sources[i] if s < i)))
        for i, (operation, whole) in enumerate(chosen)
    ]


def _is_idle(part: Operation) -> bool:
    """Return whether the operation gives back its input, so that ExecuTorch's own passes remove it."""
    if part.operator not in ("aten._to_copy.default", "aten.slice.Tensor"):
        return False
    before, after = part.given(0), part.outputs[0] if part.outputs else None
    return (
        before is not None
        and after is not None
        and (before.dtype, before.shape) == (after.dtype, after.shape)
    )


def _left_out(operation: Operation, table: FormatTable) -> str:
    """Return why the XNNPACK partitioner leaves the operation out, or an empty text.

    The names come from the table; the conditions are those of the partitioner's configurations. What they say of
    dynamic shapes plays no part: the backend fixes the batch to 1 and refuses every other dynamic dimension.
    """
    name = _delegated_name(operation, table)
    if name is None:
        return "XNNPACK has no such operator"
    dtypes = {value.dtype for value in operation.values}
    if name.startswith(("quantize_", "dequantize_", "choose_qparams")):
        return ""
    if not dtypes <= set(_FLOATS) or len(dtypes) > 1:
        return f"XNNPACK computes in one float type, not in {', '.join(sorted(dtypes))}"
    if any(value is not None and value.shape is not None and 0 in value.shape for value in operation.inputs):
        return "a tensor is empty"
    if any(value.is_data_dependent for value in operation.values):
        return "a shape depends on values"
    if name in _WEIGHTED:
        weight = operation.given(_WEIGHTED[name])
        if weight is None or not weight.is_constant:
            return "its weights are computed by the model"
    check = _CHECKS.get(name)
    return check(operation) if check else ""


def _delegated_name(operation: Operation, table: FormatTable) -> str | None:
    name = operation.operator.partition(".")[2]
    base, _, overload = name.partition(".")
    for candidate in (name, f"{base}_copy.{overload}"):
        if candidate in table.delegated:
            return candidate
    return None


def _ints(operation: Operation, name: str) -> tuple[int, ...]:
    value = operation.attributes.get(name, ())
    if isinstance(value, tuple):
        return tuple(int(item) for item in value if not isinstance(item, str))
    return (int(value),) if isinstance(value, int | float) else ()


def _rank(operation: Operation) -> int:
    value = operation.given(0)
    return len(value.shape) if value is not None and value.shape is not None else 0


def _check_average_pool(operation: Operation) -> str:
    kernel = _ints(operation, "kernel_size")
    area = kernel[0] * kernel[-1] if kernel else 0
    if operation.attributes.get("ceil_mode"):
        return "average pooling with ceil_mode is left out"
    if operation.attributes.get("count_include_pad", True) and any(_ints(operation, "padding")):
        return "average pooling that counts its padding is left out"
    if operation.attributes.get("divisor_override") not in (None, area):
        return "a divisor_override is left out"
    return ""


def _check_cat(operation: Operation) -> str:
    return "" if len(operation.inputs) >= 2 else "a concatenation needs two tensors"


def _check_softmax(operation: Operation) -> str:
    (dim,) = _ints(operation, "dim") or (-1,)
    return "" if dim in (-1, _rank(operation) - 1) else "softmax is taken over the last dimension only"


def _check_max_pool(operation: Operation) -> str:
    kernel, stride = _ints(operation, "kernel_size"), _ints(operation, "stride")
    if kernel and stride and any(s > k for s, k in zip(stride, kernel, strict=False)):
        return "a stride larger than the kernel is left out"
    return ""


def _check_mean(operation: Operation) -> str:
    rank = _rank(operation)
    dims = sorted(dim + rank if dim < 0 else dim for dim in _ints(operation, "dim"))
    if rank != 4 or dims != [2, 3] or not operation.attributes.get("keepdim"):
        return "a mean is taken over height and width of rank 4 with keepdim only"
    return ""


def _check_power(operation: Operation) -> str:
    exponent = operation.attributes.get("exponent")
    return "" if isinstance(exponent, int) and exponent == 2 else "only the square is taken"


def _check_slice(operation: Operation) -> str:
    if _ints(operation, "step") not in ((), (1,)):
        return "a slice with a step is left out"
    return ""


def _check_pad(operation: Operation) -> str:
    return "cropping by negative padding is left out" if any(p < 0 for p in _ints(operation, "pad")) else ""


def _check_scale(operation: Operation) -> str:
    return "" if operation.attributes.get("alpha", 1) == 1 else "alpha other than 1 is left out"


def _check_gelu(operation: Operation) -> str:
    return "GELU in float16 is left out" if operation.outputs[0].dtype == "float16" else ""


def _check_unsqueeze(operation: Operation) -> str:
    (dim,) = _ints(operation, "dim") or (-1,)
    return "" if dim in (-1, _rank(operation)) else "a new dimension is added at the end only"


def _check_max_dim(operation: Operation) -> str:
    return "" if _rank(operation) == 4 else "a maximum is taken of rank 4 only"


def _check_prelu(operation: Operation) -> str:
    slope = operation.given(1)
    return "" if slope is not None and slope.is_constant else "the slope is computed by the model"


def _check_convolution(operation: Operation) -> str:
    if _rank(operation) not in (3, 4):
        return "convolutions of one or two spatial dimensions only"
    if operation.attributes.get("transposed"):
        groups = operation.attributes.get("groups", 1)
        if any(dilation != 1 for dilation in _ints(operation, "dilation")):
            return "a transposed convolution with dilation is left out"
        if isinstance(groups, int) and groups > 1:
            return "a grouped transposed convolution is left out"
    return ""


_CHECKS = {
    "_softmax.default": _check_softmax,
    "add.Tensor": _check_scale,
    "avg_pool2d.default": _check_average_pool,
    "cat.default": _check_cat,
    "constant_pad_nd.default": _check_pad,
    "convolution.default": _check_convolution,
    "gelu.default": _check_gelu,
    "max.dim": _check_max_dim,
    "max_pool2d.default": _check_max_pool,
    "mean.dim": _check_mean,
    "pow.Tensor_Scalar": _check_power,
    "prelu.default": _check_prelu,
    "slice_copy.Tensor": _check_slice,
    "sub.Tensor": _check_scale,
    "unsqueeze_copy.default": _check_unsqueeze,
}
