"""What Gradle reads of an Android project, checked without it: scripts, version catalog and manifests."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

from edgewright.core.errors import ConversionError
from edgewright.core.files import write_text
from edgewright.deploy.building import run_tool

_SCRIPTS: Mapping[str, str] = {  # -> the type whose members its words are
    "settings.gradle.kts": "SettingsScript",
    "build.gradle.kts": "BuildScript",
    "app/build.gradle.kts": "ApplicationScript",
    "library/build.gradle.kts": "LibraryScript",
}
_STUBS = "gradle_stubs.kt"
_ALIAS = re.compile(r"[a-z][A-Za-z0-9]*(-[a-z][A-Za-z0-9]*)*")
_TIMEOUT_S = 120
# An element of Android 12 that aapt2 of an older SDK does not know.
_NEWER = re.compile(r"\n\s*<uses-native-library [^>]*/>")


def write_scripts(folder: Path, work: Path) -> list[Path]:
    """Return Kotlin files that hold each Gradle script as a function, and what it names; they are for the type checker.

    Raises:
        ConversionError: the version catalog is not what Gradle takes.
    """
    place = work / "gradle"
    stubs = resources.files("edgewright.deploy") / "templates" / "android" / _STUBS
    write_text(place / _STUBS, stubs.read_text(encoding="utf-8"))
    write_text(place / "Catalog.kt", _catalog(folder / "gradle" / "libs.versions.toml"))
    files = [place / _STUBS, place / "Catalog.kt"]
    for number, (name, receiver) in enumerate(_SCRIPTS.items()):
        file = place / f"Script{number}.kt"
        body = (folder / name).read_text(encoding="utf-8")
        write_text(file, f"package gradle\n\nfun {receiver}.script{number}() {{\n{body}}}\n")
        files.append(file)
    return files


def _catalog(path: Path) -> str:
    """Return the accessors that Gradle makes of a version catalog: the library a-b is libs.a.b."""
    record = tomllib.loads(path.read_text(encoding="utf-8"))
    versions = record["versions"]
    for kind in ("libraries", "plugins"):
        for alias, row in record[kind].items():
            if not _ALIAS.fullmatch(alias) or row["version"]["ref"] not in versions:
                raise ConversionError(f"{path.name}: {kind} {alias!r:.80} has no such name or version.")
    lines = ["package gradle\n"]
    lines += _accessors(
        "Catalog", "Library", record["libraries"], extra="    val plugins = PluginsOfCatalog()"
    )
    lines += _accessors("PluginsOfCatalog", "Plugin", record["plugins"])
    return "\n".join(lines)


def _accessors(name: str, leaf: str, aliases: Iterable[str], base: str = "", extra: str = "") -> list[str]:
    """Return Kotlin classes whose properties spell `aliases`; what is a library and the beginning of others is both."""
    heads: dict[str, list[str]] = {}
    for alias in aliases:
        head, _, rest = alias.partition("-")
        heads.setdefault(head, []).append(rest)
    made, inner = [f"class {name}{base} {{", *filter(None, [extra])], []
    for head, rests in heads.items():
        deeper = [rest for rest in rests if rest]
        kind = f"{name}{head.capitalize()}" if deeper else leaf
        made.append(f"    val {head} = {kind}()")
        if deeper:
            inner += _accessors(kind, leaf, deeper, base=f" : {leaf}()" if "" in rests else "")
    return [*made, "}\n", *inner]


def check_manifests(
    folder: Path, package: str, min_sdk: str, target_sdk: str, android: Path | None, work: Path
) -> str:
    """Read the manifests; where aapt2 and an `android.jar` are here, link the app's. Return what was shown.

    Raises:
        ConversionError: one is wrong.
    """
    app = folder / "app" / "src" / "main" / "AndroidManifest.xml"
    for path in (app, folder / "library" / "src" / "main" / "AndroidManifest.xml"):
        try:
            ElementTree.parse(path)
        except ElementTree.ParseError as err:
            raise ConversionError(f"the Android bundle's {path.name} is no XML: {err}") from err
    if android is None or shutil.which("aapt2") is None:
        return (
            "not linked here: the manifests were parsed alone, for aapt2 and an android.jar are not both here"
        )
    text = app.read_text(encoding="utf-8").replace("<manifest ", f'<manifest package="{package}.app" ', 1)
    left_out = ""
    try:
        _link(text, min_sdk, target_sdk, android, work)
    except ConversionError:
        older = _NEWER.sub("", text)
        if older == text:
            raise
        _link(older, min_sdk, target_sdk, android, work)
        left_out = ", without uses-native-library, which this aapt2 is too old for"
    return f"the app's manifest linked by aapt2 against {android.parent.name}{left_out}"


def _link(manifest: str, min_sdk: str, target_sdk: str, android: Path, work: Path) -> None:
    path = work / "AndroidManifest.xml"
    write_text(path, manifest)
    levels = ["--min-sdk-version", min_sdk, "--target-sdk-version", target_sdk]
    command: Sequence[str] = [
        "aapt2", "link", "-I", str(android), "--manifest", str(path), *levels, "-o", str(work / "app.apk"),
    ]  # fmt: skip
    run_tool(
        command,
        failure="the Android bundle's manifest does not link",
        quoted=slice(6),
        most_characters=800,
        timeout_s=_TIMEOUT_S,
    )
