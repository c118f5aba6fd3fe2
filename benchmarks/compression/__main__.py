"""Run the five compression benchmarks one after another: `python -m benchmarks.compression [--work DIR] ...`.

Each is a script of its own in this folder and takes the same options; models that one has trained are kept in
--work and used again. Exits with 1 when one of them fails or misses its mark.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

NAMES = ("ewz", "qat", "repair", "separable", "lenet")


def main(arguments: list[str] | None = None) -> int:
    """Run them and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("out/compression"), help="folder for trained models"
    )
    options = parser.parse_args(arguments)
    here = Path(__file__).resolve().parent
    failed = []
    for name in options.names or NAMES:
        print(f"== {name}", flush=True)
        folder = options.work / name
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(here / f"{name}.py"), "--work", str(folder)]
        if subprocess.run([*command, "--json", str(folder / f"{name}.json")], check=False).returncode:
            failed.append(name)
    print(f"FAILS: {', '.join(failed)}" if failed else "HOLDS: all five")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
