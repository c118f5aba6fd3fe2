"""Edgewright: a trained model in, proven edge artifacts out."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewright.benchmark import bench
    from edgewright.compression import CompressionResult, compress_model
    from edgewright.compression_recipe import CompressionRecipe
    from edgewright.doctor import diagnose
    from edgewright.microcontrollers.device_bench import bench_on_devices
    from edgewright.pipeline import BuildResult, build, run_recipe
    from edgewright.prediction import Prediction, Predictor, load
    from edgewright.recipe import Recipe
    from edgewright.single import convert, run, verify
    from edgewright.sources import inspect

# From version 1.29 on ONNX Runtime sends what it runs to its maker, unless this is set before it is first imported; the
# workers inherit it. Source: docs/Privacy.md of microsoft/onnxruntime, "Disabling Telemetry".
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_HOMES = {
    "BuildResult": "pipeline",
    "Prediction": "prediction",
    "Predictor": "prediction",
    "CompressionRecipe": "compression_recipe",
    "CompressionResult": "compression",
    "Recipe": "recipe",
    "bench": "benchmark",
    "bench_on_devices": "microcontrollers.device_bench",
    "build": "pipeline",
    "compress_model": "compression",
    "convert": "single",
    "diagnose": "doctor",
    "inspect": "sources",
    "load": "prediction",
    "run": "single",
    "run_recipe": "pipeline",
    "verify": "single",
}

__all__ = [
    "BuildResult",
    "CompressionRecipe",
    "CompressionResult",
    "Prediction",
    "Predictor",
    "Recipe",
    "bench",
    "bench_on_devices",
    "build",
    "compress_model",
    "convert",
    "diagnose",
    "inspect",
    "load",
    "run",
    "run_recipe",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import edgewright` itself loads nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright' has no attribute {name!r}")
    return getattr(importlib.import_module(f"edgewright.{_HOMES[name]}"), name)
