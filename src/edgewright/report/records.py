"""results.json and evidence/*.json: written atomically, and read back with strict checks."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import IntegrityError, UsageError
from edgewright.core.evidence import Evidence, EvidenceKind
from edgewright.core.files import read_json, write_json
from edgewright.core.result import Result, Status, Summary

RESULTS_NAME = "results.json"
EVIDENCE_FOLDER = "evidence"
_MAX_RESULTS = 10_000
_MAX_TEXT_CHARACTERS = 20_000


def write_results(summary: Summary, out: Path) -> None:
    """Write `out/evidence/*.json`, remove evidence of an earlier build, then write `out/results.json`.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    write_evidence(summary.results, summary.conditions, out)
    write_json(out / RESULTS_NAME, summary.to_json())


def write_evidence(results: Sequence[Result], conditions: Mapping[str, object], out: Path) -> None:
    """Write one record per figure of `results` into `out/evidence`, and remove those of an earlier run."""
    folder = out / EVIDENCE_FOLDER
    written = set()
    for result in results:
        for evidence in evidence_of(result, conditions):
            path = folder / _file_name(result.id, evidence.kind)
            write_json(path, evidence.to_statement())
            written.add(path.name)
    for kind in EvidenceKind:
        for path in folder.glob(f"*.{kind}.json"):
            if path.name not in written:
                path.unlink(missing_ok=True)


def evidence_of(result: Result, conditions: Mapping[str, object]) -> Iterator[Evidence]:
    """Yield one record per kind that was measured on `result`; what was not measured has none."""
    if result.sha256 is None:
        return
    measured: list[tuple[EvidenceKind, dict[str, object], dict[str, list[float]]]] = []
    if result.parity is not None:
        measured.append((EvidenceKind.PARITY, _fields(result.parity), {}))
    if result.metric is not None:
        measured.append((EvidenceKind.ACCURACY, _fields(result.metric), {}))
    if result.latency_ms is not None:
        metrics = {_with_unit(name): value for name, value in _fields(result.latency_ms).items()}
        metrics["cpu_p50_ms"] = result.cpu_ms_p50
        measured.append((EvidenceKind.LATENCY, metrics, {"wall_ms": list(result.latency_samples_ms)}))
    if result.memory_bytes is not None:
        measured.append((EvidenceKind.MEMORY, {"peak_bytes": result.memory_bytes}, {}))
    if result.size_bytes is not None:
        measured.append((EvidenceKind.SIZE, _sizes(result), {}))
    if result.energy_mj is not None:
        measured.append((EvidenceKind.ENERGY, {"energy_mj": result.energy_mj}, {}))
    for kind, metrics, samples in measured:
        yield Evidence(
            kind=kind,
            subject_name=result.artifact or result.id,
            subject_sha256=result.sha256,
            metrics=metrics,
            conditions={**conditions, "target": result.target.to_json()},
            samples=samples,
        )


def _sizes(result: Result) -> dict[str, object]:
    download = {} if result.download_bytes is None else {"download_bytes": result.download_bytes}
    return {"size_bytes": result.size_bytes, **download}


def _with_unit(name: str) -> str:
    return name if name in ("n", "valid", "why_invalid") else f"{name}_ms"


def _fields(row: object) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(row).items()}


def _file_name(result_id: str, kind: EvidenceKind) -> str:
    """Return a safe file name; an id that needs changes gets a digest, so that two ids never share a file."""
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", result_id)[:100]
    if safe != result_id or safe.startswith("."):
        safe = f"id-{safe.lstrip('.')}-{hashlib.sha256(result_id.encode(errors='replace')).hexdigest()[:12]}"
    return f"{safe}.{kind}.json"


@dataclass(frozen=True, kw_only=True)
class RecordedResult:
    """The figures of one row of a results.json that `compare` needs; None is "not measured"."""

    id: str
    status: Status
    download_bytes: int | None
    size_bytes: int | None
    metric_name: str | None
    metric_value: float | None
    drop_points: float | None
    drop_ci95: tuple[float, float] | None
    p50_ms: float | None
    is_timing_valid: bool
    memory_bytes: int | None
    is_within_budget: bool


@dataclass(frozen=True, kw_only=True)
class RecordedSummary:
    """A results.json as read back."""

    path: Path
    source_sha256: str
    results: tuple[RecordedResult, ...]
    recommended: str | None
    why: str


def read_results(path: Path) -> RecordedSummary:
    """Return the checked content of a results.json, or of the one in the folder `path`.

    Raises:
        UsageError: there is no such file.
        IntegrityError: it is not a results.json: bad JSON, a missing field, a wrong type, or an absurd value.
    """
    file = path / RESULTS_NAME if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file} does not exist or is not a file. Give a results.json that `build` wrote.")
    reader = _Reader(file)
    record = read_json(file)
    source = reader.mapping(record, "source")
    rows = record.get("results")
    if not isinstance(rows, list) or len(rows) > _MAX_RESULTS:
        raise reader.error("results", rows, f"a list of at most {_MAX_RESULTS} rows")
    results = tuple(reader.result(row, f"results[{index}]") for index, row in enumerate(rows))
    ids = [result.id for result in results]
    if len(set(ids)) != len(ids):
        raise IntegrityError(f"{file}: an id occurs twice in results. Run the build again.")
    recommended = reader.text(record, "recommended", is_optional=True)
    if recommended is not None and recommended not in ids:
        raise reader.error("recommended", recommended, "the id of a row, or null")
    return RecordedSummary(
        path=file,
        source_sha256=reader.text(source, "sha256", "source.sha256") or "",
        results=results,
        recommended=recommended,
        why=reader.text(record, "why") or "",
    )


@dataclass(frozen=True)
class _Reader:
    """Takes typed values out of untrusted JSON; `where` names the field in messages."""

    file: Path

    def error(self, where: str, got: object, expected: str) -> IntegrityError:
        return IntegrityError(
            f"{self.file}: {where} is {ascii(got)[:80]}, but {expected} is expected. Run the build again."
        )

    def mapping(self, record: Mapping[str, object], key: str, where: str = "") -> Mapping[str, object]:
        value = record.get(key)
        if not isinstance(value, dict):
            raise self.error(where or key, value, "an object")
        return value

    def text(
        self, record: Mapping[str, object], key: str, where: str = "", *, is_optional: bool = False
    ) -> str | None:
        value = record.get(key)
        if value is None and is_optional:
            return None
        if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARACTERS:
            raise self.error(where or key, value, f"text of at most {_MAX_TEXT_CHARACTERS} characters")
        return value

    def number(self, record: Mapping[str, object], key: str, where: str) -> float | None:
        value = record.get(key)
        if value is None:
            return None
        return self._finite(value, where)

    def _finite(self, value: object, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e18:
            raise self.error(where, value, "a finite number or null")
        if not math.isfinite(value):
            raise self.error(where, value, "a finite number or null")
        return float(value)

    def count(self, record: Mapping[str, object], key: str, where: str) -> int | None:
        value = self.number(record, key, where)
        if value is not None and (value < 0 or value != int(value)):
            raise self.error(where, value, "a whole number >= 0 or null")
        return None if value is None else int(value)

    def flag(self, record: Mapping[str, object], key: str, where: str) -> bool:
        value = record.get(key)
        if not isinstance(value, bool):
            raise self.error(where, value, "true or false")
        return value

    def optional(self, record: Mapping[str, object], key: str, where: str) -> Mapping[str, object] | None:
        return None if record.get(key) is None else self.mapping(record, key, where)

    def result(self, row: object, where: str) -> RecordedResult:
        if not isinstance(row, dict):
            raise self.error(where, row, "an object")
        status = self.text(row, "status", f"{where}.status") or ""
        if status not in [s.value for s in Status]:
            raise self.error(f"{where}.status", status, ", ".join(s.value for s in Status))
        metric = self.optional(row, "metric", f"{where}.metric")
        latency = self.optional(row, "latency_ms", f"{where}.latency_ms")
        budget = self.mapping(row, "budget", f"{where}.budget")
        name = self.text(row, "id", f"{where}.id")
        if not name:
            raise self.error(f"{where}.id", name, "a name")
        p50 = None if latency is None else self.number(latency, "p50", f"{where}.latency_ms.p50")
        if p50 is not None and p50 < 0:
            raise self.error(f"{where}.latency_ms.p50", p50, "a number >= 0")
        return RecordedResult(
            id=name,
            status=Status(status),
            download_bytes=self.count(row, "download_bytes", f"{where}.download_bytes"),
            size_bytes=self.count(row, "size_bytes", f"{where}.size_bytes"),
            metric_name=None if metric is None else self.text(metric, "name", f"{where}.metric.name"),
            metric_value=None if metric is None else self.number(metric, "value", f"{where}.metric.value"),
            drop_points=None
            if metric is None
            else self.number(metric, "drop_points", f"{where}.metric.drop_points"),
            drop_ci95=None if metric is None else self._interval(metric, f"{where}.metric.drop_ci95"),
            p50_ms=p50,
            is_timing_valid=latency is not None and self.flag(latency, "valid", f"{where}.latency_ms.valid"),
            memory_bytes=self.count(row, "memory_bytes", f"{where}.memory_bytes"),
            is_within_budget=self.flag(budget, "pass", f"{where}.budget.pass"),
        )

    def _interval(self, metric: Mapping[str, object], where: str) -> tuple[float, float] | None:
        value = metric.get("drop_ci95")
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            raise self.error(where, value, "[low, high] or null")
        low, high = (self._finite(bound, where) for bound in value)
        if low > high:
            raise self.error(where, value, "low <= high")
        return (low, high)
