"""A processing as C99: the files of the core that it needs, NAME_processing.c and .h, and a self-test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import UsageError
from edgewright.core.files import write_text
from edgewright.processing.c_files import core_files, core_text
from edgewright.processing.c_program import COptions, CProgram, make_program
from edgewright.processing.c_writer import header_text, source_text
from edgewright.processing.planning import Plan

# The same bits everywhere: products and sums stay two operations.
FLAGS = ("-std=c99", "-O3", "-ffp-contract=off")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")


@dataclass(frozen=True, kw_only=True, eq=False)
class CCore:
    """What `write_core` wrote.

    Attributes:
        sources: the .c files, to be compiled together.
        headers: the .h files.
        arena_bytes: of values and scratch; `ew_bytes` tells the memory as a whole.
    """

    name: str
    program: CProgram
    folder: Path
    sources: tuple[Path, ...]
    headers: tuple[Path, ...]

    @property
    def arena_bytes(self) -> int:
        """Bytes of values and scratch."""
        return self.program.arena_bytes


def write_core(checked: Plan, folder: Path, name: str, options: COptions | None = None) -> CCore:
    """Write the C of `checked` into `folder`; nothing is written where a step has no C.

    Args:
        name: a letter, then letters, digits and _; the files and their only function are NAME_processing.
    Raises:
        UsageError: `name` is none.
        ConversionError: a step has no C, or needs more memory than `options` allow; the message names it.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r:.80} is no name for C: a letter, then up to 47 letters, digits and _ are expected."
        )
    program = make_program(checked, name=name, options=options or COptions())
    own = {f"{name}_processing.c": source_text(program), f"{name}_processing.h": header_text(program)}
    texts = {file: core_text(file) for file in core_files(program.site.files)} | own
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_text(folder / file, text)
    return CCore(
        name=name,
        program=program,
        folder=folder,
        sources=tuple(folder / file for file in texts if file.endswith(".c")),
        headers=tuple(folder / file for file in texts if file.endswith(".h")),
    )
