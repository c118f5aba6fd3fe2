"""Many C models with their self-tests in one program: one link and one start for all of them.

Each model and its self-test are one translation unit; a table of their entry points drives them, and says which one
runs before it does, so that a crash is laid at the right door and the rest goes on.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import ConversionError
from edgewright.microcontrollers import host

SANITIZE = ("-O1", "-g0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
PLAIN = ("-O1",)
WORKERS = 2
_SIZE = 12
_TIMEOUT_S = 600

_DRIVER = """\
#include <stdio.h>
#include <stdlib.h>
{declarations}
static int (*const tests[])(void) = {{ {entries} }};

int main(int count, char **words)
{{
    int i = count > 1 ? atoi(words[1]) : 0;
    for (; i < {size}; ++i) {{
        printf("@begin %d\\n", i);
        fflush(stdout);
        printf("@end %d %d\\n", i, tests[i]());
        fflush(stdout);
    }}
    return 0;
}}
"""


@dataclass(frozen=True, kw_only=True)
class Checkable:
    """NAME.c and NAME_test.c in a folder."""

    name: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a self-test.

    Attributes:
        is_clean: it was built and ran to its end, with no word from a sanitizer.
        is_right: and found every output right.
        said: the first line of what went wrong.
    """

    is_clean: bool
    is_right: bool
    said: str = ""


def check(models: Sequence[Checkable], folder: Path, *, flags: Sequence[str], cc: str) -> dict[str, Result]:
    """Return name -> result of every self-test, built by `cc` with `flags` and all warnings as errors."""
    batches = [models[first : first + _SIZE] for first in range(0, len(models), _SIZE)]
    found: dict[str, Result] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [
            pool.submit(_batch, batch, folder / f"{Path(cc).name}_{number}", tuple(flags), cc)
            for number, batch in enumerate(batches)
        ]
        for job in jobs:
            found |= job.result()
    return found


def _batch(models: Sequence[Checkable], folder: Path, flags: tuple[str, ...], cc: str) -> dict[str, Result]:
    folder.mkdir(parents=True, exist_ok=True)
    units = []
    for model in models:
        unit = folder / f"{model.name}_unit.c"
        at = model.folder.resolve()
        unit.write_text(
            f"int {model.name}_main(void);\n#define main {model.name}_main\n"
            f'#include "{at / model.name}.c"\n#include "{at / model.name}_test.c"\n'
        )
        units.append(unit)
    driver = folder / "driver.c"
    driver.write_text(
        _DRIVER.format(
            declarations="\n".join(f"int {model.name}_main(void);" for model in models),
            entries=", ".join(f"{model.name}_main" for model in models),
            size=len(models),
        )
    )
    try:
        program = host.build([driver, *units], folder / "check", flags=flags, cc=cc)
    except ConversionError as err:
        if len(models) == 1:
            return {models[0].name: Result(is_clean=False, is_right=False, said=str(err))}
        # One by one: the others are not to blame.
        found: dict[str, Result] = {}
        for number, model in enumerate(models):
            found |= _batch([model], folder / str(number), flags, cc)
        return found
    return _run(program, models)


def _run(program: Path, models: Sequence[Checkable]) -> dict[str, Result]:
    found: dict[str, Result] = {}
    while len(found) < len(models):
        first = len(found)
        try:
            done = subprocess.run(
                [str(program), str(first)], capture_output=True, timeout=_TIMEOUT_S, check=False
            )
            said, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired:
            said, errors = "", f"not ready after {_TIMEOUT_S} s"
        words: list[str] = []
        for line in said.splitlines():
            if line.startswith("@begin"):
                words = []
            elif line.startswith("@end"):
                code = int(line.split()[2])
                found[models[len(found)].name] = Result(
                    is_clean=True, is_right=code == 0, said="" if code == 0 else (words or ["?"])[0]
                )
            else:
                words.append(line)
        if len(found) < len(models):
            lines = [line for line in errors.splitlines() if "ERROR" in line or "runtime error" in line]
            said = (lines or errors.splitlines() or ["crash"])[0][:300]
            found[models[len(found)].name] = Result(is_clean=False, is_right=False, said=said)
    return found
