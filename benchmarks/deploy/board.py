"""An emulated board: a Debian root for arm64, in which every program runs under qemu-user.

The kernel here need not know arm64: in the place of each program lies a launcher of this machine that starts the
emulator with it, so that a shell script, `python3 -m venv` and pip start each other as they do on a board.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgewright.core.errors import ConversionError, UnavailableError

CPU = "cortex-a72"
CORES = 4
_PACKAGES = (
    "dash", "coreutils", "python3-minimal", "python3.11-minimal", "libpython3.11-stdlib", "python3-venv",
    "python3.11-venv", "python3-pip-whl", "python3-setuptools-whl", "libstdc++6", "libgcc-s1", "libgomp1", "libssl3",
    "zlib1g", "libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libsqlite3-0",
)  # fmt: skip
_EMULATOR = "/usr/libexec/qemu-aarch64-static"
_PROGRAMS = "/usr/libexec/arm64"
# Built once; the place of the program is written over the marks.
_MARKS = "@" * 120
_LAUNCHER = """
#include <unistd.h>
static char program[] = PROGRAM;
int main(int count, char **given) {
    char *to[count + 6];
    int n = 0;
    to[n++] = "qemu-aarch64";
    to[n++] = "-cpu";
    to[n++] = CPU;
    to[n++] = "-0";
    to[n++] = given[0];
    to[n++] = program;
    for (int i = 1; i <= count; ++i) to[n++] = given[i];
    execv(EMULATOR, to);
    return 127;
}
"""
# What the runtimes ask about the processor; without it they see the one of this machine, and end with signal 11.
_CORE = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""
_CORE_FILES = {
    "regs/identification/midr_el1": "0x00000000410fd083",
    "topology/physical_package_id": "0",
    "topology/core_siblings_list": f"0-{CORES - 1}",
    "topology/thread_siblings_list": "{core}",
    "topology/core_id": "{core}",
    "cpufreq/cpuinfo_max_freq": "1500000",
    "cpufreq/cpuinfo_min_freq": "600000",
}
_ELF_ARM64 = (b"\x7fELF", 0xB7)
_TIMEOUT_S = 1500


class Board:
    """The root in `folder`; programs run in it by chroot.

    Raises:
        UnavailableError: a tool is missing, this is no Linux on x86-64, or the user may not chroot.
    """

    def __init__(self, folder: Path) -> None:
        for tool in ("mmdebstrap", "qemu-aarch64-static", "cc", "chroot"):
            if shutil.which(tool) is None:
                raise UnavailableError(
                    f"{tool} is missing: apt-get install -y mmdebstrap qemu-user-static gcc libc6-dev"
                )
        if os.geteuid() != 0 or platform.machine() != "x86_64":
            raise UnavailableError("the emulated board needs root's rights (chroot) and an x86-64 machine.")
        self.root = folder
        _call(
            ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", f"--include={','.join(_PACKAGES)}",
             "bookworm", str(folder)],
            "make the root",
        )  # fmt: skip
        self._describe()
        shutil.copy(str(shutil.which("qemu-aarch64-static")), folder / _EMULATOR[1:])
        launcher = self._build_launcher()
        for place in ("bin", "usr/bin"):
            for program in sorted((folder / place).iterdir()):
                if is_arm64(program):
                    self._put_launcher(program, launcher)

    def run(
        self, command: Sequence[str], what: str, *, env: Mapping[str, str] | None = None, folder: str = "/"
    ) -> str:
        """Return what a program of the root prints; paths are those inside of the root.

        Raises:
            ConversionError: it fails; the message holds the end of what it printed.
        """
        return _call(self.command(command, env=env, folder=folder), what)

    def command(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, folder: str = "/"
    ) -> list[str]:
        """Return the command of this machine that runs one of the root in its `folder`, in its own environment."""
        given = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})}
        settings = [f"{name}={value}" for name, value in given.items()]
        chroot = [
            str(shutil.which("chroot")),
            str(self.root),
            "/bin/sh",
            "-c",
            'cd "$0" && exec "$@"',
            folder,
        ]
        return ["env", "-i", *settings, *chroot, *command]

    def emulated(self, program: str) -> list[str]:
        """Return the command that runs a program that has no launcher."""
        return [_EMULATOR, "-cpu", CPU, program]

    def place(self, inside: str) -> Path:
        """Return where a path of the root lies on this machine."""
        return self.root / inside.lstrip("/")

    def _describe(self) -> None:
        system = self.root / "sys/devices/system/cpu"
        files = {self.root / "proc/cpuinfo": "\n".join(_CORE.format(core=core) for core in range(CORES))}
        for name in ("possible", "present", "online"):
            files[system / name] = f"0-{CORES - 1}\n"
        for core in range(CORES):
            for name, text in _CORE_FILES.items():
                files[system / f"cpu{core}" / name] = text.format(core=core) + "\n"
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")
        for name in ("root", "tmp", "opt", "srv", "run"):
            (self.root / name).mkdir(exist_ok=True)

    def _build_launcher(self) -> bytes:
        """Return a program of this machine that starts the emulator with what stands in place of the marks."""
        made, source = self.root / "launcher", self.root / "launcher.c"
        source.write_text(_LAUNCHER, encoding="ascii")
        defined = {"CPU": CPU, "PROGRAM": _MARKS, "EMULATOR": _EMULATOR}
        flags = [f'-D{name}="{value}"' for name, value in defined.items()]
        _call(["cc", "-Os", "-static", "-s", *flags, "-o", str(made), str(source)], "build the launcher")
        content = made.read_bytes()
        source.unlink()
        made.unlink()
        return content

    def _put_launcher(self, program: Path, launcher: bytes) -> None:
        """Move a program away, and put in its place what starts the emulator with it."""
        inside = f"{_PROGRAMS}/{program.name}"
        self.place(inside).parent.mkdir(parents=True, exist_ok=True)
        program.rename(self.place(inside))
        program.write_bytes(launcher.replace(_MARKS.encode(), inside.encode().ljust(len(_MARKS), b"\0")))
        program.chmod(0o755)


def is_arm64(path: Path) -> bool:
    """Return whether the file at `path`, and not what it points to, is a program or library for arm64."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(20)
    return len(head) == 20 and (head[:4], head[18]) == _ELF_ARM64


def _call(command: Sequence[str], what: str) -> str:
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ConversionError(f"the board does not {what}: {err}.") from err
    if done.returncode:
        tail = (done.stdout + done.stderr).strip()[-1500:]
        raise ConversionError(f"the board does not {what} (exit code {done.returncode}): {tail}")
    return done.stdout
