"""The samples of the explain benchmark: real models, one-operator ONNX models, and small torch modules.

Half of the one-operator models and of the modules, drawn with a seed, is held out: the rules of `edgewright explain`
were not tuned on it.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from onnx.backend.test.case.test_case import TestCase

_SEED = 20261121
_LAST_OPSET = 26


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One model: `spec` and `shapes` are what `sources.load` takes; `kind`: model, node or module."""

    name: str
    kind: str
    spec: str
    shapes: tuple[str, ...] = ()

    @property
    def is_held_out(self) -> bool:
        """Whether the rules were tuned without it: every other one of the small models, by a seeded digest."""
        return self.kind != "model" and zlib.crc32(f"{_SEED} {self.name}".encode()) % 2 == 1


def models(assets: Path) -> Iterator[Sample]:
    """Yield the model files below `assets`/models, and the demo."""
    yield Sample(name="demo", kind="model", spec="edgewright.sample.digits:create", shapes=("1x1x8x8",))
    for path in sorted((assets / "models").rglob("*")):
        if (
            path.suffix in (".onnx", ".tflite", ".pt2", ".h5", ".hdf5", ".keras", ".jit")
            or path.name == "saved_model.pb"
        ):
            spec = path.parent if path.name == "saved_model.pb" else path
            yield Sample(name=str(spec.relative_to(assets / "models")), kind="model", spec=str(spec))


def node_tests() -> list[TestCase]:
    """Return the onnx package's one-operator models with their data, without the expanded and the training ones."""
    import warnings

    import numpy as np
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    found = []
    for test in tests:
        opsets = [entry.version for entry in test.model.opset_import if entry.domain in ("", "ai.onnx")]
        is_other = "_expanded" in test.name or "training" in test.name
        if max(opsets, default=0) <= _LAST_OPSET and not is_other:
            found.append(test)
    return found


def node_sample(test: TestCase, folder: Path) -> Sample:
    """Return the sample of `test`, whose model is written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{test.name}.onnx"
    path.write_bytes(test.model.SerializeToString())
    return Sample(name=test.name.removeprefix("test_"), kind="node", spec=str(path))


def nodes(count: int, folder: Path) -> Iterator[Sample]:
    """Yield `count` of the one-operator models, drawn with the seed."""
    tests = node_tests()
    random.Random(_SEED).shuffle(tests)
    for test in tests[:count]:
        yield node_sample(test, folder)


def modules() -> Iterator[Sample]:
    """Yield the torch modules of this file."""
    for name, (_, shapes) in sorted(_MODULES.items()):
        yield Sample(name=name, kind="module", spec=f"benchmarks.explain_samples:{name}", shapes=shapes)


_MODULES: dict[str, tuple[Callable[[], torch.nn.Module], tuple[str, ...]]] = {}


def _module(*shapes: str) -> Callable[[Callable[..., object]], Callable[[], torch.nn.Module]]:
    """Make a factory of a function of tensors, or of a function that returns a module."""

    def register(function: Callable[..., object]) -> Callable[[], torch.nn.Module]:
        import torch

        def make() -> torch.nn.Module:
            if not function.__code__.co_argcount:
                torch.manual_seed(_SEED)
                return function()

            class Wrapped(torch.nn.Module):
                def forward(self, x: torch.Tensor) -> object:
                    return function(x)

            return Wrapped()

        make.__name__ = function.__name__
        _MODULES[function.__name__] = (make, shapes)
        return make

    return register


@_module("1x3x16x16")
def small_cnn() -> object:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


@_module("1x3x16x16")
def depthwise_cnn() -> object:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
    )


@_module("1x3x8x8")
def upsampler() -> object:
    from torch import nn

    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2, stride=2), nn.PReLU(4), nn.Upsample(scale_factor=2, mode="bilinear")
    )


@_module("1x6x8")
def transformer_layer() -> object:
    from torch import nn

    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()


@_module("1x5x4")
def lstm() -> object:
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.LSTM(4, 6, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)[0]

    return First()


@_module("1x5x4")
def gru() -> object:
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.GRU(4, 6, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)[0]

    return First()


@_module("1x8:int64")
def embedding() -> object:
    from torch import nn

    return nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 3), nn.Softmax(-1))


@_module("1x3x16")
def conv1d_groupnorm() -> object:
    from torch import nn

    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.GroupNorm(2, 8), nn.GELU(), nn.AvgPool1d(2))


@_module("1x2x4x8x8")
def conv3d() -> object:
    from torch import nn

    return nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.MaxPool3d(2))


@_module("1x8")
def mlp() -> object:
    from torch import nn

    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 4), nn.LogSoftmax(-1))


@_module("1x16")
def sort_values(x: torch.Tensor) -> object:
    return x.sort(dim=-1).values


@_module("1x16")
def top_three(x: torch.Tensor) -> object:
    return x.topk(3, dim=-1).values


@_module("1x16")
def cumulative_sum(x: torch.Tensor) -> object:
    return x.cumsum(-1)


@_module("1x16")
def cumulative_product(x: torch.Tensor) -> object:
    return x.cumprod(-1)


@_module("1x4x4")
def matrix_inverse(x: torch.Tensor) -> object:
    import torch

    return torch.linalg.inv(x + 8 * torch.eye(4))


@_module("1x4x4")
def determinant(x: torch.Tensor) -> object:
    import torch

    return torch.linalg.det(x)


@_module("1x16")
def fourier(x: torch.Tensor) -> object:
    import torch

    return torch.fft.rfft(x).abs()


@_module("1x16")
def log_gamma(x: torch.Tensor) -> object:
    return (x.abs() + 1).lgamma()


@_module("1x3x8x8")
def grid_sample(x: torch.Tensor) -> object:
    import torch

    grid = x[:, :2].permute(0, 2, 3, 1).tanh()
    return torch.nn.functional.grid_sample(x, grid, align_corners=False)


@_module("1x3x8x8")
def bicubic(x: torch.Tensor) -> object:
    import torch

    return torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic")


@_module("1x4x8")
def pairwise_distance(x: torch.Tensor) -> object:
    import torch

    return torch.cdist(x, x)


@_module("1x3x8x8")
def unfolded(x: torch.Tensor) -> object:
    import torch

    return torch.nn.functional.unfold(x, 3)


@_module("1x3x8x8")
def pixel_shuffled(x: torch.Tensor) -> object:
    import torch

    return torch.nn.functional.pixel_shuffle(x.repeat(1, 4, 1, 1), 2)


@_module("1x16")
def masked(x: torch.Tensor) -> object:
    return x.masked_fill(x > 0, 0.5) + x.clamp(min=-1).where(x < 0.2, x.exp())


@_module("1x16")
def special(x: torch.Tensor) -> object:
    import torch

    return torch.special.erfinv(x.tanh() * 0.9) + torch.special.i0(x)


@_module("1x4x16")
def einsum(x: torch.Tensor) -> object:
    import torch

    return torch.einsum("bij,bkj->bik", x, x)


@_module("1x3x8x8")
def reflected(x: torch.Tensor) -> object:
    import torch

    return torch.nn.functional.pad(x, (1, 2, 2, 1), mode="reflect")


@_module("1x16")
def scattered(x: torch.Tensor) -> object:
    index = x.abs().argmax(-1, keepdim=True)
    return x.scatter(1, index, 1.0).roll(2, 1).flip(1)


def __getattr__(name: str) -> object:
    """Give the factories under the names that `sources.load` asks for."""
    if name in _MODULES:
        return _MODULES[name][0]
    raise AttributeError(name)
