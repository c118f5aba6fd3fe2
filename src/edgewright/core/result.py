"""Result: one row of the table, and the fields of results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgewright.core.budget import Verdict
from edgewright.core.errors import BudgetError, ConversionError, IntegrityError, UnavailableError, WorkerError
from edgewright.core.target import Target


class Status(StrEnum):
    """What became of a target, in tables, JSON and exit codes.

    Only `ok` says that the artifact ran in its own runtime. INTERPRETED: an interpreter of ours ran the written file,
    and it agrees with the source. CONVERTED: the artifact is complete, but nothing on this machine can run it.
    """

    OK = "ok"
    INTERPRETED = "ok (interpreted)"
    CONVERTED = "converted"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """The metric of a candidate beside the source's, paired per sample.

    Attributes:
        source: the metric of the untouched source on the same samples.
        drop_points: 100 * (source - value) for metrics in 0..1; source - value (sign: worse is positive) else.
        drop_ci95: None where no interval can be given (one sample).
    """

    name: str
    source: float
    value: float
    n: int
    drop_points: float
    drop_ci95: tuple[float, float] | None
    p_value: float | None
    conclusion: str = ""


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """Agreement of outputs with the source's; None is "not applicable"."""

    max_abs: float | None
    cosine: float | None
    snr_db: float | None
    agreement: float | None
    n: int
    inputs: str = ""


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """Wall time of one inference in milliseconds; `valid` is False when the machine was too noisy."""

    p50: float
    p95: float
    p99: float
    mean: float
    std: float
    min: float
    max: float
    n: int
    valid: bool
    why_invalid: str = ""
    p50_ci95: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Cost of one layer in microseconds."""

    name: str
    operator: str
    time_us: float
    implementation: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One target: what was written, how it compares, how fast it is, and the verdict.

    Attributes:
        reason: empty for ok; a sentence else.
        artifact: path relative to the output folder.
        download_bytes: the artifact as `.ewz`; size_bytes: on disk; memory_bytes: what running it adds to RAM.
        speed_up: p50 of fp32 of the same runtime and threads divided by this p50; None without both.
        energy_mj: None is "not measured", with the reason in `energy_note`.
        latency_samples_ms: the samples behind `latency_ms`.
    """

    id: str
    target: Target
    status: Status
    reason: str = ""
    artifact: str | None = None
    sha256: str | None = None
    download_bytes: int | None = None
    size_bytes: int | None = None
    metric: MetricResult | None = None
    parity: ParityResult | None = None
    latency_ms: LatencyResult | None = None
    cpu_ms_p50: float | None = None
    memory_bytes: int | None = None
    energy_mj: float | None = None
    energy_note: str = "not measured"
    speed_up: float | None = None
    verdict: Verdict = Verdict(is_pass=True)
    notes: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    latency_samples_ms: tuple[float, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the row of results.json."""
        return {
            "id": self.id,
            "runtime": self.target.runtime,
            "precision": str(self.target.precision),
            "threads": self.target.threads,
            "status": str(self.status),
            "reason": self.reason,
            "artifact": self.artifact,
            "sha256": self.sha256,
            "download_bytes": self.download_bytes,
            "size_bytes": self.size_bytes,
            "metric": None if self.metric is None else _record(self.metric),
            "parity": None if self.parity is None else _record(self.parity),
            "latency_ms": None if self.latency_ms is None else _record(self.latency_ms),
            "cpu_ms_p50": self.cpu_ms_p50,
            "memory_bytes": self.memory_bytes,
            "energy": self.energy_mj if self.energy_mj is not None else self.energy_note,
            "speed_up": self.speed_up,
            "budget": {"pass": self.verdict.is_pass, "violations": list(self.verdict.violations)},
            "notes": list(self.notes),
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything that results.json holds and the report shows.

    Attributes:
        source: {"path", "format", "sha256"} and what else is known of the source.
        conditions: host, versions, seeds, data, settings: what the figures depend on.
        warnings: lints of calibration and data, notes of the loader.
        recommended: id of a result, or None; `why` says why.
    """

    source: Mapping[str, object]
    results: tuple[Result, ...]
    pareto: tuple[str, ...]
    recommended: str | None
    why: str
    conditions: Mapping[str, object]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the content of results.json."""
        return {
            "source": dict(self.source),
            "results": [result.to_json() for result in self.results],
            "pareto": list(self.pareto),
            "recommended": self.recommended,
            "why": self.why,
            "warnings": list(self.warnings),
            "conditions": dict(self.conditions),
        }


def exit_code_of(results: Sequence[Result]) -> int:
    """Return 0 when all are ok, else the code of the worst status.

    failed: 4, or 7 when every failure is a worker's (crash, time-out), or 6 when every one is a broken file;
    degraded: 5; unavailable, and converted without a proof: 3.
    """
    failed = {result.error for result in results if result.status is Status.FAILED}
    if failed:
        only = failed.pop() if len(failed) == 1 else None
        return {"WorkerError": WorkerError, "IntegrityError": IntegrityError}.get(
            str(only), ConversionError
        ).exit_code
    statuses = {result.status for result in results}
    if Status.DEGRADED in statuses:
        return BudgetError.exit_code
    return UnavailableError.exit_code if statuses & {Status.UNAVAILABLE, Status.CONVERTED} else 0


def _record(row: MetricResult | ParityResult | LatencyResult) -> dict[str, object]:
    values = vars(row)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
