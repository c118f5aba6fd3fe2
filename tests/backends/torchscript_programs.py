"""The small programs as TorchScript archives."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from tests.backends import programs

from edgewright.core.files import sha256_of
from edgewright.core.program import Program


def cnn_torchscript(folder: Path) -> Program:
    """Write the CNN as `cnn.torchscript` into `folder` and return its program."""
    return _traced(programs.cnn_pt2(folder), programs.cnn_module())


def mlp_torchscript(folder: Path) -> Program:
    """Write the MLP as `mlp.torchscript` into `folder` and return its program."""
    return _traced(programs.mlp_pt2(folder), programs.mlp_module())


def _traced(program: Program, module: object) -> Program:
    import torch

    assert isinstance(module, torch.nn.Module)
    path = program.path.with_suffix(".torchscript")
    example = tuple(torch.zeros(1, *[size or 1 for size in spec.shape[1:]]) for spec in program.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(module, example).save(str(path))
    return replace(
        program,
        path=path,
        format="torchscript",
        sha256=sha256_of(path),
        origin=str(path),
        origin_format="torchscript",
    )
