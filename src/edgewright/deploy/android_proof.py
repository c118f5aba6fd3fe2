"""What of an Android bundle runs without Android: API, JNI library and C core on a JVM; the rest against stubs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.deploy import kotlin
from edgewright.deploy.building import run_tool
from edgewright.deploy.elf import page_problem
from edgewright.deploy.golden import cases_text

_BUILD_TIMEOUT_S = 900
_CROSS = "aarch64-linux-gnu-gcc"
_STUBS = "stubs.txt"
_MARK = "//// "


def prove_on_jvm(folder: Path, package: str, cases: int) -> tuple[str, ...]:
    """Return what was shown of the bundle in `folder`, and what could not be, in plain words.

    Args:
        package: of the Kotlin code.
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
        missing = unbuildable("cc")
        if missing:
            proofs.append(
                f"not run here: {missing} (Debian: apt-get install -y cmake gcc openjdk-17-jdk-headless)"
            )
        else:
            build_jni(folder, work / "jni")
            done = run_selftest(folder, package, work / "classes", work / "jni")
            if done.returncode:
                said = (done.stdout + done.stderr).strip()[-1200:]
                raise ConversionError(f"the Android bundle fails its golden cases on the JVM: {said}")
            proofs.append(
                f"{cases_text(cases)} passed on a desktop JVM over the JNI library and the C core, with recorded "
                "outputs of the model: the runtime for Android was not run"
            )
            proofs.append(_prove_pages(folder, work))
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


def build_jni(folder: Path, build: Path, compiler: str = "cc") -> Path:
    """Build the JNI library, stripped, by the bundle's own CMakeLists.txt for Linux; return the folder it lies in.

    Args:
        compiler: for this machine or another.
    Raises:
        ConversionError: it does not build.
    """
    source = folder / "library" / "src" / "main" / "cpp"
    options = [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_SHARED_LINKER_FLAGS=-s",
        f"-DCMAKE_C_COMPILER={compiler}",
    ]
    _run(["cmake", "-S", str(source), "-B", str(build), *options], "configure", JAVA_HOME=str(_java_home()))
    _run(["cmake", "--build", str(build), "--parallel", "2"], "build its JNI library")
    return build


def jni_bytes(folder: Path, compiler: str) -> int | None:
    """Return the bytes of the JNI library as `compiler` builds it; None where something for that is not here."""
    if unbuildable(compiler):
        return None
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        return _library(build_jni(folder, Path(work), compiler)).stat().st_size


def unbuildable(compiler: str) -> str:
    """Return what is missing to build the JNI library with; empty where nothing is."""
    for tool in ("cmake", compiler):
        if not tool or shutil.which(tool) is None:
            return f"{tool or 'a compiler'} is missing"
    has_header = shutil.which("java") is not None and (_java_home() / "include" / "jni.h").is_file()
    return "" if has_header else "jni.h of a JDK is missing"


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


def _prove_pages(folder: Path, work: Path) -> str:
    """Look at the pages of the JVM's JNI library, and of one for arm64."""
    missing = unbuildable(_CROSS)
    builds = [work / "jni"] if missing else [work / "jni", build_jni(folder, work / "arm64", _CROSS)]
    for build in builds:
        library = _library(build)
        problem = page_problem(library.name, library.read_bytes())
        if problem:
            raise ConversionError(
                f"the Android bundle's library is not laid out for pages of 16 KB: {problem}"
            )
    machines = "x86-64" if missing else "x86-64 and arm64"
    return f"JNI library for {machines}: pages of 16 KB (the project's CMakeLists.txt with gcc, not the NDK)"


def _library(build: Path) -> Path:
    return next(build.glob("lib*.so"))


def _java_home() -> Path:
    return Path(str(shutil.which("java"))).resolve().parent.parent


def _run(command: Sequence[str], what: str, **env: str) -> None:
    run_tool(
        command,
        failure=f"the Android bundle does not {what}",
        quoted=slice(-8, None),
        most_characters=1500,
        timeout_s=_BUILD_TIMEOUT_S,
        env=env,
    )
