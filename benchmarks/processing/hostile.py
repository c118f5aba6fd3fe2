"""Bad input: every file gives a right result or one clear error, and a hostile specification no traceback.

    files            images, sounds, arrays and labels, made here: cut off, bombs, odd kinds, broken metadata, NaN;
                     through `load`, the command `predict`, and the C core, which must all say the same
    specifications   TOML bombs and contradictions through `load` and the command
    mutants          processing.toml of every preset with random tokens or values deleted, replaced or repeated: read,
                     checked, written again, run in numpy, and made C
    core             arrays that are no input, and names of tensors that would break out of code, for the C core itself
    outputs          models that give NaN, infinite and huge numbers, through every step of results: C as numpy

Prints a table: how many were right, how many refused, and how many were bad: another result, another error, a
traceback, two that differ, or more than 60 s. HOLDS where none is bad.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.processing.hostile_cases import Tally
from benchmarks.processing.hostile_core import core
from benchmarks.processing.hostile_files import files
from benchmarks.processing.hostile_mutants import mutants
from benchmarks.processing.hostile_outputs import outputs
from benchmarks.processing.hostile_specifications import specifications
from benchmarks.reporting import conditions, parser_for, print_table, write_json


def main() -> int:
    """Run every part; return 0 where nothing is bad."""
    parser = parser_for(__doc__)
    parts = ("files", "specifications", "mutants", "core", "outputs")
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be given again")
    parser.add_argument("--mutants", type=int, default=250, metavar="N", help="of each preset (default: 250)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutants (default: 0)")
    options = parser.parse_args()
    run: Mapping[str, Callable[[Path, Tally], None]] = {
        "files": lambda work, tally: files(options.assets, work, tally),
        "specifications": specifications,
        "mutants": lambda work, tally: mutants(work, tally, count=options.mutants, seed=options.seed),
        "core": core,
        "outputs": outputs,
    }
    tally = Tally()
    for part in options.only or parts:
        with tempfile.TemporaryDirectory() as work:
            run[part](Path(work), tally)
    print_table(["bad input", "n", "right", "refused", "bad"], tally.rows())
    for line in tally.bad[:40]:
        print(f"BAD {line}")
    write_json(options.json, {"conditions": conditions(), **tally.to_json()})
    print("FAILS" if tally.bad else "HOLDS")
    return 1 if tally.bad else 0


if __name__ == "__main__":
    sys.exit(main())
