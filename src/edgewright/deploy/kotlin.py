"""The Kotlin compiler: a package of npm that is a toolchain of its own, run on the Java that is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.workers.environments import default_root
from edgewright.workers.npm_packages import locked, read_files, require

TOOLCHAIN = "kotlin"
COMPILER = locked(TOOLCHAIN)["kotlin-compiler"]
LEAST_JAVA = 17
_RUNTIME = ("kotlin-stdlib.jar", "kotlinx-coroutines-core-jvm.jar", "annotations-13.0.jar")
_JARS = (*_RUNTIME, "kotlin-compiler.jar", "kotlin-reflect.jar", "kotlin-script-runtime.jar")
_MAIN = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
_TIMEOUT_S = 1800
_JAVA_VERSION = re.compile(r'version "(\d+)(?:\.(\d+))?')
# The heap is bounded, so that a machine with little memory is not driven into its swap.
_JAVA = ("-Xmx1g", "-Dfile.encoding=UTF-8", "-Dsun.stdout.encoding=UTF-8", "-Dsun.stderr.encoding=UTF-8")


def compiler_folder() -> Path:
    """Return the folder of the compiler's jars, unpacked once from what the toolchain "kotlin" holds.

    Raises:
        UnavailableError: Java is missing or too old, or the toolchain is not installed.
        IntegrityError: its archive is not the one that was published.
    """
    _require_java()
    kept = default_root() / f"kotlin-{COMPILER.version}"
    if kept.is_dir():
        return kept
    require(TOOLCHAIN, [COMPILER])
    contents = read_files(COMPILER, {f"lib/{jar}": jar for jar in _JARS})
    try:
        with tempfile.TemporaryDirectory(prefix=".kotlin-", dir=kept.parent) as work:
            place = Path(work) / "jars"
            place.mkdir()
            for jar, content in contents.items():
                (place / jar).write_bytes(content)
            place.rename(kept)
    except OSError as err:
        if not kept.is_dir():  # another process may have been faster
            raise UnavailableError(
                f"{kept} cannot be written: {err}. Point EDGEWRIGHT_TOOLCHAINS elsewhere."
            ) from err
    return kept


def runtime_jars() -> tuple[Path, ...]:
    """Return the standard library and the coroutines, as the compiler brings them."""
    return tuple(compiler_folder() / jar for jar in _RUNTIME)


def compile_kotlin(
    sources: Sequence[Path], out: Path, *, what: str, jars: Sequence[Path] = (), has_java: bool = False
) -> None:
    """Compile .kt files into the folder `out`; .java files among `sources` are looked up, not compiled.

    Args:
        what: is compiled, for messages.
        jars: classes that the code uses.
        has_java: `jars` hold java.*, too: the JDK's classes are not looked at.
    Raises:
        UnavailableError: the compiler is not here.
        ConversionError: the code does not compile, or with a warning.
    """
    compiler = compiler_folder() / "kotlin-compiler.jar"
    options = [
        "-no-stdlib",
        "-no-reflect",
        "-jvm-target",
        str(LEAST_JAVA),
        "-Werror",
        "-module-name",
        "edgewright",
    ]
    options += ["-no-jdk"] if has_java else []
    options += ["-cp", os.pathsep.join(map(str, (*jars, *runtime_jars()))), "-d", str(out)]
    done = _call(["java", *_JAVA, "-cp", str(compiler), _MAIN, *options, *map(str, sources)])
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error:" in line] or done.stderr.splitlines()[
            -8:
        ]
        raise ConversionError(f"{what} does not compile: {' | '.join(lines[:8])[:2000]}")


def run_class(
    name: str, classes: Path, library_folder: Path, arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run the main function of a class on the JVM, which checks what is done through JNI.

    Args:
        library_folder: where native libraries are looked for.
    """
    classpath = os.pathsep.join(map(str, (classes, *runtime_jars())))
    options = [*_JAVA, "-Xcheck:jni", f"-Djava.library.path={library_folder}", "-cp", classpath]
    return _call(["java", *options, name, *arguments])


def _require_java() -> None:
    fix = f"Debian: apt-get install -y openjdk-{LEAST_JAVA}-jdk-headless"
    java = shutil.which("java")
    if java is None:
        raise UnavailableError(f"java is missing ({fix})")
    said = _call([java, "-version"]).stderr
    found = _JAVA_VERSION.search(said)
    if found is None:
        raise UnavailableError(f"{java} does not say its version: {said.strip()[:80]!r} ({fix})")
    # Before Java 9 the version began with 1.
    version = int(found.group(2) or 0) if found.group(1) == "1" else int(found.group(1))
    if version < LEAST_JAVA:
        raise UnavailableError(
            f"{java} is Java {version}, and Kotlin is compiled for Java {LEAST_JAVA} ({fix})"
        )


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise ConversionError(f"{command[0]} had not ended after {_TIMEOUT_S} s.") from err
    except OSError as err:
        raise ConversionError(f"{command[0]} does not run: {err}.") from err
