"""Fixtures and markers for every test: real assets, vendor toolchains, fixed seeds."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from edgewright.pipeline import BuildResult

REPO_ROOT = Path(__file__).resolve().parents[1]
SEED = 20_240_229


def pytest_configure(config: pytest.Config) -> None:
    os.environ.pop(
        "COLUMNS", None
    )  # the width of some terminal: what commands print must not depend on it here
    config.addinivalue_line("markers", "slow: takes more than a few seconds; left out of `make test`")
    config.addinivalue_line(
        "markers",
        "toolchain(*modules): needs these packages, e.g. toolchain('torch', 'openvino'); skipped otherwise",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("toolchain"):
        packages = {name.partition(".")[0] for name in marker.args}
        missing = sorted(name for name in packages if importlib.util.find_spec(name) is None)
        if missing:
            pytest.skip(f"needs {', '.join(missing)}; install it with: pip install 'edgewright[default]'")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Seed Python's and numpy's global generators: a test gives the same numbers alone or in a run."""
    random.seed(SEED)
    np.random.seed(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with a fixed seed."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Return the root of the checkout."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def assets() -> Path:
    """Return the folder of real models and data: $EDGEWRIGHT_ASSETS, else ../shared/assets."""
    configured = os.environ.get("EDGEWRIGHT_ASSETS")
    folder = Path(configured) if configured else REPO_ROOT.parent / "shared" / "assets"
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(
            f"no test assets in {folder} (no MANIFEST.md); set EDGEWRIGHT_ASSETS to the folder that has them"
        )
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep finished steps of tests apart from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("EDGEWRIGHT_CACHE")
    os.environ["EDGEWRIGHT_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EDGEWRIGHT_CACHE"]
    else:
        os.environ["EDGEWRIGHT_CACHE"] = before


@dataclass(frozen=True)
class SmallBuild:
    """A finished build of a small model, shared by the tests that only look at it: never change it."""

    model: Path
    data: Path
    out: Path
    result: BuildResult
    steps: list[tuple[str, str, str]]


@pytest.fixture(scope="session")
def small_build(tmp_path_factory: pytest.TempPathFactory) -> SmallBuild:
    """Build a small ONNX model for two runtimes x fp32 and w8a8, once in this process."""
    from tests.proving_backends import NOT_HERE
    from tests.small_models import write_data, write_onnx

    from edgewright.pipeline import build

    folder = tmp_path_factory.mktemp("small")
    model = write_onnx(folder / "small.onnx")
    data = write_data(model, folder / "eval.npz")
    steps: list[tuple[str, str, str]] = []
    result = build(
        model,
        data=data,
        calibration=write_data(model, folder / "train.npz", count=128, seed=2),
        to=("onnxruntime", NOT_HERE),
        precision=("fp32", "w8a8"),
        metric="top1",
        budget={"size_mb": 5},
        out=folder / "out",
        progress=lambda *step: steps.append(step),
    )
    return SmallBuild(model, data, folder / "out", result, steps)
