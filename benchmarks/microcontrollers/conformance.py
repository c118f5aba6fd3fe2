"""Conformance sweep of the C emitter: generated models, each bit-exact to LiteRT Micro or refused by name.

    python benchmarks/microcontrollers/conformance.py --each 32 --json sweep.json

Every model is made into C, built together with its self-test (with --sanitize under the address and undefined-behaviour
sanitizers), and run on 20 generated inputs whose outputs the interpreter gave.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from made_cases import Case, cases

from edgewright.core.errors import ConversionError, EdgewrightError
from edgewright.microcontrollers import host, oracle
from edgewright.microcontrollers.emit import (
    CModel,
    compile_model,
    golden_inputs,
    write_checks,
    write_sources,
)

SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def main() -> int:
    """Print the table; the exit code is 1 when a model is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=32, help="models of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the models and the C files in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        made = list(cases(folder, each=arguments.each, seed=arguments.seed, only=arguments.only))
        rows = sweep(made, folder, SANITIZE if arguments.sanitize else ("-O1",))
    _print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"version": oracle.version(), "rows": rows}, indent=1))
    return 1 if any(row["verdict"] == "wrong" for row in rows) else 0


def sweep(made: list[Case], folder: Path, flags: tuple[str, ...]) -> list[dict[str, str]]:
    """Return operator, name, verdict (exact, refused, not compared, wrong) and the reason of each case."""
    models: dict[str, CModel] = {}
    rows: dict[str, dict[str, str]] = {}
    for case in made:
        rows[case.name] = {"operator": case.operator, "name": case.name, "verdict": "", "reason": ""}
        try:
            models[case.name] = compile_model(case.path, name="model")
        except ConversionError as err:
            rows[case.name] |= {"verdict": "refused", "reason": str(err).split("cannot become C. ")[-1]}
    compared = [case for case in made if case.name in models]
    inputs = {case.name: golden_inputs(models[case.name]) for case in compared}
    results = oracle.run_many([(case.path, inputs[case.name]) for case in compared])
    for case, result in zip(compared, results, strict=True):
        if result.refusal:
            rows[case.name] |= {"verdict": "not compared", "reason": result.refusal}
            continue
        target = folder / case.name
        source, _ = write_sources(models[case.name], target)
        _, test, _ = write_checks(models[case.name], target, result.outputs, source="LiteRT Micro")
        try:
            program = host.build([source, test], target / "check", flags=flags)
        except EdgewrightError as err:
            rows[case.name] |= {"verdict": "wrong", "reason": str(err)}
            continue
        done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
        verdict = "exact" if done.returncode == 0 else "wrong"
        said = (done.stdout + done.stderr).strip().splitlines()
        rows[case.name] |= {
            "verdict": verdict,
            "reason": "" if verdict == "exact" else said[0][:200] if said else "crash",
        }
    return list(rows.values())


def _print(rows: list[dict[str, str]]) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["operator"]][row["verdict"]] += 1
    verdicts = ("exact", "refused", "not compared", "wrong")
    print(f"{'operator':<32}" + "".join(f"{verdict:>14}" for verdict in verdicts))
    for operator, found in sorted(counts.items()):
        print(f"{operator:<32}" + "".join(f"{found[verdict]:>14}" for verdict in verdicts))
    total = Counter(row["verdict"] for row in rows)
    print(f"{f'all {len(rows)}':<32}" + "".join(f"{total[verdict]:>14}" for verdict in verdicts))
    for verdict in ("wrong", "not compared", "refused"):
        reasons = Counter((row["operator"], row["reason"][:160]) for row in rows if row["verdict"] == verdict)
        for (operator, reason), count in reasons.most_common(12):
            print(f"{verdict} {count} x {operator}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
