"""C models on emulated cores: 20 runs each, every output bit compared with LiteRT Micro's.

    python benchmarks/microcontrollers/devices.py --json devices.json

Needs the cross compilers and QEMU (see `edgewright.microcontrollers.qemu`). Emulation proves numbers, not times.
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
from edgewright.microcontrollers.qemu import BOARDS, run_on


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
    for name, file in MODELS.items():
        if arguments.only and name not in arguments.only.split(","):
            continue
        path = arguments.assets / "models" / file
        model = compile_model(path, name=name)
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            write_sources(model, folder)
            write_checks(model, folder, oracle.run(path, golden_inputs(model)).outputs, source="LiteRT Micro")
            for board in arguments.boards.split(",") if arguments.boards else BOARDS:
                try:
                    run = run_on(board, folder, name)
                    rows.append(
                        {"model": name, "board": board, "flash_bytes": run.flash_bytes, "verdict": "exact"}
                    )
                except EdgewrightError as err:
                    rows.append({"model": name, "board": board, "flash_bytes": 0, "verdict": str(err)})
                last = rows[-1]
                print(
                    f"{name:<14} {board:<11} {last['flash_bytes']:>8} bytes of flash  {last['verdict']}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps({"version": oracle.version(), "rows": rows}, indent=1))
    return 1 if any(row["verdict"] != "exact" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
