"""One `build --to all` of the demo and of Fashion-MNIST: which runtimes ran for real, and what of the others.

    python benchmarks/runtimes.py --fashion out/fashion_mnist

A runtime counts as run for real when at least one of its rows is `ok`: its own runtime ran the artifact here, and the
outputs agree with the source's. `ok (interpreted)`, `converted` and `unavailable` do not count.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import fashion
from reporting import conditions, parser_for, print_table, write_json

from edgewright import sample
from edgewright.core.result import Result
from edgewright.pipeline import BuildResult, build

LEAST_RUNTIMES = 8
PRECISIONS = ("fp32", "fp16", "w8", "w8a8", "w4", "pruned")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when both models ran on at least eight runtimes and no fp32 row is bad."""
    parser = parser_for(__doc__)
    parser.add_argument("--fashion", type=Path, default=Path("out/fashion_mnist"), help="the trained example")
    parser.add_argument("--count", type=int, default=1000, help="Fashion-MNIST test images")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--only", default="", help="demo or fashion")
    options = parser.parse_args(arguments)
    precisions = options.precisions.split(",")
    records: dict[str, object] = {}
    holds = True
    if options.only != "fashion":
        with TemporaryDirectory() as folder:
            holds &= _report("demo", _demo(precisions, Path(folder)), records)
    if options.only != "demo" and fashion.prepare(options.fashion, options.assets):
        sys.path.insert(0, str(fashion.EXAMPLE))
        with TemporaryDirectory() as folder:
            built = _fashion(options.fashion, options.count, precisions, Path(folder))
            holds &= _report("fashion", built, records)
    write_json(options.json, {**records, "conditions": conditions()})
    return 0 if holds else 1


def _demo(precisions: Sequence[str], work: Path) -> BuildResult:
    return build(
        sample.MODEL,
        weights=sample.WEIGHTS,
        input_shapes=("x".join(map(str, sample.INPUT_SHAPE)),),
        data=sample.EVAL_DATA,
        calibration=sample.CALIBRATION_DATA,
        to=("all",),
        precision=precisions,
        metric="top1",
        out=work / "out",
        use_cache=False,
    )


def _fashion(model: Path, count: int, precisions: Sequence[str], work: Path) -> BuildResult:
    return build(
        "model:create",
        weights=model / "model.safetensors",
        input_shapes=("1x1x28x28",),
        data=fashion.first_images(model / "eval.npz", count, work),
        calibration=model / "calibration.npz",
        to=("all",),
        precision=precisions,
        metric="top1",
        out=work / "out",
        use_cache=False,
    )


def _report(name: str, built: BuildResult, records: dict[str, object]) -> bool:
    """Print the rows of one build, and return whether the claim holds for it."""
    rows = list(built.results)
    records[name] = {"results": built.records()}
    print(f"\n{name}: {built.recommended.id if built.recommended else 'nothing'} is recommended")
    header = ["runtime", "prec.", "status", "top1", "drop", "max abs", "kB", "p50 ms", "reason"]
    print_table(header, [_cells(row) for row in rows])
    real = sorted({row.target.runtime for row in rows if row.status == "ok"})
    others = sorted({row.target.runtime for row in rows} - set(real))
    bad = [row.id for row in rows if row.target.precision == "fp32" and row.status in ("failed", "degraded")]
    print(f"{len(real)} runtimes ran it for real: {', '.join(real)}; not for real: {', '.join(others)}")
    holds = len(real) >= LEAST_RUNTIMES and not bad
    told = f"; bad fp32 rows: {', '.join(bad)}" if bad else ""
    print(f"{'holds' if holds else 'FAILS'}: at least {LEAST_RUNTIMES} ran for real{told}")
    return holds


def _cells(row: Result) -> list[object]:
    return [
        row.target.runtime,
        row.target.precision,
        row.status,
        f"{row.metric.value:.4f}" if row.metric else "-",
        f"{row.metric.drop_points:+.2f}" if row.metric else "-",
        f"{row.parity.max_abs:.2g}" if row.parity and row.parity.max_abs is not None else "-",
        f"{row.size_bytes / 1e3:,.0f}" if row.size_bytes else "-",
        f"{row.latency_ms.p50:.4f}" if row.latency_ms else "-",
        row.reason[:110].replace("\n", " "),
    ]


if __name__ == "__main__":
    sys.exit(main())
