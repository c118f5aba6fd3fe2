"""What a hostile input is, and what must come of it."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from edgewright.core.errors import EdgewrightError, WorkerError
from edgewright.core.tensors import Array

MAX_SENTENCE = 1000  # the longest lists the names of all steps
Must = Literal["right", "refused", "either", "turned", "any"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A file, and what reading it must give.

    Attributes:
        kind: of the table's row.
        name: of the file, with its suffix.
        must: give `wanted` or be refused; "either" where only a part that nobody needs may be missing; "turned" is
            `wanted`, perhaps turned or mirrored; "any" is whatever there is, or a refusal.
        wanted: the pixels, samples or numbers; None where the file is refused.
        tolerance: that they may differ by.
    """

    kind: str
    name: str
    content: bytes
    must: Must = "refused"
    wanted: Array | None = None
    tolerance: float = 0.0


def cuts(size: int, *, pieces: int = 40) -> list[int]:
    """Return lengths below `size` at which a file is cut off: its head byte by byte, its end, and pieces between."""
    lengths = {*range(min(size, 48)), *range(max(size - 24, 0), size)}
    return sorted(lengths | {size * piece // pieces for piece in range(1, pieces)})


def cut_off(kind: str, stem: str, suffix: str, content: bytes, wanted: Array) -> list[Case]:
    """Return `content` cut off at each of `cuts`: refused, or the very same where nothing needed is missing."""
    return [
        Case(
            kind=kind, name=f"{stem}_{length}{suffix}", content=content[:length], must="either", wanted=wanted
        )
        for length in cuts(len(content))
    ]


class Tally:
    """How many of each kind were right, refused, or bad.

    Attributes:
        bad: what was bad, a line each.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.bad: list[str] = []

    def add(self, kind: str, outcome: Literal["right", "refused"]) -> None:
        """Count one."""
        self.counts.setdefault(kind, Counter())[outcome] += 1

    def add_bad(self, kind: str, what: str) -> None:
        """Count one that is bad, and keep what it was."""
        self.counts.setdefault(kind, Counter())["bad"] += 1
        self.bad.append(f"{kind}: {what}")

    def rows(self) -> list[list[object]]:
        """Return a row of the table for each kind, and their sum."""
        kinds = {**self.counts, "all": sum(self.counts.values(), Counter())}
        return [
            [kind, sum(count.values()), count["right"], count["refused"], count["bad"]]
            for kind, count in kinds.items()
        ]

    def to_json(self) -> dict[str, object]:
        """Return the table as JSON values."""
        return {"kinds": {kind: dict(count) for kind, count in self.counts.items()}, "bad": self.bad}


@contextmanager
def watched(tally: Tally, kind: str, what: str, *, seconds: int = 60) -> Iterator[None]:
    """Count what is raised inside: an error of ours is a refusal where its sentence is short, anything else is bad."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    except WorkerError as err:
        tally.add_bad(kind, f"{what}: {err!r:.300}")
    except EdgewrightError as err:
        why = unclear(str(err))
        if why:
            tally.add_bad(kind, f"{what}: {why}: {err!r:.300}")
        else:
            tally.add(kind, "refused")
    except Exception as err:
        tally.add_bad(kind, f"{what}: {err!r:.300}")
    finally:
        signal.alarm(0)


def unclear(text: str) -> str:
    """Return what is wrong with the sentence of an error; empty where it is one of a sane length."""
    if "\n" in text or "Traceback" in text:
        return "more than a line"
    return "" if 10 <= len(text) <= MAX_SENTENCE else f"{len(text)} characters"
