"""A C model, described by the LiteRT model beside it, once its code is seen to be that model's."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from edgewright.core.files import sha256_of
from edgewright.microcontrollers.folder import MODEL_SUFFIX, read_model
from edgewright.sources.inspection import Inspection, inspect_program


def inspect_c(path: Path) -> Inspection:
    """Return the description of NAME.c at `path`.

    Raises:
        UsageError: the LiteRT model is not beside it.
        IntegrityError: the code is not what this version makes of that model.
    """
    from edgewright.sources.load import load

    model = read_model(path)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        found = inspect_program(load(str(path.with_suffix(MODEL_SUFFIX)), workdir=Path(work)))
    takes = (
        f"arena {model.plan.arena_bytes:,} bytes of RAM, tables {model.table_bytes:,} bytes of flash and the code, "
        f"arrays of {model.stack_bytes:,} bytes on the stack"
    )
    return replace(
        found,
        name=path.name,
        format="c",
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        macs=model.macs,
        notes=(*found.notes, takes),
    )
