"""What Coral's `edgetpu_compiler` prints, read into a record."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgewright.core.errors import ConversionError

MAPPED = "Mapped to Edge TPU"
_MAX_ROWS = 10_000
_VERSION = re.compile(r"^Edge TPU Compiler version (\S+)", re.MULTILINE)
_ROW = re.compile(r"^([A-Za-z0-9_]+)[ \t]+(\d{1,9})[ \t]+(\S[^\n]*?)[ \t]*$", re.MULTILINE)
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """Operators of one kind with one status, e.g. "Mapped to Edge TPU"."""

    operator: str
    count: int
    status: str

    @property
    def is_mapped(self) -> bool:
        """True when they run on the Edge TPU."""
        return self.status == MAPPED

    def __str__(self) -> str:
        return f"{self.count} {self.operator} ({self.status})"


@dataclass(frozen=True, kw_only=True)
class CompilerLog:
    """One compilation.

    Attributes:
        subgraphs: custom operators for the Edge TPU in the result.
        cached_bytes: of parameters, in the memory of the chip.
        free_bytes: of that memory, left for other models.
        streamed_bytes: of parameters that do not fit, sent for each inference.
    """

    version: str
    subgraphs: int
    operations: int
    cached_bytes: int
    free_bytes: int
    streamed_bytes: int
    rows: tuple[LogRow, ...]

    @property
    def on_edge_tpu(self) -> int:
        """Operators that run on the Edge TPU."""
        return sum(row.count for row in self.rows if row.is_mapped)

    @property
    def on_cpu(self) -> tuple[LogRow, ...]:
        """What stays on the CPU, with the compiler's reasons."""
        return tuple(row for row in self.rows if not row.is_mapped)


def parse_log(text: str) -> CompilerLog:
    """Return the record of a compilation that succeeded, printed with `--show_operations`.

    Raises:
        ConversionError: it did not succeed, with the compiler's words; or its counts contradict one another.
    """
    version = _VERSION.search(text)
    if version is None or "Model compiled successfully" not in text:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not _VERSION.match(line)]
        raise ConversionError(
            f"the Edge TPU compiler did not compile the model: {' '.join(lines)[:300] or 'it said nothing'}."
        )
    _, _, table = text.partition("\nOperator ")
    rows = tuple(
        LogRow(operator=match[1], count=int(match[2]), status=match[3])
        for match in list(_ROW.finditer(table))[:_MAX_ROWS]
    )
    operations = _count(text, "Total number of operations")
    listed = sum(row.count for row in rows)
    if listed != operations:
        raise ConversionError(
            f"the Edge TPU compiler counts {operations} operations, but lists {listed}. Report it with the log."
        )
    return CompilerLog(
        version=version[1],
        subgraphs=_count(text, "Number of Edge TPU subgraphs"),
        operations=operations,
        cached_bytes=_bytes(_field(text, "On-chip memory used for caching model parameters")),
        free_bytes=_bytes(_field(text, "On-chip memory remaining for caching model parameters")),
        streamed_bytes=_bytes(_field(text, "Off-chip memory used for streaming uncached model parameters")),
        rows=rows,
    )


def _field(text: str, name: str) -> str:
    match = re.search(rf"^{re.escape(name)}: (\S+)", text, re.MULTILINE)
    if match is None:
        raise ConversionError(f"the Edge TPU compiler's log has no line {name!r}. Report it with the log.")
    return match[1]


def _count(text: str, name: str) -> int:
    said = _field(text, name)
    if re.fullmatch(r"\d{1,9}", said) is None:
        raise ConversionError(
            f"the Edge TPU compiler's log gives {name!r} as {said!r}. Report it with the log."
        )
    return int(said)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(B|KiB|MiB|GiB)", text)
    if match is None:
        raise ConversionError(f"the Edge TPU compiler's log has the size {text!r}, e.g. 4.22MiB is expected.")
    return round(float(match[1]) * _UNITS[match[2]])
