"""Does `edgewright explain` foretell what conversion makes of a model?

For every real model of the assets and the demo, for one-operator ONNX models of the onnx package and for small torch
modules: the verdict that was foretold against what the conversion and the runtime really do, per runtime, with the
precision and recall of each class. What was held out while the rules were made is printed apart. Then the time that a
real model takes, a fresh worker process included.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# The workers import this folder's modules too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (sys.path[0], os.environ.get("PYTHONPATH", ""))))

from benchmarks.explain_samples import Sample, models, modules, nodes
from benchmarks.explain_truth import Truth
from reporting import conditions, parser_for, print_table, write_json

from edgewright.core.errors import EdgewrightError
from edgewright.explain import explain
from edgewright.sources import load
from edgewright.workers.pool import Worker

RUNTIMES = ("litert", "onnxruntime", "openvino", "executorch", "coreml", "ncnn")
CLASSES = ("ok", "fallback", "blocked")
Row = tuple[Sample, str, str, str, str]  # sample, runtime, foretold, real, detail


def main() -> int:
    """Return 0 when precision and recall of every class reach 95 % and no model took 5 s of processor time."""
    parser = parser_for(__doc__)
    parser.add_argument("--nodes", type=int, default=120, help="one-operator ONNX models (default: 120)")
    parser.add_argument("--to", default=",".join(RUNTIMES), help="runtimes, comma-separated")
    parser.add_argument("--kinds", default="model,node,module", help="of samples, comma-separated")
    parser.add_argument("--only", default="", help="samples whose name holds this text")
    parser.add_argument(
        "--truth", type=Path, help="keep the real outcomes here, and use those that are there"
    )
    parser.add_argument("--known-only", action="store_true", help="convert nothing that is not in --truth")
    parser.add_argument(
        "--hide-held-out", action="store_true", help="while tuning: neither run nor print them"
    )
    options = parser.parse_args()
    runtimes = tuple(options.to.split(","))
    kinds = options.kinds.split(",")
    rows: list[Row] = []
    seconds: dict[str, tuple[float, float]] = {}
    partitions: list[tuple[str, int | None, int]] = []
    with tempfile.TemporaryDirectory(prefix="edgewright-explain-") as folder, Worker("explain") as shared:
        samples = [
            *(models(options.assets) if "model" in kinds and options.assets.is_dir() else ()),
            *(nodes(options.nodes, Path(folder) / "nodes") if "node" in kinds else ()),
            *(modules() if "module" in kinds else ()),
        ]
        samples = [
            s for s in samples if options.only in s.name and not (options.hide_held_out and s.is_held_out)
        ]
        truth = Truth(options.truth, Path(folder) / "truth", is_read_only=options.known_only)
        try:
            for sample in samples:
                work = Path(folder) / "sample"
                work.mkdir(exist_ok=True)
                try:
                    program = load(sample.spec, workdir=work, input_shapes=sample.shapes or None)
                except EdgewrightError as err:
                    print(f"not read: {sample.name}: {str(err)[:150]}", flush=True)
                    continue
                start, cpu = time.perf_counter(), children_cpu_s()
                found = explain(program, runtimes, worker=None if sample.kind == "model" else shared)
                seconds[sample.name] = (time.perf_counter() - start, children_cpu_s() - cpu)
                for coverage in found.coverages:
                    real = truth.outcome(sample.name, program, coverage.runtime)
                    if real.verdict == "unavailable":
                        continue
                    why = f"foretold: {coverage.reason[:200]!r}; really: {real.detail[:300]!r}"
                    rows.append((sample, coverage.runtime, str(coverage.verdict), real.verdict, why))
                    if real.partitions is not None and coverage.verdict != "blocked":
                        partitions.append((sample.name, coverage.partitions, real.partitions))
                truth.forget_crossings()
                truth.save()
        finally:
            truth.close()
    print_misses(rows)
    worst = min(
        print_matrix(title, [row for row in rows if keep(row[0])])
        for title, keep in (
            ("real models", lambda sample: sample.kind == "model"),
            ("small models, tuned on", lambda sample: sample.kind != "model" and not sample.is_held_out),
            ("small models, held out", lambda sample: sample.is_held_out),
            ("all", lambda sample: True),
        )
    )
    for runtime in runtimes:
        print_matrix(f"all, {runtime}", [row for row in rows if row[1] == runtime])
    exact = sum(foretold == real for _, foretold, real in partitions)
    if partitions:
        print(f"\npartitions: {exact} of {len(partitions)} exactly as foretold")
        for name, foretold, real in partitions:
            if foretold != real:
                print(f"  {name}: foretold {foretold}, really {real}")
    slow = print_seconds(
        {s.name: seconds[s.name] for s in samples if s.kind == "model" and s.name in seconds}
    )
    write_json(
        options.json,
        {
            "conditions": conditions(),
            "rows": [[s.name, s.kind, s.is_held_out, *rest] for s, *rest in rows],
            "seconds": seconds,
            "partitions": partitions,
        },
    )
    return int(worst < 0.95 or slow >= 5.0)


def print_misses(rows: list[Row]) -> None:
    """Print every sample that went another way than foretold."""
    for sample, runtime, foretold, real, why in rows:
        if foretold != real:
            mark = " (held out)" if sample.is_held_out else ""
            print(
                f"miss: {sample.name}{mark} {runtime}: foretold {foretold}, really {real}; {why}", flush=True
            )


def print_matrix(title: str, rows: list[Row]) -> float:
    """Print the confusion matrix with precision and recall; return the lowest of them (1 where there is none)."""
    counts = Counter((foretold, real) for _, _, foretold, real, _ in rows)
    foretold_classes = [*CLASSES, *(["unknown"] if any(f == "unknown" for f, _ in counts) else [])]
    print(f"\n{title}: {len(rows)} verdicts")
    table: list[list[object]] = []
    lowest = 1.0
    for name in CLASSES:
        foretold = sum(counts[name, real] for real in CLASSES)
        real = sum(counts[other, name] for other in foretold_classes)
        right = counts[name, name]
        shares = [right / total for total in (foretold, real) if total]
        lowest = min([lowest, *shares])
        cells = [f"{100 * right / total:.1f} % of {total}" if total else "-" for total in (foretold, real)]
        table.append([f"really {name}", *(counts[other, name] for other in foretold_classes), *cells])
    print_table(("", *(f"foretold {name}" for name in foretold_classes), "precision", "recall"), table)
    return lowest


def children_cpu_s() -> float:
    """Return the processor time of the worker processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def print_seconds(seconds: dict[str, tuple[float, float]]) -> float:
    """Print the times of the real models; return the longest of processor time.

    On a machine that others load, wall clock says how loaded it was; processor time is what the work takes.
    """
    if not seconds:
        return 0.0
    print("\nseconds per real model, with a fresh worker, all runtimes together")
    print_table(
        ("model", "wall s", "CPU s"), [(name, f"{w:.2f}", f"{c:.2f}") for name, (w, c) in seconds.items()]
    )
    for what, index in (("wall clock", 0), ("processor time", 1)):
        ordered = sorted(times[index] for times in seconds.values())
        print(f"{what}: median {ordered[len(ordered) // 2]:.2f} s, longest {ordered[-1]:.2f} s")
    print(f"load of the machine (1, 5, 15 min): {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    return max(cpu for _, cpu in seconds.values())


if __name__ == "__main__":
    sys.exit(main())
