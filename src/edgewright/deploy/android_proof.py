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
        classes = work / "classes"
        compile_for_jvm(folder, package, classes)
        proofs = [f"Kotlin API compiled with Kotlin {kotlin.KOTLIN_VERSION}, every warning an error"]
        missing = [tool for tool in ("cmake", "cc") if shutil.which(tool) is None]
        if missing:
            proofs.append(
                f"not run here: {' and '.join(missing)} missing (Debian: apt-get install -y cmake gcc)"
            )
        else:
            build_jni(folder, work / "jni")
            done = run_selftest(folder, package, classes, work / "jni")
            if done.returncode:
                said = (done.stdout + done.stderr).strip()[-1200:]
                raise ConversionError(f"the Android bundle fails its golden cases on the JVM: {said}")
            proofs.append(
                f"{cases} golden cases passed on a desktop JVM over the JNI library and the C core, with recorded "
                "outputs of the model: the runtime for Android was not run"
            )
        type_check(folder, package, work)
        proofs.append("runtime, golden test and sample app: type-checked against stubs, not built")
        proofs.append(_prove_pages(folder, library, work))
    return tuple(proofs)


def compile_for_jvm(folder: Path, package: str, classes: Path) -> None:
    """Compile what Android and the JVM share, and the JVM's self-test, into `classes`."""
    main, test = _places(folder, package)
    shared = [path for path in sorted(main.rglob("*.kt")) if path.name not in ("Open.kt", "Runtime.kt")]
    sources = [*shared, test / "Golden.kt", folder / "jvm" / "SelfTest.kt"]
    kotlin.compile_kotlin(sources, classes, what="the Kotlin API")


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
    return kotlin.run_class(f"{package}.SelfTestKt", [classes], library_folder, [str(folder)])


def type_check(folder: Path, package: str, work: Path) -> None:
    """Compile the code for Android against declarations of what it uses; nothing of it is run."""
    main, test = _places(folder, package)
    own = [main / "Open.kt", main / "core" / "Runtime.kt", test / "GoldenTest.kt"]
    own += sorted((folder / "app").rglob("*.kt"))
    # Once more with what they share: `internal` declarations are seen within one compilation only.
    shared = [path for path in sorted(main.rglob("*.kt")) if path not in own]
    stubs = write_stubs(work / "stubs")
    kotlin.compile_kotlin(
        [*shared, test / "Golden.kt", *own, *stubs], work / "checked", what="the code for Android"
    )


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


def _places(folder: Path, package: str) -> tuple[Path, Path]:
    place = package.replace(".", "/")
    source = folder / "library" / "src"
    return source / "main" / "kotlin" / place, source / "androidTest" / "kotlin" / place


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
    _run(
        [
            compiler, "-std=c99", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
            "-fPIC", "-shared", "-s", f"-Wl,-z,max-page-size={PAGE_BYTES}", "-I", str(cpp / "core"), "-I", str(header),
            "-I", str(header / "linux"), "-o", str(made), str(cpp / "jni.c"), *map(str, sorted((cpp / "core").glob("*.c"))),
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
