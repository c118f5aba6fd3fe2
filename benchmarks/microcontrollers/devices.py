"""C models on emulated cores: each output bit against LiteRT Micro's, instructions per MAC and flash against limits.

    python benchmarks/microcontrollers/devices.py --json devices.json

20 generated inputs a model and core. Instructions are those that QEMU counts (-icount): no cycles, no time. Flash is
code and tables of the model's own .c file; its limit is the weights and 20,000 bytes. Needs the toolchain tflm and
the cross compilers and emulators that `edgewright doctor` names.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from exactness import MODELS, chosen

from edgewright.core.errors import ConversionError
from edgewright.microcontrollers import oracle
from edgewright.microcontrollers.emit import compile_model, golden_inputs, write_checks, write_sources
from edgewright.microcontrollers.qemu import DEVICES, device_of, run_on

FLASH_OVER_WEIGHTS_BYTES = 20_000
# Instructions for each MAC of a whole model: with the DSP extension, and with Helium.
PER_MAC_LIMITS: Mapping[str, float] = {"cortex-m4": 2.2, "cortex-m7": 2.2, "cortex-m55": 0.6}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model on one core; figures are None where it did not run or an output differed, `reason` says why."""

    model: str
    device: str
    macs: int
    arena_bytes: int
    flash_limit_bytes: int
    instructions: int | None = None
    text_bytes: int | None = None
    rodata_bytes: int | None = None
    stack_bytes: int | None = None
    reason: str = ""

    @property
    def per_mac(self) -> float | None:
        """Instructions for each MAC."""
        return None if self.instructions is None else self.instructions / max(self.macs, 1)

    @property
    def flash_bytes(self) -> int | None:
        """Code and tables."""
        if self.text_bytes is None or self.rodata_bytes is None:
            return None
        return self.text_bytes + self.rodata_bytes

    @property
    def is_within_flash(self) -> bool:
        """True when code and tables are below the limit."""
        return self.flash_bytes is not None and self.flash_bytes < self.flash_limit_bytes

    @property
    def is_within_per_mac(self) -> bool | None:
        """Whether the limit of the core holds; None where there is none."""
        limit = PER_MAC_LIMITS.get(self.device)
        return None if limit is None or self.per_mac is None else self.per_mac <= limit

    def to_json(self) -> dict[str, object]:
        """Return the row with what follows from it."""
        return asdict(self) | {
            "instructions_per_mac": self.per_mac, "per_mac_limit": PER_MAC_LIMITS.get(self.device),
            "is_within_per_mac": self.is_within_per_mac, "flash_bytes": self.flash_bytes,
            "is_within_flash": self.is_within_flash,
        }  # fmt: skip

    def line(self) -> str:
        """Return the row as a line of the table."""
        start = f"{self.model:<14}{self.device:<15}"
        if self.per_mac is None or self.flash_bytes is None:
            return f"{start}FAILED: {self.reason}"
        limit = PER_MAC_LIMITS.get(self.device)
        margin = self.flash_limit_bytes - self.flash_bytes
        return (
            f"{start}exact{self.instructions:>13,}{self.per_mac:>9.3f}{'-' if limit is None else limit:>7}"
            f"{'OVER' if self.is_within_per_mac is False else '':>6}{self.text_bytes:>8,}{self.rodata_bytes:>9,}"
            f"{self.flash_bytes:>9,}{margin:>+9,}{'' if self.is_within_flash else '  OVER':<6}"
            f"{self.arena_bytes:>8,}{self.stack_bytes:>7,}"
        )


def main() -> int:
    """Print a line for each model and core; the exit code is 1 when an output is not exact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("../shared/assets"))
    parser.add_argument("--only", default="", help="models, separated by commas")
    parser.add_argument("--devices", "--boards", default="", help="cores, separated by commas; default: all")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not oracle.is_installed():
        sys.exit("the interpreter is not installed; run: edgewright toolchain install tflm")
    devices = (
        [device_of(name) for name in arguments.devices.split(",")] if arguments.devices else list(DEVICES)
    )
    rows = []
    print(
        f"{'model':<14}{'core':<15}{'bits':<5}{'instructions':>13}{'per MAC':>9}{'limit':>7}{'':>6}{'.text':>8}"
        f"{'.rodata':>9}{'flash':>9}{'margin':>9}{'':<6}{'arena':>8}{'stack':>7}"
    )
    for name in chosen(arguments.only):
        for row in measure(name, arguments.assets / "models" / MODELS[name], devices):
            rows.append(row)
            print(row.line(), flush=True)
    for line in verdicts(rows):
        print(line)
    if arguments.json:
        record = {"interpreter": oracle.version(), "rows": [row.to_json() for row in rows]}
        arguments.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 1 if any(row.reason for row in rows) else 0


def measure(name: str, path: Path, devices: list[str]) -> Iterator[Row]:
    """Yield the row of a model on each core."""
    model = compile_model(path, name=name)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_sources(model, folder)
        write_checks(model, folder, oracle.run(path, golden_inputs(model)).outputs, source="LiteRT Micro")
        for device in devices:
            row = Row(
                model=name,
                device=device,
                macs=model.macs,
                arena_bytes=model.plan.arena_bytes,
                flash_limit_bytes=model.weight_bytes + FLASH_OVER_WEIGHTS_BYTES,
            )
            try:
                run = run_on(device, folder, name)
            except ConversionError as err:
                yield replace(row, reason=str(err))
                continue
            yield replace(
                row,
                instructions=run.instructions,
                text_bytes=run.text_bytes,
                rodata_bytes=run.rodata_bytes,
                stack_bytes=run.stack_bytes,
            )


def verdicts(rows: list[Row]) -> Iterator[str]:
    """Yield where the models stand against each limit."""
    exact = sum(not row.reason for row in rows)
    yield f"\nbit-exact on 20 inputs each: {exact} of {len(rows)} pairs of model and core"
    for device, limit in PER_MAC_LIMITS.items():
        measured = sorted(
            (row.per_mac, row.model) for row in rows if row.device == device and row.per_mac is not None
        )
        if measured:
            within = ", ".join(f"{model} {value:.2f}" for value, model in measured if value <= limit)
            over = ", ".join(f"{model} {value:.2f}" for value, model in measured if value > limit)
            yield f"{device}, at most {limit} instructions per MAC: {within or 'none'}; over: {over or 'none'}"
    large = [
        f"{row.model} on {row.device} by {row.flash_bytes - row.flash_limit_bytes + 1:,}"
        for row in rows
        if row.flash_bytes is not None and not row.is_within_flash
    ]
    yield f"flash not below weights + 20,000: {', '.join(large) or 'none'}"


if __name__ == "__main__":
    sys.exit(main())
