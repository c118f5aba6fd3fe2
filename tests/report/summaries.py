"""Summaries made up for tests of the report: every figure here is invented, none was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgewright.core.budget import Verdict
from edgewright.core.result import LatencyResult, Layer, MetricResult, ParityResult, Result, Status, Summary
from edgewright.core.target import Precision, Target

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m\u202e[bold]${x}{{7*7}}"
RUNTIMES = ("litert", "onnxruntime", "openvino")
_BASE_MS = {"litert": 0.42, "onnxruntime": 0.31, "openvino": 0.27}
_SPEED = {Precision.FP32: 1.0, Precision.FP16: 0.97, Precision.W8: 0.9, Precision.W8A8: 0.46}
_SIZE = {Precision.FP32: 412_000, Precision.FP16: 208_500, Precision.W8: 110_200, Precision.W8A8: 108_100}
PRECISIONS = tuple(_SPEED)
_DROP = {Precision.FP32: 0.0, Precision.FP16: 0.0, Precision.W8: 0.04, Precision.W8A8: 0.21}


def ok_result(runtime: str, precision: Precision, threads: int = 1, *, n: int = 400) -> Result:
    """Return one sound row with invented figures."""
    target = Target(runtime=runtime, precision=precision, threads=threads)
    seed = sum(map(ord, target.id))
    scale = _BASE_MS.get(runtime, 0.5) * _SPEED[precision] / (1 + 0.6 * (threads - 1))
    samples = scale * np.random.default_rng(seed).gamma(60, 1 / 60, n)
    p50, p95, p99 = (float(v) for v in np.percentile(samples, [50, 95, 99]))
    lost = _DROP[precision]
    return Result(
        id=target.id,
        target=target,
        status=Status.OK,
        artifact=f"artifacts/{target.artifact_id}/model.bin",
        sha256=f"{seed:064x}",
        download_bytes=int(0.85 * (_SIZE[precision] + 7 * seed)),
        size_bytes=_SIZE[precision] + 7 * seed,
        metric=MetricResult(
            name="top1",
            source=0.9142,
            value=0.9142 - lost / 100,
            n=10_000,
            drop_points=lost,
            drop_ci95=(lost - 0.13, lost + 0.15) if lost else (0.0, 0.0),
            p_value=0.12 if lost else 1.0,
            conclusion="no difference found" if lost < 0.1 else "lower",
        ),
        parity=ParityResult(
            max_abs=0.013, cosine=0.9991, snr_db=31.2, agreement=0.994, n=512, inputs="evaluation data"
        ),
        latency_ms=LatencyResult(
            p50=p50,
            p95=p95,
            p99=p99,
            mean=float(samples.mean()),
            std=float(samples.std()),
            min=float(samples.min()),
            max=float(samples.max()),
            n=n,
            valid=True,
            p50_ci95=(p50 * 0.99, p50 * 1.01),
        ),
        cpu_ms_p50=p50 * threads,
        memory_bytes=31_400_000 + seed * 1000,
        speed_up=1 / _SPEED[precision],
        layers=()
        if runtime == "onnxruntime"
        else tuple(
            Layer(name=f"block{i}/conv", operator="CONV_2D", time_us=90.0 / (i + 1), implementation="XNNPACK")
            for i in range(14)
        ),
        latency_samples_ms=tuple(float(v) for v in samples),
    )


def rows(threads: tuple[int, ...] = (1, 2)) -> list[Result]:
    """Return 12 rows per number of threads: 24 by default; some failed, degraded, unavailable or not timed validly."""
    results = [ok_result(r, p, t) for r in RUNTIMES for p in PRECISIONS for t in threads]
    return [_changed(result) for result in results]


def _changed(result: Result) -> Result:
    over = Verdict(is_pass=False, violations=("drop_points: 3.1 > 0.5",))
    if result.id == "litert-w8a8-2t":
        assert result.metric is not None
        worse = replace(result.metric, value=0.8832, drop_points=3.1, drop_ci95=(2.7, 3.5), p_value=1e-9)
        reason = "over budget: drop_points: 3.1 > 0.5"
        return replace(result, status=Status.DEGRADED, metric=worse, verdict=over, reason=reason)
    if result.id == "openvino-fp16-2t":
        assert result.latency_ms is not None
        noisy = replace(
            result.latency_ms, valid=False, why_invalid="the launches differ by 14 %, more than 5 %"
        )
        return replace(result, latency_ms=noisy)
    if result.target.artifact_id == "onnxruntime-fp16":
        reason = (
            "the converter refused Resize with mode cubic; expected nearest or linear. Export it with linear."
        )
        return _without(result, Status.FAILED, reason)
    if result.target.artifact_id == "litert-w8":
        return _without(
            result, Status.UNAVAILABLE, "LiteRT from an ONNX source is not possible yet: use a .pt2."
        )
    return result


def _without(result: Result, status: Status, reason: str) -> Result:
    return Result(
        id=result.id,
        target=result.target,
        status=status,
        reason=reason,
        error="ConversionError" if status is Status.FAILED else "UnavailableError",
        verdict=Verdict(is_pass=False, violations=("nothing to measure",)),
    )


def summary(results: list[Result] | None = None, *, recommended: str | None = "openvino-w8a8-1t") -> Summary:
    """Return a whole build with invented figures."""
    found = rows() if results is None else results
    ids = [result.id for result in found]
    best = recommended if recommended in ids else None
    return Summary(
        source={
            "path": "models/fashion.pt2",
            "format": "pt2",
            "sha256": "ab" * 32,
            "inputs": ["x: float32[?,1,28,28]"],
        },
        results=tuple(found),
        pareto=tuple(
            name for name in ("openvino-w8a8-1t", "openvino-w8a8-2t", "litert-w8a8-1t") if name in ids
        ),
        recommended=best,
        why=f"{best}: p50 0.124 ms, 108 kB, top1 0.21 points lower than the source; the best of 3 candidates."
        if best
        else "Nothing is recommended: no result is ok and within budget.",
        conditions={
            "host": {
                "processor": "Test processor",
                "cores": 2,
                "memory_bytes": 8_000_000_000,
                "python": "3.12.3",
            },
            "toolchain": {"openvino": "1.2.3", "onnxruntime": "1.2.3"},
            "data": "eval.npz: 10000 samples",
            "calibration": "512 samples of train.npz, seed 0",
            "metric": "top1",
            "budget": {"drop_points": 0.5, "size_mb": 5.0},
            "seed": 0,
        },
        warnings=("calibration: 12 of 512 samples are also in the evaluation data",),
    )


def hostile() -> Summary:
    """Return a build whose names, reasons and notes try to break out of HTML, JSON and the terminal."""
    bad = ok_result("openvino", Precision.FP32, n=20)
    assert bad.metric is not None
    bad = replace(
        bad,
        metric=replace(bad.metric, name=HOSTILE),
        artifact=f"artifacts/{HOSTILE}",
        notes=(HOSTILE,),
        layers=(Layer(name=HOSTILE, operator=HOSTILE, time_us=1.0),),
    )
    failed = _without(ok_result("litert", Precision.FP32), Status.FAILED, HOSTILE * 40)
    named = Target(runtime=HOSTILE, precision=Precision.W8, threads=1)
    named_row = replace(ok_result("litert", Precision.W8, n=20), id=named.id, target=named)
    whole = summary([bad, failed, named_row], recommended=bad.id)
    return replace(
        whole,
        pareto=(named.id,),
        source={"path": HOSTILE, "format": "onnx", "sha256": "cd" * 32},
        why=HOSTILE,
        warnings=(HOSTILE,),
        conditions={**whole.conditions, "data": HOSTILE},
    )
