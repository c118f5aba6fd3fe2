"""Small Keras files, SavedModels and graphs, written without TensorFlow: field by field, as hostile ones are."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

Part = tuple[int, "int | str | bytes"]


def message(*parts: Part) -> bytes:
    """Return a protobuf message of (field number, value): varints for integers, lengths for the rest."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value & 0xFFFFFFFFFFFFFFFF)
        else:
            content = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(content)) + content
    return out


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def shape(*sizes: int | None) -> bytes:
    """Return a TensorShapeProto; None is a dynamic size."""
    return message(*((2, message((1, -1 if size is None else size))) for size in sizes))


def node(name: str, operator: str, *inputs: str, **attributes: bytes) -> bytes:
    """Return a NodeDef; an attribute is an AttrValue."""
    entries: list[Part] = [(5, message((1, key), (2, value))) for key, value in attributes.items()]
    return message((1, name), (2, operator), *((3, one) for one in inputs), *entries)


FLOAT = message((6, 1))
STRING = message((6, 7))


def placeholder(name: str, *sizes: int | None, dtype: bytes = FLOAT) -> bytes:
    return node(name, "Placeholder", dtype=dtype, shape=message((7, shape(*sizes))))


def constant(name: str, *sizes: int) -> bytes:
    tensor = message((1, 1), (2, shape(*sizes)), (4, np.ones(sizes, np.float32).tobytes()))
    return node(name, "Const", dtype=FLOAT, value=message((8, tensor)))


def call(name: str, function: str, *inputs: str) -> bytes:
    return node(name, "PartitionedCall", *inputs, f=message((10, message((1, function)))))


def function(name: str, arguments: Sequence[str], returns: Mapping[str, str], *nodes: bytes) -> bytes:
    """Return a FunctionDef."""
    inputs: list[Part] = [(2, message((1, one))) for one in arguments]
    outputs: list[Part] = [(3, message((1, one))) for one in returns]
    return message(
        (1, message((1, name), *inputs, *outputs)),
        *((3, one) for one in nodes),
        *((4, message((1, key), (2, value))) for key, value in returns.items()),
    )


def graph(*nodes: bytes, functions: Sequence[bytes] = ()) -> bytes:
    """Return a GraphDef."""
    library: list[Part] = [(2, message(*((1, one) for one in functions)))] if functions else []
    return message(*((1, one) for one in nodes), *library)


def tensor(reference: str, *sizes: int | None, dtype: int = 1) -> bytes:
    return message((1, reference), (2, dtype), (3, shape(*sizes)))


def signature(inputs: Mapping[str, bytes], outputs: Mapping[str, bytes]) -> bytes:
    """Return a SignatureDef."""
    return message(
        *((1, message((1, key), (2, value))) for key, value in inputs.items()),
        *((2, message((1, key), (2, value))) for key, value in outputs.items()),
    )


def write_saved_model(
    folder: Path,
    content: bytes,
    signatures: Mapping[str, bytes],
    *,
    savers: bytes = b"",
    objects: bytes = b"",
    assets: Sequence[str] = (),
) -> Path:
    """Write a SavedModel with one graph, tagged "serve"."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Part] = [(1, message((4, "serve"))), (2, content), (3, savers)]
    parts += [(5, message((1, key), (2, value))) for key, value in signatures.items()]
    parts += [(6, message((2, name))) for name in assets]
    parts += [(7, objects)] if objects else []
    (folder / "saved_model.pb").write_bytes(message((1, 1), (2, message(*parts))))
    return folder


def dense_graph(*extra: bytes) -> bytes:
    """Return y = relu(x W), x [?, 4], W [4, 3]."""
    return graph(
        placeholder("x", None, 4),
        constant("w", 4, 3),
        node(
            "product", "MatMul", "x", "w", T=FLOAT, _output_shapes=message((1, message((7, shape(None, 3)))))
        ),
        node("y", "Relu", "product", T=FLOAT, _output_shapes=message((1, message((7, shape(None, 3)))))),
        *extra,
    )


DENSE = {"serving_default": signature({"x": tensor("x:0", None, 4)}, {"y": tensor("y:0", None, 3)})}


def layer(class_name: str, name: str, **config: object) -> dict[str, object]:
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": {"name": name, **config},
        "registered_name": None,
    }


def sequential(*layers: dict[str, object], size: int | None = 4) -> dict[str, object]:
    """Return the configuration of a Keras 3 Sequential model of [?, size] inputs."""
    head = layer("InputLayer", "x", batch_shape=[None, size], dtype="float32", sparse=False, ragged=False)
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [head, *layers]},
        "registered_name": None,
    }


def weights(fill: Callable[[h5py.File], None]) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        fill(file)
    return stream.getvalue()


def dense_weights(file: h5py.File) -> None:
    group = file.create_group("layers/dense/vars")
    group.attrs["name"] = "scores"
    group["0"], group["1"] = np.ones((4, 3), np.float32), np.zeros(3, np.float32)


DENSE_MODEL = sequential(layer("Dense", "scores", units=3, activation="relu"))


def write_keras(
    path: Path,
    config: Mapping[str, object] = DENSE_MODEL,
    *,
    held: bytes | None = None,
    extra: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a `.keras` archive."""
    members = {
        "metadata.json": b'{"keras_version": "3.15.1"}',
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": weights(dense_weights) if held is None else held,
        **(extra or {}),
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_h5(path: Path, config: Mapping[str, object], *, version: str = "2.4.0") -> Path:
    """Write a Keras `.h5` file, its weights as Keras 2 names them."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(config), version
        file["model_weights/scores/scores/kernel:0"] = np.ones((4, 3), np.float32)
        file["model_weights/scores/scores/bias:0"] = np.zeros(3, np.float32)
        file["optimizer_weights/Adam/m:0"] = np.zeros((4, 3), np.float32)
    return path
