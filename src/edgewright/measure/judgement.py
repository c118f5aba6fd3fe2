"""From what was measured to a status, a reason and a verdict for every target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewright.backends.conversion import Conversion
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.budget import Budget, Verdict, gate
from edgewright.core.errors import EdgewrightError, UnavailableError
from edgewright.core.result import LatencyResult, MetricResult, ParityResult, Result, Status
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Target
from edgewright.core.tensors import Array
from edgewright.data.metrics import Metric
from edgewright.data.preparation import Prepared
from edgewright.measure.accuracy import Drop, compare_auc, compare_scores
from edgewright.measure.evaluation import Measured, Measurement
from edgewright.measure.latency import summarise
from edgewright.measure.parity import SPARSE_SHARE, compare_outputs, judge

PROVEN_DROP_POINTS = 2.0  # without a budget on the drop: a loss proven to exceed this is never "ok"
_MAX_REASON_LENGTH = 2000


def judge_all(
    targets: Sequence[Target],
    conversions: Mapping[str, Conversion],
    measured: Measured,
    prepared: Prepared,
    budget: Budget,
) -> list[Result]:
    """Return one result per target, in their order, with the speed-up over fp32 of the same runtime and threads."""
    yardstick = _Yardstick(
        program=measured.reference, source=measured.reference, prepared=prepared, budget=budget
    )
    results = [
        _judge(target.id, target, conversions[target.artifact_id], measured, yardstick) for target in targets
    ]
    base = {
        (r.target.runtime, r.target.threads): r.latency_ms.p50
        for r in results
        if r.target.precision is Precision.FP32 and r.latency_ms is not None
    }
    sped = []
    for result in results:
        first = base.get((result.target.runtime, result.target.threads))
        speed_up = (
            first / result.latency_ms.p50 if first is not None and result.latency_ms is not None else None
        )
        sped.append(replace(result, speed_up=speed_up))
    return sped


def judge_step(
    name: str,
    target: Target,
    conversion: Conversion,
    measured: Measured,
    program: dict[str, Array],
    prepared: Prepared,
) -> Result:
    """Return the result of a changed program's artifact, called `name` in `measured`.

    Its parity is with its own program (is the conversion right?); its metric is compared with that of the original
    source, and the drop is shown, not judged: a step of a chain may lose what the next one wins back.

    Args:
        program: the outputs of the program that was converted, output name -> [n, ...].
    """
    yardstick = _Yardstick(
        program=program, source=measured.reference, prepared=prepared, budget=Budget(), is_drop_judged=False
    )
    return _judge(name, target, conversion, measured, yardstick)


@dataclass(frozen=True, kw_only=True)
class _Yardstick:
    """What a measurement is held against.

    Attributes:
        program: outputs of the program that was converted; source: those of the original. Mostly the same.
        is_drop_judged: a proven loss makes the result degraded.
    """

    program: dict[str, Array]
    source: dict[str, Array]
    prepared: Prepared
    budget: Budget
    is_drop_judged: bool = True


def _judge(
    name: str,
    target: Target,
    conversion: Conversion,
    measured: Measured,
    yardstick: _Yardstick,
) -> Result:
    artifact = conversion.artifact
    if artifact is None:
        assert conversion.error is not None
        return _not_converted(name, target, conversion.error)
    download_bytes = measured.downloads.sizes_bytes.get(artifact.sha256)
    why = measured.downloads.why
    result = Result(
        id=name,
        target=target,
        status=Status.OK,
        sha256=artifact.sha256,
        download_bytes=download_bytes,
        size_bytes=artifact.size_bytes,
        notes=(*artifact.notes, why) if why and download_bytes is None else artifact.notes,
    )
    if artifact.proof in (Proof.CONVERTED, Proof.RECIPE):
        return _not_run(result, artifact)
    measurement = measured.targets[name]
    if measurement.error is not None:
        return _failed(result, measurement.error)
    try:
        made = _measured(result, measurement, yardstick)
    except EdgewrightError as err:
        return _failed(result, err)
    if artifact.proof is Proof.INTERPRETED and made.status is Status.OK:
        reason = "compared with the source by Edgewright's interpreter of the written file, not by the runtime itself"
        return replace(made, status=Status.INTERPRETED, reason=reason)
    return made


def _not_run(result: Result, artifact: Artifact) -> Result:
    """Return the row of an artifact that nothing here runs: its notes say where it would."""
    is_complete = artifact.proof is Proof.CONVERTED
    what = "converted, but not run: no number of it is proven here" if is_complete else "not built here"
    return replace(
        result,
        status=Status.CONVERTED if is_complete else Status.UNAVAILABLE,
        reason="; ".join((what, *artifact.notes))[:_MAX_REASON_LENGTH],
        verdict=Verdict(is_pass=False, violations=("not measured",)),
    )


def _not_converted(name: str, target: Target, err: EdgewrightError) -> Result:
    status = Status.UNAVAILABLE if isinstance(err, UnavailableError) else Status.FAILED
    return Result(
        id=name,
        target=target,
        status=status,
        reason=str(err)[:_MAX_REASON_LENGTH],
        error=type(err).__name__,
        verdict=Verdict(is_pass=False, violations=("nothing to measure",)),
    )


def _failed(result: Result, err: EdgewrightError) -> Result:
    return replace(
        result,
        status=Status.FAILED,
        reason=str(err)[:_MAX_REASON_LENGTH],
        error=type(err).__name__,
        verdict=Verdict(is_pass=False, violations=("not measured",)),
    )


def _measured(result: Result, measurement: Measurement, yardstick: _Yardstick) -> Result:
    prepared, budget = yardstick.prepared, yardstick.budget
    reasons: list[str] = []
    parity = compare_outputs(yardstick.program, measurement.outputs)
    agrees, why = judge(parity, str(result.target.precision), is_synthetic=prepared.is_synthetic)
    if not agrees:
        reasons.append(f"differs from the source: {why}")
    is_quantized = result.target.precision in INTEGER_PRECISIONS
    if is_quantized and prepared.severe:
        reasons.append(f"calibration cannot be trusted: {prepared.severe[0]}")
    drop = (
        None
        if prepared.metric is None
        else _drop(prepared.metric, measurement.outputs, yardstick.source, prepared)
    )
    metric = None if drop is None or prepared.metric is None else _metric_result(prepared.metric, drop)
    latency, cpu_ms, samples = _latency(result.target, measurement)
    energy = _energy_mj(measurement)
    verdict = gate(
        {
            "latency_p50_ms": latency.p50 if latency else None,
            "latency_p95_ms": latency.p95 if latency else None,
            "latency_p99_ms": latency.p99 if latency else None,
            "download_mb": result.download_bytes / 1e6 if result.download_bytes is not None else None,
            "size_mb": result.size_bytes / 1e6 if result.size_bytes is not None else None,
            "memory_mb": measurement.memory_bytes / 1e6 if measurement.memory_bytes is not None else None,
            "drop_points": metric.drop_points if metric else None,
            "energy_mj": energy,
        },
        budget,
    )
    reasons += [f"over budget: {violation}" for violation in verdict.violations]
    is_judged = yardstick.is_drop_judged and budget.drop_points is None
    if is_judged and metric is not None and metric.drop_ci95 is not None:
        low = metric.drop_ci95[0]
        if prepared.metric is not None and prepared.metric.unit == "fraction" and low > PROVEN_DROP_POINTS:
            reasons.append(f"{metric.name} drops by at least {low:.1f} points (95 % interval)")
    notes = list(result.notes)
    if prepared.is_synthetic and parity.varied_share < SPARSE_SHARE:
        notes.append(
            "the source's outputs hardly vary on synthetic inputs, so agreement says little: give --data"
        )
    if metric is not None and drop is not None and budget.drop_points is not None:
        proof = drop.against(budget.drop_points)
        if proof == "not proven":
            notes.append(
                f"drop budget not proven: the interval reaches {drop.drop_ci95[1]:.2f} points (n={drop.n})"
            )
    return replace(
        result,
        status=Status.DEGRADED if reasons else Status.OK,
        reason="; ".join(reasons)[:_MAX_REASON_LENGTH],
        metric=metric,
        parity=ParityResult(
            max_abs=parity.max_abs,
            cosine=parity.cosine,
            snr_db=parity.snr_db,
            agreement=parity.agreement,
            n=parity.n_samples,
            inputs="synthetic" if prepared.is_synthetic else "evaluation data",
        ),
        latency_ms=latency,
        cpu_ms_p50=cpu_ms,
        memory_bytes=measurement.memory_bytes,
        energy_mj=energy,
        verdict=verdict,
        notes=tuple(notes),
        layers=measurement.layers,
        latency_samples_ms=samples,
    )


def _drop(metric: Metric, outputs: dict[str, Array], reference: dict[str, Array], prepared: Prepared) -> Drop:
    labels = prepared.dataset.labels
    own = metric.score(outputs, labels, reference)
    source = metric.score(reference, labels, reference)
    if metric.aggregate == "roc_auc":
        assert labels is not None
        return compare_auc(labels, source, own)
    return compare_scores(source, own, higher_is_better=metric.higher_is_better)


def _metric_result(metric: Metric, drop: Drop) -> MetricResult:
    return MetricResult(
        name=metric.name,
        source=drop.source_value,
        value=drop.value,
        n=drop.n,
        drop_points=drop.drop_points,
        drop_ci95=drop.drop_ci95,
        p_value=drop.p_value,
        conclusion=drop.conclusion,
    )


def _latency(
    target: Target, measurement: Measurement
) -> tuple[LatencyResult | None, float | None, tuple[float, ...]]:
    timing = measurement.timing
    if timing is None:
        return None, None, ()
    wall = [np.asarray(block) for block in timing.wall_ns]
    summary = summarise(wall, [np.asarray(block) for block in timing.cpu_ns], threads=target.threads)
    why = summary.why_invalid
    if not timing.was_steady:
        why = "; ".join(filter(None, (why, "the warm-up did not get steady")))
    latency = LatencyResult(
        p50=summary.p50,
        p95=summary.p95,
        p99=summary.p99,
        mean=summary.mean,
        std=summary.std,
        min=summary.min,
        max=summary.max,
        n=summary.n,
        valid=not why,
        why_invalid=why,
        p50_ci95=summary.p50_ci95,
    )
    samples = tuple(float(value) / 1e6 for block in wall for value in block)
    return latency, summary.cpu_ms_p50, samples


def _energy_mj(measurement: Measurement) -> float | None:
    """Energy per inference over all blocks, of the whole package, or None where no counter was readable."""
    timing = measurement.timing
    if timing is None or len(timing.energy_mj) != len(timing.wall_ns):
        return None
    count = sum(len(block) for block in timing.wall_ns)
    return sum(timing.energy_mj) / count if count else None
