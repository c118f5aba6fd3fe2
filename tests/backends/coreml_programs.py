"""Small Core ML programs, built by coremltools, written by our code, run by our interpreter."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgewright.backends import coreml_convert
from edgewright.backends.coreml_file import Package, read_package
from edgewright.backends.coreml_interpreter import Interpreter
from edgewright.backends.coreml_records import TensorType

TYPES = {"float32": "fp32", "float16": "fp16", "int32": "int32", "bool": "bool"}
Body = Callable[..., Any]  # (mb, x, y, ...) -> variables of coremltools' builder


@cache
def vendor() -> tuple[ModuleType, Any, ModuleType]:
    """Return coremltools, its builder and its types, imported once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        import coremltools as ct
        from coremltools.converters.mil import Builder
        from coremltools.converters.mil.mil import types
    # Each conversion ends in a full garbage collection, which takes 0.4 s for the vendor's own objects alone.
    gc.collect()
    gc.freeze()
    return ct, Builder, types


def write_program(
    body: Body, inputs: Sequence[np.ndarray], folder: Path, *, target: str = "iOS18"
) -> Package:
    """Write the program `body(mb, *inputs)` as it stands, and read it back.

    No pass runs over it: what is tested is the operator that was asked for, not what it might be folded to.
    """
    ct, mb, types = vendor()
    specs = [
        mb.TensorSpec(shape=array.shape, dtype=getattr(types, TYPES[array.dtype.name])) for array in inputs
    ]
    named = {
        1: lambda x: body(mb, x),
        2: lambda x, y: body(mb, x, y),
        3: lambda x, y, z: body(mb, x, y, z),
    }[len(inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = mb.program(input_specs=specs, opset_version=getattr(ct.target, target))(named)
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, target),
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        coreml_convert.write(model, folder / "one.mlpackage")
    return read_package(folder / "one.mlpackage")


def run_program(body: Body, inputs: Sequence[np.ndarray], folder: Path) -> list[np.ndarray]:
    """Return the outputs of `body` for `inputs`, in its order."""
    return run_package(write_program(body, inputs, folder), inputs)


def run_package(package: Package, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a package for `inputs`, in their order; Core ML takes booleans as float32."""
    given = {}
    for named, array in zip(package.model.main.inputs, inputs, strict=True):
        assert isinstance(named.type, TensorType)
        given[named.name] = array.astype(named.type.dtype)
    return list(Interpreter(package).run(given).values())
