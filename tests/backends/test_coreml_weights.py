"""Compressed weights, types, control flow and lists in the Core ML interpreter; and that no operator goes untested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.backends.coreml_programs import run_package, run_program, vendor, write_program

from edgewright.backends.coreml_interpreter import OPERATORS

pytest.importorskip(
    "coremltools", reason="needs coremltools; install it with: pip install 'edgewright[coreml]'"
)
torch = pytest.importorskip("torch")

DRAW = np.random.default_rng(13)


def normal(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


def test_quantize_and_dequantize(tmp_path: Path) -> None:
    x = normal(3, 4, 5) * 4
    scale, zero = np.array([0.05, 0.1, 0.02, 0.5], np.float32), np.array([1, -3, 0, 7], np.int8)

    def body(mb: Any, x: Any) -> Any:
        quantized = mb.quantize(input=x, scale=scale, zero_point=zero, axis=1, output_dtype="int8")
        coarse = mb.quantize(input=x, scale=np.float32(0.1), output_dtype="uint8")
        return mb.dequantize(input=quantized, scale=scale, zero_point=zero, axis=1), mb.cast(
            x=coarse, dtype="int32"
        )

    want = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(x), torch.from_numpy(scale), torch.from_numpy(zero).int(), 1, -128, 127
    )
    got = run_program(body, [x], tmp_path)
    np.testing.assert_allclose(got[0], want.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(got[1], np.clip(np.round(x / np.float32(0.1)), 0, 255))


def test_compressed_weights(tmp_path: Path) -> None:
    """Each constexpr operator, added to a zero input, gives the dense weights that its documentation describes."""
    types = vendor()[2]
    data = DRAW.integers(-128, 128, (4, 6)).astype(np.int8)
    scale, offset = np.abs(normal(4, 2)) + 0.1, DRAW.integers(-9, 9, (4, 2)).astype(np.int8)
    nibbles = DRAW.integers(0, 16, (4, 6)).astype(np.uint8)
    palettes = normal(2, 1, 16, 1)
    threes = DRAW.integers(0, 8, (4, 6)).astype(np.uint8)
    vectors = normal(1, 1, 8, 2)
    mask = DRAW.integers(0, 2, (4, 6)).astype(np.uint8)
    values = normal(int(mask.sum()))
    small = DRAW.integers(-8, 8, (4, 6)).astype(np.int8)

    def of(array: np.ndarray, name: str) -> np.ndarray:
        return array.astype(types.nptype_from_builtin(types.string_to_builtin(name)))

    def body(mb: Any, x: Any) -> Any:
        weights = [
            mb.constexpr_blockwise_shift_scale(data=data, scale=scale, offset=offset),
            mb.constexpr_blockwise_shift_scale(data=of(small, "int4"), scale=scale[:, :1]),
            mb.constexpr_lut_to_dense(indices=of(nibbles, "uint4"), lut=palettes),
            mb.constexpr_lut_to_dense(indices=of(threes, "uint3"), lut=vectors, vector_axis=1),
            mb.constexpr_sparse_to_dense(nonzero_data=values, mask=of(mask, "uint1")),
        ]
        return tuple(mb.add(x=mb.reduce_sum(x=x), y=weight) for weight in weights)

    sparse = np.zeros((4, 6), np.float32)
    sparse[mask == 1] = values
    grouped = np.concatenate([palettes[i, 0, nibbles[2 * i : 2 * i + 2], 0] for i in range(2)])
    paired = np.stack([vectors[0, 0, threes, 0], vectors[0, 0, threes, 1]], -1).reshape(4, 12)
    wanted = (
        (data - offset.repeat(3, 1).astype(np.float32)) * scale.repeat(3, 1),
        small * scale[:, :1],
        grouped,
        paired,
        sparse,
    )
    for have, want in zip(run_program(body, [np.zeros((1, 1), np.float32)], tmp_path), wanted, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-6)


def test_half_precision_is_rounded_after_every_operator(tmp_path: Path) -> None:
    x = np.array([1000.0, 0.1, 3.0], np.float16)

    def body(mb: Any, x: Any) -> Any:
        return mb.cast(x=mb.sub(x=mb.add(x=x, y=np.float16(2048.0)), y=np.float16(2048.0)), dtype="fp32")

    (got,) = run_program(body, [x], tmp_path)
    # above 2048 float16 counts in twos: 3048 is there, 2048.1 and 2051 are not
    assert got.tolist() == [1000.0, 0.0, 4.0]


def test_compressed_weights_of_ios_16(tmp_path: Path) -> None:
    """The older operators take flat bytes and a shape, as attributes."""
    data = DRAW.integers(-128, 128, (3, 5)).astype(np.int8)
    scale, zero = np.array([0.5, 0.25, 2.0], np.float32), np.array([1, -2, 0], np.int8)
    indices, table = DRAW.integers(0, 4, 15), np.array([-1.0, 0.5, 2.0, 7.0], np.float32)
    packed = np.zeros(4, np.uint8)
    for number, index in enumerate(indices):
        packed[number // 4] |= index << 2 * (number % 4)
    mask, values = DRAW.integers(0, 2, 15), normal(15)

    def body(mb: Any, x: Any) -> Any:
        total = mb.reduce_sum(x=x)
        weights = (
            mb.constexpr_affine_dequantize(quantized_data=data, zero_point=zero, scale=scale, axis=0),
            mb.constexpr_lut_to_dense(indices=packed, lut=table, shape=np.array([3, 5], np.uint32)),
            mb.constexpr_sparse_to_dense(
                nonzero_data=values[mask == 1],
                mask=np.packbits(mask.astype(np.uint8), bitorder="little"),
                shape=np.array([3, 5], np.uint32),
            ),
        )
        return tuple(mb.add(x=total, y=weight) for weight in weights)

    zeros = np.zeros((1, 1), np.float32)
    got = run_package(write_program(body, [zeros], tmp_path, target="iOS16"), [zeros])
    np.testing.assert_array_equal(got[0], (data - zero[:, None].astype(np.float32)) * scale[:, None])
    np.testing.assert_array_equal(got[1], table[indices].reshape(3, 5))
    np.testing.assert_array_equal(got[2], np.where(mask == 1, values, 0).reshape(3, 5))


def test_branches_and_loops(tmp_path: Path) -> None:
    def body(mb: Any, x: Any) -> Any:
        total = mb.reduce_sum(x=x)
        is_large = mb.greater(x=total, y=np.float32(10))
        chosen = mb.cond(
            pred=is_large,
            _true_fn=lambda: mb.mul(x=x, y=np.float32(2)),
            _false_fn=lambda: mb.sub(x=x, y=total),
        )
        doubled, _ = mb.while_loop(
            _cond=lambda value, count: mb.less(x=count, y=np.float32(3)),
            _body=lambda value, count: (mb.add(x=value, y=value), mb.add(x=count, y=np.float32(1))),
            loop_vars=(x, mb.mul(x=total, y=np.float32(0))),
        )
        return chosen, doubled

    for values in ([1.0, 2.0], [9.0, 8.0]):
        x = np.array(values, np.float32)
        chosen, doubled = run_program(body, (x,), tmp_path)
        np.testing.assert_array_equal(chosen, x * 2 if x.sum() > 10 else x - x.sum())
        np.testing.assert_array_equal(doubled, x * 8)


def test_lists(tmp_path: Path) -> None:
    def body(mb: Any, x: Any) -> Any:
        empty = mb.make_list(init_length=2, dynamic_length=True, elem_shape=(3,), dtype="fp32")
        written = mb.list_write(ls=empty, index=1, value=mb.mul(x=x, y=np.float32(2)))
        filled = mb.list_write(ls=written, index=0, value=x)
        longer = mb.list_scatter(ls=filled, indices=[2, 1], value=mb.stack(values=(x, x), axis=0))
        return (
            mb.list_read(ls=filled, index=1),
            mb.list_gather(ls=longer, indices=[2, 0]),
            mb.add(x=mb.list_length(ls=longer), y=0),
        )

    x = np.array([1.0, -2.0, 3.0], np.float32)
    read, gathered, length = run_program(body, (x,), tmp_path)
    np.testing.assert_array_equal(read, x * 2)
    np.testing.assert_array_equal(gathered, np.stack([x, x]))
    assert int(length) == 3


def test_sparse_weights_that_are_quantized_or_looked_up(tmp_path: Path) -> None:
    types = vendor()[2]
    mask = DRAW.integers(0, 2, (4, 6)).astype(np.uint8)
    count = int(mask.sum())
    data, scale = DRAW.integers(-99, 99, count).astype(np.int8), np.abs(normal(4, 1)) + 0.1
    table, indices = normal(1, 1, 4, 1), DRAW.integers(0, 4, count).astype(np.uint8)
    half = normal(4, 6).astype(np.float16)

    def of(array: np.ndarray, name: str) -> np.ndarray:
        return array.astype(types.nptype_from_builtin(types.string_to_builtin(name)))

    def body(mb: Any, x: Any) -> Any:
        bits = of(mask, "uint1")
        scaled = mb.constexpr_sparse_blockwise_shift_scale(data_mask=bits, nonzero_data=data, scale=scale)
        found = mb.constexpr_lut_to_sparse(
            indices_mask=bits, indices_nonzero_data=of(indices, "uint2"), lut=table
        )
        dense = [
            mb.constexpr_sparse_to_dense(nonzero_data=values, mask=seen) for seen, values in (scaled, found)
        ]
        dense.append(mb.constexpr_cast(source_val=half, output_dtype="fp32"))
        return tuple(mb.add(x=mb.reduce_sum(x=x), y=weight) for weight in dense)

    got = run_program(body, (np.zeros((1, 1), np.float32),), tmp_path)
    whole, looked_up = np.zeros((4, 6), np.float32), np.zeros((4, 6), np.float32)
    whole[mask == 1], looked_up[mask == 1] = data, table[0, 0, indices, 0]
    np.testing.assert_allclose(got[0], whole * scale, rtol=1e-6)
    np.testing.assert_array_equal(got[1], looked_up)
    np.testing.assert_array_equal(got[2], half.astype(np.float32))


def test_every_operator_is_tested() -> None:
    """An operator that is added without a case fails here; those of the other files count too."""
    here = Path(__file__)
    text = "".join(path.read_text() for path in here.parent.glob("test_coreml_*.py"))
    missing = [kind for kind in OPERATORS if f"mb.{kind}(" not in text and f'"{kind}"' not in text]
    assert not missing
