"""What of an Android bundle runs without Android: API, JNI library and C core on a JVM; the rest against stubs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.deploy import kotlin
from edgewright.deploy.elf import PAGE_BYTES, page_problem

_BUILD_TIMEOUT_S = 900
_CROSS = "aarch64-linux-gnu-gcc"
_STUBS = "stubs.txt"
_MARK = "//// "


def prove_on_jvm(folder: Path, package: str, library: str, cases: int) -> tuple[str, ...]:
    """Return what was shown of the bundle in `folder`, and what could not be, in plain words.

    Args:
        package: of the Kotlin code.
        library: the name that System.loadLibrary takes.
        cases: how many golden cases there are.
    Raises:
        ConversionError: it does not compile, or fails its golden cases.
    """
    try:
        kotlin.compiler_folder()
    except UnavailableError as err:
        return (f"not compiled here: {err}",)
    with tempfile.TemporaryDirectory(prefix="edgewright-") as name:
        work = Path(name)
        compile_all(folder, package, work)
        proofs = [
            f"Kotlin API and golden cases compiled with Kotlin {kotlin.COMPILER.version}, every warning an error",
            "runtime, golden test and sample app: type-checked against stubs, not built",
        ]
        missing = [tool for tool in ("cmake", "cc") if shutil.which(tool) is None]
        if missing:
            proofs.append(
                f"not run here: {' and '.join(missing)} missing (Debian: apt-get install -y cmake gcc)"
            )
        else:
            build_jni(folder, work / "jni")
            done = run_selftest(folder, package, work / "classes", work / "jni")
            if done.returncode:
                said = (done.stdout + done.stderr).strip()[-1200:]
                raise ConversionError(f"the Android bundle fails its golden cases on the JVM: {said}")
            proofs.append(
                f"{cases} golden cases passed on a desktop JVM over the JNI library and the C core, with recorded "
                "outputs of the model: the runtime for Android was not run"
            )
        proofs.append(_prove_pages(folder, library, work))
    return tuple(proofs)


def compile_all(folder: Path, package: str, work: Path) -> Path:
    """Compile all Kotlin of the bundle into work/classes, what needs Android against stubs; return that folder.

    What Android and the JVM share and the JVM's self-test can be run from there; nothing else can.
    """
    place = package.replace(".", "/")
    test = folder / "library" / "src" / "androidTest" / "kotlin" / place
    sources = [
        *sorted((folder / "library" / "src" / "main" / "kotlin").rglob("*.kt")),
        *sorted((folder / "app").rglob("*.kt")),
        test / "Golden.kt",
        test / "GoldenTest.kt",
        folder / "jvm" / "SelfTest.kt",
        *write_stubs(work / "stubs"),
    ]
    kotlin.compile_kotlin(sources, work / "classes", what="the Android bundle's Kotlin")
    return work / "classes"


def build_jni(folder: Path, build: Path) -> Path:
    """Build the JNI library for this machine with the bundle's own CMakeLists.txt; return the folder it lies in."""
    home = Path(str(shutil.which("java"))).resolve().parent.parent
    source = folder / "library" / "src" / "main" / "cpp"
    command = ["cmake", "-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
    _run(command, "configure", JAVA_HOME=str(home))
    _run(["cmake", "--build", str(build), "--parallel", "2"], "build its JNI library")
    return build


def run_selftest(
    folder: Path, package: str, classes: Path, library_folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run the golden cases on the JVM; 0 is the code of success."""
    return kotlin.run_class(f"{package}.SelfTestKt", classes, library_folder, [str(folder)])


def write_stubs(folder: Path) -> list[Path]:
    """Write the declarations of Android and of the libraries that the project uses, a file each; return the files."""
    text = (resources.files("edgewright.deploy") / "templates" / "android" / _STUBS).read_text(
        encoding="utf-8"
    )
    files = []
    for part in text.split(f"\n{_MARK}")[1:]:
        name, _, body = part.partition("\n")
        path = folder / name.strip()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
        files.append(path)
    return files


def jni_bytes(cpp: Path, compiler: str) -> int | None:
    """Return the bytes of the JNI library as `compiler` links it; None where it or jni.h is not here."""
    if _unlinkable(compiler):
        return None
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        return link_jni(cpp, compiler, Path(work) / "jni.so").stat().st_size


def link_jni(cpp: Path, compiler: str, made: Path) -> Path:
    """Return `made`: the JNI library of the sources in `cpp`, stripped, with the flags of the project.

    Raises:
        ConversionError: the compiler refuses it.
    """
    header = _jni_header()
    assert header is not None
    sources = [cpp / "jni.c", *sorted((cpp / "core").glob("*.c"))]
    _run(
        [
            compiler, "-std=c99", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
            "-fPIC", "-shared", "-s", f"-Wl,-z,max-page-size={PAGE_BYTES}", "-I", str(cpp / "core"), "-I", str(header),
            "-I", str(header / "linux"), "-o", str(made), *map(str, sources),
        ],
        f"link with {compiler}",
    )  # fmt: skip
    return made


def _prove_pages(folder: Path, library: str, work: Path) -> str:
    """Link the JNI library for arm64, and look at its pages."""
    missing = _unlinkable(_CROSS)
    if missing:
        return f"pages of 16 KB: not linked here, {missing} is missing"
    made = link_jni(folder / "library" / "src" / "main" / "cpp", _CROSS, work / f"lib{library}.so")
    problem = page_problem(made.name, made.read_bytes())
    if problem:
        raise ConversionError(f"the Android bundle's library is not laid out for pages of 16 KB: {problem}")
    return (
        f"JNI library for arm64: {made.stat().st_size} bytes, laid out for pages of 16 KB (by Debian's gcc with the "
        "project's flags, not by the NDK)"
    )


def _unlinkable(compiler: str) -> str:
    """Return what is missing to link with; empty where nothing is."""
    if not compiler or shutil.which(compiler) is None:
        return compiler or "a compiler"
    return "" if _jni_header() else "jni.h of a JDK"


def _jni_header() -> Path | None:
    java = shutil.which("java")
    folder = Path(java).resolve().parent.parent / "include" if java else None
    return folder if folder is not None and (folder / "jni.h").is_file() else None


def _run(command: Sequence[str], what: str, **env: str) -> None:
    try:
        done = subprocess.run(
            list(command),
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ConversionError(f"the Android bundle does not {what}: {err}.") from err
    if done.returncode:
        tail = " | ".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise ConversionError(f"the Android bundle does not {what}: {tail[:1500]}")
