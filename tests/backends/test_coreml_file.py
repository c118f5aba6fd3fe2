"""Hostile Core ML packages: whatever is wrong with them ends in one of our errors, without coremltools and at once."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgewright.backends.coreml import _check_names
from edgewright.backends.coreml_file import MODEL_PATH, WEIGHTS_PATH, read_package, write_package
from edgewright.backends.coreml_interpreter import Interpreter
from edgewright.backends.coreml_proto import read_model
from edgewright.backends.coreml_records import unpack_bits
from edgewright.core.errors import (
    ConversionError,
    EdgewrightError,
    FormatMismatchError,
    IntegrityError,
    UsageError,
)
from edgewright.sources import inspect_artifact
from edgewright.sources.inspect_coreml import inspect_coreml

FLOAT32, INT32, STRING = 11, 23, 2


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, value: int | bytes | str) -> bytes:
    """Return one protobuf field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(key: str, value: bytes) -> bytes:
    return field(1, key) + field(2, value)


def tensor_type(dtype: int, *shape: int, rank: int | None = None) -> bytes:
    dims = b"".join(field(3, field(1, field(1, size))) for size in shape)
    return field(1, field(1, dtype) + field(2, len(shape) if rank is None else rank) + dims)


def named(name: str, kind: bytes) -> bytes:
    return field(1, name) + field(2, kind)


def integers(*numbers: int) -> bytes:
    values = b"".join(varint(number) for number in numbers)
    return field(2, tensor_type(INT32, len(numbers))) + field(3, field(1, field(2, field(1, values))))


def blob(offset: int, *shape: int, file: str = "@model_path/weights/weight.bin") -> bytes:
    return field(2, tensor_type(FLOAT32, *shape)) + field(5, field(1, file) + field(2, offset))


def const(name: str, value: bytes, kind: bytes) -> bytes:
    return field(1, "const") + field(3, named(name, kind)) + field(5, entry("val", value))


def operation(kind: str, output: bytes, *inputs: tuple[str, str], blocks: tuple[bytes, ...] = ()) -> bytes:
    bound = b"".join(field(2, entry(name, field(1, field(1, value)))) for name, value in inputs)
    return field(1, kind) + bound + field(3, output) + b"".join(field(4, block) for block in blocks)


def feature(name: str, *shape: int) -> bytes:
    array = b"".join(field(1, size) for size in shape) + field(2, 65568)
    return field(1, name) + field(3, field(5, array))


def function(*operations: bytes, output: str = "y") -> bytes:
    block = field(2, output) + b"".join(field(3, one) for one in operations)
    return (
        field(1, named("x", tensor_type(FLOAT32, 1, 4)))
        + field(2, "CoreML8")
        + field(3, entry("CoreML8", block))
    )


def model(*operations: bytes, functions: dict[str, bytes] | None = None, output: str = "y") -> bytes:
    table = functions or {"main": function(*operations, output=output)}
    program = b"".join(field(2, entry(name, body)) for name, body in table.items())
    described = field(1, feature("x", 1, 4)) + field(10, feature("y", 1, 4))
    return field(1, 9) + field(2, described) + field(502, field(1, 1) + program)


def weights(*values: float) -> bytes:
    raw = np.array(values, "<f4").tobytes()
    header = struct.pack("<II", 1, 2).ljust(64, b"\0")
    record = struct.pack("<IIQQ", 0xDEADBEEF, 2, len(raw), 128).ljust(64, b"\0")
    return header + record + raw


ROW = tensor_type(FLOAT32, 1, 4)
SUM = (
    const("w", blob(64, 1, 4), ROW),
    operation("add", named("y", ROW), ("x", "x"), ("y", "w")),
)


def package(folder: Path, content: bytes, stored: bytes = b"") -> Path:
    target = folder / "hostile.mlpackage"
    source = folder / "weight.bin"
    source.write_bytes(stored or weights(1, 2, 3, 4))
    write_package(target, content, source)
    return target


def run(path: Path) -> np.ndarray:
    return Interpreter(read_package(path)).run({"x": np.ones((1, 4), np.float32)})["y"]


def test_sound_package_runs(tmp_path: Path) -> None:
    path = package(tmp_path, model(*SUM))
    np.testing.assert_array_equal(run(path), [[2, 3, 4, 5]])
    described = inspect_artifact(path)
    assert described.operators == {"add": 1}
    assert described.parameters == 4
    assert described.format == "coreml"
    assert "weights by type: 16 bytes float32" in described.notes


def test_truncated_at_every_byte(tmp_path: Path) -> None:
    whole = model(*SUM)
    for length in range(len(whole)):
        with pytest.raises(EdgewrightError):
            read_model(whole[:length])


def test_mutated_models_end_in_our_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = model(*SUM)
    path = package(tmp_path, whole)
    outcomes = []
    for _ in range(1500):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), int(rng.integers(1, 5))):
            content[place] = int(rng.integers(0, 256))
        (path / MODEL_PATH).write_bytes(bytes(content))
        try:
            inspect_coreml(path)
            _check_names(read_package(path))
            run(path)
            outcomes.append("ran")
        except EdgewrightError as err:
            outcomes.append(type(err).__name__)
    assert {"IntegrityError", "ConversionError"} <= set(outcomes)


def test_mutated_weight_records_end_in_our_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = weights(1, 2, 3, 4)
    path = package(tmp_path, model(*SUM), whole)
    for place in range(4, 96):
        content = bytearray(whole)
        content[place] ^= int(rng.integers(1, 256))
        (path / WEIGHTS_PATH).write_bytes(bytes(content))
        try:
            run(path)
        except IntegrityError:
            continue
        assert not 64 <= place < 80, place  # a changed sentinel, type or size is always seen


@pytest.mark.parametrize("size", [0, 8, 64, 127, 128, 143])
def test_truncated_weights(size: int, tmp_path: Path) -> None:
    path = package(tmp_path, model(*SUM))
    (path / WEIGHTS_PATH).write_bytes(weights(1, 2, 3, 4)[:size])
    with pytest.raises(IntegrityError):
        run(path)


@pytest.mark.parametrize("offset", [0, 65, 4096, 1 << 62, -1])
def test_weight_offsets_outside_the_file(offset: int, tmp_path: Path) -> None:
    path = package(tmp_path, model(const("w", blob(offset, 1, 4), ROW), SUM[1]))
    with pytest.raises(IntegrityError):
        run(path)


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "@model_path/../../../weight.bin", "@model_path/weights", "weight.bin"]
)
def test_weights_outside_the_package(file: str, tmp_path: Path) -> None:
    path = package(tmp_path, model(const("w", blob(64, 1, 4, file=file), ROW), SUM[1]))
    with pytest.raises(IntegrityError):
        run(path)


@pytest.mark.parametrize("item", ["../../secret", "/etc/passwd", "com.apple.CoreML/../../x", "a\\..\\b", ""])
def test_manifest_that_leads_outside(item: str, tmp_path: Path) -> None:
    path = package(tmp_path, model(*SUM))
    manifest = json.loads((path / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = item
    (path / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError):
        read_package(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"itemInfoEntries": []}', '{"itemInfoEntries": {"a": 1}}', "[" * 100_000, "\0"]
)
def test_broken_manifest(text: str, tmp_path: Path) -> None:
    path = package(tmp_path, model(*SUM))
    (path / "Manifest.json").write_text(text)
    with pytest.raises(IntegrityError):
        read_package(path)


def test_links_that_lead_outside(tmp_path: Path) -> None:
    path = package(tmp_path, model(*SUM))
    outside = tmp_path / "outside.bin"
    outside.write_bytes(weights(9, 9, 9, 9))
    (path / WEIGHTS_PATH).unlink()
    (path / WEIGHTS_PATH).symlink_to(outside)
    with pytest.raises(IntegrityError, match="leads out"):
        run(path)
    with pytest.raises(IntegrityError, match="link"):
        inspect_coreml(path)


def test_zipped_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zipped.mlpackage"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil", b"x")
    with pytest.raises(UsageError, match="unpack it first"):
        inspect_artifact(path)
    assert not (tmp_path.parent / "evil").exists()


def test_other_kinds_of_models_are_refused_by_name() -> None:
    described = field(2, field(1, feature("x", 1, 4)))
    with pytest.raises(FormatMismatchError, match=r"neuralNetwork,|neuralNetwork but|holds neuralNetwork"):
        read_model(field(1, 4) + described + field(500, b""))
    with pytest.raises(FormatMismatchError, match="pipeline"):
        read_model(field(1, 4) + described + field(202, b""))
    with pytest.raises(FormatMismatchError, match="2 functions"):
        read_model(model(functions={"main": function(*SUM), "adapter": function(*SUM)}))
    with pytest.raises(FormatMismatchError, match="image"):
        read_model(
            field(1, 9) + field(2, field(1, field(1, "x") + field(3, field(4, b"")))) + field(502, b"")
        )


def test_unknown_operators_are_named_when_opened(tmp_path: Path) -> None:
    content = model(
        operation("frobnicate", named("a", ROW), ("x", "x")),
        operation("random_normal", named("y", ROW), ("x", "a")),
    )
    with pytest.raises(ConversionError, match=r"frobnicate \(1\), random_normal \(1\)"):
        Interpreter(read_package(package(tmp_path, content)))


@pytest.mark.parametrize(
    "kind",
    [
        tensor_type(FLOAT32, 1 << 40),
        tensor_type(FLOAT32, 1 << 20, 1 << 20),
        tensor_type(FLOAT32, *[1] * 40),
        tensor_type(FLOAT32, 4, rank=1 << 40),
        tensor_type(77, 4),
        tensor_type(FLOAT32, -5),
    ],
    ids=["dimension", "product", "rank", "claimed rank", "type", "negative"],
)
def test_absurd_types(kind: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_model(model(operation("relu", named("y", kind), ("x", "x"))))


@pytest.mark.parametrize(
    ("kind", "name", "numbers"),
    [
        ("tile", "reps", (1, 1 << 30)),
        ("pad", "pad", (0, 0, 1 << 30, 0)),
        ("reshape", "shape", (1 << 30, 1 << 30)),
        ("reshape", "shape", (-1, -1)),
        ("transpose", "perm", (0, 9)),
        ("expand_dims", "axes", tuple(range(40))),
        ("reverse", "axes", (7,)),
    ],
)
def test_absurd_arguments(kind: str, name: str, numbers: tuple[int, ...], tmp_path: Path) -> None:
    constant = const("n", integers(*numbers), tensor_type(INT32, len(numbers)))
    path = package(tmp_path, model(constant, operation(kind, named("y", ROW), ("x", "x"), (name, "n"))))
    with pytest.raises(ConversionError, match=kind):
        run(path)


def test_results_must_be_what_is_declared(tmp_path: Path) -> None:
    for kind in (tensor_type(FLOAT32, 4, 1), tensor_type(INT32, 1, 4)):
        path = package(tmp_path, model(operation("relu", named("y", kind), ("x", "x"))))
        with pytest.raises(ConversionError, match="is declared"):
            run(path)


def test_names_that_nothing_made(tmp_path: Path) -> None:
    path = package(tmp_path, model(operation("relu", named("y", ROW), ("x", "ghost"))))
    with pytest.raises(ConversionError, match="ghost"):
        run(path)
    path = package(tmp_path, model(operation("relu", named("z", ROW), ("x", "x"))))
    with pytest.raises(ConversionError, match="'y'"):
        Interpreter(read_package(path)).run({"x": np.ones((1, 4), np.float32)})


def test_loops_without_an_end_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright.backends.coreml_interpreter.MAX_STEPS", 1000)
    truth = const(
        "yes", field(2, tensor_type(1)) + field(3, field(1, field(3, field(1, b"\1")))), tensor_type(1)
    )
    condition = field(1, named("v", ROW)) + field(2, "yes") + field(3, truth)
    body = field(1, named("u", ROW)) + field(2, "u")
    loop = operation("while_loop", named("y", ROW), ("loop_vars", "x"), blocks=(condition, body))
    with pytest.raises(ConversionError, match="1000 steps"):
        run(package(tmp_path, model(loop)))


def test_nesting_is_bounded() -> None:
    block = field(2, "x")
    for _ in range(2000):
        block = field(3, operation("cond", named("y", ROW), ("pred", "x"), blocks=(block,)))
    with pytest.raises(IntegrityError, match="nested"):
        read_model(model(operation("cond", named("y", ROW), ("pred", "x"), blocks=(block,))))


@pytest.mark.parametrize(
    ("dtype", "bits"), [("uint1", 1), ("uint2", 2), ("uint3", 3), ("uint4", 4), ("uint6", 6), ("int4", 4)]
)
def test_bits_are_packed_from_the_lowest(dtype: str, bits: int, rng: np.random.Generator) -> None:
    low = -(1 << bits - 1) if dtype == "int4" else 0
    values = rng.integers(low, low + (1 << bits), 21)
    whole = sum((int(value) & (1 << bits) - 1) << bits * place for place, value in enumerate(values))
    packed = np.frombuffer(whole.to_bytes(-(-21 * bits // 8), "little"), np.uint8)
    np.testing.assert_array_equal(unpack_bits(packed, 21, dtype), values)
    with pytest.raises(IntegrityError):
        unpack_bits(packed[:-1], 21, dtype)
