"""What does Edgewright add to the vendors' own calls?  The demo: 3 runtimes x 4 precisions, nothing cached.

Times `edgewright demo --no-cache` beside vendor_calls.py, the same work as bare scripts, one process per
runtime, one after another; in turn, `--runs` times. Claims: the demo takes under 2 minutes, and at most 15 % more
than the vendors' calls. CPU time is printed too: Edgewright converts side by side, which the scripts do not.
Then the demo runs once more inside this process to tell where its time goes.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reporting import REPOSITORY, conditions, parser_for, print_table, write_json

from edgewright import sample
from edgewright.pipeline import run_recipe
from edgewright.recipe import Recipe

RUNTIMES = ("litert", "onnxruntime", "openvino")
LIMIT_S = 120.0
MAX_ADDED = 0.15
OURS, THEIRS = "edgewright demo", "vendors' calls"
_SAMPLE = Path(sample.__file__).parent
_SCRIPT = Path(__file__).with_name("vendor_calls.py")


def main() -> int:
    """Run the comparison; return 0 when both claims hold."""
    parser = parser_for(__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each side (default 3)")
    options = parser.parse_args()
    wall_s: dict[str, list[float]] = {OURS: [], THEIRS: []}
    cpu_s: dict[str, list[float]] = {OURS: [], THEIRS: []}
    parts_s: dict[str, list[float]] = {name: [] for name in RUNTIMES}
    for number in range(options.runs):
        for name, run in ((OURS, run_demo), (THEIRS, run_vendors)):
            start, cpu = time.monotonic(), _children_cpu_s()
            parts = run()
            wall_s[name].append(time.monotonic() - start)
            cpu_s[name].append(_children_cpu_s() - cpu)
            for part, seconds in parts.items():
                parts_s[part].append(seconds)
        print(f"run {number + 1}: {wall_s[OURS][-1]:.1f} s, vendors {wall_s[THEIRS][-1]:.1f} s", flush=True)
    rows = [
        (name, f"{statistics.median(wall_s[name]):.1f}", f"{statistics.median(cpu_s[name]):.1f}")
        for name in (OURS, THEIRS)
    ]
    rows += [(f"  {name}", f"{statistics.median(parts_s[name]):.1f}", "") for name in RUNTIMES]
    print_table(("median of the runs", "wall s", "CPU s"), rows)
    phases = phases_of_demo()
    print_table(("inside the demo", "from s", "to s"), [(n, f"{a:.1f}", f"{b:.1f}") for n, a, b in phases])
    ours, theirs = statistics.median(wall_s[OURS]), statistics.median(wall_s[THEIRS])
    added = ours / theirs - 1.0
    holds = ours < LIMIT_S and added <= MAX_ADDED
    print(
        f"{'HOLDS' if holds else 'FAILS'}: the demo takes {ours:.0f} s (limit {LIMIT_S:.0f} s), "
        f"{100 * added:+.0f} % to the vendors' own calls (limit {MAX_ADDED:+.0%})"
    )
    write_json(
        options.json,
        {
            "conditions": conditions(),
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "vendor_parts_s": parts_s,
            "phases_s": [{"phase": name, "from": start, "to": end} for name, start, end in phases],
            "added": added,
            "holds": holds,
        },
    )
    return 0 if holds else 1


def run_demo() -> dict[str, float]:
    """Run the demo as a user does, without the cache."""
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        program = str(Path(sys.executable).with_name("edgewright"))
        _run(program, "demo", "--no-cache", "--json", "--out", str(Path(folder) / "out"))
    return {}


def run_vendors() -> dict[str, float]:
    """Run the vendors' calls, one process after another; return the wall time of each."""
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        for name in RUNTIMES:
            start = time.monotonic()
            _run(sys.executable, str(_SCRIPT), name, folder, str(_SAMPLE))
            seconds[name] = time.monotonic() - start
    return seconds


def phases_of_demo() -> list[tuple[str, float, float]]:
    """Return (what, from, to) in seconds since the start of the demo's build, in order of their start."""
    began = time.monotonic()
    spans: dict[str, tuple[float, float]] = {}

    def note(name: str, step: str, state: str) -> None:
        what = (
            "timing, all targets"
            if step in ("time", "warm-up") or step.startswith("round")
            else f"{name} {step}"
        )
        now = time.monotonic() - began
        first, _ = spans.get(what, (now, now))
        spans[what] = (first, now)

    recipe = Recipe(
        model=sample.MODEL,
        weights=str(sample.WEIGHTS),
        input_shapes=("x".join(map(str, sample.INPUT_SHAPE)),),
        data=str(sample.EVAL_DATA),
        calibration=str(sample.CALIBRATION_DATA),
        metric="top1",
    )
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        run_recipe(recipe, out=Path(folder) / "out", use_cache=False, progress=note)
    end = time.monotonic() - began
    last = max(stop for _, stop in spans.values())
    spans["results, evidence, report"] = (last, end)
    return sorted(((name, a, b) for name, (a, b) in spans.items()), key=lambda span: span[1:])


def _children_cpu_s() -> float:
    """Return the CPU time of all ended children of this process and their own."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(*command: str) -> None:
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "COLUMNS": "120"},
    )
    if ran.returncode != 0:
        raise SystemExit(
            f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout[-500:]}{ran.stderr[-1500:]}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
