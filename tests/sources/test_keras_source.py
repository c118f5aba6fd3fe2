"""Keras files: signature, layers and code in them, told without Keras; damaged and hostile ones refused."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.conftest import SEED
from tests.sources.tensorflow_files import (
    DENSE_MODEL,
    dense_weights,
    layer,
    sequential,
    weights,
    write_h5,
    write_keras,
)

from edgewright.core.errors import EdgewrightError, FormatMismatchError, IntegrityError, UsageError
from edgewright.sources.inspection import inspect_program
from edgewright.sources.keras import read_keras
from edgewright.sources.keras_file import read_keras_file
from edgewright.sources.load import inspect_artifact, load
from edgewright.workers.pool import Worker

pytestmark = pytest.mark.toolchain("h5py")


def test_an_archive_tells_its_signature_layers_and_parameters(tmp_path: Path) -> None:
    program = load(str(write_keras(tmp_path / "m.keras")), workdir=tmp_path)
    assert (program.format, program.is_trusted) == ("keras", False)
    assert [str(spec) for spec in (*program.inputs, *program.outputs)] == [
        "x: float32[?, 4]",
        "scores: float32[?, 3]",
    ]
    found = inspect_artifact(program.path)
    assert (found.parameters, found.macs, dict(found.operators)) == (15, 12, {"Dense": 1})


def test_a_file_of_keras_2_counts_its_model_and_not_its_optimizer(tmp_path: Path) -> None:
    config = {
        "class_name": "Sequential",
        "config": [
            {
                "class_name": "Dense",
                "config": {"name": "scores", "units": 3, "batch_input_shape": [None, 4], "dtype": "float32"},
            }
        ],
    }
    program, is_complete = read_keras(write_h5(tmp_path / "m.hdf5", config), spec="m.hdf5")
    assert is_complete
    assert [spec.name for spec in (*program.inputs, *program.outputs)] == ["scores_input", "scores"]
    assert "tf-keras" in program.notes[0]
    assert inspect_program(program).parameters == 15


def test_what_is_kept_for_training_is_no_parameter(tmp_path: Path) -> None:
    def compiled(file: h5py.File) -> None:
        dense_weights(file)
        file["optimizer/vars/1"] = np.ones((4, 3), np.float32)
        file["layers/dropout/seed_generator/vars/0"] = np.ones(2, np.uint32)

    program, _ = read_keras(write_keras(tmp_path / "m.keras", held=weights(compiled)), spec="m")
    assert inspect_program(program).parameters == 15


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("mlperf-tiny/ic_resnet8.h5", 78_666, 12_501_632),
        ("mlperf-tiny/vww_mobilenet_96.h5", 221_794, 7_489_664),
        ("hand-gesture/keypoint_classifier.hdf5", 1_103, 1_070),
    ],
)
def test_real_files_have_the_published_sizes(assets: Path, name: str, parameters: int, macs: int) -> None:
    # MACs: the MLPerf Tiny reference figures; the gesture classifier's by hand: 42x20 + 20x10 + 10x3.
    program, is_complete = read_keras(assets / "models" / name, spec=name)
    found = inspect_program(program)
    assert is_complete
    assert (found.parameters, found.macs) == (parameters, macs)


def test_two_inputs_and_two_outputs_keep_the_order_of_the_model(tmp_path: Path) -> None:
    def tensor(name: str) -> dict[str, object]:
        history = {"shape": [None, 4], "dtype": "float32", "keras_history": [name, 0, 0]}
        return {"class_name": "__keras_tensor__", "config": history}

    head = [
        {
            **layer("InputLayer", name, batch_shape=[None, 4], dtype="float32"),
            "name": name,
            "inbound_nodes": [],
        }
        for name in ("b", "a")
    ]
    joined = layer("Concatenate", "joined", axis=-1)
    joined |= {"name": "joined", "inbound_nodes": [{"args": [[tensor("b"), tensor("a")]], "kwargs": {}}]}
    summed = layer("Add", "sum") | {"name": "sum"}
    summed["inbound_nodes"] = [{"args": [[tensor("b"), tensor("a")]], "kwargs": {}}]
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": "model",
            "layers": [*head, joined, summed],
            "input_layers": [["b", 0, 0], ["a", 0, 0]],
            "output_layers": [["sum", 0, 0], ["joined", 0, 0]],
        },
        "registered_name": "Functional",
    }
    program, _ = read_keras(write_keras(tmp_path / "m.keras", config), spec="m")
    assert [str(spec) for spec in program.inputs] == ["b: float32[?, 4]", "a: float32[?, 4]"]
    assert [str(spec) for spec in program.outputs] == ["sum: float32[?, 4]", "joined: float32[?, 8]"]


def test_dynamic_sizes_are_noted_and_can_be_given(tmp_path: Path) -> None:
    config = sequential(layer("Activation", "same", activation="relu"), size=None)
    path = write_keras(tmp_path / "m.keras", config)
    program, _ = read_keras(path, spec="m")
    assert "dimension 1" in program.notes[0]
    assert "--input-shape" in program.notes[0]
    fixed, _ = read_keras(path, spec="m", input_shapes=["x=1x7"])
    assert [str(spec) for spec in fixed.inputs] == ["x: float32[1, 7]"]
    with pytest.raises(UsageError, match="Only its dynamic dimensions"):
        read_keras(write_keras(tmp_path / "n.keras"), spec="n", input_shapes=["1x7"])


_CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
_HOSTILE: dict[str, tuple[dict[str, object], str]] = {
    "lambda": (layer("Lambda", "evil", function=_CODE), "Lambda layer 'evil'"),
    "registered": (
        {**layer("Mine", "mine"), "module": None, "registered_name": "mine>Mine"},
        "class Mine of mine>Mine",
    ),
    "foreign module": ({**layer("Popen", "p"), "module": "subprocess"}, "class Popen of subprocess"),
    "foreign function": (
        layer("Activation", "a", activation={"class_name": "function", "module": "os", "config": "system"}),
        "function os.system",
    ),
    "keras's own download": (
        layer(
            "Activation",
            "a",
            activation={"class_name": "function", "module": "keras.utils", "config": "get_file"},
        ),
        "function keras.utils.get_file",
    ),
    "tensorflow's file writer": (
        layer("TFOpLambda", "w", function="io.write_file"),
        "TensorFlow function 'io.write_file'",
    ),
    "vocabulary files": (layer("StringLookup", "s", vocabulary="/etc/passwd"), "class StringLookup"),
    "saved model inside": (layer("TFSMLayer", "s", filepath="/tmp/x"), "class TFSMLayer"),
    "initializer": (
        layer(
            "Dense",
            "d",
            units=3,
            kernel_initializer={"module": "builtins", "class_name": "eval", "config": {}},
        ),
        "class eval",
    ),
}


@pytest.mark.parametrize("name", list(_HOSTILE))
def test_code_in_a_file_is_named_and_refused_unless_trusted(name: str, tmp_path: Path) -> None:
    hostile, words = _HOSTILE[name]
    path = write_keras(tmp_path / "m.keras", sequential(hostile))
    with pytest.raises(UsageError, match="--trust") as caught:
        load(str(path), workdir=tmp_path)
    assert words in str(caught.value)
    program, _ = read_keras(path, spec="m", is_trusted=True)
    assert program.is_trusted
    assert any(words in note for note in program.notes)
    assert any(words in note for note in inspect_artifact(path).notes)


def test_strings_subclasses_and_bare_weights_are_refused(tmp_path: Path) -> None:
    config = sequential(layer("Activation", "same", activation="relu"))
    config["config"]["layers"][0]["config"]["dtype"] = "string"  # type: ignore[index]
    with pytest.raises(FormatMismatchError, match="holds string"):
        read_keras(write_keras(tmp_path / "s.keras", config), spec="s")
    subclass = {"module": "mine", "class_name": "Net", "config": {}, "registered_name": None}
    with pytest.raises(FormatMismatchError, match=r"model\.export"):
        read_keras(write_keras(tmp_path / "c.keras", subclass), spec="c", is_trusted=True)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["kernel"] = np.ones(3)
    with pytest.raises(UsageError, match="weights without a model"):
        load(str(tmp_path / "w.h5"), workdir=tmp_path)


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out", "a/../../b", "a\\b"])
def test_members_outside_the_archive_are_refused(name: str, tmp_path: Path) -> None:
    path = write_keras(tmp_path / "m.keras", extra={name: b"x"})
    with pytest.raises(IntegrityError, match="unsafe name"):
        read_keras_file(path)


def test_zip_bombs_and_missing_members_are_refused(tmp_path: Path) -> None:
    path = write_keras(
        tmp_path / "m.keras", extra={"bomb": bytes(64 << 20)}, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(IntegrityError, match="over 200 times"):
        read_keras_file(path)
    with zipfile.ZipFile(tmp_path / "n.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(IntegrityError, match=r"no metadata.json, model.weights.h5"):
        read_keras_file(tmp_path / "n.keras")


def _chunked(file: h5py.File) -> None:
    file.create_dataset("big", shape=(1 << 30,), chunks=(1 << 20,), dtype="f4", compression="gzip")


def _external_link(file: h5py.File) -> None:
    file["outside"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft_link(file: h5py.File) -> None:
    file["here"] = h5py.SoftLink("/nowhere")


def _circle(file: h5py.File) -> None:
    group = file.create_group("a/b")
    group["again"] = file["a"]


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("raw", shape=(4,), dtype="f4", external=[("/etc/hostname", 0, 16)])


def _deep(file: h5py.File) -> None:
    file.create_group("/".join("d" for _ in range(100)))


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (_chunked, "unpack to over"),
        (_external_link, "link to elsewhere"),
        (_soft_link, "link to elsewhere"),
        (_circle, "reached twice"),
        (_external_storage, "in another file"),
        (_deep, "too deep"),
    ],
)
def test_hdf5_files_that_grow_or_point_elsewhere_are_refused(
    fill: Callable[[h5py.File], None], words: str, tmp_path: Path
) -> None:
    path = write_keras(tmp_path / "m.keras", held=weights(fill))
    with pytest.raises(IntegrityError, match=words):
        read_keras_file(path)


def test_a_configuration_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", '{"config":' + "[" * 100_000 + "]" * 100_000 + "}")
        archive.writestr("model.weights.h5", weights(dense_weights))
    with pytest.raises(IntegrityError, match="deeply"):
        read_keras_file(path)


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_truncated_and_mutated_files_give_one_error_and_never_end_the_worker(
    kind: str, tmp_path: Path, worker: Worker
) -> None:
    whole = tmp_path / f"whole.{kind}"
    if kind == "keras":
        write_keras(whole)
    else:
        write_h5(whole, {"class_name": "Sequential", "config": DENSE_MODEL["config"]}, version="3.15.1")
    content = whole.read_bytes()
    source = random.Random(SEED)
    path = tmp_path / f"m.{kind}"
    arguments: dict[str, object] = {"spec": "m", "path": str(path), "format": "keras", "layout": None}
    path.write_bytes(content)
    worker.call("edgewright.sources.operations:read", arguments)
    pid = worker.pid
    for part in (0.02, 0.3, 0.6, 0.95):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises((IntegrityError, FormatMismatchError)):
            worker.call("edgewright.sources.operations:read", arguments)
    for _ in range(60):
        mutated = bytearray(content)
        for _ in range(source.choice([1, 4, 16])):
            mutated[source.randrange(len(mutated))] = source.randrange(256)
        path.write_bytes(mutated)
        error = _error_of(worker, arguments)
        assert error is None or type(error) in (IntegrityError, FormatMismatchError, UsageError), error
        assert "\n" not in str(error)
    assert worker.pid == pid


def _error_of(worker: Worker, arguments: dict[str, object]) -> EdgewrightError | None:
    try:
        worker.call("edgewright.sources.operations:read", arguments)
    except EdgewrightError as err:
        return err
    return None
