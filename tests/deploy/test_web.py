"""Web bundles as files: complete, escaped, listed, and refused where they cannot be."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.deploy.web_site import needs_compiler

from edgewright.core.errors import UnavailableError, UnknownNameError, UsageError
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.deploy.check import check_bundle
from edgewright.deploy.web import FILES_NAME, WebPlatform
from edgewright.deploy.web_runtimes import ONNXRUNTIME_WEB
from edgewright.processing.specification import read_specification, write_specification

pytest.importorskip("onnxruntime")
pytestmark = needs_compiler


def test_the_project_is_complete_and_checks(web_bundle: Bundle) -> None:
    names = {
        str(path.relative_to(web_bundle.folder)) for path in web_bundle.folder.rglob("*") if path.is_file()
    }
    for name in ("index.html", "selftest.html", "sw.js", "serve.py", "package.json", "README.md", "files.json",
                 "colour_finder.js", "colour_finder.d.ts", "core/processing.wasm", "data/model/colours.onnx",
                 "vendor/onnxruntime-web/ort-wasm-simd-threaded.wasm", "LICENSES/edgewright.txt",
                 "LICENSES/onnxruntime-web.txt"):  # fmt: skip
        assert name in names
    assert check_bundle(web_bundle.folder).exit_code == 0
    (size,) = web_bundle.written.sizes
    assert size.abi == "wasm32"
    assert (size.core_bytes or 0) == (web_bundle.folder / "core/processing.wasm").stat().st_size
    assert (size.runtime_bytes or 0) > 10_000_000


def test_every_file_that_runs_is_listed_with_its_digest(web_bundle: Bundle) -> None:
    files = json.loads((web_bundle.folder / FILES_NAME).read_text())["files"]
    for name, digest in files.items():
        assert hashlib.sha256((web_bundle.folder / name).read_bytes()).hexdigest() == digest
    unlisted = {"sw.js", FILES_NAME, "manifest.json", "manifest.sha256", "bom.json", "README.md"}
    found = {
        str(path.relative_to(web_bundle.folder)) for path in web_bundle.folder.rglob("*") if path.is_file()
    }
    assert found - set(files) == unlisted


def test_the_worker_keeps_what_the_page_needs(web_bundle: Bundle) -> None:
    listed = json.loads((web_bundle.folder / FILES_NAME).read_text())
    needed = {name for name in listed["files"] if not name.startswith(tuple(listed["later"]))}
    assert {"index.html", "app.js", "core/processing.wasm", "data/interface.json"} <= needed
    assert sum((web_bundle.folder / name).stat().st_size for name in needed) < 200_000
    assert (
        hashlib.sha256((web_bundle.folder / FILES_NAME).read_bytes()).hexdigest()[:16]
        in (web_bundle.folder / "sw.js").read_text()
    )


def test_update_takes_a_change_in(web_copy: Path) -> None:
    before = (web_copy / "sw.js").read_text()
    command = [sys.executable, str(web_copy / "update.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("0 of")
    (web_copy / "app.js").write_text("// mine")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("1 of")
    assert WebPlatform().inspect(web_copy) == {FILES_NAME: []}
    after = (web_copy / "sw.js").read_text()
    assert after != before
    assert hashlib.sha256((web_copy / FILES_NAME).read_bytes()).hexdigest()[:16] in after


def test_files_for_the_gpu_are_shipped_on_request_and_counted(web_bundle: Bundle, gpu_bundle: Bundle) -> None:
    build = "vendor/onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm"
    assert not (web_bundle.folder / build).exists() and (gpu_bundle.folder / build).is_file()
    interface = json.loads((gpu_bundle.folder / "data/interface.json").read_text())
    assert interface["accelerators"] == ["webgpu", "wasm"]
    cpu, gpu = gpu_bundle.written.sizes
    assert (cpu.abi, gpu.abi) == ("wasm32", "wasm32 and webgpu")
    assert (gpu.runtime_bytes or 0) > (gpu_bundle.folder / build).stat().st_size > (cpu.runtime_bytes or 0)
    assert "runtime, on the GPU" in (gpu_bundle.folder / "README.md").read_text()


def test_an_unknown_accelerator_is_refused(web_model: Path, tmp_path: Path) -> None:
    request = BundleRequest(
        source=web_model, platform="web", name="Colours", options=("accelerator=webgpus",)
    )
    with pytest.raises(UnknownNameError, match="webgpu"):
        make_bundle(request, tmp_path / "out")


@pytest.mark.parametrize("name", ["SelftestPage", "Float32Array", "LoadOptions"])
def test_names_that_the_bundle_uses_itself_are_refused(web_model: Path, tmp_path: Path, name: str) -> None:
    request = BundleRequest(source=web_model, platform="web", name=name, processing=str(web_model.parent))
    with pytest.raises(UsageError, match=f"something called {name}"):
        make_bundle(request, tmp_path / "out")


def test_litert_signatures_of_open_sizes_are_refused(assets: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    sine = assets / "models" / "tflite-micro" / "hello_world_float.tflite"
    request = BundleRequest(source=sine, platform="web", name="Sine", processing="tensors")
    with pytest.raises(
        UsageError, match=r"signature of open sizes.*float32\[\?, 1\].* convert MODEL --to litert"
    ):
        make_bundle(request, tmp_path / "out")


def test_names_are_escaped_and_scripts_are_files(web_bundle: Bundle) -> None:
    for page in web_bundle.folder.glob("*.html"):
        text = page.read_text()
        assert "script-src 'self' 'wasm-unsafe-eval'" in text
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", text)
    for script in (*web_bundle.folder.glob("*.js"), *web_bundle.folder.glob("lib/*.js")):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script.read_text()
        )
    holders = [
        path for path in web_bundle.folder.rglob("*") if path.is_file() and b"onerror" in path.read_bytes()
    ]
    places = {str(path.relative_to(web_bundle.folder)).split("/")[0] for path in holders}
    assert places <= {"data", "core", "vendor"}


def test_the_scripts_are_javascript(web_bundle: Bundle, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    for script in (*web_bundle.folder.glob("*.js"), *web_bundle.folder.glob("lib/*.js")):
        module = tmp_path / f"{script.stem}.mjs"
        shutil.copyfile(script, module)
        done = subprocess.run(["node", "--check", str(module)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_bill_of_materials_names_the_packages(web_bundle: Bundle) -> None:
    parts = {
        part["name"]: part for part in json.loads((web_bundle.folder / "bom.json").read_text())["components"]
    }
    assert parts["onnxruntime-web"]["purl"] == f"pkg:npm/onnxruntime-web@{ONNXRUNTIME_WEB.version}"


def test_a_changed_file_is_found_even_where_the_manifest_was_made_anew(web_copy: Path) -> None:
    (web_copy / "app.js").write_text("alert(1)")
    assert WebPlatform().inspect(web_copy) == {
        FILES_NAME: ["app.js is not the file that files.json describes"]
    }


def test_two_results_of_one_name_in_javascript_are_refused(web_model: Path, tmp_path: Path) -> None:
    specification = read_specification(web_model.parent)
    (result,) = specification.results
    results = (replace(result, name="top_colour"), replace(result, name="topColour"))
    write_specification(replace(specification, results=results), tmp_path / "processing")
    request = BundleRequest(
        source=web_model, platform="web", name="Twins", processing=str(tmp_path / "processing")
    )
    with pytest.raises(UsageError, match="topColour, topColour"):
        make_bundle(request, tmp_path / "out")


def test_without_a_browser_it_is_said(
    web_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (said,) = WebPlatform().prove(web_bundle.content, web_bundle.folder)
    assert said == "not run here: no Chromium is installed: apt-get install -y chromium"


def test_without_the_packages_the_command_is_named(
    web_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path / "none"))
    request = BundleRequest(
        source=web_model, platform="web", name="Colours", processing=str(web_model.parent)
    )
    with pytest.raises(UnavailableError, match="Run: edgewright toolchain install web"):
        make_bundle(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()
