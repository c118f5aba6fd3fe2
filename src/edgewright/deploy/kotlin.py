"""The Kotlin compiler: npm's package in a cache folder, run on the Java that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.workers.environments import default_root

KOTLIN_VERSION = "2.4.20"
_PACKAGE = f"kotlin-compiler@{KOTLIN_VERSION}"
_MAIN = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
_TIMEOUT_S = 900
# Both compile and run: the heap is bounded, so that a machine with little memory is not driven into the swap.
_JAVA = ("-Xmx1g", "-Djava.awt.headless=true")


def compiler_folder() -> Path:
    """Return the folder of the compiler's jars, which npm brings once.

    Raises:
        UnavailableError: java, npm or the network is missing.
    """
    if shutil.which("java") is None:
        raise UnavailableError("java is missing (Debian: apt-get install -y openjdk-17-jdk-headless)")
    kept = default_root() / f"kotlin-compiler-{KOTLIN_VERSION}"
    jars = kept / "node_modules" / "kotlin-compiler" / "lib"
    if (jars / "kotlin-compiler.jar").is_file():
        return jars
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError(f"npm, which brings {_PACKAGE}, is missing (Debian: apt-get install -y npm)")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kotlin-", dir=kept.parent) as work:
        place = Path(work) / "made"
        place.mkdir()
        command = [
            npm,
            "install",
            "--prefix",
            str(place),
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            _PACKAGE,
        ]
        done = _call(command)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise UnavailableError(f"npm cannot bring {_PACKAGE}: {said}")
        try:
            place.rename(kept)
        except OSError as err:
            if not jars.is_dir():  # somebody else may have been faster
                raise UnavailableError(f"{kept} cannot be written: {err}.") from err
    return jars


def compile_kotlin(sources: Sequence[Path], out: Path, *, libraries: Sequence[Path] = (), what: str) -> None:
    """Compile .kt files, and look up what .java files among `sources` declare, into the folder `out`.

    Args:
        libraries: jars or folders of classes; the standard library and the coroutines are always there.
        what: is compiled, for messages.
    Raises:
        UnavailableError: the compiler is not here.
        ConversionError: the code does not compile, or with a warning.
    """
    jars = compiler_folder()
    classpath = os.pathsep.join(map(str, (*runtime_jars(), *libraries)))
    options = ["-no-stdlib", "-no-reflect", "-jvm-target", "17", "-Werror", "-module-name", "edgewright"]
    done = _call(
        [
            "java",
            *_JAVA,
            "-cp",
            str(jars / "kotlin-compiler.jar"),
            _MAIN,
            *options,
            "-cp",
            classpath,
            "-d",
            str(out),
        ]
        + [str(path) for path in sources]
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error:" in line] or done.stderr.splitlines()[
            -8:
        ]
        raise ConversionError(f"{what} does not compile: {' | '.join(lines[:8])[:2000]}")


def runtime_jars() -> tuple[Path, ...]:
    """Return the standard library and the coroutines, as the compiler brings them."""
    jars = compiler_folder()
    return (
        jars / "kotlin-stdlib.jar",
        jars / "kotlinx-coroutines-core-jvm.jar",
        jars / "annotations-13.0.jar",
    )


def run_class(
    name: str, classes: Sequence[Path], library_folder: Path, arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run the main function of a class on the JVM; native libraries are looked for in `library_folder`."""
    classpath = os.pathsep.join(map(str, (*classes, *runtime_jars())))
    check = ("-Xcheck:jni", f"-Djava.library.path={library_folder}")
    return _call(["java", *_JAVA, *check, "-cp", classpath, name, *arguments])


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ConversionError(f"{command[0]} does not run: {err}.") from err
