"""Does the comparison of latencies tell the truth?  A against itself, and against itself made 5 % slower.

Each run measures three artifacts in the same launches with the product's own `bench_artifacts`: A, A again, and
A with every call made 5 % longer by a busy wait. That gives two comparisons. All three are wrapped alike (with
factors 1, 1 and 1.05), so that the wrapper's own fraction of a microsecond is no difference. Every run counts.

Claims: "no difference" in at least 95 of 100 comparisons of A with itself; the slow-down is found in at least
90 of 100.

With `--json FILE` the runs are kept after each one, and a second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from reporting import conditions, parser_for, print_table, write_json

from edgewright.artifact_files import read_artifact
from edgewright.benchmark import bench_artifacts
from edgewright.core.artifact import Artifact
from edgewright.measure.latency import Design
from edgewright.workers.pool import Worker

MODELS = (
    "mlperf-tiny/ic_resnet8_int8.tflite",
    "mlperf-tiny/kws_dscnn_fp32.tflite",
    "mlperf-tiny/vww_mobilenet_96_int8.tflite",
    "ultraface-slim/version-slim-320.onnx",
    "dtln/model_2.onnx",
)
SLOW_DOWN = 1.05
MIN_SAME_SHARE = 0.95
MIN_FOUND_SHARE = 0.90
_BASE, _SAME, _SLOW = "A", "A again", "A + 5 %"

Record = dict[str, object]


def main() -> int:
    """Run the comparisons; return 0 when both claims hold."""
    parser = parser_for(__doc__)
    parser.add_argument("--comparisons", type=int, default=100, help="comparisons of each kind (default 100)")
    parser.add_argument("--launches", type=int, default=Design.launches, help="launches per comparison")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="FILE", help="below DIR/models/")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others count on")
    options = parser.parse_args()
    runs = _kept(options)
    if runs:
        print(f"going on after {len(runs)} kept runs")
    artifacts = {name: read_artifact(options.assets / "models" / name, threads=1) for name in options.models}
    while len(runs) < options.comparisons:
        number = len(runs)
        name = options.models[number % len(options.models)]
        run = compare_once(artifacts[name], launches=options.launches, seed=options.seed + 1000 * number)
        runs.append({"model": name, **run})
        print(
            f"{number + 1:3d}/{options.comparisons} {name:40s} itself: {run['same_ratio']:.3f} {run['same']}; "
            f"5 %: {run['slow_ratio']:.3f} {run['slow']}  ({run['wall_s']:.1f} s, load {run['load']:.1f})",
            flush=True,
        )
        write_json(options.json, _record(options, runs))
    return _report(options, runs)


def compare_once(artifact: Artifact, *, launches: int, seed: int) -> Record:
    """Return both comparisons of one interleaved run: verdicts, ratios, intervals, wall time, load."""
    start = time.monotonic()
    factors = {_BASE: 1.0, _SAME: 1.0, _SLOW: SLOW_DOWN}
    openers = {name: _opener(factor) for name, factor in factors.items()}

    def open_one(worker: Worker, opened: Artifact, folder: Path) -> int | None:
        return openers[worker.name](worker, opened, folder)

    found = bench_artifacts(dict.fromkeys(factors, artifact), launches=launches, seed=seed, open_one=open_one)
    same, slow = found.comparisons
    return {
        "same": same.latency.verdict,
        "same_ratio": same.latency.ratio,
        "same_ci95": list(same.latency.ci95),
        "slow": slow.latency.verdict,
        "slow_ratio": slow.latency.ratio,
        "slow_ci95": list(slow.latency.ci95),
        "p50_ms": found.latencies[_BASE].p50,
        "wall_s": time.monotonic() - start,
        "load": os.getloadavg()[0],
    }


def _opener(factor: float) -> Callable[[Worker, Artifact, Path], int | None]:
    def open_slowed(worker: Worker, artifact: Artifact, folder: Path) -> int | None:
        request = {
            "artifact": artifact.to_json(),
            "target": artifact.target.to_json(),
            "data": str(folder),
            "sources": [spec.to_json() for spec in artifact.inputs],
            "factor": factor,
        }
        memory = worker.call("slowed:open_slowed", request)["memory_bytes"]
        return memory if isinstance(memory, int) else None

    return open_slowed


def _report(options: argparse.Namespace, runs: list[Record]) -> int:
    rows = []
    for name in (*dict.fromkeys(str(run["model"]) for run in runs), "all"):
        own = [run for run in runs if name in (run["model"], "all")]
        rows.append(
            (
                name,
                len(own),
                f"{1e3 * statistics.median(_numbers(own, 'p50_ms')):.0f}",
                _same(own),
                _found(own),
                f"{statistics.median(_numbers(own, 'slow_ratio')):.3f}",
                f"{statistics.median(_half_widths(own)):.1f}",
                f"{sum(_numbers(own, 'wall_s')):.0f}",
                f"{statistics.median(_numbers(own, 'load')):.1f}",
            )
        )
    header = (
        "model",
        "runs",
        "p50 us",
        "no difference",
        "5 % found",
        "ratio found",
        "+- %",
        "wall s",
        "load",
    )
    print_table(header, rows)
    same, found = _same(runs) / len(runs), _found(runs) / len(runs)
    holds = same >= MIN_SAME_SHARE and found >= MIN_FOUND_SHARE
    print(
        f"{'HOLDS' if holds else 'FAILS'}: itself is 'no difference' in {_same(runs)} of {len(runs)} "
        f"(at least {MIN_SAME_SHARE:.0%}); 5 % slower is found in {_found(runs)} of {len(runs)} "
        f"(at least {MIN_FOUND_SHARE:.0%})"
    )
    write_json(options.json, {**_record(options, runs), "holds": holds})
    return 0 if holds else 1


def _same(runs: list[Record]) -> int:
    return sum(run["same"] == "no difference" for run in runs)


def _found(runs: list[Record]) -> int:
    return sum(run["slow"] == "a faster" for run in runs)


def _numbers(runs: list[Record], field: str) -> list[float]:
    return [float(str(run[field])) for run in runs]


def _half_widths(runs: list[Record]) -> list[float]:
    """Return half the width of each interval of A against itself, in per cent."""
    widths = []
    for run in runs:
        interval = run["same_ci95"]
        assert isinstance(interval, list)
        widths.append(50.0 * (interval[1] - interval[0]))
    return widths


def _settings(options: argparse.Namespace) -> Record:
    return {
        "launches": options.launches,
        "blocks": Design.blocks,
        "models": options.models,
        "seed": options.seed,
        "slow_down": SLOW_DOWN,
    }


def _record(options: argparse.Namespace, runs: list[Record]) -> Record:
    return {"settings": _settings(options), "conditions": conditions(), "runs": runs}


def _kept(options: argparse.Namespace) -> list[Record]:
    if options.json is None or not options.json.is_file():
        return []
    record = json.loads(options.json.read_text(encoding="utf-8"))
    if record["settings"] != _settings(options):
        raise SystemExit(
            f"{options.json} holds runs with other settings: {record['settings']}. Name another file."
        )
    runs: list[Record] = record["runs"]
    return runs


if __name__ == "__main__":
    raise SystemExit(main())
