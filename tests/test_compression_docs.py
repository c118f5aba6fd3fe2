"""The recipe, the commands and the Python example of docs/compression.md run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.compress import names, registry
from edgewright.compression_recipe import CompressionRecipe

_BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(repo_root: Path, language: str) -> list[str]:
    text = (repo_root / "docs" / "compression.md").read_text(encoding="utf-8")
    return [body for kind, body in _BLOCK.findall(text) if kind == language]


@pytest.fixture(scope="module")
def folder(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("docs")
    (recipe,) = _blocks(repo_root, "toml")
    (made / "compress.toml").write_text(recipe, encoding="utf-8")
    return made


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.toolchain("torch", "litert_torch", "onnxruntime", "numba")
def test_the_commands_run_in_order(repo_root: Path, folder: Path) -> None:
    commands = [line for block in _blocks(repo_root, "sh") for line in block.splitlines() if line.strip()]
    assert len(commands) == 5
    for command in commands:
        done = _run(["bash", "-c", command], folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.toolchain("torch", "onnxruntime")
def test_the_python_example_runs(repo_root: Path, folder: Path) -> None:
    (example,) = _blocks(repo_root, "python")
    done = _run([sys.executable, "-c", example], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("ok")


def test_the_page_names_every_pass_and_what_it_reads(repo_root: Path) -> None:
    text = (repo_root / "docs" / "compression.md").read_text(encoding="utf-8")
    for name in names.PASSES:
        assert f"| `{name}` |" in text
        if name != "entropy":
            assert f"| `{name}` | {', '.join(registry.get(name).precisions)} |" in text


def test_the_recipe_of_the_example_is_one(repo_root: Path) -> None:
    recipe = CompressionRecipe.read(repo_root / "examples" / "fashion_mnist" / "compress.toml")
    assert recipe.packs and [step.name for step in recipe.passes] == ["prune", "distill", "qat", "cluster"]
    recipe.check_chain("fp32")
