"""Bundles for Linux boards: a Python package with the processing in C, a systemd service, a project in C++."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edgewright.core.errors import ConversionError, UnavailableError, UsageError
from edgewright.core.files import write_text
from edgewright.deploy import cpp
from edgewright.deploy.api import hop, input_text, is_stream, result_text
from edgewright.deploy.building import run_tool
from edgewright.deploy.cpp_runtimes import refusal
from edgewright.deploy.golden import cases_text
from edgewright.deploy.names import check_distinct, plain_name, snake_case
from edgewright.deploy.records import Component, Content, Size, Written
from edgewright.deploy.templates import render
from edgewright.deploy.writing import (
    package_licence,
    write_c_core,
    write_cases,
    write_licences,
    write_model,
    write_processing,
)
from edgewright.processing.c_code import CCore
from edgewright.processing.c_host import build_library
from edgewright.processing.specification import RawInput

_PACKAGES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
_MODULES = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
_LICENCES = {"litert": "Apache-2.0", "onnxruntime": "MIT", "openvino": "Apache-2.0"}
_TITLES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
# What platform.machine() says -> the compilers for it, the first that is here is taken.
_COMPILERS = {"x86_64": ("cc", "gcc", "clang"), "aarch64": ("aarch64-linux-gnu-gcc",)}
_MODEL_SUFFIXES = (".tflite", ".onnx", ".xml")
_TYPES = {"classes": "tuple[Label, ...]", "boxes": "tuple[Box, ...]", "keypoints": "tuple[Point, ...]"}
_PILLOW = {
    "rgb": ("RGB", ""),
    "bgr": ("RGB", "[..., ::-1]"),
    "grey": ("L", "[..., None]"),
    "rgba": ("RGBA", ""),
}
_WHEEL_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux2014")
_START_S = 60.0
_NUMPY_FLOOR = "1.26"
_BOARD_PYTHON = "3.11"  # of Debian 12, and of Raspberry Pi OS that is made from it
_LEAST_PYTHON = 9  # 3.9, which the bundle's own files need
_TIMEOUT_S = 900


class LinuxPlatform:
    """A Python package with a service, and a project in C++ around the same model, processing and golden cases."""

    name = "linux"
    summary = "Python package, systemd service, and C++"
    runtimes: tuple[str, ...] = ("litert", "onnxruntime", "openvino")
    options: Mapping[str, str] = {
        "wheels": "x86_64 or aarch64: put the wheels beside it, so that it installs without a network",
        "python": f"the board's Python for the wheels, default {_BOARD_PYTHON}",
    }

    def write(self, content: Content, folder: Path) -> Written:
        """Write the project; see `Platform.write`."""
        wheels = content.options.get("wheels", "")
        if wheels and wheels not in _COMPILERS:
            raise UsageError(f"option wheels is {wheels!r}; {' or '.join(_COMPILERS)} is expected.")
        python = content.options.get("python", _BOARD_PYTHON)
        if not re.fullmatch(r"3\.\d{1,2}", python):
            raise UsageError(
                f"option python is {python!r:.40}; a version such as {_BOARD_PYTHON} is expected."
            )
        package = snake_case(content.name)
        home = folder / "src" / package
        core = write_c_core(content, folder / "core")
        write_model(content, home / "data" / "model")
        write_processing(content, home / "data" / "processing")
        write_cases(content, home / "data" / "golden")
        built = _build_cores(core, home / "lib", package)
        if wheels:
            _download(content, wheels, folder / "wheels")
        sizes = tuple(
            Size(
                abi=f"Linux {machine}",
                model_bytes=content.model_bytes,
                runtime_bytes=_runtime_bytes(content.runtime, machine, folder / "wheels"),
                core_bytes=path.stat().st_size,
                note=""
                if machine in (os.uname().machine, wheels)
                else "the runtime's package for it is not here",
            )
            for machine, path in built.items()
        )
        has_service = len(content.plan.specification.inputs) == 1
        refused = refusal(content.runtime, content.model_files().values())
        values = _values(content) | {
            "has_cpp": not refused,
            "sizes": sizes,
            "has_service": has_service,
            "abis": ", ".join(built),
            "cpp_needs": ", and the headers of ONNX Runtime: set `ONNXRUNTIME_ROOT` to its unpacked release"
            if content.runtime == "onnxruntime"
            else "",
            "wheels": wheels,
            "wheels_python": python,
            "wheels_text": _wheels_text(wheels),
        }
        files = {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            "install.sh": "install.sh",
            f"src/{package}/__init__.py": "init.py",
            f"src/{package}/core.py": "core.py",
            f"src/{package}/runtime.py": f"runtime_{content.runtime}.py",
            f"src/{package}/selftest.py": "selftest.py",
        }
        if has_service:
            files |= {
                f"src/{package}/service.py": "service.py",
                f"src/{package}/health.py": "health.py",
                f"systemd/{package}.service": "unit.service",
            }
        for file, template in files.items():
            write_text(folder / file, render(f"linux/{template}.j2", values))
        (folder / "install.sh").chmod(0o755)
        package_name = _PACKAGES[content.runtime]
        write_licences(folder, {package_name: text} if (text := package_licence(package_name)) else {})
        places = {kind: f"src/{package}/data/{kind}" for kind in ("model", "processing", "golden")}
        notes = [] if has_service else ["no service: it takes one raw input, but the model takes several"]
        if refused:
            notes.append(f"no C++ project: {refused}")
        else:
            data_place = f"../src/{package}/data"
            cpp.write_project(content, folder / "cpp", core, core_place="../core", data_place=data_place)
        version = metadata.version(package_name)
        return Written(
            places=places,
            components=(
                Component(
                    name=package_name,
                    version=version,
                    purl=f"pkg:pypi/{package_name}@{version}",
                    licence=_LICENCES[content.runtime],
                    is_shipped=bool(wheels),
                ),
                Component(
                    name="numpy",
                    version=metadata.version("numpy"),
                    purl=f"pkg:pypi/numpy@{metadata.version('numpy')}",
                    licence="BSD-3-Clause",
                    is_shipped=bool(wheels),
                ),
            ),
            sizes=sizes,
            notes=tuple(notes),
        )

    def prove(self, content: Content, folder: Path) -> tuple[str, ...]:
        """Run the golden cases and the service by this Python, from the source folder."""
        package = snake_case(content.name)
        if not (folder / "src" / package / "lib" / os.uname().machine).is_dir():
            return ("not run here: no C compiler for this machine",)
        env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", f"{package}.selftest"]
        run_tool(
            command,
            failure="the Linux bundle fails its golden cases",
            quoted=slice(None),
            most_characters=1200,
            timeout_s=_TIMEOUT_S,
            env=env,
        )
        where = (
            f"Python {sys.version_info.major}.{sys.version_info.minor} on {os.uname().machine}, not installed"
        )
        proofs = [f"{cases_text(len(content.cases))} passed ({where})"]
        if (folder / "src" / package / "service.py").is_file():
            proofs.append(_prove_service(content, package, env))
        if (folder / "cpp").is_dir():
            shown = cpp.prove_project(content, folder / "cpp", folder / "src" / package / "data")
            proofs += [f"C++: {proof}" for proof in shown]
        return tuple(proofs)

    def inspect(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """Return nothing: all that is of the platform's own is in the digests and the golden cases."""
        return {}


PLATFORM = LinuxPlatform()


def _values(content: Content) -> dict[str, object]:
    rows = content.plan.specification.inputs
    made = content.plan.results
    inputs = [_input(row, content) for row in rows]
    kinds = sorted({"image" if row.kind == "image" else "numbers" for row in rows})
    pillow_mode, service_axis = _PILLOW.get(rows[0].order, ("RGB", ""))
    results: list[dict[str, str]] = []
    for index, flow in enumerate(content.plan.specification.results):
        kind = made[flow.name].kind
        array = f'arrays["{flow.name}"]'
        maker = {
            "classes": f"self._labels({index}, {array})",
            "boxes": f"self._boxes({index}, {array})",
            "keypoints": f"tuple(Point(*row) for row in {array}.tolist())",
        }.get(kind, array)
        results.append(
            {
                "name": flow.name,
                "field": plain_name(snake_case(flow.name), "python"),
                "kind": kind,
                "type": _TYPES.get(kind, "np.ndarray"),
                "maker": maker,
                "text": result_text(made[flow.name]),
            }
        )
    check_distinct("inputs", [row["name"] for row in inputs], [row["field"] for row in inputs])
    check_distinct("results", [row["name"] for row in results], [row["field"] for row in results])
    arguments = ", ".join(str(row["field"]) for row in inputs)
    orders = [row.order for row in rows if row.kind == "image"]
    image_options = f', *, pixel_format: str = "{orders[0]}", rotation: int = 0' if orders else ""
    package = _PACKAGES[content.runtime]
    return {
        "name": content.name,
        "package": snake_case(content.name),
        "version": content.version,
        "runtime_title": f"{_TITLES[content.runtime]} {metadata.version(package)}",
        "python_floor": _python_floor(package),
        "requirements": [f"numpy>={_NUMPY_FLOOR}", f"{package}=={metadata.version(package)}"],
        "inputs": inputs,
        "results": results,
        "kinds": kinds,
        "arguments": arguments,
        "parameters": ", ".join(f"{row['field']}: np.ndarray" for row in inputs) + image_options,
        "models": _models(content),
        "hop": hop(content),
        "pillow_mode": pillow_mode,
        "service_axis": service_axis,
        "service_call": f'given, pixel_format="{orders[0]}"' if orders else "given",
        "service_takes": "a PNG, JPEG or BMP file" if orders else "the input as an .npy file",
    }


def _python_floor(package: str) -> str:
    """Return the first Python that has the installed version of the runtime and runs the bundle."""
    wanted = " ".join(metadata.metadata(package).get_all("Requires-Python") or ())
    found = re.search(r">=\s*3\.(\d+)", wanted)
    return f"3.{max(int(found[1]) if found else 0, _LEAST_PYTHON)}"


def _input(row: RawInput, content: Content) -> dict[str, str]:
    made = content.plan.types[row.name]
    if row.kind == "text":
        raise UsageError("a text is no input of a Linux bundle: the C core has no tokenizer.")
    return {
        "name": row.name,
        "field": plain_name(snake_case(row.name), "python"),
        "kind": row.kind,
        "dtype": made.dtype,
        "order": row.order,
        "text": input_text(made, is_stream=is_stream(content)),
    }


def _models(content: Content) -> list[dict[str, object]]:
    files = [name for name in content.model_files() if name.endswith(_MODEL_SUFFIXES)]
    models: list[dict[str, object]] = []
    for file, signature in zip(files, content.plan.signatures.values(), strict=True):
        models.append(
            {
                "file": file,
                "inputs": [
                    {"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in signature.inputs
                ],
                "outputs": [
                    {"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in signature.outputs
                ],
            }
        )
    return models


def _build_cores(core: CCore, folder: Path, package: str) -> dict[str, Path]:
    """Build the processing for each machine whose compiler is here; return machine -> library."""
    built = {}
    for machine, compilers in _COMPILERS.items():
        is_own = machine == os.uname().machine
        found = next((name for name in compilers if shutil.which(name)), None)
        if found is None or (compilers[0] == "cc" and not is_own):
            continue
        library = folder / machine / f"lib{package}_core.so"
        library.parent.mkdir(parents=True, exist_ok=True)
        built[machine] = build_library(
            core, library, flags=("-std=c99", "-O3", "-ffp-contract=off", "-s"), cc=found
        )
    return built


def _runtime_bytes(runtime: str, machine: str, wheels: Path) -> int | None:
    """Return the bytes of the runtime's package, as installed here or unpacked of a wheel for `machine`; else None."""
    name = _PACKAGES[runtime].replace("-", "_")
    for wheel in wheels.glob(f"{name}-*_{machine}.whl"):
        with zipfile.ZipFile(wheel) as archive:
            return sum(info.file_size for info in archive.infolist())
    spec = find_spec(_MODULES[runtime])
    if machine != os.uname().machine or spec is None or not spec.submodule_search_locations:
        return None
    files = Path(spec.submodule_search_locations[0]).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and "__pycache__" not in file.parts)


def _wheels_text(wheels: str) -> str:
    if wheels:
        return f"`wheels/` holds everything for {wheels}: nothing is downloaded."
    return "Without `wheels/` it installs from the package index; `--option wheels=aarch64` puts them there."


def _download(content: Content, machine: str, folder: Path) -> None:
    """Put the wheels of the package's requirements and of its build into `folder`.

    Raises:
        UnavailableError: pip cannot bring them.
    """
    package = _PACKAGES[content.runtime]
    wanted = [
        f"{package}=={metadata.version(package)}",
        f"numpy>={_NUMPY_FLOOR}",
        "pillow",
        "setuptools",
        "wheel",
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--implementation",
        "cp",
    ]
    python = content.options.get("python", _BOARD_PYTHON)
    command += ["--python-version", python, "--dest", str(folder)]
    for name in _WHEEL_PLATFORMS:
        command += ["--platform", f"{name}_{machine}"]
    done = subprocess.run(
        [*command, *wanted],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(
            f"the wheels for {machine} and Python {python} cannot be had: {_pip_reason(done.stderr)}. Take another "
            "Python of the board (--option python=3.13), another runtime, or leave --option wheels out: install.sh "
            "then asks the package index."
        )


def _pip_reason(said: str) -> str:
    """Return why pip failed: its errors, without the list of all versions that there are."""
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    text = "; ".join(errors) or said.strip()
    return re.sub(r" \(from versions: [^)]*\)", "", text)[-600:].rstrip(". ")


def _prove_service(content: Content, package: str, env: Mapping[str, str]) -> str:
    """Start the service on a free port of the loopback interface, ask it, end it; return what was shown."""
    command = [sys.executable, "-m", f"{package}.service", "--port", "0"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "serving on" not in line:
                log.seek(0)
                said = log.read()[-800:].decode(errors="replace")
                raise ConversionError(f"the service does not start: {said}")
            port = int(line.rsplit(":", 1)[1])
            health = json.loads(_ask(port, "/health", None))
            if health["status"] != "ok":
                raise ConversionError(f"the service is not well: {health}")
            _ask(port, "/predict", request_body(content))
        finally:
            process.terminate()
    return "service: started, GET /health ok, POST /predict answered"


def request_body(content: Content) -> bytes:
    """Return what POST /predict takes, of the first golden case."""
    import io

    array = next(iter(content.cases[0].raw.values()))
    body = io.BytesIO()
    row = content.plan.specification.inputs[0]
    if row.kind == "image":
        from PIL import Image

        pixels = array[..., 0] if row.order == "grey" else array[..., ::-1] if row.order == "bgr" else array
        Image.fromarray(np.ascontiguousarray(pixels)).save(body, format="PNG")
    else:
        np.save(body, array, allow_pickle=False)
    return body.getvalue()


def _ask(port: int, path: str, body: bytes | None) -> bytes:
    end = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}{path}", data=body, timeout=_START_S
            ) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as err:
            raise ConversionError(
                f"the service answers {path} with {err.code}: {err.read()[:400]!r}"
            ) from err
        except OSError as err:
            if time.monotonic() > end:
                raise ConversionError(f"the service does not answer {path}: {err}.") from err
            time.sleep(0.1)
