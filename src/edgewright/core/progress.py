"""Progress of long work: one callable that the CLI shows and Python users may give."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on, from one thread at a time or several."""

    def __call__(self, target_id: str, step: str, state: str, /) -> None:
        """Note that `step` of `target_id` is now running, done, cached, failed or unavailable."""
        ...


def silent(target_id: str, step: str, state: str, /) -> None:
    """Show nothing."""
