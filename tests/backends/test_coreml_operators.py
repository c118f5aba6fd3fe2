"""Every operator of the Core ML interpreter against PyTorch or plain numpy, on programs that coremltools wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.backends.coreml_programs import Body, run_program

pytest.importorskip(
    "coremltools", reason="needs coremltools; install it with: pip install 'edgewright[coreml]'"
)
torch = pytest.importorskip("torch")
F = torch.nn.functional


DRAW = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


def integers(low: int, high: int, *shape: int) -> np.ndarray:
    return DRAW.integers(low, high, shape).astype(np.int32)


X = normal(2, 4, 5)
Y = normal(2, 4, 5)
POSITIVE = np.abs(normal(2, 4, 5)) + 0.1
UNIT = DRAW.uniform(-0.95, 0.95, (2, 4, 5)).astype(np.float32)
WHOLE = integers(-9, 10, 2, 4, 5)
NONZERO = np.where(WHOLE == 0, 3, WHOLE).astype(np.int32)
IMAGE = normal(2, 4, 6, 8)


@dataclass(frozen=True)
class Case:
    """One operator in one setting: how it is built, and what PyTorch or numpy says of it."""

    kind: str
    build: Body
    expected: Callable[..., Any]
    inputs: tuple[np.ndarray, ...] = (X,)
    what: str = ""
    atol: float = 2e-6

    def __str__(self) -> str:
        return f"{self.kind}-{self.what}" if self.what else self.kind


def t(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` on torch tensors as one on arrays."""

    def run(*arrays: np.ndarray) -> Any:
        result = function(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
        if isinstance(result, (tuple, list)):
            return [part.numpy() for part in result]
        return result.numpy()

    return run


def plain(kind: str, expected: Callable[..., Any], x: np.ndarray = X, **settings: Any) -> Case:
    """An operator of one input called x."""
    return Case(kind, lambda mb, x: getattr(mb, kind)(x=x, **settings), expected, (x,), _told(settings))


def pair(kind: str, expected: Callable[..., Any], x: np.ndarray = X, y: np.ndarray = Y) -> Case:
    """An operator of two inputs called x and y."""
    name = f"{x.dtype}"
    return Case(kind, lambda mb, x, y: getattr(mb, kind)(x=x, y=y), expected, (x, y), name)


def _told(settings: dict[str, Any]) -> str:
    return ",".join(f"{key}={np.asarray(value).tolist()}" for key, value in settings.items())[:60]


CHANNEL = np.linspace(-0.5, 1.5, 4).astype(np.float32)
UNARY = [
    plain("abs", np.abs),
    plain("abs", np.abs, WHOLE),
    plain("acos", t(torch.acos), UNIT),
    plain("asin", t(torch.asin), UNIT),
    plain("atan", t(torch.atan)),
    plain("atanh", t(torch.atanh), UNIT),
    plain("ceil", t(torch.ceil)),
    plain("clip", t(lambda x: x.clamp(-0.3, 0.7)), alpha=-0.3, beta=0.7),
    plain("cos", t(torch.cos)),
    plain("cosh", t(torch.cosh)),
    plain("erf", t(torch.erf)),
    plain("exp", t(torch.exp)),
    plain("exp2", t(torch.exp2)),
    plain("floor", t(torch.floor)),
    plain("inverse", lambda x: 1 / (x + np.float32(0.01)), POSITIVE, epsilon=np.float32(0.01)),
    plain("log", t(torch.log), POSITIVE),
    plain("log", lambda x: np.log(x + np.float32(0.5)), POSITIVE, epsilon=np.float32(0.5)),
    plain("round", t(torch.round), np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4], np.float32)),
    plain("rsqrt", t(torch.rsqrt), POSITIVE),
    plain("sign", np.sign, WHOLE),
    plain("sin", t(torch.sin)),
    plain("sinh", t(torch.sinh)),
    plain("sqrt", t(torch.sqrt), POSITIVE),
    plain("square", np.square, WHOLE),
    plain("tan", t(torch.tan), UNIT),
    plain("tanh", t(torch.tanh)),
    plain("threshold", lambda x: np.where(x > 0.2, x, np.float32(0.2)), alpha=0.2),
    plain("relu", t(F.relu)),
    plain("relu6", t(F.relu6), X * 5),
    plain("sigmoid", t(torch.sigmoid), X * 30),
    plain("silu", t(F.silu)),
    plain("softplus", t(F.softplus), X * 3),
    plain("softsign", t(F.softsign)),
    plain("gelu", t(F.gelu), mode="EXACT"),
    plain("gelu", t(lambda x: F.gelu(x, approximate="tanh")), mode="TANH_APPROXIMATION"),
    plain("gelu", t(lambda x: x * torch.sigmoid(1.702 * x)), mode="SIGMOID_APPROXIMATION"),
    plain("elu", t(lambda x: F.elu(x, 0.7)), alpha=0.7),
    plain("leaky_relu", t(lambda x: F.leaky_relu(x, 0.1)), alpha=0.1),
    plain("prelu", t(lambda x: F.prelu(x, torch.from_numpy(CHANNEL))), IMAGE, alpha=CHANNEL),
    plain("clamped_relu", t(lambda x: F.leaky_relu(x, 0.2).clamp(max=0.9)), alpha=0.2, beta=0.9),
    plain("linear_activation", lambda x: np.float32(1.5) * x - np.float32(0.25), alpha=1.5, beta=-0.25),
    plain("scaled_tanh", t(lambda x: 1.7 * torch.tanh(0.6 * x)), alpha=1.7, beta=0.6),
    plain("sigmoid_hard", t(lambda x: (0.2 * x + 0.5).clamp(0, 1)), X * 4, alpha=0.2, beta=0.5),
    plain("thresholded_relu", t(lambda x: F.threshold(x, 0.4, 0.0)), alpha=0.4),
    plain(
        "softplus_parametric",
        lambda x: CHANNEL[:, None] * np.log1p(np.exp(x * CHANNEL[:, None])),
        alpha=CHANNEL,
        beta=CHANNEL,
    ),
    plain("softmax", t(lambda x: F.softmax(x, 1)), X * 9, axis=1),
    plain("logical_not", np.logical_not, WHOLE > 0),
    plain("cast", lambda x: x.astype(np.int32), X * 7, dtype="int32"),
    plain("cast", lambda x: x.astype(np.float16).astype(np.float32), X * 7, dtype="fp16"),
    plain("cast", lambda x: x != 0, WHOLE, dtype="bool"),
]
BINARY = [
    pair("add", np.add),
    pair("add", np.add, WHOLE, NONZERO),
    pair("add", np.add, X, Y[:, :1]),
    pair("sub", np.subtract),
    pair("mul", np.multiply, X, Y[0, 0]),
    pair("real_div", np.divide),
    pair("floor_div", t(lambda x, y: torch.div(x, y, rounding_mode="floor")), WHOLE, NONZERO),
    pair("floor_div", t(lambda x, y: torch.div(x, y, rounding_mode="floor"))),
    pair("mod", t(torch.remainder), WHOLE, NONZERO),
    pair("mod", t(torch.remainder)),
    pair("pow", t(torch.pow), POSITIVE, Y),
    pair("maximum", np.maximum),
    pair("minimum", np.minimum, WHOLE, NONZERO),
    pair("equal", np.equal, WHOLE, NONZERO),
    pair("not_equal", np.not_equal, WHOLE, NONZERO),
    pair("greater", np.greater),
    pair("greater_equal", np.greater_equal, WHOLE, NONZERO),
    pair("less", np.less),
    pair("less_equal", np.less_equal, WHOLE, NONZERO),
    pair("logical_and", np.logical_and, WHOLE > 0, X > 0),
    pair("logical_or", np.logical_or, WHOLE > 0, X > 0),
    pair("logical_xor", np.logical_xor, WHOLE > 0, X > 0),
    Case(
        "select",
        lambda mb, x, y, z: mb.select(cond=z, a=x, b=y),
        lambda x, y, z: np.where(z, x, y),
        (X, Y, X > Y),
    ),
]


def reduction(kind: str, expected: Callable[..., Any], x: np.ndarray = X) -> list[Case]:
    return [
        plain(kind, t(lambda v: expected(v, (1, 2), False)), x, axes=[1, -1], keep_dims=False),
        plain(kind, t(lambda v: expected(v, (0,), True)), x, axes=[0], keep_dims=True),
    ]


REDUCTIONS = [
    *reduction("reduce_sum", lambda x, d, k: x.sum(d, keepdim=k)),
    *reduction("reduce_mean", lambda x, d, k: x.mean(d, keepdim=k)),
    *reduction("reduce_max", lambda x, d, k: x.amax(d, keepdim=k)),
    *reduction("reduce_min", lambda x, d, k: x.amin(d, keepdim=k)),
    *reduction("reduce_prod", lambda x, d, k: _prod(x, d, k)),
    *reduction("reduce_l1_norm", lambda x, d, k: x.abs().sum(d, keepdim=k)),
    *reduction("reduce_l2_norm", lambda x, d, k: x.square().sum(d, keepdim=k).sqrt()),
    *reduction("reduce_log_sum", lambda x, d, k: x.sum(d, keepdim=k).log(), POSITIVE),
    *reduction("reduce_log_sum_exp", lambda x, d, k: torch.logsumexp(x, d, keepdim=k)),
    *reduction("reduce_sum_square", lambda x, d, k: x.square().sum(d, keepdim=k)),
    plain("reduce_argmax", t(lambda x: x.argmax(1)), axis=1, keep_dims=False),
    plain("reduce_argmin", t(lambda x: x.argmin(-1, keepdim=True)), axis=-1, keep_dims=True),
    plain("cumsum", t(lambda x: x.cumsum(1)), axis=1),
    plain("cumsum", t(lambda x: x.flip(2).cumsum(2).flip(2)), axis=2, reverse=True),
    plain("cumsum", lambda x: np.cumsum(x, 1) - x, WHOLE, axis=1, exclusive=True),
    plain("argsort", t(lambda x: x.argsort(1)), axis=1, ascending=True),
    plain("argsort", t(lambda x: x.argsort(-1, descending=True)), axis=-1, ascending=False),
    plain("topk", t(lambda x: list(x.topk(3, -1))), k=3, axis=-1),
    plain("topk", t(lambda x: list(x.topk(2, 1, largest=False))), k=2, axis=1, ascending=True),
]


def _prod(x: Any, dims: Sequence[int], keeps: bool) -> Any:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keeps)
    return x


ROWS = integers(0, 4, 2, 3, 5)
SHAPES = [
    plain("reshape", lambda x: x.reshape(4, 10), shape=[4, -1]),
    plain("reshape", lambda x: x.reshape(2, 2, 10), shape=[0, 2, -1]),
    plain("transpose", lambda x: x.transpose(2, 0, 1), perm=[2, 0, -2]),
    plain("expand_dims", lambda x: x[:, None, :, :, None], axes=[1, -1]),
    plain("squeeze", lambda x: x[0], X[:1], axes=[0]),
    plain("flatten2d", lambda x: x.reshape(8, 5), axis=2),
    plain("identity", lambda x: x),
    plain("shape", lambda x: np.array([2, 4, 5])),
    plain(
        "slice_by_index",
        lambda x: x[0:2:1, 1:-1:2, 3],
        begin=[0, 1, 3],
        end=[2, -1, 0],
        stride=[1, 2, 1],
        squeeze_mask=[False, False, True],
    ),
    plain(
        "slice_by_index",
        lambda x: x[:, ::-1, -3:],
        begin=[0, 0, -3],
        end=[0, 0, 0],
        stride=[1, -1, 1],
        begin_mask=[True, True, False],
        end_mask=[True, True, True],
    ),
    plain("slice_by_size", lambda x: x[1:2, 1:, 0:3], begin=[1, 1, 0], size=[1, -1, 3]),
    plain("split", lambda x: np.split(x, 2, 1), num_splits=2, axis=1),
    plain("split", lambda x: [x[..., :1], x[..., 1:]], split_sizes=[1, 4], axis=-1),
    plain(
        "pad",
        t(lambda x: F.pad(x, (3, 0, 1, 2), value=0.5)),
        pad=[1, 2, 3, 0],
        mode="constant",
        constant_val=0.5,
    ),
    plain(
        "pad", t(lambda x: F.pad(x, (2, 1, 1, 3), mode="reflect")), IMAGE, pad=[1, 3, 2, 1], mode="reflect"
    ),
    plain(
        "pad",
        t(lambda x: F.pad(x, (2, 1, 1, 3), mode="replicate")),
        IMAGE,
        pad=[1, 3, 2, 1],
        mode="replicate",
    ),
    plain("tile", t(lambda x: x.repeat(1, 2, 3)), reps=[1, 2, 3]),
    plain("band_part", t(lambda x: torch.triu(torch.tril(x, 1), -2)), lower=2, upper=1),
    plain("band_part", t(torch.tril), lower=-1, upper=0),
    plain("reverse", lambda x: x[:, ::-1, ::-1], axes=[1, 2]),
    plain("non_zero", t(torch.nonzero), WHOLE),
    Case("fill_like", lambda mb, x: mb.fill_like(ref_tensor=x, value=0.25), lambda x: np.full_like(x, 0.25)),
    plain("pixel_shuffle", t(lambda x: F.pixel_shuffle(x, 2)), IMAGE, upscale_factor=2),
    plain("pixel_unshuffle", t(lambda x: F.pixel_unshuffle(x, 2)), IMAGE, downscale_factor=np.uint32(2)),
    plain("sliding_windows", t(lambda x: x.unfold(2, 3, 2)), axis=2, size=3, stride=2),
    plain("crop", lambda x: x[..., 1:4, 0:5], IMAGE, crop_height=[1, 2], crop_width=[0, 3]),
    Case(
        "concat",
        lambda mb, x, y: mb.concat(values=(x, y), axis=1),
        lambda x, y: np.concatenate([x, y], 1),
        (X, Y),
    ),
    Case(
        "concat",
        lambda mb, x, y: mb.concat(values=(x, y), axis=1, interleave=True),
        lambda x, y: np.stack([x, y], 2).reshape(2, 8, 5),
        (X, Y),
        "interleave",
    ),
    Case(
        "stack", lambda mb, x, y: mb.stack(values=(x, y), axis=-1), lambda x, y: np.stack([x, y], -1), (X, Y)
    ),
    Case(
        "one_hot",
        lambda mb, x: mb.one_hot(indices=x, one_hot_vector_size=4, axis=1, on_value=2, off_value=-1),
        lambda x: np.where(np.eye(4)[x].transpose(0, 3, 1, 2) == 1, 2, -1),
        (ROWS,),
    ),
    Case(
        "range_1d",
        lambda mb, x: mb.range_1d(
            start=mb.squeeze(x=x), end=mb.add(x=mb.squeeze(x=x), y=np.float32(2.0)), step=0.5
        ),
        lambda x: x + np.arange(4, dtype=np.float32) / 2,
        (np.array([1.25], np.float32),),
    ),
    Case("fill", lambda mb, x: mb.fill(shape=mb.shape(x=x), value=1.5), lambda x: np.full(x.shape, 1.5)),
    Case(
        "reshape_like",
        lambda mb, x, y: mb.reshape_like(
            x=x, ref_tensors=(y, y), begins=(0, 1), ends=(1, 0), end_masks=(False, True)
        ),
        lambda x, y: x.reshape(2, 20),
        (X, normal(2, 20)),
    ),
    Case(
        "reverse_sequence",
        lambda mb, x: mb.reverse_sequence(x=x, lengths=[2, 4], seq_axis=1, batch_axis=0),
        lambda x: np.stack([x[0, [1, 0, 2, 3]], x[1, ::-1]]),
    ),
    Case(
        "slice_update",
        lambda mb, x, y: mb.slice_update(x=x, update=y, begin=[0, 1, 0], end=[2, 3, 5]),
        lambda x, y: np.concatenate([x[:, :1], y, x[:, 3:]], 1),
        (X, Y[:, :2]),
    ),
    plain(
        "space_to_depth",
        lambda x: x.reshape(2, 4, 3, 2, 4, 2).transpose(0, 3, 5, 1, 2, 4).reshape(2, 16, 3, 4),
        IMAGE,
        block_size=2,
    ),
    plain(
        "depth_to_space",
        lambda x: x.reshape(2, 2, 2, 1, 6, 8).transpose(0, 3, 4, 1, 5, 2).reshape(2, 1, 12, 16),
        IMAGE,
        block_size=2,
    ),
    plain(
        "space_to_batch",
        lambda x: np.concatenate(
            [np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 2)])[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        ),
        IMAGE,
        block_shape=[2, 2],
        paddings=[[1, 1], [0, 2]],
    ),
    plain(
        "batch_to_space",
        lambda x: np.stack([x[0], x[1]], 0).transpose(1, 2, 0, 3).reshape(1, 4, 12, 8)[:, :, 1:, :7],
        IMAGE,
        block_shape=[2, 1],
        crops=[[1, 0], [0, 1]],
    ),
]
TABLE = normal(7, 3)
GATHERS = [
    Case(
        "gather",
        lambda mb, x, y: mb.gather(x=x, indices=y, axis=0),
        lambda x, y: x[y],
        (TABLE, integers(-7, 7, 2, 4)),
    ),
    Case(
        "gather",
        lambda mb, x, y: mb.gather(x=x, indices=y, axis=2, batch_dims=1),
        lambda x, y: np.stack([x[i][:, y[i]] for i in range(2)]),
        (X, integers(0, 5, 2, 3)),
        "batch",
    ),
    Case(
        "gather_along_axis",
        lambda mb, x, y: mb.gather_along_axis(x=x, indices=y, axis=1),
        t(lambda x, y: x.gather(1, y.long())),
        (X, ROWS),
    ),
    Case(
        "gather_nd",
        lambda mb, x, y: mb.gather_nd(x=x, indices=y),
        lambda x, y: x[y[..., 0], y[..., 1]],
        (X, integers(0, 2, 3, 2)),
    ),
    Case(
        "gather_nd",
        lambda mb, x, y: mb.gather_nd(x=x, indices=y, batch_dims=1),
        lambda x, y: np.stack([x[i][y[i, :, 0]] for i in range(2)]),
        (X, integers(0, 4, 2, 3, 1)),
        "batch",
    ),
    Case(
        "scatter",
        lambda mb, x, y: mb.scatter(data=x, indices=[1, 3, 1], updates=y, axis=1, mode="add"),
        t(lambda x, y: x.index_add(1, torch.tensor([1, 3, 1]), y)),
        (X, normal(2, 3, 5)),
    ),
    Case(
        "scatter",
        lambda mb, x, y: mb.scatter(data=x, indices=[2, 0], updates=y, axis=0, mode="update"),
        lambda x, y: np.stack([y[1], x[1], y[0]]),
        (normal(3, 4), normal(2, 4)),
        "update",
    ),
    Case(
        "scatter_along_axis",
        lambda mb, x, y, z: mb.scatter_along_axis(data=x, indices=y, updates=z, axis=1, mode="max"),
        t(lambda x, y, z: x.scatter_reduce(1, y.long(), z, "amax")),
        (X, ROWS, normal(2, 3, 5)),
    ),
    Case(
        "scatter_nd",
        lambda mb, x, y: mb.scatter_nd(data=x, indices=[[0, 1], [1, 3]], updates=y, mode="mul"),
        lambda x, y: _scaled_rows(x, y),
        (X, normal(2, 5)),
    ),
]


def _scaled_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    result = x.copy()
    result[0, 1] *= y[0]
    result[1, 3] *= y[1]
    return result


@pytest.mark.parametrize("case", [*UNARY, *BINARY, *REDUCTIONS, *SHAPES, *GATHERS], ids=str)
def test_operator_agrees(case: Case, tmp_path: Path) -> None:
    got = run_program(case.build, case.inputs, tmp_path)
    want = case.expected(*case.inputs)
    want = list(want) if isinstance(want, (list, tuple)) else [want]
    assert len(got) == len(want)
    for have, expected in zip(got, want, strict=True):
        assert have.shape == expected.shape
        if expected.dtype == bool:
            np.testing.assert_array_equal(have != 0, expected)
        elif expected.dtype.kind == "f":
            np.testing.assert_allclose(have, expected, rtol=3e-6, atol=case.atol)
        else:
            np.testing.assert_array_equal(have, expected)
