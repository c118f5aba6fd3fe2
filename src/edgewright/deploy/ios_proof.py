"""What of a Swift package runs without a Mac: SwiftPM builds and tests it, with stubs of Apple's frameworks."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from xml.parsers.expat import ExpatError

from edgewright.core.errors import ConversionError
from edgewright.core.files import write_text
from edgewright.deploy.building import run_tool
from edgewright.deploy.golden import cases_text

# A Debian root with `swiftlang`, where the compiler is not installed on the machine itself; its /tmp is the machine's.
ROOT_VARIABLE = "EDGEWRIGHT_SWIFT_ROOT"
_TIMEOUT_S = 1800
_MOST_CHARACTERS = 200_000
_DEPENDENCY = re.compile(r"    dependencies: \[\n        \.package\(url:.*\n    \],\n")
_PRODUCT = '.product(name: "onnxruntime", package: "onnxruntime-swift-package-manager")'
_RUNTIMES = {"coreml": "CoreML", "onnxruntime": "OnnxRuntimeBindings"}
_TITLES = {"coreml": "Core ML", "onnxruntime": "ONNX Runtime"}
_FLAGS = ("--quiet", "-Xswiftc", "-warnings-as-errors", "-Xcc", "-Wall", "-Xcc", "-Wextra", "-Xcc", "-Werror")


def prove_package(folder: Path, name: str, runtime: str, cases: int, golden: Path) -> tuple[str, ...]:
    """Return what was shown of the package in `folder`, and what could not be, in plain words.

    Args:
        name: of the bundle.
        cases: how many golden cases there are, in the folder `golden`.
    Raises:
        ConversionError: it does not build, or a golden case fails.
    """
    _check_property_lists(folder)
    tools = _tools()
    if tools is None:
        return (
            "not compiled here: no Swift (Debian 13: apt-get install -y swiftlang; a root of its own is named in "
            f"{ROOT_VARIABLE})",
        )
    with tempfile.TemporaryDirectory(prefix="edgewright-", dir=_shared_folder()) as work:
        package = Path(work) / "package"
        shutil.copytree(folder, package)
        _run(
            [*tools["swift-package"], "--package-path", str(package), "dump-package"],
            "have a right Package.swift",
        )
        _stand_in(package, name, runtime)
        command = [*tools["swift-test"], "--package-path", str(package), *_FLAGS]
        _run(command, "pass `swift test`", EDGEWRIGHT_RECORDED=str(package / golden.relative_to(folder)))
        said = _run([*tools["swiftc"], "--version"], "say its version")
    version = next(line for line in said.splitlines() if "Swift version" in line).strip()
    title = _TITLES[runtime]
    return (
        f"`swift test` on Linux, every warning an error: {cases_text(cases)} passed in XCTest, over the C core and the "
        f"package's own code for {title}, with recorded outputs of the model played back in its place ({version})",
        f"Package.swift read by SwiftPM; {title}, SwiftUI and AVFoundation are stubs, the sample app type-checked "
        "against them in Swift 6 mode; not built with Xcode",
    )


def has_swift() -> bool:
    """Return whether a compiler is here."""
    return _tools() is not None


def _check_property_lists(folder: Path) -> None:
    for path in sorted(
        [*folder.rglob("*.plist"), *folder.rglob("*.xcprivacy"), *folder.rglob("*.entitlements")]
    ):
        try:
            plistlib.loads(path.read_bytes())
        except (plistlib.InvalidFileException, ExpatError, ValueError) as err:
            raise ConversionError(f"{path.name} of the Swift bundle is no property list: {err}.") from err


def _stand_in(package: Path, name: str, runtime: str) -> None:
    """Put stubs in the place of Apple's frameworks and of the runtime, and the sample app beside the package."""
    module = _RUNTIMES[runtime]
    stubs = files("edgewright.deploy") / "templates" / "ios" / "stubs"
    wanted: dict[str, tuple[str, ...]] = {module: (f"{module}.swift", "Recorded.swift")}
    wanted |= {title: (f"{title}.swift",) for title in ("SwiftUI", "AVFoundation")}
    for target, sources in wanted.items():
        for source in sources:
            write_text(package / "Stubs" / target / source, (stubs / source).read_text(encoding="utf-8"))
    path = package / "Package.swift"
    text = _DEPENDENCY.sub("", path.read_text(encoding="utf-8"))
    if runtime == "onnxruntime":
        text = text.replace(_PRODUCT, f'"{module}"')
    else:  # a framework of the system is no dependency of the package
        own = f'"C{name}",\n'
        text = text.replace(own, f'{own}                "{module}",\n', 1)
    targets = [f'        .target(name: "{target}", path: "Stubs/{target}"),\n' for target in wanted]
    needs = ", ".join(f'"{target}"' for target in (name, "SwiftUI", "AVFoundation"))
    targets.append(
        f'        .executableTarget(name: "SampleApp", dependencies: [{needs}], path: "App", sources: ["App.swift"]),\n'
    )
    text = text.replace("        .testTarget(", f"{''.join(targets)}        .testTarget(", 1)
    write_text(path, text)
    app = package / "App" / f"{name}App.swift"
    app.rename(package / "App" / "App.swift")


def _tools() -> Mapping[str, list[str]] | None:
    """Return how to call SwiftPM and the compiler; None where they are not here."""
    root = os.environ.get(ROOT_VARIABLE, "")
    names = ("swiftc", "swift-package", "swift-test")
    if root:
        homes = ("usr/bin", "usr/libexec/swift/bin")
        home = next((h for h in homes if all((Path(root) / h / name).exists() for name in names)), None)
        return None if home is None else {name: ["chroot", root, f"/{home}/{name}"] for name in names}
    swiftc = shutil.which("swiftc")
    if swiftc is None:
        return None
    home_folder = Path(swiftc).resolve().parent
    return {name: [str(home_folder / name)] for name in names}


def _shared_folder() -> str | None:
    # The compiler in a root of its own sees the machine's /tmp alone.
    return "/tmp" if os.environ.get(ROOT_VARIABLE) else None


def _run(command: Sequence[str], what: str, **env: str) -> str:
    failure = f"the Swift bundle does not {what}"
    try:
        done = run_tool(
            command,
            failure=failure,
            quoted=slice(None),
            most_characters=_MOST_CHARACTERS,
            timeout_s=_TIMEOUT_S,
            env=env,
        )
    except ConversionError as err:
        # SwiftPM tells its progress between the errors.
        lines = [line for line in str(err).split(" | ") if "error:" in line]
        said = " | ".join(lines[:8]) if lines else str(err)
        raise ConversionError(f"{failure}: {said[:2000]}") from err
    return done.stdout + done.stderr
