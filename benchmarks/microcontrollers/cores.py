"""Generated models with weights on emulated cores: the fast paths, which the sweep on this machine does not reach.

    python benchmarks/microcontrollers/cores.py --each 16 --json cores.json

`conformance.py` builds the plain C; here the DSP extension (cortex-m4, m7, m33) and Helium (cortex-m55) do the sums, on
the same kinds of models, of odd sizes. Each runs on 20 generated inputs; every bit is compared with LiteRT Micro's.
Needs the cross compilers and QEMU (see `edgewright.microcontrollers.qemu`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from made_kinds import Case, cases

from edgewright.core.errors import ConversionError
from edgewright.microcontrollers import oracle
from edgewright.microcontrollers.emit import (
    CModel,
    compile_model,
    golden_inputs,
    write_checks,
    write_sources,
)
from edgewright.microcontrollers.qemu import run_on

KINDS = "conv_2d,depthwise_conv_2d,fully_connected,unidirectional_sequence_lstm"
BOARDS = "cortex-m3,cortex-m4,cortex-m55,rv32"
VERDICTS = ("exact", "refused", "not compared", "wrong")


def main() -> int:
    """Print how many models each core takes; the exit code is 1 when one is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=16, help="models of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=KINDS, help="kinds, separated by commas")
    parser.add_argument("--boards", default=BOARDS, help="boards, separated by commas")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    boards = arguments.boards.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = list(cases(folder, each=arguments.each, seed=arguments.seed, only=arguments.only))
        rows = sweep(made, folder, boards)
    print(f"{'core':<14}" + "".join(f"{verdict:>14}" for verdict in VERDICTS) + f"{'fast':>8}")
    for board in boards:
        mine = [row for row in rows if row["board"] == board]
        counts = [sum(row["verdict"] == verdict for row in mine) for verdict in VERDICTS]
        fast = sum(row["is_fast"] == "yes" for row in mine)
        print(f"{board:<14}" + "".join(f"{count:>14}" for count in counts) + f"{fast:>8}")
    for row in rows:
        if row["verdict"] == "wrong":
            print(f"{row['board']} {row['name']}: {row['reason']}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"version": oracle.version(), "rows": rows}, indent=1))
    return 1 if any(row["verdict"] == "wrong" for row in rows) else 0


def sweep(made: list[Case], folder: Path, boards: list[str]) -> list[dict[str, str]]:
    """Return board, name, verdict, the reason, and whether there are fast paths, of each case on each board."""
    models: dict[str, CModel] = {}
    refusals: dict[str, str] = {}
    for case in made:
        try:
            models[case.name] = compile_model(case.path, name=case.name)
        except ConversionError as err:
            refusals[case.name] = str(err)
    compared = [case for case in made if case.name in models]
    jobs = [(case.path, golden_inputs(models[case.name])) for case in compared]
    results = dict(zip((case.name for case in compared), oracle.run_many(jobs), strict=True))
    rows = []
    for case in made:
        outcome = {"verdict": "refused", "reason": refusals.get(case.name, ""), "is_fast": ""}
        if case.name in models:
            outcome = {"verdict": "not compared", "reason": results[case.name].refusal, "is_fast": ""}
        for board in boards:
            if case.name in models and not results[case.name].refusal:
                outcome = _run(models[case.name], folder / f"{case.name}_c", results[case.name], board)
            rows.append({"board": board, "name": case.name, **outcome})
    return rows


def _run(model: CModel, folder: Path, result: oracle.OracleRun, board: str) -> dict[str, str]:
    write_sources(model, folder)
    write_checks(model, folder, result.outputs, source="LiteRT Micro")
    outcome = {
        "verdict": "exact",
        "reason": "",
        "is_fast": "yes" if any(layer.helpers for layer in model.layers) else "no",
    }
    try:
        run_on(board, folder, model.name)
    except ConversionError as err:
        return outcome | {"verdict": "wrong", "reason": str(err)}
    return outcome


if __name__ == "__main__":
    sys.exit(main())
