"""Measure how long `edgewright --help` and `import edgewright` take, beside a bare Python.

Claim: the median of `edgewright --help` is under 150 ms.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from reporting import conditions, parser_for, print_table, write_json

LIMIT_MS = 150.0
_BARE = "python -c pass"
_HELP = "edgewright --help"
_IMPORT = "import edgewright"
# Each of these costs more than all the rest of --help; none is needed for it.
_HEAVY = ("numpy", "rich", "scipy", "torch", "jinja2", "plotly")


def main() -> int:
    """Run the measurement; return 0 when the claim holds."""
    parser = parser_for(__doc__)
    parser.add_argument("--runs", type=int, default=20, help="starts of each command (default 20)")
    options = parser.parse_args()
    commands = {
        _BARE: [sys.executable, "-c", "pass"],
        _IMPORT: [sys.executable, "-c", "import edgewright"],
        _HELP: [str(Path(sys.executable).with_name("edgewright")), "--help"],
    }
    for command in commands.values():
        _start(command)  # fills the caches of the file system and of compiled modules
    times_ms: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.runs):  # in turn, so that a busy moment falls on all of them
        for name, command in commands.items():
            times_ms[name].append(_start(command))
    rows = [
        (name, f"{statistics.median(t):.1f}", f"{min(t):.1f}", f"{max(t):.1f}")
        for name, t in times_ms.items()
    ]
    print_table(("command", "p50 ms", "min ms", "max ms"), rows)
    heavy = imported_by_help()
    print(f"heavy packages that --help imports: {', '.join(heavy) or 'none'}")
    p50 = statistics.median(times_ms[_HELP])
    holds = p50 < LIMIT_MS
    print(
        f"{'HOLDS' if holds else 'FAILS'}: {_HELP} takes {p50:.0f} ms (p50 of {options.runs}); limit {LIMIT_MS:.0f} ms"
    )
    write_json(
        options.json,
        {
            "conditions": conditions(),
            "times_ms": times_ms,
            "p50_ms": {name: statistics.median(t) for name, t in times_ms.items()},
            "heavy_imports": heavy,
            "limit_ms": LIMIT_MS,
            "holds": holds,
        },
    )
    return 0 if holds else 1


def imported_by_help() -> list[str]:
    """Return which heavy packages are imported when --help is printed."""
    code = (
        "import sys; sys.argv = ['edgewright', '--help']\n"
        "from edgewright.cli.main import run_and_exit\n"
        "try:\n    run_and_exit()\nexcept SystemExit:\n    pass\n"
        f"print('imported:', *[name for name in {_HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()[-1].removeprefix("imported:").split()


def _start(command: list[str]) -> float:
    """Return the wall time of `command` from start to end, in ms."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    raise SystemExit(main())
