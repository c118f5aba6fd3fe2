"""Fixtures and markers for every test: real assets, vendor toolchains, fixed seeds."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

import numpy as np
import pytest

REPO_ROOT = Path(__file__).resolve().parents[1]
SEED = 20_240_229


def pytest_configure(config: pytest.Config) -> None:
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
