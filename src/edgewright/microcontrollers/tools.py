"""Programs of this machine that C models are built and emulated with, and the packages of Debian that bring them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from edgewright.core.errors import UnavailableError

_TIMEOUT_S = 20
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Programs that are needed together.

    Attributes:
        purpose: what for: "cortex-m devices".
        programs: their names, as found on the PATH.
        packages: of Debian and Ubuntu, for apt-get.
    """

    purpose: str
    programs: tuple[str, ...]
    packages: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the programs that are not installed."""
        return tuple(name for name in self.programs if shutil.which(name) is None)

    @property
    def fix(self) -> str:
        """The command that brings them."""
        return f"apt-get install -y {self.packages}"

    def require(self, what: str) -> None:
        """Check that `what` can be done.

        Raises:
            UnavailableError: a program is missing.
        """
        missing = self.missing
        if missing:
            are = "is" if len(missing) == 1 else "are"
            raise UnavailableError(
                f"{what} needs {', '.join(missing)}, which {are} not installed. On Debian or Ubuntu: {self.fix}"
            )

    def versions(self) -> dict[str, str]:
        """Return what those that are here say of their version."""
        return {name: _version(name) for name in self.programs if shutil.which(name) is not None}


ARM = Tools(
    purpose="cortex-m devices",
    programs=("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"),
    packages="qemu-system-arm gcc-arm-none-eabi libnewlib-arm-none-eabi",
)
RISCV = Tools(
    purpose="rv32 device",
    programs=("riscv64-unknown-elf-gcc", "riscv64-unknown-elf-size", "qemu-system-riscv32"),
    packages="qemu-system-misc gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
)
CLANG = Tools(purpose="a second C compiler", programs=("clang",), packages="clang")
ALL = (ARM, RISCV, CLANG)


def _version(program: str) -> str:
    try:
        said = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "does not answer"
    # Debian's own version of the package stands in brackets before it or behind it.
    found = _VERSION.search(re.sub(r"\([^)]*\)", "", said.partition("\n")[0]))
    return found[0] if found else "of unknown version"
