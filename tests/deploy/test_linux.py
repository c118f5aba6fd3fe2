"""Bundles for Linux: the package runs by itself, its service answers, and a change makes its own test fail."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.colour_model import SIZE, colour_specification, write_colour_model

from edgewright.core.errors import UnavailableError, UsageError
from edgewright.core.tensors import TensorSpec
from edgewright.deploy import linux
from edgewright.deploy.bundle import Bundle, BundleRequest, make_bundle
from edgewright.processing.c_code import write_core
from edgewright.processing.c_host import build_library, host_compiler
from edgewright.processing.processor import Signature, plan
from edgewright.processing.specification import write_specification

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The colour model with its processing beside it."""
    try:
        host_compiler()
    except UnavailableError as err:
        pytest.skip(str(err))
    folder = tmp_path_factory.mktemp("colours")
    write_specification(colour_specification(), folder)
    return write_colour_model(folder / "colours.onnx")


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle, proven but for its C++ part, which test_cpp.py builds."""
    request = BundleRequest(source=model, platform="linux", name="ColourFinder", licence="MIT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linux.cpp, "prove_project", lambda content, folder, data: ())
        return make_bundle(request, tmp_path_factory.mktemp("bundle") / "colours")


def selftest(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "colour_finder.selftest"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_golden_cases_and_the_service_were_shown(bundle: Bundle) -> None:
    proofs = bundle.record["proofs"]
    assert isinstance(proofs, list)
    assert any("2 golden cases passed" in proof for proof in proofs)
    assert any("POST /predict answered" in proof for proof in proofs)
    assert (bundle.folder / "cpp" / "CMakeLists.txt").is_file()
    assert os.access(bundle.folder / "install.sh", os.X_OK)


def test_the_readme_tells_what_was_shown_and_what_it_weighs(bundle: Bundle) -> None:
    text = (bundle.folder / "README.md").read_text()
    shown = text.partition("## What was shown where this was made")[2]
    proofs = bundle.record["proofs"]
    assert isinstance(proofs, list) and proofs
    assert all(f"- {proof}\n" in shown for proof in proofs)
    assert f"| Linux {os.uname().machine} | {bundle.written.sizes[0].model_bytes:,} |" in text


def test_the_api_gives_names_and_refuses_what_is_no_image(bundle: Bundle) -> None:
    code = (
        "import numpy as np; from colour_finder import ColourFinder, ProcessingError\n"
        "model = ColourFinder()\n"
        "found = model(np.full((20, 30, 4), [9, 250, 9, 255], np.uint8), pixel_format='rgba')\n"
        "print(found.colours[0].name, found.to_json()['colours'][0]['index'])\n"
        "for bad in (np.zeros((4, 4, 3)), np.zeros((4, 4, 1), np.uint8), np.zeros((0, 4, 3), np.uint8)):\n"
        "    try: model(bad)\n"
        "    except ProcessingError as error: print('refused')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(bundle.folder / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:-1] == ["green 1", "refused", "refused", "refused"], done.stderr


def test_a_swapped_colour_order_fails_its_self_test(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle.folder, folder)
    assert selftest(folder).returncode == 0
    signature = Signature(
        inputs=(TensorSpec(name="pixels", shape=(1, 3, SIZE, SIZE), dtype="float32"),),
        outputs=(TensorSpec(name="means", shape=(1, 3), dtype="float32"),),
    )
    core = write_core(plan(colour_specification("bgr"), signature), tmp_path / "core", "colour_finder")
    build_library(core, folder / f"src/colour_finder/lib/{os.uname().machine}/libcolour_finder_core.so")
    failed = selftest(folder)
    assert failed.returncode == 1
    assert "tensor pixels differs" in failed.stdout


@pytest.mark.parametrize("file", ["0_results_0.bin", "0_tensors_0.bin", "0_inputs_0.bin"])
def test_a_changed_golden_file_fails_its_self_test(bundle: Bundle, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundle.folder, folder)
    path = folder / "src/colour_finder/data/golden" / file
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
    content[: max(len(content) // 2, 4)] ^= 0x40
    path.write_bytes(content.tobytes())
    assert selftest(folder).returncode == 1


def test_bad_options_are_refused(model: Path, tmp_path: Path) -> None:
    request = BundleRequest(source=model, platform="linux", name="ColourFinder", options=("wheels=sparc",))
    with pytest.raises(UsageError, match="aarch64"):
        make_bundle(request, tmp_path / "out")
    for python in ("3", "3.11; reboot", "2.7"):
        with pytest.raises(UsageError, match="a version such as"):
            make_bundle(replace(request, options=(f"python={python}",)), tmp_path / "out")
    text = replace(request, options=(), name="False")
    with pytest.raises(UsageError):
        make_bundle(text, tmp_path / "out")


def test_the_reason_of_pip_is_short() -> None:
    said = (
        "WARNING: a place is ignored\n"
        "ERROR: Could not find a version that satisfies the requirement a==2 (from versions: 0.1, 0.2)\n"
        "ERROR: No matching distribution found for a==2\n"
    )
    assert linux._pip_reason(said) == (
        "Could not find a version that satisfies the requirement a==2; No matching distribution found for a==2"
    )
    assert linux._pip_reason("it was killed.\n") == "it was killed"


def test_health_says_that_nothing_answers(bundle: Bundle) -> None:
    env = {**os.environ, "PYTHONPATH": str(bundle.folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    with socket.socket() as held:  # bound but not listening: nobody else answers there
        held.bind(("127.0.0.1", 0))
        port = str(held.getsockname()[1])
        command = [sys.executable, "-m", "colour_finder.health", "--wait", "0", "--port", port]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"nothing answers on 127.0.0.1:{port} after 0 s" in done.stdout


def test_the_unit_is_one_for_systemd(bundle: Bundle) -> None:
    unit = bundle.folder / "systemd/colour_finder.service"
    text = unit.read_text()
    for line in ("DynamicUser=yes", "CapabilityBoundingSet=", "SystemCallFilter=@system-service"):
        assert f"\n{line}\n" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install -y systemd")
    program = unit.with_name("program.service")
    program.write_text(text.replace("/opt/colour_finder/venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(program)], capture_output=True, text=True, check=False
    )
    program.unlink()
    assert (done.returncode, done.stderr) == (0, "")


def install(folder: Path, *arguments: str, path: str = "/usr/bin:/bin") -> str:
    """Return what install.sh says to stderr where it refuses to begin."""
    command = ["/bin/sh", str(folder / "install.sh"), *arguments]
    done = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_install_says_what_is_missing_before_it_begins(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    target = tmp_path / "target"
    assert "there is no option --cpp" in install(folder, "--cpp", str(target))
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "uname", "ls"):
        (tools / name).symlink_to(str(shutil.which(name)))
    assert "python3 is missing: apt-get" in install(folder, str(target), path=str(tools))
    python = tools / "python3"
    python.write_text("#!/bin/sh\ncase $2 in *print*) echo 3.8 ;; *ensurepip*) exit 0 ;; *) exit 1 ;; esac\n")
    python.chmod(0o755)
    assert "python3 is 3.8; 3." in install(folder, str(target), path=str(tools))
    python.write_text("#!/bin/sh\ncase $2 in *print*) echo 3.11 ;; *ensurepip*) exit 1 ;; esac\n")
    assert "python3 has no venv" in install(folder, str(target), path=str(tools))
    python.write_text("#!/bin/sh\ncase $2 in *print*) echo 3.11 ;; esac\n")
    assert "--with-cpp needs cmake" in install(folder, "--with-cpp", str(target), path=str(tools))
    shutil.rmtree(folder / "cpp")
    assert "has no cpp/" in install(folder, "--with-cpp", str(target), path=str(tools))
    shutil.rmtree(folder / "src/colour_finder/lib")
    assert "there is no C compiler" in install(folder, str(target), path=str(tools))
    assert not target.exists()


@pytest.mark.slow
def test_it_installs_from_its_wheels_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux.cpp, "prove_project", lambda content, folder, data: ())
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    options = (f"wheels={os.uname().machine}", f"python={version}")
    request = BundleRequest(source=model, platform="linux", name="ColourFinder", options=options)
    try:
        made = make_bundle(request, tmp_path / "colours")
    except UnavailableError as err:
        pytest.skip(f"no package index: {err}")
    assert list((made.folder / "wheels").glob("onnxruntime-*.whl"))
    # What they are for is asked before anything is made.
    text = (made.folder / "install.sh").read_text()
    other = made.folder / "other.sh"
    other.write_text(
        text.replace(f"= {os.uname().machine} ]", "= sparc ]").replace(
            f"is for {os.uname().machine}", "is for sparc"
        )
    )
    refused = subprocess.run(
        ["/bin/sh", str(other), str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    other.unlink()
    assert refused.returncode == 1
    assert "wheels/ is for sparc" in refused.stderr
    home = tmp_path / "board & home"
    # Nothing of this environment is seen but its Python, and pip may ask no index.
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    done = subprocess.run(
        [str(made.folder / "install.sh"), str(home)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok: all golden cases passed" in done.stdout
    unit = (home / "colour_finder.service").read_text()
    assert f'ExecStart="{home}/venv/bin/python" -m colour_finder.service' in unit
    command = [str(home / "venv/bin/python"), "-c", "import colour_finder; print(colour_finder.__file__)"]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert shown.startswith(str(home)), "what was installed runs, not what it was made of"
