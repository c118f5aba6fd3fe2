"""What tests of the C core share: small specifications, and a run in numpy and in C side by side."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.processing.c_host import CProcessor
from edgewright.processing.c_program import COptions
from edgewright.processing.processor import Plan, Processor, Raw, Signature, plan
from edgewright.processing.registry import read_step
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification
from edgewright.processing.step import Step

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="no C compiler is installed"
)
Row = Mapping[str, object]


def steps_of(rows: Sequence[Row]) -> tuple[Step, ...]:
    """Return the steps of rows of a specification."""
    return tuple(read_step(dict(row), what="test") for row in rows)


def preparing(raw: RawInput, rows: Sequence[Row], shape: tuple[int, ...], dtype: str = "float32") -> Plan:
    """Return a plan whose model takes what `rows` make of `raw`, and whose result is one number of it."""
    signature = Signature(
        inputs=(TensorSpec(name="x", shape=(1, *shape), dtype=dtype),),
        outputs=(TensorSpec(name="y", shape=(1, 3), dtype="float32"),),
    )
    specification = Specification(
        task="other",
        inputs=(raw,),
        tensors=(Flow(name="x", sources=(raw.name,), steps=steps_of(rows)),),
        results=(ResultFlow(name="out", sources=("y",)),),
    )
    return plan(specification, signature)


def finishing(
    outputs: Mapping[str, tuple[tuple[int, ...], str]],
    rows: Sequence[Row],
    *,
    prepare: Sequence[Row] = ({"step": "resize", "height": 20, "width": 30},),
    shape: tuple[int, ...] = (20, 30, 3),
) -> Plan:
    """Return a plan whose model gives `outputs` (name -> shape and dtype), of which `rows` make the result "out"."""
    signature = Signature(
        inputs=(TensorSpec(name="x", shape=(1, *shape), dtype="uint8"),),
        outputs=tuple(
            TensorSpec(name=name, shape=(1, *size), dtype=dtype) for name, (size, dtype) in outputs.items()
        ),
    )
    specification = Specification(
        task="other",
        inputs=(RawInput(name="image", kind="image"),),
        tensors=(Flow(name="x", sources=("image",), steps=steps_of(prepare)),),
        results=(ResultFlow(name="out", sources=tuple(outputs), steps=steps_of(rows)),),
    )
    return plan(specification, signature)


@dataclass
class Both:
    """A plan in numpy and in C."""

    numpy: Processor
    c: CProcessor

    def prepared(self, raw: Mapping[str, Raw]) -> tuple[Array, Array]:
        """Return the model's only input as numpy and as the C make it."""
        wanted = next(iter(self.numpy.prepare(raw).values()))
        self.c.set_inputs(raw)
        return wanted, next(iter(self.c.prepare().values()))

    def finished(self, raw: Mapping[str, Raw], outputs: Arrays) -> tuple[Array, Array]:
        """Return the result "out" of both, where the model gives `outputs` (without the batch axis)."""

        def execute(model: str, inputs: Arrays) -> Arrays:
            return {name: np.asarray(array)[None] for name, array in outputs.items()}

        return self.numpy.run(raw, execute)["out"], self.c.run(raw, execute)["out"]


def both(checked: Plan, folder: Path, *, max_side: int = 2048, max_rows: int = 1 << 16) -> Both:
    """Return `checked` in numpy and, built in `folder`, in C (with -O0: it builds fast)."""
    options = COptions(max_side=max_side, max_rows=max_rows)
    flags = ("-std=c99", "-O0", "-ffp-contract=off")
    return Both(numpy=Processor(checked), c=CProcessor(checked, folder, options=options, flags=flags))
