"""C models on emulated cores: 20 runs each, every output bit compared with LiteRT Micro's.

    python benchmarks/microcontrollers/devices.py --json devices.json

Needs the cross compilers and QEMU (see `edgewright.microcontrollers.qemu`). Prints what one run takes: instructions as
QEMU counts them (-icount; no cycles), by themselves and for each MAC; code, tables, and the stack's deepest trace.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from exactness import MODELS

from edgewright.core.errors import EdgewrightError
from edgewright.microcontrollers import oracle
from edgewright.microcontrollers.emit import compile_model, golden_inputs, write_checks, write_sources
from edgewright.microcontrollers.qemu import DEVICES, run_on

HEADER = (
    f"{'model':<14} {'core':<11} {'instructions':>12} {'per MAC':>8} {'.text':>8} {'.rodata':>8} {'stack':>6}  "
    "verdict"
)


def main() -> int:
    """Print a line for each model and core; the exit code is 1 when one is not exact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--only", default="", help="models, separated by commas")
    parser.add_argument("--boards", default="", help="boards, separated by commas")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    print(HEADER)
    for name, file in MODELS.items():
        if arguments.only and name not in arguments.only.split(","):
            continue
        path = arguments.assets / "models" / file
        model = compile_model(path, name=name)
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            write_sources(model, folder)
            write_checks(model, folder, oracle.run(path, golden_inputs(model)).outputs, source="LiteRT Micro")
            for board in arguments.boards.split(",") if arguments.boards else DEVICES:
                rows.append(measure(name, board, folder, model.macs))
                print(line(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"version": oracle.version(), "rows": rows}, indent=1))
    return 1 if any(row["verdict"] != "exact" for row in rows) else 0


def measure(name: str, board: str, folder: Path, macs: int) -> dict[str, object]:
    """Return the row of a model on a core."""
    row: dict[str, object] = {"model": name, "board": board, "macs": macs}
    try:
        run = run_on(board, folder, name)
    except EdgewrightError as err:
        return row | {"verdict": str(err)}
    return row | {
        "instructions": run.instructions, "text_bytes": run.text_bytes, "rodata_bytes": run.rodata_bytes,
        "stack_bytes": run.stack_bytes, "verdict": "exact",
    }  # fmt: skip


def line(row: dict[str, object]) -> str:
    """Return a row as a line of the table."""
    start = f"{row['model']:<14} {row['board']:<11} "
    if row["verdict"] != "exact":
        return f"{start}{row['verdict']}"
    per_mac = int(str(row["instructions"])) / int(str(row["macs"]))
    return (
        f"{start}{row['instructions']:>12} {per_mac:>8.2f} {row['text_bytes']:>8} {row['rodata_bytes']:>8} "
        f"{row['stack_bytes']:>6}  exact"
    )


if __name__ == "__main__":
    sys.exit(main())
