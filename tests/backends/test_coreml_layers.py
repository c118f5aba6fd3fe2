"""Layers of the Core ML interpreter against PyTorch: windows, matrices, norms, resampling, recurrence, weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backends.coreml_programs import run_program

pytest.importorskip(
    "coremltools", reason="needs coremltools; install it with: pip install 'edgewright[coreml]'"
)
torch = pytest.importorskip("torch")
F = torch.nn.functional

DRAW = np.random.default_rng(12)
FEW = settings(max_examples=12, deadline=None, derandomize=True)


def normal(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


def tensor(array: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(array))


def check(body: Any, inputs: list[np.ndarray], *expected: Any, atol: float = 1e-5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        got = run_program(body, inputs, Path(folder))
    assert len(got) == len(expected)
    for have, want in zip(got, expected, strict=True):
        array = want if isinstance(want, np.ndarray) else want.numpy()
        assert have.shape == array.shape
        np.testing.assert_allclose(have, array, rtol=1e-5, atol=atol)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Kernel, stride, dilation and padding of one or two dimensions that fit the input."""
    rank = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    return {
        "kernel": kernel,
        "dilations": dilations,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "pads": [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank)],
        "sizes": [draw(st.integers((k - 1) * d + 1, 9)) for k, d in zip(kernel, dilations, strict=True)],
        "groups": draw(st.sampled_from([1, 2, 4])),
    }


def flat(pads: list[tuple[int, int]]) -> list[int]:
    return [side for pad in pads for side in pad]


def padded(x: np.ndarray, pads: list[tuple[int, int]], value: float = 0.0) -> Any:
    return F.pad(tensor(x), flat(pads[::-1]), value=value)


@FEW
@given(windows())
def test_conv(w: dict[str, Any]) -> None:
    x, weight, bias = normal(2, 4, *w["sizes"]), normal(8, 4 // w["groups"], *w["kernel"]), normal(8)
    convolve = F.conv1d if x.ndim == 3 else F.conv2d
    want = convolve(
        padded(x, w["pads"]),
        tensor(weight),
        tensor(bias),
        stride=w["strides"],
        dilation=w["dilations"],
        groups=w["groups"],
    )
    check(
        lambda mb, x: mb.conv(
            x=x,
            weight=weight,
            bias=bias,
            strides=w["strides"],
            dilations=w["dilations"],
            groups=w["groups"],
            pad_type="custom",
            pad=flat(w["pads"]),
        ),
        [x],
        want,
    )


@pytest.mark.parametrize(("kind", "size", "stride"), [("same", 7, 2), ("same", 8, 3), ("same_lower", 8, 2)])
def test_conv_with_padding_by_name(kind: str, size: int, stride: int) -> None:
    x, weight = normal(1, 3, size, size), normal(5, 3, 3, 3)
    total = max((-(-size // stride) - 1) * stride + 3 - size, 0)
    pad = (total // 2, total - total // 2)
    pad = pad if kind == "same" else pad[::-1]
    want = F.conv2d(padded(x, [pad, pad]), tensor(weight), stride=stride)
    assert want.shape[-1] == -(-size // stride)
    check(lambda mb, x: mb.conv(x=x, weight=weight, strides=[stride] * 2, pad_type=kind), [x], want)


def test_conv_in_three_dimensions() -> None:
    x, weight = normal(1, 2, 5, 6, 7), normal(4, 2, 3, 2, 3)
    want = F.conv3d(tensor(x), tensor(weight), stride=(1, 2, 1))
    check(lambda mb, x: mb.conv(x=x, weight=weight, strides=[1, 2, 1], pad_type="valid"), [x], want)


@FEW
@given(windows())
def test_conv_transpose(w: dict[str, Any]) -> None:
    x, weight, bias = normal(2, 4, *w["sizes"]), normal(4, 8 // w["groups"], *w["kernel"]), normal(8)
    spread = F.conv_transpose1d if x.ndim == 3 else F.conv_transpose2d
    whole = spread(
        tensor(x),
        tensor(weight),
        tensor(bias),
        stride=w["strides"],
        dilation=w["dilations"],
        groups=w["groups"],
    )
    sizes = [size - sum(pad) for size, pad in zip(whole.shape[2:], w["pads"], strict=True)]
    if min(sizes) < 1:
        return
    for axis, (pad, size) in enumerate(zip(w["pads"], sizes, strict=True)):
        whole = whole.narrow(axis + 2, pad[0], size)
    check(
        lambda mb, x: mb.conv_transpose(
            x=x,
            weight=weight,
            bias=bias,
            strides=w["strides"],
            dilations=w["dilations"],
            groups=w["groups"],
            pad_type="custom",
            pad=flat(w["pads"]),
        ),
        [x],
        whole.contiguous(),
    )


@FEW
@given(windows(), st.booleans())
def test_pools(w: dict[str, Any], leaves_padding_out: bool) -> None:
    pads = [(min(b, k - 1), min(a, k - 1)) for (b, a), k in zip(w["pads"], w["kernel"], strict=True)]
    x = normal(2, 3, *w["sizes"])
    rank = x.ndim - 2
    most, mean = (F.max_pool1d, F.avg_pool1d) if rank == 1 else (F.max_pool2d, F.avg_pool2d)
    options = {"kernel_sizes": w["kernel"], "strides": w["strides"], "pad_type": "custom", "pad": flat(pads)}
    largest = most(padded(x, pads, -np.inf), w["kernel"], w["strides"])
    total = mean(padded(x, pads), w["kernel"], w["strides"])
    squares = mean(padded(x * x, pads), w["kernel"], w["strides"]) * np.prod(w["kernel"])
    share = mean(padded(np.ones_like(x), pads), w["kernel"], w["strides"]) if leaves_padding_out else 1.0
    check(
        lambda mb, x: (
            mb.max_pool(x=x, **options),
            mb.avg_pool(x=x, exclude_padding_from_average=leaves_padding_out, **options),
            mb.l2_pool(x=x, **options),
        ),
        [x],
        largest,
        total / share,
        squares.sqrt(),
    )


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"), [(7, 2, 2, 0), (7, 3, 2, 1), (8, 3, 3, 1), (6, 3, 2, 0)]
)
def test_pools_that_round_up(size: int, kernel: int, stride: int, pad: int) -> None:
    x = normal(1, 2, size, size)
    options = {
        "kernel_sizes": [kernel] * 2,
        "strides": [stride] * 2,
        "pad_type": "custom",
        "pad": [pad] * 4,
        "ceil_mode": True,
    }
    largest = F.max_pool2d(tensor(x), kernel, stride, pad, ceil_mode=True)
    inside = F.avg_pool2d(tensor(x), kernel, stride, pad, ceil_mode=True, count_include_pad=False)
    whole = F.avg_pool2d(tensor(x), kernel, stride, pad, ceil_mode=True, count_include_pad=True)
    check(
        lambda mb, x: (
            mb.max_pool(x=x, **options),
            mb.avg_pool(x=x, exclude_padding_from_average=True, **options),
            mb.avg_pool(x=x, exclude_padding_from_average=False, **options),
        ),
        [x],
        largest,
        inside,
        whole,
    )


@FEW
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=3))
def test_pad(pads: list[tuple[int, int]]) -> None:
    x = normal(4, 4, 4)
    check(
        lambda mb, x: mb.pad(x=x, pad=flat(pads), mode="constant", constant_val=np.float32(-1.5)),
        [x],
        F.pad(tensor(x), flat(pads[::-1]), value=-1.5),
    )
    if len(pads) <= 2:
        check(
            lambda mb, x: (
                mb.pad(x=x, pad=flat(pads), mode="reflect"),
                mb.pad(x=x, pad=flat(pads), mode="replicate"),
            ),
            [x],
            np.pad(x, [(0, 0)] * (3 - len(pads)) + pads, mode="reflect"),
            np.pad(x, [(0, 0)] * (3 - len(pads)) + pads, mode="edge"),
        )


@FEW
@given(st.data())
def test_slice_by_index(data: st.DataObject) -> None:
    x = normal(4, 5, 6)
    begin, end, stride = [], [], []
    for size in x.shape:
        first = data.draw(st.integers(0, size - 1))
        begin.append(first if data.draw(st.booleans()) else first - size)
        end.append(data.draw(st.integers(first + 1, size)))
        stride.append(data.draw(st.integers(1, 3)))
    index = tuple(slice(b, e, s) for b, e, s in zip(begin, end, stride, strict=True))
    check(lambda mb, x: mb.slice_by_index(x=x, begin=begin, end=end, stride=stride), [x], x[index])


def test_products_of_matrices() -> None:
    x, y, weight, bias = normal(2, 3, 4), normal(2, 5, 4), normal(6, 4), normal(6)
    check(
        lambda mb, x, y: (
            mb.matmul(x=x, y=y, transpose_y=True),
            mb.matmul(x=x, y=y, transpose_x=False, transpose_y=True),
            mb.linear(x=x, weight=weight, bias=bias),
            mb.linear(x=y, weight=weight),
            mb.einsum(
                values=(mb.transpose(x=x, perm=[1, 0, 2]), mb.transpose(x=y, perm=[2, 0, 1])),
                equation="chw,whr->chr",
            ),
        ),
        [x, y],
        x @ y.transpose(0, 2, 1),
        x @ y.transpose(0, 2, 1),
        F.linear(tensor(x), tensor(weight), tensor(bias)),
        F.linear(tensor(y), tensor(weight)),
        np.einsum("hcw,hrw->chr", x, y),
    )


@pytest.mark.parametrize("mask", [None, "bool", "float32"])
def test_attention(mask: str | None) -> None:
    query, key, value = normal(2, 3, 5, 8), normal(2, 3, 7, 8), normal(2, 3, 7, 8)
    given_mask = None
    if mask is not None:
        given_mask = np.tril(np.ones((5, 7), bool), 1) if mask == "bool" else normal(5, 7)
    want = F.scaled_dot_product_attention(
        tensor(query),
        tensor(key),
        tensor(value),
        attn_mask=None if given_mask is None else tensor(given_mask),
    )
    more = {} if given_mask is None else {"attn_mask": given_mask}
    check(
        lambda mb, x, y, z: mb.scaled_dot_product_attention(query=x, key=y, value=z, **more),
        [query, key, value],
        want,
    )


def test_normalisations() -> None:
    x = normal(2, 6, 4, 5) * 3 + 1
    mean, variance, gamma, beta = normal(6), np.abs(normal(6)) + 0.2, normal(6), normal(6)
    wide, shift = normal(4, 5), normal(4, 5)
    eps = np.float32(1e-3)
    t = tensor
    check(
        lambda mb, x: (
            mb.batch_norm(x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=eps),
            mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=eps),
            mb.layer_norm(x=x, axes=[-2, -1], gamma=wide, beta=shift, epsilon=eps),
            mb.layer_norm(x=x, axes=[1], epsilon=eps),
            mb.l2_norm(x=x, epsilon=eps),
            mb.local_response_norm(
                x=x, size=3, alpha=np.float32(0.3), beta=np.float32(0.6), k=np.float32(1.5)
            ),
        ),
        [x],
        F.batch_norm(t(x), t(mean), t(variance), t(gamma), t(beta), eps=1e-3),
        F.instance_norm(t(x), weight=t(gamma), bias=t(beta), eps=1e-3),
        F.layer_norm(t(x), (4, 5), t(wide), t(shift), eps=1e-3),
        F.layer_norm(t(x).movedim(1, -1), (6,), eps=1e-3).movedim(-1, 1).contiguous(),
        x / np.sqrt((x * x).sum(axis=(1, 2, 3), keepdims=True) + eps),
        F.local_response_norm(t(x), 3, alpha=0.3, beta=0.6, k=1.5),
    )


def test_resampling() -> None:
    x = normal(1, 2, 5, 6)
    t = tensor(x)

    def resized(height: int, width: int, **options: Any) -> Any:
        return F.interpolate(t, (height, width), **options)

    check(
        lambda mb, x: (
            mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3, align_corners=False),
            mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=3, align_corners=True),
            mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
            mb.resize_nearest_neighbor(x=x, target_size_height=7, target_size_width=4),
            mb.resize_bilinear(
                x=x, target_size_height=7, target_size_width=4, sampling_mode="UNALIGN_CORNERS"
            ),
            mb.resize_bilinear(
                x=x, target_size_height=7, target_size_width=4, sampling_mode="STRICT_ALIGN_CORNERS"
            ),
            mb.resize(x=x, shape=[8, 9], resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"),
        ),
        [x],
        resized(10, 18, mode="bilinear", align_corners=False),
        resized(10, 18, mode="bilinear", align_corners=True),
        resized(10, 18, mode="nearest"),
        resized(7, 4, mode="nearest"),
        resized(7, 4, mode="bilinear", align_corners=False),
        resized(7, 4, mode="bilinear", align_corners=True),
        resized(8, 9, mode="bilinear", align_corners=False),
    )


@pytest.mark.parametrize(
    ("mode", "size", "count", "places"),
    [
        # the examples of MIL's own documentation of resize_bilinear, for a line of two elements
        ("DEFAULT", 2, 5, [0, 0.4, 0.8, 1, 1]),
        ("OFFSET_CORNERS", 2, 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", 2, 5, [0, 0.1, 0.5, 0.9, 1]),
        ("ALIGN_CORNERS", 2, 5, [0, 0.25, 0.5, 0.75, 1]),
        ("ALIGN_CORNERS", 3, 1, [1]),
        ("STRICT_ALIGN_CORNERS", 3, 1, [0]),
    ],
)
def test_grids_of_resize_bilinear(mode: str, size: int, count: int, places: list[float]) -> None:
    x = np.broadcast_to(np.arange(size, dtype=np.float32), (1, 1, size, size)).copy()
    want = np.broadcast_to(np.array(places, np.float32), (1, 1, 1, count)).copy()
    check(
        lambda mb, x: mb.resize_bilinear(
            x=x, target_size_height=1, target_size_width=count, sampling_mode=mode
        ),
        [x],
        want,
    )


@pytest.mark.parametrize("padding", ["constant", "border"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
def test_resample(padding: str, aligned: bool, sampling: str) -> None:
    x, grid = normal(2, 3, 5, 6), DRAW.uniform(-1.3, 1.3, (2, 4, 7, 2)).astype(np.float32)
    mode = {"constant": "zeros", "border": "border"}[padding]
    want = F.grid_sample(tensor(x), tensor(grid), mode=sampling, padding_mode=mode, align_corners=aligned)
    check(
        lambda mb, x, y: mb.resample(
            x=x,
            coordinates=y,
            sampling_mode=sampling,
            padding_mode=padding,
            padding_value=np.float32(0),
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=aligned,
        ),
        [x, grid],
        want,
    )


def ordered(matrix: Any, order: str, gates: str) -> np.ndarray:
    """Return the blocks of a recurrent matrix, which come in the order `gates`, in the order `order`."""
    blocks = dict(zip(gates, np.split(matrix.detach().numpy(), len(gates)), strict=True))
    return np.concatenate([blocks[gate] for gate in order])


@pytest.mark.parametrize("directions", [1, 2])
def test_lstm(directions: int) -> None:
    torch.manual_seed(0)
    cell = torch.nn.LSTM(5, 4, bidirectional=directions == 2)
    x, hidden, state = normal(6, 2, 5), normal(directions, 2, 4), normal(directions, 2, 4)
    with torch.no_grad():
        want, (last, memory) = cell(tensor(x), (tensor(hidden), tensor(state)))
    options: dict[str, Any] = {
        "direction": "bidirectional" if directions == 2 else "forward",
        "output_sequence": True,
    }
    for suffix, ours in (("", ""), ("_reverse", "_back"))[:directions]:
        options[f"weight_ih{ours}"] = ordered(getattr(cell, f"weight_ih_l0{suffix}"), "ifoz", "ifzo")
        options[f"weight_hh{ours}"] = ordered(getattr(cell, f"weight_hh_l0{suffix}"), "ifoz", "ifzo")
        both = getattr(cell, f"bias_ih_l0{suffix}") + getattr(cell, f"bias_hh_l0{suffix}")
        options[f"bias{ours}"] = ordered(both, "ifoz", "ifzo")
    check(
        lambda mb, x, y, z: mb.lstm(x=x, initial_h=y, initial_c=z, **options),
        [x, np.concatenate(list(hidden), -1), np.concatenate(list(state), -1)],
        want,
        np.concatenate(list(last.numpy()), -1),
        np.concatenate(list(memory.numpy()), -1),
    )


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_rnn_and_gru(direction: str) -> None:
    torch.manual_seed(1)
    rnn, gru = torch.nn.RNN(5, 4), torch.nn.GRU(5, 4)
    with torch.no_grad():
        gru.bias_hh_l0.zero_()  # MIL has one bias, and adds it outside the reset gate
    x, hidden = normal(6, 2, 5), normal(2, 4)
    steps = x if direction == "forward" else x[::-1]
    with torch.no_grad():
        wanted = [cell(tensor(steps), tensor(hidden[None])) for cell in (rnn, gru)]
    turn = slice(None, None, 1 if direction == "forward" else -1)
    bias = (rnn.bias_ih_l0 + rnn.bias_hh_l0).detach().numpy()

    def body(mb: Any, x: Any, y: Any) -> Any:
        plain = mb.rnn(
            x=x,
            initial_h=y,
            weight_ih=rnn.weight_ih_l0.detach().numpy(),
            weight_hh=rnn.weight_hh_l0.detach().numpy(),
            bias=bias,
            direction=direction,
            output_sequence=True,
        )
        gated = mb.gru(
            x=x,
            initial_h=y,
            weight_ih=ordered(gru.weight_ih_l0, "roz", "rzo"),
            weight_hh=ordered(gru.weight_hh_l0, "roz", "rzo"),
            bias=ordered(gru.bias_ih_l0, "roz", "rzo"),
            direction=direction,
            output_sequence=False,
        )
        return (*plain, *gated)

    (all_plain, last_plain), (all_gated, last_gated) = wanted
    check(
        body,
        [x, hidden],
        all_plain.numpy()[turn].copy(),
        last_plain[0],
        all_gated.numpy()[-1:].copy(),
        last_gated[0],
    )
