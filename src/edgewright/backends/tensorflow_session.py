"""TensorFlow's own run of a Keras file, a SavedModel or a frozen graph: the reference of these sources.

Everything here runs in the toolchain environment `tensorflow`.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from edgewright.backends.vendor import quiet
from edgewright.core.contracts import LayerCost
from edgewright.core.errors import ConversionError, IntegrityError, first_line
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import Array, Arrays, TensorSpec, check_arrays
from edgewright.sources.keras_config import output_names
from edgewright.sources.keras_file import read_keras_file
from edgewright.sources.saved_model import saved_model_sha256
from edgewright.sources.saved_model_file import natural

if TYPE_CHECKING:
    import tensorflow as tf

ENVIRONMENT = "tensorflow"
PACKAGES = ("tensorflow-cpu", "keras", "tf-keras")
FORMATS = ("keras", "saved_model", "graph_def")
_SUFFIXES = (".keras", ".h5", ".hdf5")
_SEED = 20261121

Run = Callable[[Sequence[Array]], Sequence[Array]]


class KerasTensor(Protocol):
    """A symbolic tensor of either Keras."""

    name: str
    shape: Sequence[int | None]


class KerasCallable(Protocol):
    """A model of either Keras."""

    inputs: Sequence[KerasTensor]
    outputs: Sequence[KerasTensor]

    def __call__(self, inputs: object, *, training: bool) -> object: ...


def tensorflow(threads: int = 0) -> ModuleType:
    """Return the package, imported without its log and, where it has not computed yet, limited to `threads`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's own configuration of Keras says
    with quiet():
        import tensorflow

    tensorflow.get_logger().setLevel("ERROR")
    if threads:
        try:
            tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
            tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:
            pass  # it has computed already, with the threads of then
    return cast(ModuleType, tensorflow)


class TensorflowSession:
    """A program in TensorFlow, inputs and outputs in the program's order."""

    def __init__(self, program: Program, *, threads: int) -> None:
        self._program = program
        require_unchanged(program)
        tensorflow(threads)
        try:
            with quiet():
                self._run: Run | None = _OPENERS[program.format](program)
        except ConversionError:
            raise
        except Exception as err:
            raise ConversionError(f"TensorFlow cannot load {program.path.name}: {first_line(err)}.") from err

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs in the order of the program."""
        return self._program.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs in the order of the program."""
        return self._program.outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature.
            ConversionError: TensorFlow failed on this model.
        """
        assert self._run is not None, "the session is closed"
        check_arrays(inputs, self.inputs, what=f"input of {self._program.path.name}")
        try:
            with quiet():
                results = self._run([np.array(inputs[spec.name]) for spec in self.inputs])
        except Exception as err:
            raise ConversionError(
                f"TensorFlow failed to run {self._program.path.name}: {first_line(err)}."
            ) from err
        if len(results) != len(self.outputs):
            raise ConversionError(
                f"{self._program.path.name} gave {len(results)} outputs; {len(self.outputs)} are expected."
            )
        return {spec.name: value for spec, value in zip(self.outputs, results, strict=True)}

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the reference is there for its numbers, not for its time."""
        return ()

    def close(self) -> None:
        """Free the model; `run` must not be called any more."""
        self._run = None
        gc.collect()


def require_unchanged(program: Program) -> None:
    """Check that the source is still the one that was read.

    Raises:
        IntegrityError: it has changed or gone.
    """
    try:
        if program.format == "saved_model":
            found = saved_model_sha256(program.path, program.signature)
        else:
            found = sha256_of(program.path)
    except OSError as err:
        raise IntegrityError(
            f"{program.path} cannot be read any more: {err.strerror}. Load it again."
        ) from err
    if found != program.sha256:
        raise IntegrityError(
            f"{program.path} has digest {found[:16]}..., but {program.sha256[:16]}... was recorded: it changed after "
            "it was read. Load it again."
        )


def load_keras(program: Program) -> KerasCallable:
    """Return the Keras model of `program`, loaded by the generation of Keras that wrote it.

    Raises:
        ConversionError: that Keras refuses it.
    """
    tensorflow()
    is_legacy = read_keras_file(program.path).is_legacy
    with quiet(), _with_known_suffix(program.path) as path:
        try:
            if is_legacy:
                import tf_keras

                return cast(KerasCallable, tf_keras.models.load_model(path, compile=False))
            import keras

            return cast(
                KerasCallable, keras.models.load_model(path, compile=False, safe_mode=not program.is_trusted)
            )
        except Exception as err:
            title = "Keras 2 (tf-keras)" if is_legacy else "Keras 3"
            advice = (
                " A class of one's own is not in the file: save such a model with model.export(folder), and give "
                "that folder."
                if "custom" in str(err) or "locate" in str(err)
                else ""
            )
            raise ConversionError(
                f"{title} cannot load {program.path.name}: {first_line(err)}.{advice}"
            ) from err


@contextmanager
def _with_known_suffix(path: Path) -> Iterator[str]:
    """Give a name for the file that Keras takes: it tells the kinds apart by suffix."""
    if path.suffix in _SUFFIXES:
        yield str(path)
        return
    with path.open("rb") as stream:
        suffix = ".keras" if stream.read(2) == b"PK" else ".h5"
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(path.resolve())
        yield str(link)


def _input_names(model: KerasCallable) -> list[str]:
    return [tensor.name.partition(":")[0] for tensor in model.inputs]


def _output_names(model: KerasCallable) -> list[str]:
    places = []
    for tensor in model.outputs:
        history = getattr(tensor, "_keras_history", None)
        layer = getattr(history, "operation", None) or getattr(history, "layer", None)
        node, place = getattr(history, "node_index", 0), getattr(history, "tensor_index", 0)
        places.append((str(getattr(layer, "name", tensor.name)), int(node), int(place)))
    return list(output_names(places))


def order(specs: Sequence[TensorSpec], names: Sequence[str], what: str) -> list[int]:
    """Return the place in `names` of each spec: by name where all names fit, else by position.

    Raises:
        ConversionError: there are not as many, or several whose names differ in part.
    """
    wanted = [spec.name for spec in specs]
    if len(names) != len(wanted):
        raise ConversionError(f"{what} has {len(names)} tensors, but {len(wanted)} were read. Load it again.")
    if sorted(wanted) == sorted(names):
        return [list(names).index(name) for name in wanted]
    return list(range(len(wanted)))


def keras_function(
    model: KerasCallable, program: Program
) -> Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]:
    """Return the model as a function from a list of tensors to a list, both in the program's order."""
    import tensorflow as tf

    places = order(program.inputs, _input_names(model), "the model's input")
    results = order(program.outputs, _output_names(model), "the model's output")

    def call(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        given: list[tf.Tensor | None] = [None] * len(places)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        made = model(given[0] if len(given) == 1 else given, training=False)
        flat = tf.nest.flatten(made)
        return [flat[place] for place in results]

    return call


def _open_keras(program: Program) -> Run:
    import tensorflow as tf

    call = tf.function(keras_function(load_keras(program), program), reduce_retracing=True)

    def run(arrays: Sequence[Array]) -> Sequence[Array]:
        return [value.numpy() for value in call([tf.constant(array) for array in arrays])]

    return run


def _open_saved_model(program: Program) -> Run:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(program.path))
    function = loaded.signatures[program.signature or "serving_default"]
    keys = sorted(function.structured_input_signature[1], key=natural)
    results = sorted(function.structured_outputs, key=natural)
    inputs = [keys[place] for place in order(program.inputs, keys, "the signature's input")]
    outputs = [results[place] for place in order(program.outputs, results, "the signature's output")]

    def run(arrays: Sequence[Array]) -> Sequence[Array]:
        assert loaded is not None  # its variables live as long as it does
        made = function(**{key: tf.constant(array) for key, array in zip(inputs, arrays, strict=True)})
        return [made[key].numpy() for key in outputs]

    return run


def graph_function(program: Program) -> Callable[..., object]:
    """Return the frozen graph as a function from tensors to a list, both in the program's order."""
    tf = tensorflow()
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(program.path.read_bytes())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
    element = wrapped.graph.as_graph_element
    return cast(
        Callable[..., object],
        wrapped.prune(
            [element(f"{spec.name}:0") for spec in program.inputs],
            [element(f"{spec.name}:0") for spec in program.outputs],
        ),
    )


def _open_graph(program: Program) -> Run:
    import tensorflow as tf

    function = graph_function(program)

    def run(arrays: Sequence[Array]) -> Sequence[Array]:
        return [
            value.numpy() for value in tf.nest.flatten(function(*[tf.constant(array) for array in arrays]))
        ]

    return run


_OPENERS: dict[str, Callable[[Program], Run]] = {
    "keras": _open_keras,
    "saved_model": _open_saved_model,
    "graph_def": _open_graph,
}


def sample_inputs(
    specs: Sequence[TensorSpec], *, batch: int, free: int, seed: int = _SEED
) -> dict[str, Array]:
    """Return seeded inputs: normal floats, integers 0 or 1, with `batch` and `free` for dynamic dimensions."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for spec in specs:
        shape = [
            size if size is not None else batch if axis == 0 else free for axis, size in enumerate(spec.shape)
        ]
        if np.dtype(spec.dtype).kind == "f":
            arrays[spec.name] = np.asarray(random.standard_normal(shape)).astype(spec.dtype)
        else:
            arrays[spec.name] = np.asarray(random.integers(0, 2, shape)).astype(spec.dtype)
    return arrays


def complete(arguments: dict[str, object]) -> dict[str, object]:
    """Return {"program": Program} with the outputs' shapes and dtypes as two runs of different sizes gave them.

    Args:
        arguments: {"program": Program}. A dimension that differs between the runs is dynamic.
    """
    record = arguments["program"]
    assert isinstance(record, dict)
    program = Program.from_json(record)
    session = TensorflowSession(program, threads=1)
    first = session.run(sample_inputs(program.inputs, batch=1, free=16))
    try:
        second = session.run(sample_inputs(program.inputs, batch=2, free=24))
    except ConversionError:
        second = first  # a batch of two does not fit this model: its sizes are fixed inside
    layouts = {spec.layout for spec in program.inputs if spec.layout}
    layout = layouts.pop() if len(layouts) == 1 else "nhwc"
    outputs = []
    for spec in program.outputs:
        one, two = first[spec.name], second[spec.name]
        if one.ndim != two.ndim:
            raise ConversionError(
                f"the rank of output {spec.name!r} depends on the input; such outputs are not read."
            )
        shape = tuple(a if a == b else None for a, b in zip(one.shape, two.shape, strict=True))
        outputs.append(
            TensorSpec(
                name=spec.name, shape=shape, dtype=str(one.dtype), layout=layout if len(shape) == 4 else None
            )
        )
    return {"program": replace(program, outputs=tuple(outputs)).to_json()}
