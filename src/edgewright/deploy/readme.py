"""What a bundle's README says of how it was shown to work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewright.core.files import write_text

README_NAME = "README.md"
SHOWN_HEADING = "## What was shown where this was made\n"


def tell_proofs(folder: Path, proofs: Sequence[str], notes: Sequence[str]) -> None:
    """Write proofs and notes, a line each, under the heading that every platform's README has for them."""
    path = folder / README_NAME
    text = path.read_text(encoding="utf-8")
    assert text.count(SHOWN_HEADING) == 1, f"{README_NAME} of a bundle has no {SHOWN_HEADING!r}"
    lines = [*proofs, *(f"Note: {note}" for note in notes)]
    told = "".join(f"- {' '.join(line.split())}\n" for line in lines)
    write_text(path, text.replace(SHOWN_HEADING, f"{SHOWN_HEADING}\n{told}"))
