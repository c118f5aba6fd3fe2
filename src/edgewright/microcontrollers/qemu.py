"""C models on emulated devices: built by the cross compilers of Debian, run under QEMU, every output bit checked.

The self-test of the model's folder is the program. It runs on the instruction set of the device; times mean nothing,
instructions are counted (see `probe`).
`tools` names the programs and the packages that bring them.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.core.errors import ConversionError, UnknownNameError
from edgewright.microcontrollers.host import ARITHMETIC, WARNINGS
from edgewright.microcontrollers.probe import FLAG, probe_text, read_probe, without_probes
from edgewright.microcontrollers.tools import ARM, RISCV, Tools

TIMEOUT_S = 600
_OPTIMIZE = ("-O2", "-ffunction-sections", "-fdata-sections")


@dataclass(frozen=True, kw_only=True)
class Device:
    """An emulated core, on a board that QEMU knows.

    Attributes:
        machine: QEMU's name of that board.
        flags: of the compiler, for the core.
        code, memory: where code and variables lie: first address, bytes.
        vectors: where the core looks for its first instruction.
        instructions_per_tick: of the counter that `probe` reads.
    """

    core: str
    machine: str
    flags: tuple[str, ...]
    code: tuple[int, int]
    memory: tuple[int, int]
    vectors: int = 0
    instructions_per_tick: float = 40.0
    is_arm: bool = True

    @property
    def compiler(self) -> str:
        """The cross compiler."""
        return "arm-none-eabi-gcc" if self.is_arm else "riscv64-unknown-elf-gcc"

    @property
    def runtime(self) -> tuple[str, ...]:
        """What tells the compiler where its C library is."""
        return () if self.is_arm else ("--specs=picolibc.specs",)

    @property
    def sizer(self) -> str:
        """The program that tells the sizes of an object file."""
        return self.compiler.replace("gcc", "size")

    @property
    def emulator(self) -> str:
        """The QEMU for the board."""
        return "qemu-system-arm" if self.is_arm else "qemu-system-riscv32"

    @property
    def tools(self) -> Tools:
        """What a run needs."""
        return ARM if self.is_arm else RISCV


def _arm(core: str, machine: str, *flags: str, memory: int = 0x20000000) -> Device:
    return Device(
        core=core,
        machine=machine,
        flags=(f"-mcpu={core}", "-mthumb", *flags),
        code=(64, (4 << 20) - 64),
        memory=(memory, 4 << 20),
    )


DEVICES: Mapping[str, Device] = {
    # QEMU has no Cortex-M0+; a Cortex-M3 runs every instruction of it.
    "cortex-m0plus": _arm("cortex-m0plus", "mps2-an385"),
    "cortex-m3": _arm("cortex-m3", "mps2-an385"),
    "cortex-m4": _arm("cortex-m4", "mps2-an386", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m7": _arm("cortex-m7", "mps2-an500", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
    "cortex-m33": replace(
        _arm("cortex-m33", "mps2-an505", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
        vectors=0x10000000,
        code=(0x10000040, (4 << 20) - 64),
        memory=(0x38000000, 2 << 20),
        instructions_per_tick=50.0,  # 20 MHz
    ),
    "cortex-m55": replace(
        _arm("cortex-m55", "mps3-an547", "-mfloat-abi=hard"),
        code=(0x70000000, 32 << 20),  # the vectors alone lie in the core's own memory of 512 KB
        memory=(0x21000000, 2 << 20),
        instructions_per_tick=31.25,  # 32 MHz
    ),
    "rv32": Device(
        core="rv32imac",
        machine="virt",
        flags=("-march=rv32imac", "-mabi=ilp32"),
        code=(0x80000000, 8 << 20),
        memory=(0x80800000, 8 << 20),
        instructions_per_tick=1.0,
        is_arm=False,
    ),
}

_STARTUP = """\
#include <stdint.h>
#include <stdlib.h>
extern uint32_t bss_begin[], bss_end[], data_begin[], data_end[], data_stored[], stack_top[];
extern int main(void);
extern void initialise_monitor_handles(void);
extern void probe_wrap(void);

void reset(void)
{
    uint32_t *to, *from = data_stored;
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* the floating-point unit */
    __asm__ volatile("dsb\\n isb");
    for (to = data_begin; to < data_end; ++to) {
        *to = *from++;
    }
    for (to = bss_begin; to < bss_end; ++to) {
        *to = 0;
    }
    initialise_monitor_handles();
    exit(main());
}

static void stop(void)
{
    exit(99);
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    stack_top, (void *)reset, (void *)stop, (void *)stop, (void *)stop, (void *)stop, (void *)stop,
    [15] = (void *)probe_wrap,
};
"""
_LINKER = """\
ENTRY(reset)
MEMORY
{
    vectors (rx) : ORIGIN = %(vectors)d, LENGTH = 64
    code (rx) : ORIGIN = %(code)d, LENGTH = %(code_bytes)d
    memory (rwx) : ORIGIN = %(memory)d, LENGTH = %(memory_bytes)d
}
SECTIONS
{
    .vectors : { KEEP(*(.vectors)) } > vectors
    .text : { *(.text*) *(.rodata*) . = ALIGN(8); } > code
    .ARM.exidx : { *(.ARM.exidx*) . = ALIGN(8); } > code
    data_stored = LOADADDR(.data);
    .data : { data_begin = .; *(.data*) . = ALIGN(8); data_end = .; } > memory AT > code
    .bss (NOLOAD) : { bss_begin = .; *(.bss*) *(COMMON) . = ALIGN(8); bss_end = .; } > memory
    end = .;
    stack_top = ORIGIN(memory) + LENGTH(memory);
}
"""


@dataclass(frozen=True, kw_only=True)
class EmulatedRun:
    """A self-test that passed on an emulated device.

    Attributes:
        flags: of the compiler, for the core and beyond.
        said: its last line, with the number of runs.
        text_bytes, rodata_bytes: code and tables of NAME.c alone.
        instructions: of one run, the most of all; counted by QEMU, no cycles.
        stack_bytes: the deepest that a run reached.
    """

    device: str
    flags: tuple[str, ...]
    said: str
    text_bytes: int
    rodata_bytes: int
    instructions: int
    stack_bytes: int

    @property
    def flash_bytes(self) -> int:
        """Code and tables of NAME.c."""
        return self.text_bytes + self.rodata_bytes


def device_of(name: str) -> str:
    """Return the device called `name`, which may be short: m4 for cortex-m4.

    Raises:
        UnknownNameError: there is none.
    """
    for known in (name, f"cortex-{name}"):
        if known in DEVICES:
            return known
    raise UnknownNameError.of(
        "device", name, dict.fromkeys([*DEVICES, *(known.removeprefix("cortex-") for known in DEVICES)])
    )


def run_on(device: str, folder: Path, name: str) -> EmulatedRun:
    """Build NAME.c and NAME_test.c of `folder` for `device` and run them under QEMU.

    The files are code that can reach this machine's files through QEMU's semihosting: give only what the emitter made
    (see `folder.read_folder`).

    Raises:
        UnknownNameError: there is no such device.
        UnavailableError: the cross compiler or QEMU is missing; with the packages that bring them.
        ConversionError: the code does not build, or an output differs.
    """
    device = device_of(device)
    made = DEVICES[device]
    made.tools.require(device)
    with tempfile.TemporaryDirectory(prefix="edgewright-qemu-") as text:
        work = Path(text)
        program, text_bytes, rodata_bytes = _build(device, folder, name, work)
        code, log = _started(_emulate(made, program), f"{name} on {device}")
    said = _passed(code, log, f"{name} on {device}", name, made.emulator)
    counted = read_probe(log, instructions_per_tick=made.instructions_per_tick)
    return EmulatedRun(
        device=device,
        flags=_flags(made),
        said=said,
        text_bytes=text_bytes,
        rodata_bytes=rodata_bytes,
        instructions=counted["instructions"],
        stack_bytes=counted["stack_bytes"],
    )


def _flags(made: Device) -> tuple[str, ...]:
    return (*made.flags, *_OPTIMIZE)


def _build(device: str, folder: Path, name: str, work: Path) -> tuple[Path, int, int]:
    """Return the program of the self-test, and the bytes of code and of tables of NAME.c alone."""
    made = DEVICES[device]
    common = [made.compiler, *_flags(made), "-I", str(folder)]
    probe = work / "probe.c"
    probe.write_text(probe_text(is_arm=made.is_arm), encoding="utf-8")
    objects = []
    for source in (f"{name}.c", f"{name}_test.c"):
        target = work / f"{source}.o"
        checks = [*made.runtime, *WARNINGS, *ARITHMETIC, FLAG]
        _tool(
            [*common, *checks, "-c", str(folder / source), "-o", str(target)],
            f"{device}: {source}",
        )
        objects.append(str(target))
    text_bytes, rodata_bytes = _sizes(_tool([made.sizer, "-A", objects[0]], device))
    program = work / "program.elf"
    _tool([*common, *_link(made, work), *objects, str(probe), "-o", str(program)], f"{device}: {name}")
    return program, text_bytes, rodata_bytes


def _passed(code: int, log: str, what: str, name: str, emulator: str) -> str:
    """Return the last line of a self-test that passed.

    Raises:
        ConversionError: it did not, or did not come to its end.
    """
    wrong = re.findall(rf"^{re.escape(name)}: (.*) is wrong in run (\d+)$", log, re.MULTILINE)
    if wrong:
        (port, run), count = wrong[0], len(wrong)
        raise ConversionError(
            f"{what}: {count} of the self-test's checks failed, the first: {port} is wrong in run {run}."
        )
    found = re.findall(rf"^{re.escape(name)}: \d+ runs, 0 failures.*$", log, re.MULTILINE)
    if code != 0 or not found:
        said = without_probes(log).strip()[-300:]
        raise ConversionError(f"{what}: {emulator} did not come to an end ({code}): {said!r}.")
    return str(found[-1])


def _sizes(said: str) -> tuple[int, int]:
    """Return the bytes of code and of constants in what `size -A` said of an object."""
    found = re.findall(r"^\.(text|rodata|srodata)\S*\s+(\d+)", said, re.MULTILINE)
    text = sum(int(size) for section, size in found if section == "text")
    return text, sum(int(size) for section, size in found if section != "text")


def _link(device: Device, work: Path) -> Sequence[str]:
    if not device.is_arm:
        places = {
            "__flash": device.code[0], "__flash_size": device.code[1],
            "__ram": device.memory[0], "__ram_size": device.memory[1], "__stack_size": 65536,
        }  # fmt: skip
        symbols = [f"-Wl,--defsym={name}={value:#x}" for name, value in places.items()]
        return [
            *device.runtime,
            "--oslib=semihost",
            "--crt0=semihost",
            "-Wl,--gc-sections",
            *symbols,
        ]
    startup, script = work / "startup.c", work / "board.ld"
    startup.write_text(_STARTUP, encoding="utf-8")
    places = {
        "vectors": device.vectors, "code": device.code[0], "code_bytes": device.code[1],
        "memory": device.memory[0], "memory_bytes": device.memory[1],
    }  # fmt: skip
    script.write_text(_LINKER % places, encoding="utf-8")
    return [
        "-nostartfiles", "--specs=rdimon.specs", "-Wl,--gc-sections", "-T", str(script), str(startup),
    ]  # fmt: skip


def _emulate(device: Device, program: Path) -> Sequence[str]:
    command = [device.emulator, "-M", device.machine, "-icount", "shift=0"]
    command += ["-nographic", "-monitor", "none", "-serial", "none"]
    if not device.is_arm:
        command += ["-bios", "none"]
    return [*command, "-semihosting-config", "enable=on,target=native", "-kernel", str(program)]


def _tool(command: Sequence[str], what: str) -> str:
    """Return what `command` printed.

    Raises:
        ConversionError: it failed or took too long.
    """
    code, said = _started(command, what)
    if code != 0:
        raise ConversionError(f"{what}: {Path(command[0]).name} failed ({code}): {said.strip()[-400:]!r}.")
    return said


def _started(command: Sequence[str], what: str) -> tuple[int, str]:
    """Return the exit status of `command`, and what it printed.

    Raises:
        ConversionError: it took too long.
    """
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise ConversionError(f"{what}: {Path(command[0]).name} had not ended after {TIMEOUT_S} s.") from err
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")
