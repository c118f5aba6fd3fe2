"""The figures of images: precision is that of a case worked out by hand, and one part of them runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "processing"


@pytest.fixture
def precision() -> ModuleType:
    spec = importlib.util.spec_from_file_location("precision", FOLDER / "precision.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["precision"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_precision_by_hand(precision: ModuleType) -> None:
    def there(label: int, *box: float) -> object:
        return precision.Truth(label=label, box=np.array(box))

    def found(label: int, score: float, *box: float) -> object:
        return precision.Found(image="a", label=label, score=score, box=np.array(box))

    truth = {"a": [there(0, 0, 0, 10, 10), there(0, 20, 0, 30, 10), there(1, 0, 0, 4, 4)]}
    rows = [
        found(0, 0.9, 0, 0, 10, 10),  # right
        found(0, 0.8, 0, 0, 10, 9),  # the same again: wrong
        found(0, 0.7, 20, 0, 30, 8),  # right, at an IoU of 0.8
        found(1, 0.9, 8, 8, 9, 9),  # wrong
        found(2, 0.9, 0, 0, 1, 1),  # a class that is nowhere does not count
    ]
    # Class 0: recall 1/2 at precision 1, recall 1 at precision 2/3. Class 1: 0.
    assert precision.average_precision(rows, truth) == pytest.approx((0.5 + 0.5 * 2 / 3) / 2)
    assert precision.average_precision([], truth) == 0
    assert precision.average_precision(rows, truth, least=0.85) == pytest.approx(0.25)


@pytest.mark.toolchain("ai_edge_litert")
def test_the_mask_comes_out(tmp_path: Path, assets: Path) -> None:
    record = tmp_path / "figures.json"
    command = [
        sys.executable,
        FOLDER / "verified_images.py",
        "--assets",
        assets,
        "--only",
        "mask",
        "--json",
        record,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "HOLDS" in ran.stdout
    figures = json.loads(record.read_text())["figures"]
    assert [round(value, 2) for value in figures.values()] == [0.89, 0.96]
