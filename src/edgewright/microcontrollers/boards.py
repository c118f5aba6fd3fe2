"""Well-known boards: what their datasheets say of clock, flash and RAM, and where a model with measured needs fits.

Sources: for each entry the vendor's datasheet or product page named beside it. `ram_bytes` is the largest block in one
piece, since an arena is one piece; radios, operating systems and boot loaders take their part of it and of the flash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.core.errors import UnknownNameError

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board that can be bought.

    Attributes:
        core: of the processor that would run the model.
        device: the emulated core whose figures stand for it.
        flash_bytes: on the chip, or the external one that the board boots from.
        ram_bytes: the largest block in one piece.
    """

    name: str
    title: str
    core: str
    device: str
    clock_mhz: int
    flash_bytes: int
    ram_bytes: int

    @property
    def has_own_figures(self) -> bool:
        """False where the core is another than the emulated one, so that code size and stack are near, not exact."""
        return self.core == self.device


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a model takes of a board: code and tables of flash, arena and stack of RAM; the application comes on top."""

    board: Board
    flash_bytes: int
    ram_bytes: int

    @property
    def is_fitting(self) -> bool:
        """True when both are within the board's."""
        return not self.reason

    @property
    def reason(self) -> str:
        """What is too large; empty when nothing is."""
        pairs = (
            ("flash", self.flash_bytes, self.board.flash_bytes),
            ("RAM", self.ram_bytes, self.board.ram_bytes),
        )
        return "; ".join(f"{kind} {need:,} of {have:,} bytes" for kind, need, have in pairs if need > have)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        board = self.board
        return {
            "board": board.name, "title": board.title, "core": board.core, "clock_mhz": board.clock_mhz,
            "flash_bytes": board.flash_bytes, "ram_bytes": board.ram_bytes,
            "flash_needed_bytes": self.flash_bytes, "ram_needed_bytes": self.ram_bytes,
            "figures_of": board.device, "fits": self.is_fitting, "reason": self.reason,
        }  # fmt: skip


def _board(
    name: str, title: str, core: str, clock_mhz: int, flash_bytes: int, ram_bytes: int, *, device: str = ""
) -> Board:
    return Board(
        name=name, title=title, core=core, device=device or core, clock_mhz=clock_mhz,
        flash_bytes=flash_bytes, ram_bytes=ram_bytes,
    )  # fmt: skip


ALL = (
    # STM32F103xB datasheet (DS5319)
    _board("nucleo-f103rb", "STM32 Nucleo F103RB", "cortex-m3", 72, 128 * KIB, 20 * KIB),
    # SAM3X8E datasheet: SRAM0 and SRAM1 are mirrored side by side
    _board("arduino-due", "Arduino Due", "cortex-m3", 84, 512 * KIB, 96 * KIB),
    # Renesas RA4M1 group datasheet
    _board("arduino-uno-r4", "Arduino UNO R4", "cortex-m4", 48, 256 * KIB, 32 * KIB),
    # nRF52840 product specification
    _board("arduino-nano-33-ble", "Arduino Nano 33 BLE (Sense)", "cortex-m4", 64, MIB, 256 * KIB),
    _board("nrf52840-dk", "nRF52840 DK", "cortex-m4", 64, MIB, 256 * KIB),
    # nRF52832 product specification (the Bosch sensor hub of the board is not counted)
    _board("arduino-nicla-sense-me", "Arduino Nicla Sense ME", "cortex-m4", 64, 512 * KIB, 64 * KIB),
    # nRF52833 product specification
    _board("microbit-v2", "BBC micro:bit v2", "cortex-m4", 64, 512 * KIB, 128 * KIB),
    # STM32F446xC/E datasheet (DS10693): SRAM1 112 KB and SRAM2 16 KB side by side
    _board("nucleo-f446re", "STM32 Nucleo F446RE", "cortex-m4", 180, 512 * KIB, 128 * KIB),
    # STM32L4R5xx datasheet (DS12023): SRAM1, SRAM2 and SRAM3 side by side
    _board("nucleo-l4r5zi", "STM32 Nucleo L4R5ZI", "cortex-m4", 120, 2 * MIB, 640 * KIB),
    # Apollo3 Blue datasheet; 96 MHz in burst mode
    _board("sparkfun-edge", "SparkFun Edge (Apollo3 Blue)", "cortex-m4", 48, MIB, 384 * KIB),
    # Apollo4 Plus datasheet: shared SRAM; 192 MHz in its high-performance mode
    _board("apollo4-plus-evb", "Ambiq Apollo4 Plus EVB", "cortex-m4", 96, 2 * MIB, MIB),
    # STM32F745xx/F746xx datasheet (DS10916): DTCM, SRAM1 and SRAM2 side by side
    _board("stm32f746g-disco", "STM32F746G Discovery", "cortex-m7", 216, MIB, 320 * KIB),
    # STM32H742xI/G, H743xI/G datasheet (DS12110): AXI SRAM, of 1 MB in all
    _board("nucleo-h743zi2", "STM32 Nucleo H743ZI2", "cortex-m7", 480, 2 * MIB, 512 * KIB),
    # STM32H747xI/G datasheet (DS12930): AXI SRAM, of 1 MB in all
    _board("arduino-portenta-h7", "Arduino Portenta H7", "cortex-m7", 480, 2 * MIB, 512 * KIB),
    _board("arduino-nicla-vision", "Arduino Nicla Vision", "cortex-m7", 480, 2 * MIB, 512 * KIB),
    # i.MX RT1060 datasheet and PJRC's page of the board: tightly coupled RAM, of 1 MB in all
    _board("teensy-4.1", "Teensy 4.1", "cortex-m7", 600, 8 * MIB - 256 * KIB, 512 * KIB),
    # Arm MPS3 AN547 application note: the FPGA's ITCM and SRAM, as QEMU has them
    _board("mps3-an547", "Arm MPS3 AN547 (Corstone-300)", "cortex-m55", 32, 512 * KIB, 2 * MIB),
    # Alif Ensemble E7 datasheet: high-performance core, MRAM, SRAM0
    _board("alif-ensemble-e7", "Alif Ensemble E7", "cortex-m55", 400, 5632 * KIB, 4 * MIB),
    # RP2040 datasheet; flash of the board
    _board("pico", "Raspberry Pi Pico", "cortex-m0plus", 133, 2 * MIB, 264 * KIB),
    # SAM D21 family datasheet
    _board("arduino-zero", "Arduino Zero", "cortex-m0plus", 48, 256 * KIB, 32 * KIB),
    # RP2350 datasheet; flash of the board
    _board("pico-2", "Raspberry Pi Pico 2", "cortex-m33", 150, 4 * MIB, 520 * KIB),
    # nRF5340 product specification: application core
    _board("nrf5340-dk", "nRF5340 DK", "cortex-m33", 128, MIB, 512 * KIB),
    # STM32U575xx datasheet (DS13737): SRAM1, SRAM2 and SRAM3 side by side
    _board("nucleo-u575zi-q", "STM32 Nucleo U575ZI-Q", "cortex-m33", 160, 2 * MIB, 768 * KIB),
    # ESP32 datasheet; ESP-IDF programming guide, memory types: 160 KB may be allocated statically
    _board("esp32-devkitc", "ESP32-DevKitC (4 MB)", "xtensa-lx6", 240, 4 * MIB, 160 * KIB, device="rv32"),
    # ESP32-S3 technical reference manual: SRAM1
    _board("esp32-s3-devkitc", "ESP32-S3-DevKitC-1 (8 MB)", "xtensa-lx7", 240, 8 * MIB, 416 * KIB, device="rv32"),
    # ESP32-C3 technical reference manual: SRAM1; rv32imc, without the A of the emulated core, which no kernel uses
    _board("esp32-c3-devkitm", "ESP32-C3-DevKitM-1", "rv32", 160, 4 * MIB, 384 * KIB),
    # SiFive FE310-G002 datasheet and HiFive1 Rev B schematics
    _board("hifive1-revb", "SiFive HiFive1 Rev B", "rv32", 320, 4 * MIB, 16 * KIB),
)  # fmt: skip
BOARDS: Mapping[str, Board] = {board.name: board for board in ALL}


def board_of(name: str) -> Board:
    """Return the board called `name`.

    Raises:
        UnknownNameError: nobody here knows it.
    """
    if name not in BOARDS:
        raise UnknownNameError.of("board", name, BOARDS)
    return BOARDS[name]


def fits_of(
    device: str, *, flash_bytes: int, ram_bytes: int, boards: Sequence[Board] = ALL
) -> tuple[Fit, ...]:
    """Return what a model takes of each of `boards` for which the figures of `device` stand.

    Args:
        flash_bytes: code and tables, as built for `device`.
        ram_bytes: arena and stack, as measured on it.
    """
    return tuple(
        Fit(board=board, flash_bytes=flash_bytes, ram_bytes=ram_bytes)
        for board in boards
        if board.device == device
    )
