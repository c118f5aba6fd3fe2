"""The self-test of a processing in C on every machine that there is here: built, run, and its digest of all bits.

A target whose tools are not installed gives None. Debian's packages: gcc clang; gcc-aarch64-linux-gnu qemu-user-static;
qemu-system-arm gcc-arm-none-eabi libnewlib-arm-none-eabi; lld chromium.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgewright.microcontrollers import qemu
from edgewright.microcontrollers.probe import probe_text
from edgewright.processing.c_code import CCore

_TIMEOUT_S = 900
_WARNINGS = ("-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pedantic")
_SANITIZE = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
Target = Callable[[CCore, Path], str | None]

# What freestanding C has to bring itself.
_STRING_H = """\
#ifndef STRING_H
#define STRING_H
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);
#endif
"""
_STRING_C = """\
#include <string.h>
#include <stdint.h>

void *memcpy(void *to, const void *from, size_t count)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    while (count-- > 0) {
        *out++ = *in++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    if (out <= in) {
        return memcpy(to, from, count);
    }
    while (count-- > 0) {
        out[count] = in[count];
    }
    return to;
}

void *memset(void *to, int value, size_t count)
{
    uint8_t *out = to;
    while (count-- > 0) {
        *out++ = (uint8_t)value;
    }
    return to;
}
"""
_PAGE = """<!DOCTYPE html>
<p>nothing</p>
<script>
const bytes = Uint8Array.from(atob("@"), c => c.charCodeAt(0));
const e = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
const failures = e.run();
document.querySelector("p").textContent =
    `${failures} failures, digest ${(e.bits() >>> 0).toString(16).padStart(8, "0")}`;
</script>
"""
_BROWSER = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom",
)  # fmt: skip


def sources(core: CCore) -> list[str]:
    """Return the files of the self-test."""
    return [*map(str, core.sources), str(core.folder / f"{core.name}_processing_test.c")]


def read_digest(said: str, name: str) -> str:
    """Return the digest in what a self-test printed; RuntimeError where it failed."""
    found = re.search(r"(\d+) failures, digest ([0-9a-f]{8})", said)
    if not found or found[1] != "0":
        raise RuntimeError(f"{name}: {said.strip()[-500:]}")
    return found[2]


def native(compiler: str, flags: Sequence[str]) -> Target:
    """Return the target of a compiler of this machine."""

    def run(core: CCore, work: Path) -> str | None:
        if shutil.which(compiler) is None:
            return None
        program = work / "program"
        _tool([compiler, *_WARNINGS, *flags, "-I", str(core.folder), "-o", str(program), *sources(core)])
        return read_digest(_tool([str(program)]), compiler)

    return run


def arm64(core: CCore, work: Path) -> str | None:
    """Run on an emulated 64-bit Arm."""
    compiler, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
    if any(shutil.which(tool) is None for tool in (compiler, emulator)):
        return None
    program = work / "program"
    _tool(
        [compiler, *_WARNINGS, "-O3", "-static", "-I", str(core.folder), "-o", str(program), *sources(core)]
    )
    return read_digest(_tool([emulator, str(program)]), "arm64")


def cortex_m4(core: CCore, work: Path) -> str | None:
    """Run on an emulated Cortex-M4, by the board and the start-up code of Edgewright's C models."""
    device = qemu.DEVICES["cortex-m4"]
    if any(shutil.which(tool) is None for tool in (device.compiler, device.emulator)):
        return None
    program, probe = work / "program.elf", work / "probe.c"
    probe.write_text(probe_text(is_arm=True))
    common = [device.compiler, *device.flags, "-O2", "-I", str(core.folder)]
    objects = []
    for number, source in enumerate(sources(core)):
        objects.append(str(work / f"{number}.o"))
        _tool([*common, *_WARNINGS, "-c", source, "-o", objects[-1]])
    _tool([*common, *qemu._link(device, work), *objects, str(probe), "-o", str(program)])
    return read_digest(_tool(list(qemu._emulate(device, program))), "cortex-m4")


def webassembly(core: CCore, work: Path) -> str | None:
    """Run in headless Chromium."""
    if any(shutil.which(tool) is None for tool in ("clang", "wasm-ld", "chromium")):
        return None
    (work / "string.h").write_text(_STRING_H)
    (work / "string.c").write_text(_STRING_C)
    (work / "ends.c").write_text(
        f"#include <stdint.h>\nint {core.name}_processing_test(uint32_t *made);\nstatic uint32_t made;\n"
        f"int run(void)\n{{\n    return {core.name}_processing_test(&made);\n}}\n"
        "uint32_t bits(void)\n{\n    return made;\n}\nint run(void);\nuint32_t bits(void);\n"
    )
    program = work / "program.wasm"
    _tool(
        [
            "clang", "--target=wasm32", "-nostdlib", "-ffreestanding", "-fno-builtin", *_WARNINGS, "-O3",
            "-DEW_NO_MAIN",
            "-isystem", str(work), "-I", str(core.folder), "-Wl,--no-entry", "-Wl,--export=run", "-Wl,--export=bits",
            "-o", str(program), *sources(core), str(work / "string.c"), str(work / "ends.c"),
        ]
    )  # fmt: skip
    page = work / "page.html"
    page.write_text(_PAGE.replace("@", base64.b64encode(program.read_bytes()).decode()))
    said = _tool(["chromium", *_BROWSER, f"--user-data-dir={work / 'profile'}", page.as_uri()])
    return read_digest(said, "WebAssembly")


TARGETS: Mapping[str, Target] = {
    **{f"gcc {level}": native("gcc", [level]) for level in ("-O0", "-O2", "-O3")},
    **{f"clang {level}": native("clang", [level]) for level in ("-O0", "-O2", "-O3")},
    "gcc -O3, no AVX2": native("gcc", ["-O3", "-DEW_NARROW"]),
    "gcc -O3, no SSE2 either": native("gcc", ["-O3", "-DEW_PLAIN"]),
    "gcc, sanitizers": native("gcc", _SANITIZE),
    "clang, sanitizers": native("clang", _SANITIZE),
    "arm64, emulated": arm64,
    "Cortex-M4, emulated": cortex_m4,
    "WebAssembly, Chromium": webassembly,
}


def digests(core: CCore) -> dict[str, str | None]:
    """Return name of each target -> digest, None where its tools are not installed."""
    made = {}
    for name, target in TARGETS.items():
        with tempfile.TemporaryDirectory() as work:
            made[name] = target(core, Path(work))
    return made


def _tool(command: Sequence[str]) -> str:
    done = subprocess.run(
        list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed ({done.returncode}): {said.strip()[-1500:]}")
    return said
