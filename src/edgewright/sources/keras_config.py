"""A Keras configuration as a graph of calls: which layer reads which, in both generations' spellings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError

Shape = tuple[int | None, ...]

_MODELS = ("Functional", "Sequential", "Model")
_MAX_LAYERS = 100_000
_MAX_DEPTH = 32


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Output `tensor` of the call number `node` of a layer; `shape` where the file tells it."""

    layer: str
    node: int
    tensor: int
    shape: Shape | None = None


@dataclass(frozen=True, kw_only=True)
class KerasLayer:
    """One layer; `calls` are the tensors that each of its calls reads; `model` is set for a model inside a model."""

    name: str
    class_name: str
    config: Mapping[str, object]
    calls: tuple[tuple[Reference, ...], ...]
    input_shape: Shape | None
    model: KerasModel | None = None


@dataclass(frozen=True, kw_only=True)
class KerasModel:
    """A model: its layers in the file's order, its inputs (InputLayers) and its outputs."""

    name: str
    layers: tuple[KerasLayer, ...]
    inputs: tuple[Reference, ...]
    outputs: tuple[Reference, ...]

    @property
    def by_name(self) -> dict[str, KerasLayer]:
        """Layer name -> layer."""
        return {layer.name: layer for layer in self.layers}

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, see `output_names`."""
        return output_names([(output.layer, output.node, output.tensor) for output in self.outputs])


def output_names(outputs: Sequence[tuple[str, int, int]]) -> tuple[str, ...]:
    """Return a unique name for each output (layer, call, tensor): the layer's, numbered where it gives several.

    It does not depend on the order of the outputs.
    """
    counts = Counter(layer for layer, _, _ in outputs)
    return tuple(
        layer if counts[layer] == 1 else f"{layer}_{node}_{tensor}" for layer, node, tensor in outputs
    )


def parse_model(config: Mapping[str, object], path: Path) -> KerasModel:
    """Return the model that `config` describes.

    Raises:
        FormatMismatchError: a class of model that has no graph in the file (a subclass of Model).
        IntegrityError: the configuration contradicts itself.
    """
    try:
        return _model(config, path, 0)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as err:
        raise IntegrityError(
            f"{path}: its configuration is damaged ({type(err).__name__}: {str(err)[:100]}). Save the model again."
        ) from err


def _model(record: Mapping[str, object], path: Path, depth: int) -> KerasModel:
    kind, config = record["class_name"], record["config"]
    if depth > _MAX_DEPTH:
        raise IntegrityError(f"{path}: models are nested deeper than {_MAX_DEPTH}.")
    if kind == "Sequential" and isinstance(config, list):  # Keras 2.0 to 2.2
        config = {"name": "sequential", "layers": config}
    if kind not in _MODELS or not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise FormatMismatchError(
            f"{path} holds a model of the class {str(kind)[:80]!r}, whose graph is not in the file. Save it with "
            "model.export(folder) and give that folder."
        )
    records = config["layers"]
    if len(records) > _MAX_LAYERS:
        raise IntegrityError(f"{path} has {len(records)} layers; at most {_MAX_LAYERS} are read.")
    layers = [_layer(item, path, depth) for item in records]
    names = Counter(layer.name for layer in layers)
    if layers and names.most_common(1)[0][1] > 1:
        raise IntegrityError(f"{path} has two layers with the name {names.most_common(1)[0][0]!r}.")
    name = str(config.get("name", "model"))
    if kind == "Sequential":
        return _sequential(name, layers, config, path)
    return KerasModel(
        name=name,
        layers=tuple(layers),
        inputs=tuple(_references(config["input_layers"])),
        outputs=tuple(_references(config["output_layers"])),
    )


def _layer(record: Mapping[str, object], path: Path, depth: int) -> KerasLayer:
    config = record["config"]
    class_name = str(record["class_name"])
    inner = None
    if class_name in _MODELS:
        inner = _model(record, path, depth + 1)
        config = config if isinstance(config, dict) else {}
    assert isinstance(config, dict)
    nodes = record.get("inbound_nodes", [])
    assert isinstance(nodes, list)
    return KerasLayer(
        name=str(record.get("name") or config.get("name") or (inner.name if inner else class_name)),
        class_name=class_name,
        config=config,
        calls=tuple(tuple(_references(node)) for node in nodes),
        input_shape=_built_shape(record),
        model=inner,
    )


def _built_shape(record: Mapping[str, object]) -> Shape | None:
    build = record.get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    return parse_shape(shape)


def parse_shape(value: object) -> Shape | None:
    """Return a shape as Keras writes it, or None where `value` is none."""
    if isinstance(value, dict):  # {"class_name": "__tuple__", "items": [...]}, or TensorShape of Keras 2
        value = value.get("items", value.get("config"))
    if not isinstance(value, list) or not all(
        size is None or (isinstance(size, int) and size >= 0) for size in value
    ):
        return None
    return tuple(value)


def _references(value: object, depth: int = 0) -> Iterator[Reference]:
    """Yield the tensors in a structure, in order: ["name", call, tensor, ...], or Keras 3's __keras_tensor__."""
    if depth > _MAX_DEPTH:
        raise IntegrityError("the configuration is nested too deeply. Save the model again.")
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            config = value["config"]
            name, node, tensor = config["keras_history"]
            yield Reference(
                layer=str(name), node=int(node), tensor=int(tensor), shape=parse_shape(config.get("shape"))
            )
            return
        for inner in value.values():
            yield from _references(inner, depth + 1)
    elif isinstance(value, list):
        if _is_reference(value):
            yield Reference(layer=value[0], node=value[1], tensor=value[2])
            value = value[3:]
        for inner in value:
            yield from _references(inner, depth + 1)


def _is_reference(value: Sequence[object]) -> bool:
    return (
        len(value) >= 3
        and isinstance(value[0], str)
        and type(value[1]) is int
        and type(value[2]) is int
        and (len(value) == 3 or isinstance(value[3], dict))
    )


def _sequential(
    name: str, layers: Sequence[KerasLayer], config: Mapping[str, object], path: Path
) -> KerasModel:
    """Return the model with an InputLayer at its head and each layer called on the one before."""
    chain = list(layers)
    if not chain:
        raise FormatMismatchError(f"{path} holds a Sequential model without layers.")
    if chain[0].class_name != "InputLayer":
        first = chain[0].config
        shape = parse_shape(first.get("batch_input_shape")) or parse_shape(config.get("build_input_shape"))
        if shape is None and chain[0].model is not None:
            inner = chain[0].model
            shape = input_shape(inner.by_name[inner.inputs[0].layer]) if inner.inputs else None
        if shape is None:
            raise FormatMismatchError(
                f"{path} was saved before its input shape was known. Build the model and save it again."
            )
        dtype = str(first.get("dtype", "float32")) if isinstance(first.get("dtype"), str) else "float32"
        made = {"batch_shape": list(shape), "dtype": dtype, "name": f"{chain[0].name}_input"}
        head = KerasLayer(
            name=f"{chain[0].name}_input", class_name="InputLayer", config=made, calls=(), input_shape=None
        )
        chain.insert(0, head)
    linked = [chain[0]]
    for before, layer in pairwise(chain):
        read = (Reference(layer=before.name, node=0, tensor=0),)
        linked.append(
            KerasLayer(
                name=layer.name,
                class_name=layer.class_name,
                config=layer.config,
                calls=(read,),
                input_shape=layer.input_shape,
                model=layer.model,
            )
        )
    return KerasModel(
        name=name,
        layers=tuple(linked),
        inputs=(Reference(layer=chain[0].name, node=0, tensor=0),),
        outputs=(Reference(layer=chain[-1].name, node=0, tensor=0),),
    )


def input_shape(layer: KerasLayer) -> Shape | None:
    """Return the shape of an InputLayer, batch included."""
    return parse_shape(layer.config.get("batch_shape")) or parse_shape(layer.config.get("batch_input_shape"))
