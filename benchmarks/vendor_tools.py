"""Does our p50 agree with the runtimes' own tools?  Fresh processes of both, in turn.

LiteRT's `litert-benchmark` and OpenVINO's `benchmark_app` against the timing that `edgewright build` uses, one
thread, on the MLPerf Tiny models in fp32 and int8. Claim: the medians of the runs' p50 are within 5 %.

What is compared is what each side reports; nothing is subtracted. Ours is a whole call from Python, numpy in
and numpy out. `litert-benchmark` times a call that leaves inputs and outputs where they are; `benchmark_app`
gives the time that OpenVINO takes in C++. The column "inside" is the runtime's own part of our calls (see
inside.py), so that the difference can be told from a mistake. `litert-benchmark` rounds its figures to 10 us,
too coarse for these models: it runs here as it is, but with that rounding turned off.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from reporting import conditions, parser_for, print_table, write_json

from edgewright.artifact_files import read_artifact
from edgewright.backends.conversion import convert_all
from edgewright.benchmark import open_in, save_inputs
from edgewright.core.artifact import Artifact
from edgewright.core.progress import silent
from edgewright.core.target import Target
from edgewright.measure.timing import Timing, TimingSettings, time_interleaved
from edgewright.sources import load
from edgewright.workers.cache import Cache
from edgewright.workers.pool import Worker

MODELS = (
    "ic_resnet8_fp32",
    "ic_resnet8_int8",
    "kws_dscnn_fp32",
    "kws_dscnn_int8",
    "vww_mobilenet_96_fp32",
    "vww_mobilenet_96_int8",
)
RUNTIMES = ("litert", "openvino")
MAX_DIFFERENCE = 0.05
_WARM_UP_RUNS = 500
_TIMED_MS = 400.0  # about as long as ours
# The tool's own main(), except that its module's round() keeps all digits.
_LITERT = (
    "from ai_edge_litert.tools import benchmark_litert_model as tool; "
    "tool.round = lambda value, digits=0: value; tool.main()"
)


@dataclass(kw_only=True)
class Row:
    """All runs of one artifact; times in us."""

    name: str
    ours: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Our median p50 over theirs."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def like_for_like(self) -> float:
        """The ratio where both sides leave the Python call out (OpenVINO), or both have it in (LiteRT)."""
        own = self.inside if self.name.startswith("openvino") else self.ours
        return statistics.median(own) / statistics.median(self.theirs)

    @property
    def agrees(self) -> bool:
        """Whether the claim holds for this artifact."""
        return abs(self.ratio - 1.0) <= MAX_DIFFERENCE


def main() -> int:
    """Run the comparison; return 0 when all rows agree."""
    parser = parser_for(__doc__)
    parser.add_argument("--runs", type=int, default=9, help="runs of each side per artifact (default 9)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help="of MLPerf Tiny")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    options = parser.parse_args()
    rows: list[Row] = []
    tools: dict[str, Callable[[Artifact, int, Path], float]] = {
        "litert": litert_tool_us,
        "openvino": openvino_tool_us,
    }
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        work = Path(folder)
        for name in options.models:
            for runtime in options.runtimes:
                path = options.assets / "models" / "mlperf-tiny" / f"{name}.tflite"
                artifact = artifact_for(path, runtime, work / name / runtime)
                save_inputs(artifact, work / name / "inputs", seed=0)
                row = Row(name=f"{runtime} {name}")
                for _ in range(options.runs):
                    ours, inside = our_us(artifact, work / name / "inputs")
                    row.ours.append(ours)
                    row.inside.append(inside)
                    count = max(100, round(_TIMED_MS * 1e3 / ours))
                    row.theirs.append(tools[runtime](artifact, count, work))
                rows.append(row)
                print(f"{row.name}: ratio {row.ratio:.3f}", flush=True)
    print_table(
        ("artifact", "ours us", "inside us", "tool us", "ours/tool", "inside/tool", "runs differ by"),
        [
            (
                row.name,
                f"{statistics.median(row.ours):.1f}",
                f"{statistics.median(row.inside):.1f}",
                f"{statistics.median(row.theirs):.1f}",
                f"{row.ratio:.3f}",
                f"{statistics.median(row.inside) / statistics.median(row.theirs):.3f}",
                f"{100 * spread(row.ours):.0f} % / {100 * spread(row.theirs):.0f} %",
            )
            for row in rows
        ],
    )
    apart = [row for row in rows if not row.agrees]
    print(
        f"{'FAILS' if apart else 'HOLDS'}: {len(rows) - len(apart)} of {len(rows)} p50 within "
        f"{MAX_DIFFERENCE:.0%} of the runtime's own tool"
        + "".join(f"; {row.name} is {100 * (row.ratio - 1):+.1f} % off" for row in apart)
    )
    alike = sum(abs(row.like_for_like - 1.0) <= MAX_DIFFERENCE for row in rows)
    print(
        f"Like for like (OpenVINO's own clock on both sides, without the Python call): {alike} of {len(rows)} "
        f"within {MAX_DIFFERENCE:.0%}"
    )
    write_json(
        options.json,
        {
            "conditions": conditions(),
            "rows": [
                vars(row) | {"ratio": row.ratio, "like_for_like": row.like_for_like, "agrees": row.agrees}
                for row in rows
            ],
            "holds": not apart,
        },
    )
    return 1 if apart else 0


def artifact_for(path: Path, runtime: str, work: Path) -> Artifact:
    """Return the file itself for LiteRT, its conversion for OpenVINO; one thread."""
    artifact = read_artifact(path, threads=1)
    if runtime == "litert":
        return artifact
    program = load(str(path), workdir=work)
    target = Target(runtime=runtime, precision=artifact.target.precision)
    made = convert_all(program, [target], None, workdir=work, cache=Cache(root=None), progress=silent)
    conversion = made[target.artifact_id]
    if conversion.artifact is None:
        raise SystemExit(f"{path.name} cannot be converted for {runtime}: {conversion.error}")
    return replace(conversion.artifact, target=replace(conversion.artifact.target, threads=1))


def our_us(artifact: Artifact, inputs: Path) -> tuple[float, float]:
    """Return the p50 of a fresh process as `edgewright build` takes it, and of the runtime's own part, in us."""
    with Worker(artifact.target.runtime) as worker:
        open_in(worker, artifact, inputs)
        timing = time_interleaved({"it": worker}, TimingSettings(seed=time.monotonic_ns()))["it"]
        if not isinstance(timing, Timing):
            raise timing
        pooled = [sample for block in timing.wall_ns for sample in block]
        parts = worker.call("inside:time_parts", {"count": min(2000, len(pooled))})
    return statistics.median(pooled) / 1e3, float(str(parts["runtime_us"]))


def litert_tool_us(artifact: Artifact, count: int, work: Path) -> float:
    """Return the median that `litert-benchmark` gives for `count` runs, in us."""
    result = work / "litert-benchmark.json"
    _run(
        sys.executable,
        *("-c", _LITERT, f"--model={artifact.path}", f"--num_runs={count}", "--num_threads=1"),
        *(f"--warmup_runs={_WARM_UP_RUNS}", f"--result_json={result}"),
    )
    latency = json.loads(result.read_text(encoding="utf-8"))["latency"]
    return float(latency["median_ms"]) * 1e3


def openvino_tool_us(artifact: Artifact, count: int, work: Path) -> float:
    """Return the median that `benchmark_app` gives for `count` synchronous inferences, in us."""
    shapes = "".join(
        f",{spec.name}[{','.join('1' if size is None else str(size) for size in spec.shape)}]"
        for spec in artifact.inputs
    )
    dynamic = any(None in spec.shape for spec in artifact.inputs)
    printed = _run(
        str(Path(sys.executable).with_name("benchmark_app")),
        *("-m", str(artifact.path), "-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1"),
        *("-nthreads", "1", "-nireq", "1", "-niter", str(count), "-infer_precision", "f32"),
        *(("-data_shape", shapes[1:], "-inference_only", "true") if dynamic else ()),
        # Left alone, the tool turns 3- and 1-channel images to uint8 and adds a conversion to the model.
        *("-ip", {"float32": "f32", "int8": "i8", "uint8": "u8"}[artifact.inputs[0].dtype]),
    )
    found = re.search(r"Median: +([\d.]+) (us|ms)", printed)
    if found is None:
        raise SystemExit(f"benchmark_app printed no median:\n{printed[-2000:]}")
    return float(found[1]) * (1.0 if found[2] == "us" else 1e3)


def spread(values: list[float]) -> float:
    """Return half the range between the quartiles of the runs, as a share of their median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / (2.0 * middle)


def _run(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(
            f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout[-1000:]}{ran.stderr[-1000:]}"
        )
    return ran.stdout


if __name__ == "__main__":
    raise SystemExit(main())
