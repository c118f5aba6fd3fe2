"""C models on emulated devices: each built, run, every output bit checked, its needs counted, and where it fits.

Instructions are counted by QEMU. They are neither cycles nor time, which no emulator knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import ConversionError, UsageError
from edgewright.core.progress import Progress, silent
from edgewright.microcontrollers.boards import ALL, Board, Fit, board_of, fits_of
from edgewright.microcontrollers.folder import CFolder, read_folders
from edgewright.microcontrollers.qemu import DEVICES, EmulatedRun, device_of, run_on

if TYPE_CHECKING:
    from rich.console import Console

MAX_MODELS = 64
_COUNTED = "instructions as QEMU counts them: no cycles, no time"


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """One model on one device.

    Attributes:
        sha256: of the LiteRT model.
        run: None when it did not build, or an output differed; `reason` says which.
        author: who computed the outputs that it was compared with.
        fits: where it fits, by the figures of this device.
    """

    model: str
    sha256: str
    device: str
    arena_bytes: int
    macs: int
    author: str
    run: EmulatedRun | None
    reason: str = ""
    fits: tuple[Fit, ...] = ()

    @property
    def instructions_per_mac(self) -> float | None:
        """Instructions of a whole run by its multiplications; None without either."""
        return self.run.instructions / self.macs if self.run is not None and self.macs else None

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        run = self.run
        record: dict[str, object] = {
            "model": self.model, "sha256": self.sha256, "device": self.device,
            "exact": run is not None, "reason": self.reason, "expected_by": self.author,
            "arena_bytes": self.arena_bytes, "macs": self.macs,
        }  # fmt: skip
        if run is not None:
            record |= {
                "said": run.said, "instructions": run.instructions,
                "instructions_per_mac": self.instructions_per_mac, "text_bytes": run.text_bytes,
                "rodata_bytes": run.rodata_bytes, "stack_bytes": run.stack_bytes, "flags": list(run.flags),
            }  # fmt: skip
        return record | {"boards": [fit.to_json() for fit in self.fits]}


@dataclass(frozen=True, kw_only=True)
class DeviceBenchmark:
    """Every model on every device.

    Attributes:
        tools: name -> version of the cross compilers and emulators.
    """

    rows: tuple[DeviceRow, ...]
    tools: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        """0 when every output bit on every device is the expected one, else that of a failed conversion."""
        return ConversionError.exit_code if any(row.run is None for row in self.rows) else 0

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {"counted": _COUNTED, "tools": dict(self.tools), "rows": [row.to_json() for row in self.rows]}

    def render(self, console: Console) -> None:
        """Print a table of devices, then one of boards."""
        from rich.table import Table

        table = Table("model", "device", "outputs", box=None, pad_edge=False)
        for heading in ("instructions", "per MAC", ".text", ".rodata", "arena", "stack"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(*_cells(row))
        console.print(table)
        for row in self.rows:
            if row.run is None:
                console.print(row.reason, highlight=False, soft_wrap=True)
        authors = ", ".join(sorted({row.author for row in self.rows}))
        console.print(
            f"Expected outputs: {authors}. Counted are {_COUNTED}.", highlight=False, soft_wrap=True
        )
        fits = [(row, fit) for row in self.rows for fit in row.fits]
        if not fits:
            return
        boards = Table("model", "board", "core", box=None, pad_edge=False)
        for heading in ("MHz", "flash", "of", "RAM", "of"):
            boards.add_column(heading, justify="right")
        boards.add_column("fits")
        for row, fit in fits:
            board = fit.board
            near = "" if board.has_own_figures else f" ~{board.device}"
            boards.add_row(
                row.model, board.title, f"{board.core}{near}", str(board.clock_mhz),
                f"{fit.flash_bytes:,}", f"{board.flash_bytes:,}", f"{fit.ram_bytes:,}", f"{board.ram_bytes:,}",
                "yes" if fit.is_fitting else "no",
            )  # fmt: skip
        console.print()
        console.print(boards)
        console.print(
            "flash: code and tables; RAM: arena and stack, in one piece; the application comes on top. "
            "~: by the figures of that device, since the core is not emulated here.",
            highlight=False,
            soft_wrap=True,
        )


def bench_on_devices(
    paths: Sequence[Path],
    devices: Sequence[str] = (),
    *,
    boards: Sequence[str] = (),
    progress: Progress = silent,
) -> DeviceBenchmark:
    """Return what each C model takes on each device, every output bit checked.

    Args:
        paths: NAME.c, or the folders that conversions and builds wrote.
        devices: of `qemu.DEVICES`, in full or short (m4); default: those that stand for `boards`.
        boards: of `boards.BOARDS`; default: all that a device stands for.
    Raises:
        UsageError: nothing to do, or a path that holds no C model.
        UnknownNameError: there is no such device or board.
        UnavailableError: a cross compiler or QEMU is missing; with the packages that bring them.
        IntegrityError: the files are not what this version makes of the model beside them.
    """
    chosen = [board_of(name) for name in boards]
    wanted = devices or [board.device for board in chosen]
    names = list(dict.fromkeys(device_of(name) for name in wanted))
    for board in chosen:
        if board.device not in names:
            raise UsageError(
                f"{board.name} needs the figures of {board.device}, which is not among the devices: "
                f"add it ({','.join([*devices, board.device])}), or leave the devices to the boards."
            )
    if not names or not 1 <= len(paths) <= MAX_MODELS:
        raise UsageError(
            f"a bench on devices takes 1 to {MAX_MODELS} C models and at least one device of {', '.join(DEVICES)}."
        )
    for name in names:
        DEVICES[name].tools.require(name)
    folders = _named(folder for path in paths for folder in read_folders(path))
    rows = []
    for title, folder in folders.items():
        for name in names:
            progress(title, name, "running")
            rows.append(_measure(title, folder, name, chosen or ALL))
            progress(title, name, "done" if rows[-1].run is not None else "failed")
    tools: dict[str, str] = {}
    for used in {DEVICES[name].tools.purpose: DEVICES[name].tools for name in names}.values():
        tools |= used.versions()
    return DeviceBenchmark(rows=tuple(rows), tools=tools)


def _named(folders: Iterable[CFolder]) -> dict[str, CFolder]:
    """Return the models by short names that tell them apart."""
    named: dict[str, CFolder] = {}
    for folder in folders:
        short = f"{folder.folder.resolve().name}/{folder.name}" if folder.name in named else folder.name
        title, number = short, 2
        while title in named:
            title, number = f"{short} #{number}", number + 1
        named[title] = folder
    return named


def _measure(title: str, folder: CFolder, device: str, boards: Sequence[Board]) -> DeviceRow:
    model = folder.model
    row = DeviceRow(
        model=title,
        sha256=model.graph.sha256,
        device=device,
        arena_bytes=model.plan.arena_bytes,
        macs=model.macs,
        author=folder.author,
        run=None,
    )
    try:
        run = run_on(device, folder.folder, folder.name)
    except ConversionError as err:
        return replace(row, reason=str(err))
    ram_bytes = row.arena_bytes + run.stack_bytes
    fits = fits_of(device, flash_bytes=run.flash_bytes, ram_bytes=ram_bytes, boards=boards)
    return replace(row, run=run, fits=fits)


def _cells(row: DeviceRow) -> tuple[str, ...]:
    run = row.run
    if run is None:
        return row.model, row.device, "FAILED", "-", "-", "-", "-", f"{row.arena_bytes:,}", "-"
    per_mac = row.instructions_per_mac
    return (
        row.model, row.device, "exact", f"{run.instructions:,}", "-" if per_mac is None else f"{per_mac:.2f}",
        f"{run.text_bytes:,}", f"{run.rodata_bytes:,}", f"{row.arena_bytes:,}", f"{run.stack_bytes:,}",
    )  # fmt: skip
