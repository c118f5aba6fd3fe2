"""Live progress on stderr: one line per target on a terminal; elsewhere one per finished step, and one a minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from edgewright.report.cells import shorten

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType
    from rich.live import Live

_REFRESH_PER_S = 10
_MAX_LINES = 40
_LAST_STEPS = ("time", "compress")  # of a target, and of a step of a compression
_STEP_CHARACTERS = 90
_SILENCE_S = 60.0  # a log that said nothing for so long tells what runs
_STYLES = {
    "running": "cyan",
    "done": "green",
    "cached": "green",
    "failed": "red",
    "unavailable": "bright_black",
}
_SIGNS = {"running": ">", "done": "+", "cached": "=", "failed": "x", "unavailable": "-"}


@dataclass(frozen=True)
class _Step:
    step: str
    state: str
    since_s: float


class LiveProgress:
    """Shows (target id, step, state) as they come; use as a context manager, call from any thread.

    Args:
        target_ids: the ids expected, in the order to show; others (artifacts, "source") appear as they come.
        stream: where to write; default: stderr as it is at the start.
        unit: what the ids are of.
    """

    def __init__(
        self, target_ids: Sequence[str], *, stream: TextIO | None = None, unit: str = "targets"
    ) -> None:
        self._unit = unit
        self._target_ids = tuple(dict.fromkeys(target_ids))
        self._stream = stream
        self._lock = threading.Lock()
        self._steps: dict[str, _Step] = {}
        self._started_s = self._printed_s = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> LiveProgress:
        self._started_s = self._printed_s = time.monotonic()
        stream = self._out()
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=stream)
            if console.is_terminal and not console.is_dumb_terminal:
                self._live = Live(
                    console=console,
                    get_renderable=self._render,
                    refresh_per_second=_REFRESH_PER_S,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, target_id: str, step: str, state: str, /) -> None:
        """Note that `step` of `target_id` is now running, done, cached, failed or unavailable."""
        now_s = time.monotonic()
        with self._lock:
            before = self._steps.get(target_id)
            since_s = before.since_s if before is not None and before.state == "running" else now_s
            self._steps[target_id] = _Step(step, state, since_s if state != "running" or before else now_s)
            is_silent = now_s - self._printed_s > _SILENCE_S
            if self._live is None and (state != "running" or is_silent):
                self._printed_s = now_s
                self._print_line(target_id, step, state, now_s)

    def _print_line(self, target_id: str, step: str, state: str, now_s: float) -> None:
        when, what = _elapsed(now_s - self._started_s), shorten(step, _STEP_CHARACTERS)
        line = f"[{when}] {shorten(target_id, 60)}: {what}: {state}"
        try:
            print(line, file=self._out(), flush=True)
        except (OSError, ValueError):
            return  # nobody reads stderr any more: the work goes on

    def _out(self) -> TextIO:
        return self._stream or sys.stderr

    def _render(self) -> RenderableType:
        """Return the overall line and one line per target; called by the thread of `Live`."""
        from rich.console import Group
        from rich.text import Text

        now_s = time.monotonic()
        with self._lock:
            steps = dict(self._steps)
        shown = self._shown(steps)
        width = max((len(shorten(name, 40)) for name in shown), default=0)
        lines = [Text(self._overall(steps, now_s), style="bold", no_wrap=True, overflow="ellipsis")]
        for name in shown[:_MAX_LINES]:
            step = steps.get(name)
            label = f"{shorten(name, 40):<{width}}"
            if step is None:
                lines.append(Text(f"  . {label}  waits", style="bright_black"))
                continue
            time_text = f"  {_elapsed(now_s - step.since_s)}" if step.state == "running" else ""
            text = f"  {_SIGNS.get(step.state, '?')} {label}  {shorten(step.step, _STEP_CHARACTERS)}"
            lines.append(
                Text(
                    text + (time_text or f" {step.state}"),
                    style=_STYLES.get(step.state, ""),
                    no_wrap=True,
                    overflow="ellipsis",
                )
            )
        if len(shown) > _MAX_LINES:
            lines.append(Text(f"  ... and {len(shown) - _MAX_LINES} more", style="bright_black"))
        return Group(*lines)

    def _shown(self, steps: dict[str, _Step]) -> list[str]:
        """Return the names to list: other work while it runs, then the targets in their order.

        A target that has not begun shows the state of its artifact, which other targets may share.
        """
        others = [n for n, step in steps.items() if n not in self._target_ids and step.state == "running"]
        return [*others, *self._target_ids]

    def _overall(self, steps: dict[str, _Step], now_s: float) -> str:
        total = len(self._target_ids)
        finished = sum(
            1
            for name in self._target_ids
            if (name in steps and (steps[name].state in ("failed", "unavailable") or _is_last(steps[name])))
            or (name not in steps and _artifact_ended(steps, name))
        )
        running = [
            f"{shorten(name, 40)} {step.step}" for name, step in steps.items() if step.state == "running"
        ]
        what = f"now {'; '.join(running[:3])}" if running else "waiting"
        return f"{_elapsed(now_s - self._started_s)}  {finished}/{total} {self._unit}  {what}"


def _is_last(step: _Step) -> bool:
    return step.step in _LAST_STEPS and step.state in ("done", "cached")


def _artifact_ended(steps: dict[str, _Step], target_id: str) -> bool:
    """Tell whether the artifact of a target that never began ended badly: then the target ended, too."""
    artifact = steps.get(target_id.rpartition("-")[0])
    return artifact is not None and artifact.state in ("failed", "unavailable")


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
