"""What is installed: imports without vendor packages, console script, entry points, files of the wheel."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

VENDOR_PACKAGES = (
    "ai_edge_litert",
    "ai_edge_quantizer",
    "jax",
    "litert_torch",
    "nncf",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorflow",
    "torch",
    "torchao",
)

# Runs in a fresh interpreter: blocks the vendor packages in argv[1], then imports the modules named after it.
IMPORT_WITHOUT_VENDORS = """
import importlib
import importlib.abc
import sys

blocked = frozenset(sys.argv[1].split(","))

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in blocked:
            raise ImportError(f"{fullname} is blocked")
        return None

sys.meta_path.insert(0, Blocker())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""

# Runs in a fresh interpreter: prints what importing core added to sys.modules. What the start-up of the
# interpreter loaded (editable-install hooks, for one) is not core's doing.
MODULES_OF_CORE = """
import sys

before = set(sys.modules)
import importlib
import pkgutil
import edgewright.core
for info in pkgutil.walk_packages(edgewright.core.__path__, "edgewright.core."):
    importlib.import_module(info.name)
print("\\n".join(sorted(set(sys.modules) - before)))
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_the_blocker_blocks() -> None:
    finished = run_python("-c", IMPORT_WITHOUT_VENDORS, "wave", "wave")
    assert finished.returncode != 0
    assert "wave is blocked" in finished.stderr


@pytest.mark.parametrize("module", ["edgewright", "edgewright.cli.main"])
def test_imports_without_vendor_packages(module: str) -> None:
    finished = run_python("-c", IMPORT_WITHOUT_VENDORS, ",".join(VENDOR_PACKAGES), module)
    assert finished.returncode == 0, finished.stderr


def test_core_imports_numpy_and_the_standard_library_alone() -> None:
    finished = run_python("-c", MODULES_OF_CORE)
    assert finished.returncode == 0, finished.stderr
    loaded = finished.stdout.split()
    assert "edgewright.core.errors" in loaded
    rooms = {name for name in loaded if name.startswith("edgewright.")}
    assert {name for name in rooms if name.split(".")[1] != "core"} == set()
    allowed = {"edgewright", "numpy", *sys.stdlib_module_names}
    assert {name.partition(".")[0] for name in loaded} - allowed == set()


@pytest.mark.parametrize("name", ["reference", "litert", "onnxruntime", "openvino"])
def test_backend_entry_point_loads(name: str) -> None:
    (entry,) = importlib.metadata.entry_points(group="edgewright.backends", name=name)
    assert isinstance(entry.load(), type)


def test_console_script_is_callable() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="edgewright")
    assert callable(script.load())


@pytest.mark.slow
def test_wheel_has_every_file_of_the_package(repo_root: Path, tmp_path: Path) -> None:
    finished = run_python(
        "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(repo_root)
    )
    assert finished.returncode == 0, finished.stderr
    (wheel,) = tmp_path.glob("edgewright-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--", "src/edgewright"], cwd=repo_root, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    expected = {name.removeprefix("src/") for name in tracked if name and (repo_root / name).is_file()}
    assert "edgewright/py.typed" in expected
    assert expected - shipped == set()
