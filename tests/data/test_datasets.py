"""Data sets from files and functions: what fits is given as it is, what does not says what to do."""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.data.datasets import check_labels, digest_of, load_dataset, make_dataset
from edgewright.data.synthetic import synthetic_inputs


def _spec(*shape: int | None, dtype: str = "float32", name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


@pytest.fixture
def images(rng: np.random.Generator) -> Array:
    return rng.random((12, 1, 8, 6)).astype(np.float32)


def _save(path: Path, **arrays: Array) -> str:
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize("key", ["x", "inputs", "images", "whatever"])
@pytest.mark.parametrize("label_key", ["labels", "label", "y", "targets", "target"])
def test_npz_of_one_input_takes_any_name(tmp_path: Path, images: Array, key: str, label_key: str) -> None:
    spec = _save(tmp_path / "d.npz", **{key: images, label_key: np.arange(12) % 3})
    for batch in (None, 1):
        dataset = load_dataset(spec, [_spec(batch, 1, 8, 6)])
        np.testing.assert_array_equal(dataset.inputs["x"], images)
        assert dataset.labels is not None and dataset.labels.tolist() == [0, 1, 2] * 4
        assert dataset.count == 12 and dataset.description.startswith("12 samples of ")


def test_an_input_called_y_is_an_input(tmp_path: Path, images: Array) -> None:
    dataset = load_dataset(
        _save(tmp_path / "d.npz", y=images, labels=np.zeros(12, int)), [_spec(1, 1, 8, 6, name="y")]
    )
    assert list(dataset.inputs) == ["y"] and dataset.labels is not None


def test_several_inputs_go_by_name(tmp_path: Path, images: Array) -> None:
    specs = [
        _spec(None, 1, 8, 6, name="image"),
        _spec(1, dtype="int64", name="rate"),
        _spec(2, 1, 4, name="state"),
    ]
    arrays = {"state": np.zeros((12, 2, 1, 4), np.float32), "rate": np.full((12,), 16000), "image": images}
    dataset = load_dataset(_save(tmp_path / "d.npz", **arrays), specs)
    assert list(dataset.inputs) == ["image", "rate", "state"] and dataset.labels is None
    assert [lint.code for lint in dataset.lints] == ["data-constant-input"] * 2
    with pytest.raises(DataError, match=r"\['image', 'other'\].*image.*rate.*state"):
        load_dataset(_save(tmp_path / "e.npz", image=images, other=images), specs)


def test_left_over_and_doubled_arrays_are_refused(tmp_path: Path, images: Array) -> None:
    with pytest.raises(DataError, match=r"\['x_test', 'x_train', 'y_train'\]"):
        load_dataset(
            _save(tmp_path / "a.npz", x_train=images, x_test=images, y_train=images), [_spec(1, 1, 8, 6)]
        )
    with pytest.raises(DataError, match="labels under"):
        load_dataset(_save(tmp_path / "b.npz", x=images, y=images, labels=images), [_spec(1, 1, 8, 6)])


@pytest.mark.parametrize(
    ("shape", "wanted", "advice"),
    [
        ((5, 8, 6, 3), (None, 3, 8, 6), r"channels last.*x\.transpose\(0, 3, 1, 2\) gives \[5, 3, 8, 6\]"),
        ((5, 3, 8, 6), (1, 8, 6, 3), r"channels first.*x\.transpose\(0, 2, 3, 1\) gives \[5, 8, 6, 3\]"),
        (
            (5, 28, 28),
            (None, 1, 28, 28),
            r"has shape \[5, 28, 28\].*channel axis: numpy\.expand_dims\(x, 1\)",
        ),
        ((5, 28, 28), (None, 28, 28, 1), r"numpy\.expand_dims\(x, 3\) gives \[5, 28, 28, 1\]"),
        ((5, 1, 28, 28), (None, 28, 28), r"x\.squeeze\(1\) gives \[5, 28, 28\]"),
        ((5, 100, 6), (1, 6, 100), r"x\.transpose\(0, 2, 1\)"),
        ((3, 8, 6), (1, 3, 8, 6), r"one sample; x\[None\]"),
        ((5, 4, 7), (1, 28), r"x\.reshape\(\[5, 28\]\)"),
        ((5, 3, 8, 6), (32, 3, 8, 6), "batch is fixed at 32"),
        ((5, 9), (1, 28), r"\[28\] are expected"),
    ],
)
def test_another_shape_is_never_repaired_but_explained(
    tmp_path: Path,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    wanted: tuple[int | None, ...],
    advice: str,
) -> None:
    path = _save(tmp_path / "d.npz", x=rng.random(shape).astype(np.float32))
    with pytest.raises(DataError, match=advice):
        load_dataset(path, [_spec(*wanted)])


def test_following_the_advice_makes_it_fit(tmp_path: Path, rng: np.random.Generator) -> None:
    last = rng.random((5, 8, 6, 3)).astype(np.float32)
    load_dataset(_save(tmp_path / "d.npz", x=last.transpose(0, 3, 1, 2)), [_spec(None, 3, 8, 6)])
    load_dataset(_save(tmp_path / "e.npz", x=np.expand_dims(last, 1)), [_spec(None, 1, 8, 6, 3)])


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f8", ">f4"])
def test_floats_become_float32_with_a_note(tmp_path: Path, images: Array, dtype: str) -> None:
    dataset = load_dataset(_save(tmp_path / "d.npz", x=images.astype(dtype)), [_spec(1, 1, 8, 6)])
    assert dataset.inputs["x"].dtype == np.float32
    assert ("cast from" in dataset.description) == (dtype != ">f4")


@pytest.mark.parametrize(
    ("have", "want", "advice"),
    [
        ("uint8", "float32", "255"),
        ("float32", "int8", r"round\(x / scale\) \+ zero_point"),
        ("uint8", "int8", "128 apart"),
        ("int32", "int64", r"astype\('int64'\)"),
        ("float32", "float16", "Cast it"),
    ],
)
def test_other_dtypes_are_refused(tmp_path: Path, images: Array, have: str, want: str, advice: str) -> None:
    path = _save(tmp_path / "d.npz", x=(images * 9).astype(have))
    with pytest.raises(DataError, match=advice):
        load_dataset(path, [_spec(1, 1, 8, 6, dtype=want)])


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "d.npz", x=np.array([[1.0], [1e300]]))
    with pytest.raises(DataError, match="infinity in sample 1"):
        load_dataset(path, [_spec(None, 1)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 300, 699])
def test_the_first_bad_sample_is_named(
    tmp_path: Path, rng: np.random.Generator, value: float, index: int
) -> None:
    array = rng.random((700, 3)).astype(np.float32)
    array[index:, 1] = value
    with pytest.raises(DataError, match=f"'x' has NaN or infinity in sample {index}\\."):
        load_dataset(_save(tmp_path / "d.npz", x=array), [_spec(None, 3)])


def test_constant_data_are_refused_and_a_dead_channel_is_named(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for array in (np.zeros((4, 3)), np.tile([1.0, 2.0, 3.0], (4, 1)), np.full((1, 3), 7.0)):
        with pytest.raises(DataError, match="same values in every sample"):
            load_dataset(_save(tmp_path / "d.npz", x=array), [_spec(None, 3)])
    load_dataset(_save(tmp_path / "one.npz", x=rng.random((1, 3))), [_spec(None, 3)])
    array = rng.random((9, 8, 8, 3)).astype(np.float32)
    array[..., 1] = 0.25
    spec = TensorSpec(name="x", shape=(None, 8, 8, 3), dtype="float32", layout="nhwc")
    lints = load_dataset(_save(tmp_path / "e.npz", x=array), [spec]).lints
    assert [lint.code for lint in lints] == ["data-constant-channel"] and "[1]" in lints[0].message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(11, int), "12 samples, but 11 labels"),
        (np.int64(3), "a single value labels"),
        (np.array(["a"] * 12), "integer and float"),
        (np.array([0.0] * 11 + [np.nan]), "'labels' has NaN or infinity in sample 11"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, images: Array, labels: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(_save(tmp_path / "d.npz", x=images, labels=labels), [_spec(1, 1, 8, 6)])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "there are none"),
        (np.array([0, 1, 3]), "label 3 of sample 2 is outside 0..2"),
        (np.array([0, -1, 2]), "label -1 of sample 1"),
        (np.array([0.0, 1.0, 2.0]), "dtype float64"),
        (np.eye(3), r"labels\.argmax\(1\)"),
        (np.zeros((3, 1), int), r"labels\.reshape\(-1\)"),
    ],
)
def test_check_labels(labels: Array | None, message: str) -> None:
    dataset = make_dataset({"x": np.zeros((3, 2))}, labels, description="three samples")
    with pytest.raises(DataError, match=message):
        check_labels(dataset, 3)
    good = make_dataset({"x": np.zeros((3, 2))}, np.array([2, 0, 1], np.uint8), description="three samples")
    assert check_labels(good, 3).dtype == np.int64


def test_empty_and_unequal_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sample"):
        load_dataset(_save(tmp_path / "d.npz", x=np.zeros((0, 3))), [_spec(None, 3)])
    with pytest.raises(DataError, match="different sample counts"):
        load_dataset(
            _save(tmp_path / "e.npz", a=np.eye(3), b=np.eye(4)),
            [_spec(None, 3, name="a"), _spec(None, 4, name="b")],
        )


def test_the_digest_follows_names_dtypes_shapes_bytes_and_labels_only() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    base = digest_of({"a": array, "b": array}, None)
    assert digest_of({"b": array, "a": np.asfortranarray(array)}, None) == base
    assert digest_of({"a": array.astype(">f4"), "b": array}, None) == base
    others = [
        digest_of({"a": array, "c": array}, None),
        digest_of({"a": array, "b": array.reshape(3, 2, 2)}, None),
        digest_of({"a": array, "b": array.view(np.int32)}, None),
        digest_of({"a": array, "b": array + 1}, None),
        digest_of({"a": array, "b": array}, np.arange(3)),
    ]
    assert len({base, *others}) == 6


def test_what_is_not_there_or_not_readable(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for spec, message in (("absent.npz", "does not exist"), (str(tmp_path / "notes.txt"), "no data set")):
        with pytest.raises(DataError, match=message):
            load_dataset(spec, [_spec(1, 3)])


def _idx(array: Array, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    for prefix, count in (("t10k", 5), ("train", 9)):
        pixels = rng.integers(0, 256, (count, 7, 6)).astype(np.uint8)
        numbers = (np.arange(count) % 3).astype(np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(pixels))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(numbers)))
    return tmp_path


@pytest.mark.parametrize("shape", [(1, 7, 6), (7, 6, 1), (7, 6), (42,)])
def test_idx_is_given_as_the_model_takes_it(idx_folder: Path, shape: tuple[int, ...]) -> None:
    spec = f"{idx_folder}:t10k"
    raw = np.frombuffer((idx_folder / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    dataset = load_dataset(spec, [_spec(None, *shape)])
    np.testing.assert_array_equal(dataset.inputs["x"].reshape(-1), raw.astype(np.float32) / np.float32(255))
    assert dataset.inputs["x"].shape == (5, *shape) and "/ 255" in dataset.description
    as_stored = load_dataset(spec, [_spec(None, *shape, dtype="uint8")]).inputs["x"]
    np.testing.assert_array_equal(as_stored.reshape(-1), raw)
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 1, 2, 0, 1]
    file = load_dataset(str(idx_folder / "t10k-images-idx3-ubyte"), [_spec(None, *shape)])
    assert file.sha256 == dataset.sha256


def test_idx_needs_a_choice_a_fit_and_its_labels(idx_folder: Path) -> None:
    for spec, shape, dtype, message in (
        (f"{idx_folder}", (7, 6), "float32", "Choose one: .*:t10k or .*:train"),
        (f"{idx_folder}:test", (7, 6), "float32", "Choose one of: t10k, train"),
        (f"{idx_folder}:t10k", (6, 7), "float32", "7x6 gray"),
        (f"{idx_folder}:t10k", (7, 6), "int8", "zero_point"),
        (f"{idx_folder / 't10k-labels-idx1-ubyte.gz'}", (7, 6), "float32", "Name the images file"),
    ):
        with pytest.raises(DataError, match=message):
            load_dataset(spec, [_spec(None, *shape, dtype=dtype)])
    (idx_folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="no labels file"):
        load_dataset(f"{idx_folder}:t10k", [_spec(None, 7, 6)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX magic"),
        (b"\x00\x01\x08\x03", "no IDX magic"),
        (b"\x00\x00\x07\x03" + bytes(20), "no IDX magic"),
        (b"\x00\x00\x08\xff" + bytes(2000), "no IDX magic"),
        (b"\x00\x00\x08\x03" + bytes(5), "inside its header"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12 + bytes(9), "at most"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 1000, 1000, 1000) + bytes(9), "but holds 9"),
        (_idx(np.zeros((2, 7, 6), np.uint8)) + b"\0", "holds more"),
        (_idx(np.zeros((2, 7), np.uint8)), "uint8 images"),
    ],
)
def test_broken_idx(idx_folder: Path, content: bytes, message: str) -> None:
    (idx_folder / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(f"{idx_folder}:t10k", [_spec(None, 7, 6)])


def test_broken_gzip_idx(idx_folder: Path) -> None:
    labels = idx_folder / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    for content in (whole[:-9], whole[:12], b"plain text", whole[:-6] + b"\0" * 6):
        labels.write_bytes(content)
        with pytest.raises(DataError):
            load_dataset(f"{idx_folder}:t10k", [_spec(None, 7, 6)])


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "user_loaders_of_the_tests"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "x = np.random.default_rng(0).random((6, 3)).astype('float32')\n"
        "y = np.arange(6) % 2\n"
        "def pair(): return x, y\n"
        "def alone(): return x\n"
        "def named(): return {'x': x, 'labels': y}\n"
        "def nested(): return {'x': x}, None\n"
        "def helper(): import user_helper_of_the_tests as h; return h.value, y\n"
        "def lists(): return x.tolist(), y\n"
        "def three(): return x, y, y\n"
        "def nothing(): return None\n"
        "def objects(): return np.array([object()]), None\n"
        "def numbered(): return {0: x}\n"
        "def fails(): raise KeyError('gone')\n"
        "constant = 3\n"
    )
    (tmp_path / "user_helper_of_the_tests.py").write_text(
        "from user_loaders_of_the_tests import x as value\n"
    )
    (tmp_path / "user_broken_of_the_tests.py").write_text("import no_such_module_at_all\n")
    monkeypatch.chdir(tmp_path)
    yield name
    for module in (name, "user_helper_of_the_tests", "user_broken_of_the_tests"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize("function", ["pair", "alone", "named", "nested", "helper"])
def test_a_function_gives_arrays(user_module: str, function: str) -> None:
    before = list(sys.path)
    dataset = load_dataset(f"{user_module}:{function}", [_spec(None, 3)])
    assert dataset.count == 6 and (dataset.labels is None) == (function in ("alone", "nested"))
    assert sys.path == before


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("lists", "returned list for 'inputs'"),
        ("three", "returned 3 values"),
        ("nothing", "returned NoneType"),
        ("objects", "object array"),
        ("numbered", "for 0"),
        ("fails", "failed: KeyError: 'gone'"),
        ("constant", "no function 'constant'"),
        ("absent", "no function 'absent'"),
    ],
)
def test_a_function_that_returns_junk(user_module: str, function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(f"{user_module}:{function}", [_spec(None, 3)])


def test_a_module_that_cannot_be_imported(user_module: str) -> None:
    for module in ("user_broken_of_the_tests", "no_such_module_at_all"):
        with pytest.raises(DataError, match=f"cannot import '{module}'.*ModuleNotFoundError"):
            load_dataset(f"{module}:load", [_spec(None, 3)])


def test_synthetic_inputs_say_so_and_follow_the_signature() -> None:
    specs = [
        _spec(None, 3, 8, None, name="f"),
        _spec(1, 50, dtype="int8", name="q"),
        _spec(dtype="int64", name="sr"),
        _spec(2, 1, 4, name="state"),
        _spec(None, 5, dtype="int64", name="ids"),
        _spec(None, 5, dtype="bool", name="mask"),
    ]
    dataset = synthetic_inputs(specs, count=40, seed=1)
    assert dataset.description.startswith("synthetic") and dataset.labels is None
    shapes = {name: array.shape for name, array in dataset.inputs.items()}
    assert shapes == {
        "f": (40, 3, 8, 1),
        "q": (40, 50),
        "sr": (40,),
        "state": (40, 2, 1, 4),
        "ids": (40, 5),
        "mask": (40, 5),
    }
    assert [str(dataset.inputs[spec.name].dtype) for spec in specs] == [spec.dtype for spec in specs]
    assert dataset.inputs["q"].min() < -120 and dataset.inputs["q"].max() > 120
    assert set(dataset.inputs["sr"].tolist()) == {1} and set(dataset.inputs["ids"].reshape(-1).tolist()) == {
        0,
        1,
    }
    assert synthetic_inputs(specs, count=40, seed=1).sha256 == dataset.sha256
    assert synthetic_inputs(specs, count=40, seed=2).sha256 != dataset.sha256
    chosen = synthetic_inputs(specs, count=4, seed=1, values={"sr": np.array(16000)})
    assert chosen.inputs["sr"].tolist() == [16000] * 4


def test_synthetic_values_must_fit() -> None:
    with pytest.raises(DataError, match="'rate'"):
        synthetic_inputs([_spec(dtype="int64", name="sr")], count=2, seed=0, values={"rate": np.array(1)})
    with pytest.raises(DataError, match="int64"):
        synthetic_inputs([_spec(dtype="int64", name="sr")], count=2, seed=0, values={"sr": np.array(1.5)})
    with pytest.raises(DataError, match="made up"):
        synthetic_inputs([_spec(1, dtype="string")], count=2, seed=0)
