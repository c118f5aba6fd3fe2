"""What Vela, Arm's compiler for Ethos-U, says of a model: its operators on NPU and CPU, reasons, estimates."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import ConversionError
from edgewright.sources.ethos_u_operator import OPERATOR
from edgewright.sources.tflite_file import read_flatbuffer

_MAX_CSV_BYTES = 256 << 20
_MAX_LOG_LINES = 2_000_000
_MAX_NAME = 80
_MAX_REASON = 160
_WARNING = re.compile(r"Warning \(supported operators\) operator: (\w+), ofm: '(.*)'$")
_MEMORIES = {
    "sram_memory_used": "SRAM",
    "dram_memory_used": "DRAM",
    "on_chip_flash_memory_used": "on-chip flash",
    "off_chip_flash_memory_used": "off-chip flash",
}


@dataclass(frozen=True, kw_only=True)
class CpuOperator:
    """An operator that stays on the CPU; `reason` is Vela's, empty where it gives none."""

    operator: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} {self.name!r}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True, kw_only=True)
class VelaReport:
    """What was compiled.

    Attributes:
        npu_operators: as Vela lists them after it rewrote the model.
        latency_ms: the compiler's estimate of one inference on the NPU, None where it gives none; never measured.
        memory_bytes: the compiler's estimate, by kind of memory.
        macs: as Vela counts them.
    """

    npu_operators: int
    cpu_operators: tuple[CpuOperator, ...]
    latency_ms: float | None
    memory_bytes: dict[str, int]
    macs: int

    @property
    def estimate(self) -> str:
        """The estimates in words."""
        latency = "no latency" if self.latency_ms is None else f"{self.latency_ms:.4g} ms"
        memory = [f"{kind} {count / 1024:,.1f} KiB" for kind, count in self.memory_bytes.items() if count]
        return ", ".join((latency, *memory, f"{self.macs:,} MACs"))


def read_report(compiled: Path, summary: Path, per_layer: Path, log: Path) -> VelaReport:
    """Return what the files of one compilation say; the counts in them must agree.

    Args:
        compiled: the `_vela.tflite`; what it holds besides the NPU's custom operator runs on the CPU.
        summary, per_layer: the CSV files.
        log: what Vela printed, for the reasons.
    Raises:
        ConversionError: a file is missing, has other columns, or the files contradict one another.
    """
    for file in (compiled, summary, per_layer):
        if not file.is_file() or file.stat().st_size > _MAX_CSV_BYTES:
            raise ConversionError(f"Vela left no usable {file.name}. Run it by hand to see why.")
    left = [
        operator.name
        for graph in read_flatbuffer(compiled).graphs
        for operator in graph.operators
        if operator.name != OPERATOR
    ]
    places = _places(per_layer)
    npu, cpu = places.pop("NPU", []), places.pop("CPU", [])
    if places or len(cpu) != len(left):
        raise ConversionError(
            f"Vela lists {len(cpu)} operators on the CPU{' and others on ' + ', '.join(places) if places else ''}, but "
            f"the model that it wrote holds {len(left)}. Report it with the model."
        )
    reasons = _reasons(log)
    found = []
    for kind, name in cpu:
        operator, reason = reasons.get(name, (kind, ""))
        found.append(CpuOperator(operator=operator, name=name[:_MAX_NAME], reason=reason))
    row = _summary(summary)
    seconds = _number(row, "inference_time")  # NaN where nothing is on the NPU
    return VelaReport(
        npu_operators=len(npu),
        cpu_operators=tuple(found),
        latency_ms=seconds * 1e3 if math.isfinite(seconds) and seconds > 0 else None,
        memory_bytes={kind: round(_finite(row, column) * 1024) for column, kind in _MEMORIES.items()},
        macs=int(_finite(row, "nn_macs")),
    )


def shown(operators: tuple[CpuOperator, ...], limit: int = 8) -> str:
    """Return the operators in words: the first ones with name and reason, and how many of each kind there are."""
    first = "; ".join(map(str, operators[:limit]))
    if len(operators) <= limit:
        return first
    kinds = Counter(operator.operator for operator in operators)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{first}; and {len(operators) - limit} more (in all {counts})"


def _places(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Return target -> (operator, name) of each row; names may hold commas, and are the last column."""
    found: dict[str, list[tuple[str, str]]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        if header[:3] != ["Original Operator", "NNG Operator", "Target"] or header[-1:] != ["Name"]:
            raise ConversionError(
                f"{path.name} has other columns than are read: {header[:4]}. Install the toolchain vela again."
            )
        for row in rows:
            if len(row) < len(header):
                raise ConversionError(
                    f"{path.name} has a row of {len(row)} cells; {len(header)} are expected."
                )
            found.setdefault(row[2], []).append((row[0], ",".join(row[len(header) - 1 :])))
    return found


def _reasons(path: Path) -> dict[str, tuple[str, str]]:
    """Return name of an output -> operator and why Vela leaves it to the CPU."""
    found: dict[str, tuple[str, str]] = {}
    with path.open(encoding="utf-8", errors="replace") as stream:
        current: tuple[str, str] | None = None
        for number, line in enumerate(stream):
            if number > _MAX_LOG_LINES:
                break
            match = _WARNING.match(line.rstrip("\n"))
            if match:
                current = (match[2], match[1])
            elif current is not None and line.startswith("Reason: "):
                found[current[0]] = (current[1], line.removeprefix("Reason: ").strip()[:_MAX_REASON])
                current = None
    return found


def _summary(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if len(rows) != 1:
        raise ConversionError(f"{path.name} has {len(rows)} rows; one is expected.")
    return {str(key): str(value) for key, value in rows[0].items()}


def _finite(row: dict[str, str], column: str) -> float:
    value = _number(row, column)
    if not math.isfinite(value) or value < 0:
        raise ConversionError(f"Vela's summary gives {column!r} as {value}. Report it with the model.")
    return value


def _number(row: dict[str, str], column: str) -> float:
    try:
        return float(row[column])
    except (KeyError, ValueError) as err:
        raise ConversionError(
            f"Vela's summary has no number {column!r}. Install the toolchain vela again."
        ) from err
