"""scripts/check_repository.py finds each kind of fault in a repository with it, and passes one without."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def checker(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module, pointed at an empty repository in `tmp_path`."""
    spec = importlib.util.spec_from_file_location(
        "check_repository", repo_root / "scripts" / "check_repository.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "src" / "edgewright")
    (tmp_path / "src" / "edgewright" / "core").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return module


def findings_of(checker: ModuleType, capsys: pytest.CaptureFixture[str]) -> list[str]:
    code = checker.main()
    lines = capsys.readouterr().out.splitlines()
    assert code == (1 if lines else 0)
    return lines


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("src/edgewright/core/a.py", "import scipy\n", "a.py:1: core imports scipy"),
        ("src/edgewright/core/a.py", "def f():\n    import rich\n", "a.py:2: core imports rich"),
        ("src/edgewright/core/a.py", "from ..data import b\n", "core imports edgewright.data"),
        ("src/edgewright/a.py", "import torch.nn\n", "a.py:1: imports torch.nn at module level"),
        (
            "src/edgewright/a.py",
            "import edgewright.bridges.onnx_ops_math\n",
            "imports edgewright.bridges.onnx_ops",
        ),
        ("src/edgewright/a.py", "try:\n    import onnx\nexcept ImportError:\n    pass\n", "imports onnx"),
        ("src/edgewright/a.py", "class A:\n    from openvino import Core\n", "imports openvino"),
        ("tests/a.py", "x = 1\n" * 501, "501 lines"),
        ("docs/a.md", "see /" + "home/someone/x\n", "a.md:1: names"),
        ("a.toml", 'index = "https://pypi' + '.org/simple"\n', "a.toml:1: names"),
    ],
)
def test_a_fault_is_found(
    checker: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    text: str,
    expected: str,
) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    (finding,) = findings_of(checker, capsys)
    assert expected in finding


def test_what_is_allowed_passes(
    checker: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = {
        "src/edgewright/core/a.py": "import numpy\nfrom edgewright.core import b\nfrom . import c\n",
        "src/edgewright/a.py": (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
            "def f():\n    import onnx\n"
        ),
        "tests/a.py": "x = 1\n" * 500,
        "docs/a.md": "a path in ./work/here, and https://example.com/home/page\n",
    }
    for path, text in allowed.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert findings_of(checker, capsys) == []
