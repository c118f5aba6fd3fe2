"""What a file says of itself becomes a specification; what it says wrongly becomes one error."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import EdgewrightError, FormatMismatchError, IntegrityError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.choice import read_quantization
from edgewright.processing.metadata import ExportNotes, export_notes, infer, labels_inside, read_names
from edgewright.processing.presets import Subject
from edgewright.processing.processor import Processor, Signature, plan
from edgewright.processing.specification import read_specification, write_specification
from edgewright.sources.embedded import read_tflite_notes
from edgewright.sources.tflite import read_tflite

IMAGE = TensorSpec(name="image", shape=(1, 8, 8, 3), dtype="float32")
SCORES = TensorSpec(name="scores", shape=(1, 3), dtype="float32")
CLASSIFIER = Signature(inputs=(IMAGE,), outputs=(SCORES,))
LABELS = b"one\ntwo\nthree\n"


@dataclass(frozen=True, kw_only=True)
class Note:
    """One tensor's metadata, as it is written for a test."""

    name: str = "image"
    content: int = 0  # 2: an image
    colours: int = 1
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    threshold: float | None = None
    labels: str = ""
    corners: Sequence[int] = ()


IMAGE_NOTE = Note(content=2, mean=(127.5,), std=(127.5,))
LABEL_NOTE = Note(name="probability", labels="labels.txt")


def tflite(
    path: Path, inputs: Sequence[Note], outputs: Sequence[Note], files: Mapping[str, bytes] | None = None
) -> Path:
    """Write a file with the identifier of LiteRT, TFLite Metadata and packed files, but without a graph."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    described = metadata(inputs, outputs)
    data = builder.CreateByteVector(described)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, data, 0)
    buffer = builder.EndObject()
    name = builder.CreateString("TFLITE_METADATA")
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUint32Slot(1, 0, 7)
    row = builder.EndObject()
    buffers, rows = vector(builder, [buffer]), vector(builder, [row])
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(4, buffers, 0)
    builder.PrependUOffsetTRelativeSlot(6, rows, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    if files is not None:
        with zipfile.ZipFile(path, "a") as archive:
            for file, content in files.items():
                archive.writestr(file, content)
    return path


def metadata(inputs: Sequence[Note], outputs: Sequence[Note]) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(0)
    graphs = []
    made = [vector(builder, [tensor(builder, note) for note in notes]) for notes in (inputs, outputs)]
    builder.StartObject(10)
    builder.PrependUOffsetTRelativeSlot(2, made[0], 0)
    builder.PrependUOffsetTRelativeSlot(3, made[1], 0)
    graphs.append(builder.EndObject())
    listed = vector(builder, graphs)
    builder.StartObject(8)
    builder.PrependUOffsetTRelativeSlot(3, listed, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"M001")
    return bytes(builder.Output())


def tensor(builder: object, note: Note) -> int:
    import flatbuffers

    assert isinstance(builder, flatbuffers.Builder)
    name = builder.CreateString(note.name)
    units, content, files = [], 0, []
    if note.mean:
        mean = builder.CreateNumpyVector(np.array(note.mean, np.float32))
        std = builder.CreateNumpyVector(np.array(note.std, np.float32))
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(0, mean, 0)
        builder.PrependUOffsetTRelativeSlot(1, std, 0)
        units.append(unit(builder, 1, builder.EndObject()))
    if note.threshold is not None:
        builder.StartObject(1)
        builder.PrependFloat32Slot(0, note.threshold, 0.0)
        units.append(unit(builder, 3, builder.EndObject()))
    if note.content or note.corners:
        order = builder.CreateNumpyVector(np.array(note.corners, np.uint32)) if note.corners else 0
        builder.StartObject(3)
        if note.corners:
            builder.PrependUOffsetTRelativeSlot(0, order, 0)
            builder.PrependInt8Slot(1, 1, 0)
        else:
            builder.PrependInt8Slot(0, note.colours, 0)
        properties = builder.EndObject()
        builder.StartObject(3)
        builder.PrependUint8Slot(0, 3 if note.corners else note.content, 0)
        builder.PrependUOffsetTRelativeSlot(1, properties, 0)
        content = builder.EndObject()
    if note.labels:
        file = builder.CreateString(note.labels)
        builder.StartObject(5)
        builder.PrependUOffsetTRelativeSlot(0, file, 0)
        builder.PrependInt8Slot(2, 2, 0)
        files.append(builder.EndObject())
    unit_rows, file_rows = vector(builder, units), vector(builder, files)
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUOffsetTRelativeSlot(3, content, 0)
    builder.PrependUOffsetTRelativeSlot(4, unit_rows, 0)
    builder.PrependUOffsetTRelativeSlot(6, file_rows, 0)
    return int(builder.EndObject())


def unit(builder: object, kind: int, options: int) -> int:
    import flatbuffers

    assert isinstance(builder, flatbuffers.Builder)
    builder.StartObject(2)
    builder.PrependUint8Slot(0, kind, 0)
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    return int(builder.EndObject())


def vector(builder: object, offsets: Sequence[int]) -> int:
    import flatbuffers

    assert isinstance(builder, flatbuffers.Builder)
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def onnx_file(path: Path, properties: Mapping[str, str]) -> Path:
    """Write the properties of an ONNX file alone: field 14 of ModelProto, a string-string entry each."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.ModelProto(ir_version=8)
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_the_coral_classifier_tells_all(assets: Path, tmp_path: Path) -> None:
    path = assets / "models/coral/mobilenet_v1_0.25_128_quant.tflite"
    program = read_tflite(path, spec=str(path))
    signature = Signature(inputs=tuple(program.inputs), outputs=tuple(program.outputs))
    found = infer(Subject(path=path, signature=signature, quantization=read_quantization(path)))
    assert found is not None and found.task == "classification"
    assert [step.name for step in found.tensors[0].steps] == ["resize"]
    assert [step.name for step in found.results[0].steps] == ["dequantize", "top_k"]
    assert len(found.results[0].labels) == 1001 and found.results[0].labels[0] == "background"
    assert read_specification(write_specification(found, tmp_path)) == found
    plan(found, signature)


def test_a_float_classifier_is_normalized(tmp_path: Path) -> None:
    path = tflite(tmp_path / "m.tflite", [IMAGE_NOTE], [LABEL_NOTE], {"labels.txt": LABELS})
    found = infer(Subject(path=path, signature=CLASSIFIER))
    assert found is not None and found.results[0].labels == ("one", "two", "three")

    def give(model: str, inputs: Mapping[str, object]) -> dict[str, np.ndarray]:
        taken = np.asarray(inputs["image"])
        assert taken.shape == (1, 8, 8, 3) and taken.min() == -1 and taken.max() == 1
        return {"scores": np.array([[0.1, 0.7, 0.2]], np.float32)}

    image = np.zeros((8, 8, 3), np.uint8)
    image[0] = 255
    best = Processor(plan(found, CLASSIFIER)).run({"image": image}, give)["classes"]
    assert best[:, 0].tolist() == [1, 2, 0]


def test_a_detector_is_told_by_the_names_of_its_outputs(tmp_path: Path) -> None:
    outputs = tuple(
        TensorSpec(name=f"out{i}", shape=shape, dtype="float32")
        for i, shape in enumerate([(1, 5), (1, 5, 4), (1,), (1, 5)])
    )  # fmt: skip
    notes = [
        Note(name="score", threshold=0.25), Note(name="location", corners=(1, 0, 3, 2)),
        Note(name="number of detections"), Note(name="category", labels="labels.txt"),
    ]  # fmt: skip
    path = tflite(tmp_path / "m.tflite", [IMAGE_NOTE], notes, {"labels.txt": LABELS})
    signature = Signature(inputs=(IMAGE,), outputs=outputs)
    found = infer(Subject(path=path, signature=signature))
    assert found is not None and found.results[0].sources == ("out1", "out3", "out0", "out2")

    def give(model: str, inputs: object) -> dict[str, np.ndarray]:
        boxes = np.zeros((1, 5, 4), np.float32)
        boxes[0, 0] = (0.25, 0, 0.5, 1)
        scores, kinds = np.array([[0.3, 0.2, 0, 0, 0]], np.float32), np.full((1, 5), 2, np.float32)
        return {"out0": scores, "out1": boxes, "out2": np.array([5], np.float32), "out3": kinds}

    rows = Processor(plan(found, signature)).run({"image": np.zeros((40, 20, 3), np.uint8)}, give)["boxes"]
    assert rows.tolist() == [[0, 10, 20, 20, pytest.approx(0.3), 2]]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([], []),
        ([Note(content=2)], [LABEL_NOTE]),  # of a float input nothing is known
        ([Note(content=4, mean=(0.0,), std=(1.0,))], [LABEL_NOTE]),
        (
            [Note(content=2, colours=2, mean=(0.0,), std=(1.0,))],
            [LABEL_NOTE],
        ),  # grey, but it takes three channels
        ([IMAGE_NOTE], [LABEL_NOTE, LABEL_NOTE]),
    ],
)
def test_too_little_is_no_specification(tmp_path: Path, inputs: list[Note], outputs: list[Note]) -> None:
    path = tflite(tmp_path / "m.tflite", inputs, outputs, {"labels.txt": LABELS})
    assert infer(Subject(path=path, signature=CLASSIFIER)) is None


def test_what_contradicts_the_model_is_refused(tmp_path: Path) -> None:
    three = Note(content=2, mean=(1.0, 2.0), std=(1.0, 2.0))
    with pytest.raises(FormatMismatchError, match="2 and 2 channels"):
        infer(Subject(path=tflite(tmp_path / "a.tflite", [three], [Note(name="p")]), signature=CLASSIFIER))
    path = tflite(tmp_path / "b.tflite", [IMAGE_NOTE], [LABEL_NOTE])
    with pytest.raises(IntegrityError, match="not packed"):
        infer(Subject(path=path, signature=CLASSIFIER))
    path = tflite(tmp_path / "c.tflite", [IMAGE_NOTE], [LABEL_NOTE], {"labels.txt": b"one\ntwo\n"})
    with pytest.raises(FormatMismatchError, match="names 2 classes"):
        infer(Subject(path=path, signature=CLASSIFIER))
    path = tflite(tmp_path / "d.tflite", [IMAGE_NOTE], [LABEL_NOTE], {"labels.txt": b"\xff\xfe\x00"})
    with pytest.raises(IntegrityError, match="UTF-8"):
        infer(Subject(path=path, signature=CLASSIFIER))


def test_a_packed_file_is_bounded(tmp_path: Path) -> None:
    path = tflite(
        tmp_path / "m.tflite", [IMAGE_NOTE], [LABEL_NOTE], {"labels.txt": b"\n" * (64 << 20), "b.txt": b"x"}
    )
    assert dict(read_tflite_notes(path).files) == {"b.txt": b"x"}


def test_damage_gives_one_kind_of_error(tmp_path: Path) -> None:
    path = tflite(tmp_path / "m.tflite", [IMAGE_NOTE], [LABEL_NOTE], {"labels.txt": LABELS})
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(8, len(whole), 3):
            broken[place] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            infer(Subject(path=path, signature=CLASSIFIER))
        except EdgewrightError:
            continue


def test_exports_of_ultralytics(tmp_path: Path) -> None:
    properties = {
        "task": "detect", "names": "{0: 'person', 1: \"potter's wheel\"}", "imgsz": "[64, 64]", "stride": "32"
    }  # fmt: skip
    path = onnx_file(tmp_path / "m.onnx", properties)
    signature = Signature(
        inputs=(TensorSpec(name="images", shape=(1, 3, 64, 64), dtype="float32"),),
        outputs=(TensorSpec(name="output0", shape=(1, 6, 84), dtype="float32"),),
    )
    found = infer(Subject(path=path, signature=signature))
    assert found is not None and found.task == "detection"
    assert found.results[0].labels == ("person", "potter's wheel")

    def give(model: str, inputs: Mapping[str, object]) -> dict[str, np.ndarray]:
        rows = np.zeros((1, 6, 84), np.float32)
        rows[0, :, 3] = (32, 32, 16, 8, 0.1, 0.9)
        return {"output0": rows}

    rows = Processor(plan(found, signature)).run({"image": np.zeros((32, 64, 3), np.uint8)}, give)["boxes"]
    assert rows.tolist() == [[24, 12, 40, 20, pytest.approx(0.9), 1]]
    pose = onnx_file(tmp_path / "p.onnx", properties | {"task": "pose", "kpt_shape": "[17, 3]"})
    assert export_notes(Subject(path=pose, signature=signature)).keypoints == 17
    mask = onnx_file(tmp_path / "s.onnx", properties | {"task": "segment"})
    with pytest.raises(FormatMismatchError, match="'segment'"):
        infer(Subject(path=mask, signature=signature))
    broken = onnx_file(tmp_path / "k.onnx", properties | {"kpt_shape": "[999999, 3]"})
    with pytest.raises(IntegrityError, match="keypoints"):
        infer(Subject(path=broken, signature=signature))


@pytest.mark.parametrize("name", ["metadata.json", "temp_meta.txt"])
def test_exports_to_litert_pack_their_notes(tmp_path: Path, name: str) -> None:
    record = {"task": "detect", "names": {0: "a", 1: "b"}, "stride": 32, "args": {"half": False}}
    packed = (json.dumps(record) if name.endswith("json") else str(record)).encode()
    path = tflite(tmp_path / "m.tflite", [], [], {name: packed})
    subject = Subject(path=path, signature=CLASSIFIER)
    assert export_notes(subject) == ExportNotes(task="detect", names=("a", "b"))
    assert labels_inside(subject) == ("a", "b")


def test_image_properties_of_onnx(tmp_path: Path) -> None:
    path = onnx_file(
        tmp_path / "m.onnx",
        {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1"},
    )
    found = infer(Subject(path=path, signature=CLASSIFIER))
    assert found is not None
    assert [step.name for step in found.tensors[0].steps] == ["channels", "resize", "normalize"]
    assert infer(Subject(path=onnx_file(tmp_path / "n.onnx", {}), signature=CLASSIFIER)) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{}", "{0: person}", "{0: 'a', 2: 'b'}", "{0: 'a'} + 1", "{0: 'a', 1: __import__('os')}",
        "[" * 100_000,
        "{0: 'a', 1: {2: 'b'}}", "{0: '" + "a" * 1000 + "'}", "{0: 'a\\x'}", "{0: 'a', 0: 'b', 2: 'c'}",
        "{" + ", ".join(f"{i}: 'x'" for i in range(100_001)) + "}", "{0: '\\n'}", "{0: '" + "\\" * 400 + "}",
    ],
)  # fmt: skip
def test_names_that_are_no_dictionary_are_refused(text: str) -> None:
    with pytest.raises(EdgewrightError):
        read_names(text, what="a file")


def test_names_as_python_and_json_write_them() -> None:
    assert read_names("{0: 'a', 1: \"b's\", 2: 'c\\'d'}", what="") == ("a", "b's", "c'd")
    assert read_names(json.dumps({"0": "é", "1": "b"}), what="") == ("é", "b")


def test_an_archive_that_lies_about_its_size(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", b"a" * (8 << 20))
    # The sizes that the archive states, in both of its headers.
    lying = stream.getvalue().replace((8 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path = tflite(tmp_path / "m.tflite", [IMAGE_NOTE], [LABEL_NOTE])
    path.write_bytes(path.read_bytes() + lying)
    with pytest.raises(IntegrityError):
        infer(Subject(path=path, signature=CLASSIFIER))


def test_an_archive_of_endless_entries_is_not_listed(tmp_path: Path) -> None:
    path = tflite(tmp_path / "m.tflite", [IMAGE_NOTE], [LABEL_NOTE])
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(20_000):
            archive.writestr(f"{i:060}.txt", b"")
    with pytest.raises(IntegrityError, match="directory"):
        infer(Subject(path=path, signature=CLASSIFIER))
