"""What of an Android bundle runs without Android: API, JNI library and C core on a JVM; the rest is type-checked."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.core.errors import ConversionError, UnavailableError
from edgewright.deploy import kotlin
from edgewright.deploy.android_classes import check_library_pages, find_android, find_classes
from edgewright.deploy.android_native import (
    build_jni,
    measure_abis,
    unbuildable,
    unbuildable_for_android,
)
from edgewright.deploy.android_scripts import check_manifests, write_scripts
from edgewright.deploy.golden import cases_text


def prove_project(
    folder: Path, package: str, cases: int, *, abis: Sequence[str], min_sdk: str, target_sdk: str
) -> tuple[str, ...]:
    """Return what was shown of the bundle in `folder`, and what could not be, in plain words.

    Args:
        package: of the Kotlin code.
        cases: how many golden cases there are.
        abis: that the JNI library is built for.
        min_sdk, target_sdk: API levels.
    Raises:
        ConversionError: it does not compile, or fails its golden cases.
    """
    with tempfile.TemporaryDirectory(prefix="edgewright-") as name:
        work = Path(name)
        proofs = list(_prove_code(folder, package, cases, work))
        android = find_android()
        jar = android[0] if android else None
        proofs.append(check_manifests(folder, package, min_sdk, target_sdk, jar, work))
    proofs.append(_prove_abis(folder, abis))
    return (*proofs, *filter(None, [check_library_pages()]))


def compile_all(folder: Path, package: str, work: Path) -> str:
    """Compile all Kotlin of the bundle into work/classes; return what of it was checked against what.

    What Android and the JVM share and the JVM's self-test can be run from there; nothing else can.
    """
    place = package.replace(".", "/")
    test = folder / "library" / "src" / "androidTest" / "kotlin" / place
    code = [
        *sorted((folder / "library" / "src" / "main" / "kotlin").rglob("*.kt")),
        *sorted((folder / "app").rglob("*.kt")),
        test / "Golden.kt",
        test / "GoldenTest.kt",
        folder / "jvm" / "SelfTest.kt",
    ]
    classes = find_classes("\n".join(path.read_text(encoding="utf-8") for path in code), work)
    kotlin.compile_kotlin(
        [*code, *classes.stubs, *write_scripts(folder, work)],
        work / "classes",
        what="the Android bundle's Kotlin",
        jars=classes.jars,
        has_java=classes.has_android,
    )
    return classes.told


def run_selftest(
    folder: Path, package: str, classes: Path, library_folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run the golden cases on the JVM; 0 is the code of success."""
    return kotlin.run_class(f"{package}.SelfTestKt", classes, library_folder, [str(folder)])


def _prove_code(folder: Path, package: str, cases: int, work: Path) -> Sequence[str]:
    try:
        kotlin.compiler_folder()
        told = compile_all(folder, package, work)
    except UnavailableError as err:
        return (f"not compiled here: {err}",)
    proofs = [
        f"Kotlin API and golden cases compiled with Kotlin {kotlin.COMPILER.version}, every warning an error",
        f"runtime, golden test and sample app: type-checked {told}; not built",
        "Gradle scripts: type-checked against stubs of the DSL and the version catalog's names; Gradle was not run",
    ]
    if missing := unbuildable("cc"):
        fix = "Debian: apt-get install -y cmake gcc openjdk-17-jdk-headless"
        return (*proofs, f"not run here: {missing} ({fix})")
    build_jni(folder, work / "jni")
    done = run_selftest(folder, package, work / "classes", work / "jni")
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-1200:]
        raise ConversionError(f"the Android bundle fails its golden cases on the JVM: {said}")
    ran = (
        f"{cases_text(cases)} passed on a desktop JVM over the JNI library and the C core, with recorded outputs of "
        "the model: the runtime for Android was not run"
    )
    return (*proofs, ran)


def _prove_abis(folder: Path, abis: Sequence[str]) -> str:
    if missing := unbuildable_for_android():
        fix = "Debian: apt-get install -y clang lld cmake openjdk-17-jdk-headless"
        return f"not built here for {', '.join(abis)}: {missing} ({fix})"
    measure_abis(folder, abis)
    return (
        f"JNI library built for {', '.join(abis)} by clang with the project's CMakeLists.txt, its 64-bit ABIs with "
        "pages of 16 KB; without the NDK, not loaded by Android"
    )
