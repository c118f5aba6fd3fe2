"""What Android code is type-checked against: the real classes that are on this machine, declarations for the rest.

Real are those of an Android SDK's `android.jar` (also Debian's libandroid-23-java), and of .aar and .jar files in a
folder that a variable names, such as a Gradle build has left. Nothing is fetched, and none of it is shipped.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edgewright.core.errors import UnavailableError
from edgewright.deploy.elf import page_problems

LIBRARIES_VARIABLE = "EDGEWRIGHT_ANDROID_LIBRARIES"
_SDK_VARIABLES = ("ANDROID_HOME", "ANDROID_SDK_ROOT")
_DEBIAN_SDK = "/usr/lib/android-sdk"
_PLATFORM = re.compile(r"android-(\d{1,3})")
_MAX_LIBRARIES = 64
_MAX_JAR_BYTES = 64 << 20
_STUBS = "stubs.txt"
_MARK = "//// "
# The first that fits says what a class is of.
_OWNERS: Mapping[str, str] = {
    "ai/onnxruntime/": "ONNX Runtime",
    "com/google/ai/edge/litert/": "LiteRT",
    "androidx/camera/": "CameraX",
    "com/google/common/": "CameraX",
    "androidx/test/": "AndroidX Test",
    "androidx/": "AndroidX",
    "org/junit/": "JUnit",
    "android/": "Android",
}


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of one check.

    Attributes:
        jars: real ones.
        has_android: Android is among them, and with it its own java.*: the JDK's is left out of the check.
        stubs: sources of the declarations that stand for what no jar has.
        told: which is which, as a sentence.
    """

    jars: tuple[Path, ...]
    has_android: bool
    stubs: tuple[Path, ...]
    told: str


def find_android() -> tuple[Path, int] | None:
    """Return the `android.jar` of the newest platform that is here, and its API level; None where there is none."""
    places = [*(os.environ.get(name, "") for name in _SDK_VARIABLES), _DEBIAN_SDK]
    for place in filter(None, places):
        found = []
        for jar in Path(place).glob("platforms/*/android.jar"):
            match = _PLATFORM.match(jar.parent.name)
            if match and jar.is_file():
                found.append((int(match.group(1)), jar))
        if found:
            level, jar = max(found)
            return jar, level
    return None


def find_classes(source: str, work: Path) -> Classes:
    """Return what is needed to check code, real where it is here.

    Args:
        source: all of the code; what it does not name is left out of what is told.
        work: for declarations and for what is taken out of .aar files.
    Raises:
        UnavailableError: the folder of libraries, or a file in it, cannot be read.
    """
    android = find_android()
    jars = [*([android[0]] if android else []), *_libraries(work)]
    names = frozenset[str]().union(*map(_class_names, jars))
    real: list[str] = []
    declared: list[str] = []
    stubs = []
    for path, text in _stubs().items():
        owner = next(title for prefix, title in _OWNERS.items() if path.startswith(prefix))
        is_real = Path(path).with_suffix(".class").as_posix() in names
        if Path(path).parent.as_posix().replace("/", ".") in source:
            (real if is_real else declared).append(owner)
        if not is_real:
            stub = work / "stubs" / path
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.write_text(text, encoding="utf-8")
            stubs.append(stub)
    told = [f"against stubs of {', '.join(sorted(set(declared)))}"] if declared else []
    if real:
        level = f"Android (API {android[1]})" if android else ""
        titles = [level if title == "Android" else title for title in sorted(set(real))]
        told.insert(0, f"against the real classes of {', '.join(titles)}")
    return Classes(
        jars=tuple(jars), has_android=android is not None, stubs=tuple(stubs), told=", ".join(told)
    )


def measure_runtime(runtime: str, abi: str) -> tuple[int, str] | None:
    """Return the bytes of a runtime's libraries for one ABI, and the .aar files that they are of; None without such.

    Args:
        runtime: that the files' names begin with: litert-2.3.0.aar and litert-gpu-2.3.0.aar of "litert".
    Raises:
        UnavailableError: one cannot be read.
    """
    total, names = 0, []
    for path in _library_files():
        if path.suffix != ".aar" or not path.name.startswith(runtime):
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                place = f"jni/{abi}/"
                sizes = [e.file_size for e in archive.infolist() if e.filename.startswith(place)]
        except (OSError, zipfile.BadZipFile) as err:
            raise UnavailableError(f"{path} is no .aar that can be read: {err}.") from err
        if sum(sizes):
            total += sum(sizes)
            names.append(path.name)
    return (total, ", ".join(names)) if names else None


def check_library_pages() -> str:
    """Return how the libraries of the .aar files in the folder that the variable names stand to pages of 16 KB."""
    if not _library_files():
        return ""
    count, problems = page_problems(Path(os.environ[LIBRARIES_VARIABLE]))
    if problems:
        return f"libraries of {LIBRARIES_VARIABLE}: NOT all for pages of 16 KB: {'; '.join(problems)[:300]}"
    return f"{count} 64-bit libraries of {LIBRARIES_VARIABLE}: pages of 16 KB"


def _libraries(work: Path) -> list[Path]:
    """Return the jars in the folder that the variable names; the classes of an .aar are taken out."""
    return [
        path if path.suffix == ".jar" else _classes_of(path, work / f"{path.stem}.jar")
        for path in _library_files()
    ]


def _library_files() -> list[Path]:
    place = os.environ.get(LIBRARIES_VARIABLE, "")
    if not place:
        return []
    files = sorted(path for path in Path(place).glob("*") if path.suffix in (".aar", ".jar"))
    if not files or len(files) > _MAX_LIBRARIES:
        raise UnavailableError(
            f"{LIBRARIES_VARIABLE} is {place}, a folder with {len(files)} .aar and .jar files; 1 to "
            f"{_MAX_LIBRARIES} are expected. Unset it, and stubs are taken."
        )
    return files


def _classes_of(library: Path, jar: Path) -> Path:
    try:
        jar.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(library) as archive:
            entry = archive.getinfo("classes.jar")
            if entry.file_size > _MAX_JAR_BYTES:
                raise UnavailableError(f"classes.jar of {library} has {entry.file_size} bytes: too many.")
            jar.write_bytes(archive.read(entry))
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as err:
        raise UnavailableError(f"{library} is no .aar with a classes.jar: {err}.") from err
    return jar


def _class_names(jar: Path) -> frozenset[str]:
    try:
        with zipfile.ZipFile(jar) as archive:
            return frozenset(archive.namelist())
    except (OSError, zipfile.BadZipFile) as err:
        raise UnavailableError(f"{jar} is no .jar that can be read: {err}.") from err


def _stubs() -> dict[str, str]:
    """Return path -> text of the declarations, a class or the classes of a file each."""
    folder = resources.files("edgewright.deploy") / "templates" / "android"
    parts = (folder / _STUBS).read_text(encoding="utf-8").split(f"\n{_MARK}")[1:]
    found = {}
    for part in parts:
        name, _, body = part.partition("\n")
        found[name.strip()] = body
    return found
