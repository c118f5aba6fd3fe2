"""Bridges from TensorFlow's formats: Keras to SavedModel, SavedModel and GraphDef to `.tflite`.

Two of TensorFlow's own routes give wrong models without an error: `tf.saved_model.save` of a Keras 3 model, and
`TFLiteConverter.from_concrete_functions` with one. Neither is used, and what is written is compared with the source
before it is handed on.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends import litert_file
from edgewright.backends.tensorflow_session import (
    ENVIRONMENT,
    PACKAGES,
    TensorflowSession,
    graph_function,
    keras_function,
    load_keras,
    tensorflow,
)
from edgewright.backends.vendor import quiet, require_file, versions
from edgewright.bridges.tensorflow_check import compare, run_tflite
from edgewright.core.contracts import Support
from edgewright.core.errors import ConversionError, EdgewrightError, first_line
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec
from edgewright.sources.keras_file import read_keras_file
from edgewright.sources.saved_model_file import natural, read_meta_graph, sha256_of_folder
from edgewright.workers import environments

if TYPE_CHECKING:
    import tensorflow as tf

_SIGNATURE = "serving_default"
_FOLDER, _FILE = "saved_model", "model.tflite"
_RECURRENT = frozenset(
    "LSTM LSTMV1 LSTMV2 GRU GRUV1 GRUV2 SimpleRNN RNN ConvLSTM1D ConvLSTM2D ConvLSTM3D Bidirectional".split()
)


def _probe() -> Support:
    found = versions(PACKAGES) or environments.support_versions(ENVIRONMENT)
    is_there = "tensorflow-cpu" in found
    reason = f"toolchain {ENVIRONMENT!r} is not installed; run: edgewright toolchain install {ENVIRONMENT}"
    own = {package: found[package] for package in (*PACKAGES, "ai-edge-litert") if package in found}
    return Support(is_available=is_there, versions=own, reason="" if is_there else reason)


class KerasToSavedModel:
    """Writes the model's inference function with Keras 3's own exporter, or with tf-keras for files of Keras 2."""

    name = "keras-to-savedmodel"
    reads: tuple[str, ...] = ("keras",)
    writes = "saved_model"
    environment = ENVIRONMENT

    def probe(self) -> Support:
        """Say whether the environment is installed (or is this one)."""
        return _probe()

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return the SavedModel in `workdir`, whose signature has the program's names in its order.

        A model with recurrent layers gets a batch of 1: no converter after this one takes their state lists with a
        dynamic batch.

        Raises:
            ConversionError: Keras cannot load or export it, or the SavedModel gives other numbers.
        """
        folder = workdir / _FOLDER
        tensorflow()
        model = load_keras(program)
        file = read_keras_file(program.path)
        is_legacy = file.is_legacy
        inputs, outputs, notes = program.inputs, program.outputs, program.notes
        if _is_recurrent(file.config) and _batch_of_one(inputs) != inputs:
            inputs, outputs = _batch_of_one(inputs), _batch_of_one(outputs)
            notes = (*notes, "batch made static: 1, for its recurrent layers")
        keys = _keys(program)
        try:
            with quiet():
                _export(model, replace(program, inputs=inputs), folder, keys=keys, is_legacy=is_legacy)
        except Exception as err:
            raise ConversionError(f"Keras cannot export {program.path.name}: {first_line(err)}.") from err
        require_file(folder / "saved_model.pb")
        made = replace(
            program,
            path=folder,
            format="saved_model",
            inputs=inputs,
            outputs=outputs,
            notes=notes,
            sha256=sha256_of_folder(folder),
            signature=_SIGNATURE,
            history=(*program.history, f"keras -> saved_model ({'tf-keras' if is_legacy else 'keras'})"),
        )
        compare(program, made, TensorflowSession(made, threads=1).run)
        return made


def _is_recurrent(config: object) -> bool:
    """Return True when a Keras configuration has a recurrent layer, at any depth."""
    stack = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if value.get("class_name") in _RECURRENT:
                return True
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return False


def _keys(program: Program) -> tuple[list[str], list[str]]:
    """Return the keys of the signature: the program's names where TensorFlow keeps them, else numbered ones."""

    def usable(specs: Sequence[TensorSpec], prefix: str) -> list[str]:
        names = [spec.name for spec in specs]
        if all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in names):
            return names
        return [f"{prefix}_{place}" for place in range(len(names))]

    return usable(program.inputs, "input"), usable(program.outputs, "output")


def _export(
    model: object, program: Program, folder: Path, *, keys: tuple[list[str], list[str]], is_legacy: bool
) -> None:
    import tensorflow as tf

    call = keras_function(model, program)  # type: ignore[arg-type]  # either Keras
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=key)
        for spec, key in zip(program.inputs, keys[0], strict=True)
    ]

    def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(keys[1], call(tensors), strict=True))

    if is_legacy:
        module = tf.Module()
        # Its variables alone: of the model itself every layer would be traced and written, ten times slower.
        module.held = list(model.variables)  # type: ignore[attr-defined]
        function = tf.function(serve, input_signature=specs)
        tf.saved_model.save(module, str(folder), signatures={_SIGNATURE: function})
        return
    import keras

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(_SIGNATURE, serve, input_signature=specs)
    archive.write_out(str(folder), verbose=False)


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One way to write the file; `note` is for the user."""

    make: Callable[[], bytes]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    note: str = ""


class SavedModelToTflite:
    """Converts one signature with TensorFlow's LiteRT converter, to its built-in operators alone."""

    name = "savedmodel-to-tflite"
    reads: tuple[str, ...] = ("saved_model",)
    writes = "tflite"
    environment = ENVIRONMENT

    def probe(self) -> Support:
        """Say whether the environment is installed (or is this one)."""
        return _probe()

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return `model.tflite` in `workdir`; a dynamic batch stays, or becomes 1 where the converter needs that.

        Raises:
            ConversionError: dynamic dimensions besides the batch, operators that LiteRT does not have (all of them by
                name), or the file gives other numbers.
        """
        _require_fixed_sizes(program)
        tf = tensorflow()

        def whole() -> bytes:
            converter = tf.lite.TFLiteConverter
            return _converted(
                converter.from_saved_model(str(program.path), signature_keys=[program.signature])
            )

        def by_tensorflow_1() -> bytes:
            converter = tf.compat.v1.lite.TFLiteConverter
            return _converted(converter.from_saved_model(str(program.path), signature_key=program.signature))

        own = _is_own_signature(program)
        attempts = [
            _Attempt(
                make=whole if own else partial(_with_shapes, program, program.inputs, workdir),
                inputs=program.inputs,
                outputs=program.outputs,
            )
        ]
        one = _batch_of_one(program.inputs)
        if one != program.inputs:
            attempts.append(
                _Attempt(
                    make=partial(_with_shapes, program, one, workdir),
                    inputs=one,
                    outputs=_batch_of_one(program.outputs),
                    note="batch made static: 1",
                )
            )
        if own:
            attempts.append(
                _Attempt(
                    make=by_tensorflow_1,
                    inputs=program.inputs,
                    outputs=program.outputs,
                    note="converted with TensorFlow 1's converter",
                )
            )
        return _first_that_agrees(program, workdir, attempts)


def _is_own_signature(program: Program) -> bool:
    """Return True when the program's inputs have the shapes that the file itself gives them."""
    signature = read_meta_graph(program.path).signatures[program.signature]
    places = _places([spec.name for spec in program.inputs], [tensor.key for tensor in signature.inputs])
    return all(
        signature.inputs[place].shape == spec.shape
        for place, spec in zip(places, program.inputs, strict=True)
    )


def _with_shapes(program: Program, inputs: Sequence[TensorSpec], workdir: Path) -> bytes:
    """Return the signature converted with the shapes of `inputs`: written as a SavedModel of its own first."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(program.path))
    function = loaded.signatures[program.signature]
    keys = sorted(function.structured_input_signature[1], key=natural)
    places = _places([spec.name for spec in program.inputs], keys)
    by_key = {keys[place]: spec for place, spec in zip(places, inputs, strict=True)}

    def serve(*tensors: tf.Tensor) -> object:
        return function(**dict(zip(keys, tensors, strict=True)))

    module = tf.Module()
    module.loaded = loaded
    signature = [tf.TensorSpec(by_key[key].shape, by_key[key].dtype, name=key) for key in keys]
    return _saved_and_converted(module, tf.function(serve, input_signature=signature), workdir)


def _saved_and_converted(module: tf.Module, function: object, workdir: Path) -> bytes:
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix=".saved_model-", dir=workdir) as folder:
        tf.saved_model.save(module, folder, signatures={_SIGNATURE: function})
        return _converted(tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[_SIGNATURE]))


class GraphDefToTflite:
    """Converts a frozen graph with TensorFlow's LiteRT converter, to its built-in operators alone."""

    name = "graphdef-to-tflite"
    reads: tuple[str, ...] = ("graph_def",)
    writes = "tflite"
    environment = ENVIRONMENT

    def probe(self) -> Support:
        """Say whether the environment is installed (or is this one)."""
        return _probe()

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return `model.tflite` in `workdir`, see `SavedModelToTflite.convert`."""
        _require_fixed_sizes(program)
        tensorflow()
        attempts = [
            _Attempt(
                make=partial(_graph_converted, program, program.inputs, workdir),
                inputs=program.inputs,
                outputs=program.outputs,
            )
        ]
        one = _batch_of_one(program.inputs)
        if one != program.inputs:
            attempts.append(
                _Attempt(
                    make=partial(_graph_converted, program, one, workdir),
                    inputs=one,
                    outputs=_batch_of_one(program.outputs),
                    note="batch made static: 1",
                )
            )
        return _first_that_agrees(program, workdir, attempts)


def _graph_converted(program: Program, inputs: Sequence[TensorSpec], workdir: Path) -> bytes:
    import tensorflow as tf

    function = graph_function(program)

    def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        results = tf.nest.flatten(function(*tensors))
        return {f"output_{place}": value for place, value in enumerate(results)}

    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{place}") for place, spec in enumerate(inputs)
    ]
    return _saved_and_converted(tf.Module(), tf.function(serve, input_signature=signature), workdir)


def _require_fixed_sizes(program: Program) -> None:
    free = [
        f"dimension {axis} of {spec.name!r}"
        for spec in program.inputs
        for axis, size in enumerate(spec.shape)
        if size is None and axis > 0
    ]
    if free:
        raise ConversionError(
            f"{', '.join(free)} {'is' if len(free) == 1 else 'are'} dynamic, but LiteRT needs sizes. Give them with "
            f"--input-shape, e.g. --input-shape {program.inputs[0].name}="
            f"{'x'.join(str(size or (1 if axis == 0 else 16)) for axis, size in enumerate(program.inputs[0].shape))}."
        )


def _batch_of_one(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, shape=(1, *spec.shape[1:])) if spec.has_dynamic_batch else spec for spec in specs
    )


def _converted(converter: tf.lite.TFLiteConverter) -> bytes:
    """Return the file's bytes: float32, built-in operators only, nothing quantized."""
    import tensorflow as tf

    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = False
    with quiet():
        return bytes(converter.convert())


def _first_that_agrees(program: Program, workdir: Path, attempts: Sequence[_Attempt]) -> Program:
    """Return the first attempt that converts and gives the source's numbers.

    Raises:
        ConversionError: none does; the message is that of the first failure.
    """
    path = workdir / _FILE
    failures: list[ConversionError] = []
    for attempt in attempts:
        try:
            content = attempt.make()
        except EdgewrightError:
            raise
        except Exception as err:
            failures.append(_refusal(program, err))
            continue
        path.write_bytes(content)
        try:
            _arrange(path, attempt)
            notes = (*program.notes, attempt.note) if attempt.note else program.notes
            made = replace(
                program,
                path=path,
                format="tflite",
                inputs=attempt.inputs,
                outputs=attempt.outputs,
                sha256=sha256_of(path),
                signature="",
                history=(*program.history, f"{program.format} -> tflite (TensorFlow)"),
                notes=notes,
            )
            compare(program, made, partial(run_tflite, made))
        except ConversionError as err:
            failures.append(err)
            continue
        return made
    raise failures[0]


_UNSUPPORTED = re.compile(r"'tf\.([A-Za-z0-9_]+)' op is neither a custom op nor a flex op")
_LISTED_OPS = re.compile(r"(?:Some ops are not supported[^:]*|Flex ops|Custom ops|TF Select ops):\s*([^\n]+)")


def _refusal(program: Program, err: Exception) -> ConversionError:
    """Return the converter's failure in our words, with every operator that it named."""
    text = str(err)
    named = set(_UNSUPPORTED.findall(text))
    for listed in _LISTED_OPS.findall(text):
        named |= {part.strip() for part in listed.split(",") if re.fullmatch(r"\s*\w+\s*", part)}
    if named:
        return ConversionError(
            f"LiteRT has no built-in operator for {', '.join(sorted(named))} of {program.path.name}. The operators of "
            "TensorFlow itself (Flex) are not used here; replace them in the model."
        )
    if "TensorList" in text:
        return ConversionError(
            f"{program.path.name} loops over a list of tensors of unknown size, as recurrent layers write it for a "
            "dynamic batch (TensorListReserve). Export the model with a batch of 1, or give the Keras file."
        )
    return ConversionError(f"TensorFlow's converter refused {program.path.name}: {first_line(err)}.")


def _places(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the place in `names` of each wanted name: by name where all fit, else by position."""
    if sorted(wanted) == sorted(names):
        return [list(names).index(name) for name in wanted]
    return list(range(len(wanted)))


def _arrange(path: Path, attempt: _Attempt) -> None:
    """Put the file's inputs and outputs into the program's order, under its names.

    Raises:
        ConversionError: they are not as many, or not of the program's shape; or operators beyond the built-in ones.
    """
    model = litert_file.read(path)
    custom = litert_file.custom_operators(model)
    if custom:
        raise ConversionError(
            f"the converter wrote {', '.join(custom)}, which LiteRT does not have built in. Replace them in the model."
        )
    graph = model.subgraphs[0]
    signatures = [found for found in model.signatureDefs or [] if found.subgraphIndex == 0]
    for kind, specs in (("inputs", attempt.inputs), ("outputs", attempt.outputs)):
        indices = [int(index) for index in getattr(graph, kind)]
        entries = getattr(signatures[0], kind) or [] if signatures else []
        by_key = {_text(entry.name): int(entry.tensorIndex) for entry in entries}
        wanted = [spec.name for spec in specs]
        if len(by_key) == len(specs):
            keys = sorted(by_key, key=natural)
            indices = [by_key[keys[place]] for place in _places(wanted, keys)]
        if len(indices) != len(specs):
            raise ConversionError(
                f"the converter wrote {len(indices)} {kind}, but the model has {len(specs)}: one of them is another's "
                "alias or a constant."
            )
        setattr(graph, kind, np.asarray(indices, dtype=np.int32))
    litert_file.set_signature(
        model, [spec.name for spec in attempt.inputs], [spec.name for spec in attempt.outputs]
    )
    litert_file.write(model, path)


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
