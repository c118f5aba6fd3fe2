"""Conformance sweep of the C emitter: generated models, each bit-exact to LiteRT Micro or refused by name.

    python benchmarks/microcontrollers/conformance.py --each 32 --json sweep.json

Every model is made into C, built together with its self-test, and run on 20 generated inputs whose outputs the
interpreter gave. With --sanitize gcc and clang, where both are installed, build it under the address and the
undefined-behaviour sanitizer. Models with exponentials of float32 must agree within 1e-5 and are counted as close.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from batches import PLAIN, SANITIZE, Checkable, check
from made_kinds import Case, cases

from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array
from edgewright.microcontrollers import host, oracle, proof, qemu
from edgewright.microcontrollers.emit import (
    CModel,
    compile_model,
    golden_inputs,
    write_checks,
    write_sources,
)

VERDICTS = ("exact", "close", "refused", "not compared", "wrong")


def main() -> int:
    """Print the table; the exit code is 1 when a model is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=32, help="models of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds, separated by commas")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument(
        "--devices", default="", help="emulated cores on which each model runs, too: m4,m55,rv32"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="keep the models and the C files in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        made = list(cases(folder, each=arguments.each, seed=arguments.seed, only=arguments.only))
        compilers = (
            tuple(filter(shutil.which, ("gcc", "clang"))) if arguments.sanitize else (host.compiler(),)
        )
        flags = SANITIZE if arguments.sanitize else PLAIN
        devices = [qemu.device_of(name) for name in arguments.devices.split(",") if name]
        rows = sweep(made, folder, compilers, flags, devices)
    _print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"version": oracle.version(), "rows": rows}, indent=1))
    return 1 if any(row["verdict"] == "wrong" for row in rows) else 0


def sweep(
    made: list[Case],
    folder: Path,
    compilers: tuple[str, ...],
    flags: tuple[str, ...],
    devices: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Return operator, name, verdict (exact, close, refused, not compared, wrong) and the reason of each case."""
    models: dict[str, CModel] = {}
    rows: dict[str, dict[str, str]] = {}
    for case in made:
        rows[case.name] = {"operator": case.operator, "name": case.name, "verdict": "", "reason": ""}
        try:
            models[case.name] = compile_model(case.path, name=case.name)
        except ConversionError as err:
            rows[case.name] |= {"verdict": "refused", "reason": str(err).split("cannot become C. ")[-1]}
    compared = [case for case in made if case.name in models]
    inputs = {case.name: golden_inputs(models[case.name]) for case in compared}
    results = oracle.run_many([(case.path, inputs[case.name]) for case in compared])
    checked: list[Checkable] = []
    for case, result in zip(compared, results, strict=True):
        if result.refusal:
            rows[case.name] |= {"verdict": "not compared", "reason": result.refusal}
            continue
        rows[case.name]["verdict"] = "exact" if models[case.name].is_exact else "close"
        expected = result.outputs
        if not models[case.name].is_exact:
            expected, reason = _close(models[case.name], inputs[case.name], expected, folder)
            if reason:
                rows[case.name] |= {"verdict": "wrong", "reason": reason}
                continue
        write_sources(models[case.name], folder)
        write_checks(models[case.name], folder, expected, source="LiteRT Micro")
        checked.append(Checkable(name=case.name, folder=folder))
    for cc in compilers:
        for name, found in check(checked, folder / "built", flags=flags, cc=cc).items():
            if not found.is_right:
                rows[name] |= {"verdict": "wrong", "reason": f"{Path(cc).name}: {found.said}"}
    for device, one in itertools.product(devices, checked):
        try:
            qemu.run_on(device, folder, one.name)
        except ConversionError as err:
            rows[one.name] |= {"verdict": "wrong", "reason": str(err)[:300]}
    return list(rows.values())


def _close(
    model: CModel, inputs: list[list[Array]], right: Sequence[Sequence[Array]], folder: Path
) -> tuple[list[tuple[Array, ...]], str]:
    """Return the model's own outputs, which its self-test then expects, and where they are not the interpreter's."""
    source, _ = write_sources(model, folder)
    made = host.HostModel(source, graph=model.graph, folder=folder)
    own = [made.run(row) for row in inputs]
    for run, (mine, theirs) in enumerate(zip(own, right, strict=True)):
        for have, want in zip(mine, theirs, strict=True):
            if not proof.agree(have, want, is_exact=False):
                return own, f"run {run}: off by {float(np.abs(have - want).max()):.3g}"
    return own, ""


def _print(rows: list[dict[str, str]]) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["operator"]][row["verdict"]] += 1
    print(f"{'operator':<32}" + "".join(f"{verdict:>14}" for verdict in VERDICTS))
    for operator, found in sorted(counts.items()):
        print(f"{operator:<32}" + "".join(f"{found[verdict]:>14}" for verdict in VERDICTS))
    total = Counter(row["verdict"] for row in rows)
    print(f"{f'all {len(rows)}':<32}" + "".join(f"{total[verdict]:>14}" for verdict in VERDICTS))
    for verdict in ("wrong", "not compared", "refused"):
        reasons = Counter((row["operator"], row["reason"][:160]) for row in rows if row["verdict"] == verdict)
        for (operator, reason), count in reasons.most_common(12):
            print(f"{verdict} {count} x {operator}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
