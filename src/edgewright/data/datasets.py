"""Data sets: inputs by the model's input names, with labels where there are some.

`load_dataset` reads what the user names and checks it against the model's signature. It never repairs:
an array in another layout, rank or integer type is an error which says what to do.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array, TensorSpec
from edgewright.data.fit import fit_array
from edgewright.data.idx import find_idx, is_idx, list_idx_prefixes, read_idx_pair, shape_idx_images
from edgewright.data.images import IMAGE_RULE, read_image_folder
from edgewright.data.lints import Lint
from edgewright.data.npz import read_npz
from edgewright.data.processed import read_processed_folder
from edgewright.processing.processor import Plan

LABEL_NAMES = ("labels", "label", "y", "targets", "target")
_CHUNK_SAMPLES = 256
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples for one model.

    Attributes:
        inputs: input name -> [n, ...]; the sample axis is first.
        labels: [n, ...] or None.
        description: where the samples come from and what was done to them.
        sha256: digest of names, dtypes, shapes and bytes, labels included.
        lints: what the user should know about the samples.
    """

    inputs: dict[str, Array]
    labels: Array | None
    description: str
    sha256: str
    lints: tuple[Lint, ...] = ()

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(next(iter(self.inputs.values())))

    def take(self, indices: Array, *, description: str) -> Dataset:
        """Return the samples at `indices` (int, [k]) as a data set of their own."""
        inputs = {name: array[indices] for name, array in self.inputs.items()}
        labels = None if self.labels is None else self.labels[indices]
        return make_dataset(inputs, labels, description=description)


def make_dataset(
    inputs: Mapping[str, Array], labels: Array | None, *, description: str, lints: tuple[Lint, ...] = ()
) -> Dataset:
    """Return the data set of arrays that are known to be good, with its digest."""
    return Dataset(
        inputs=dict(inputs),
        labels=labels,
        description=description,
        sha256=digest_of(inputs, labels),
        lints=lints,
    )


def digest_of(inputs: Mapping[str, Array], labels: Array | None) -> str:
    """Return the hex SHA-256 over names (sorted), dtypes, shapes and little-endian C-order bytes."""
    digest = hashlib.sha256()
    named = [("input", name, inputs[name]) for name in sorted(inputs)]
    if labels is not None:
        named.append(("labels", "", labels))
    for role, name, array in named:
        little = array.dtype.newbyteorder("<")
        digest.update(f"{role}\0{name}\0{little.str}\0{list(array.shape)}\n".encode())
        for start in range(0, len(array), _CHUNK_SAMPLES):
            digest.update(array[start : start + _CHUNK_SAMPLES].astype(little, copy=False).tobytes())
    return digest.hexdigest()


def load_dataset(spec: str, inputs: Sequence[TensorSpec], processing: Plan | None = None) -> Dataset:
    """Return the data set that `spec` names, checked against the model's `inputs`.

    `spec` is one of:
        x.npz: arrays under the input names (or one array of any name for a model with one input),
            labels under "labels", "label", "y", "targets" or "target";
        train-images-idx3-ubyte or .gz: its labels file is found beside it; `folder:t10k` chooses by prefix;
        a folder of images: one sub-folder per class, sorted, or images without labels;
        package.module:function: called without arguments in this process, with the working folder on the
            path; it returns (inputs, labels), or a mapping with the names of an .npz.

    Floats are made float32 (from float16 and float64) where the model takes float32; every other
    dtype must be the model's own. An IDX or image file is given as the model takes it: uint8 as stored,
    float32 divided by 255; its description says so. With `processing`, a folder holds raw inputs, which are
    prepared as it says.

    Raises:
        DataError: nothing there, not readable, not for this model, NaN or infinity, all constant,
            empty, or labels of another count.
    """
    if not inputs:
        raise DataError("the model has no input, so no data set fits it. Check the model.")
    path = Path(spec)
    folder, _, prefix = spec.rpartition(":")
    notes: list[str] = []
    lints: list[Lint] = []
    if path.is_file() and path.suffix == ".npz":
        rest, labels = split_labels(read_npz(path), inputs, what=spec)
        arrays = by_input_name(rest, inputs, what=spec)
    elif path.is_file() and is_idx(path):
        arrays, labels = _load_idx(path, inputs, notes)
    elif path.is_dir() and (prefixes := list_idx_prefixes(path)):
        choices = " or ".join(f"{spec}:{choice}" for choice in prefixes)
        raise DataError(f"{spec} is a folder of IDX files. Choose one: {choices}.")
    elif path.is_dir() and processing is not None:
        arrays, labels, lints = read_processed_folder(path, inputs, processing)
        notes.append("prepared by processing.toml")
    elif path.is_dir():
        arrays, labels, lints = read_image_folder(path, inputs)
        notes.append(IMAGE_RULE)
    elif folder and Path(folder).is_dir():
        arrays, labels = _load_idx(find_idx(Path(folder), prefix), inputs, notes)
    elif _FUNCTION.fullmatch(spec):
        arrays, labels = _call(spec, inputs)
    elif path.is_file():
        raise DataError(
            f"{spec} is no data set that can be read: an .npz file, an IDX images file (.gz too), a "
            "folder of images or package.module:function is expected."
        )
    else:
        raise DataError(
            f"data set {spec!r} does not exist. Give the path of an .npz file, an IDX images file, a "
            "folder of images, or package.module:function."
        )
    return _check(spec, arrays, labels, inputs, notes, lints)


def _load_idx(
    path: Path, inputs: Sequence[TensorSpec], notes: list[str]
) -> tuple[dict[str, Array], Array | None]:
    images, labels = read_idx_pair(path)
    if len(inputs) != 1:
        raise DataError(
            f"{path} holds one array, but the model takes {[str(spec) for spec in inputs]}. "
            "Write an .npz with one array per input."
        )
    array, note = shape_idx_images(images, inputs[0], path=path)
    notes.append(note)
    return {inputs[0].name: array}, labels


def split_labels(
    arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], *, what: str
) -> tuple[dict[str, Array], Array | None]:
    """Return (the arrays that are no labels, labels or None); a model input may be called "y".

    Raises:
        DataError: labels under several names.
    """
    names = [spec.name for spec in inputs]
    keys = [key for key in arrays if key in LABEL_NAMES and key not in names]
    if len(keys) > 1:
        raise DataError(f"{what} has labels under {keys}. Keep one of them.")
    rest = {key: array for key, array in arrays.items() if key not in keys}
    return rest, arrays[keys[0]] if keys else None


def by_input_name(
    arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], *, what: str
) -> dict[str, Array]:
    """Return `arrays` under the model's input names; a single array needs no name of its own.

    Raises:
        DataError: a name is missing or left over.
    """
    names = [spec.name for spec in inputs]
    if len(names) == 1 and len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}
    if set(arrays) != set(names):
        raise DataError(
            f"{what} has arrays {sorted(arrays)} beside the labels, but the model takes "
            f"{[str(spec) for spec in inputs]}. Give one array per input under these names "
            f"and the labels under {LABEL_NAMES[0]!r}."
        )
    return {name: arrays[name] for name in names}


def _call(spec: str, inputs: Sequence[TensorSpec]) -> tuple[dict[str, Array], Array | None]:
    """Return the arrays of the user's function."""
    result = import_function(spec)()
    if isinstance(result, tuple):
        if len(result) != 2:
            raise DataError(f"{spec} returned {len(result)} values; (inputs, labels) is expected.")
        given, labels = result
        rest = _require_arrays(given, what=spec)
        known = None if labels is None else _require_arrays(labels, what=spec)["inputs"]
    else:
        rest, known = split_labels(_require_arrays(result, what=spec), inputs, what=spec)
    return by_input_name(rest, inputs, what=spec), known


def _require_arrays(given: object, *, what: str) -> dict[str, Array]:
    """Return a mapping of arrays; a bare array is called "inputs"."""
    named = given if isinstance(given, Mapping) else {"inputs": given}
    arrays: dict[str, Array] = {}
    for key, value in named.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            kind = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
            raise DataError(
                f"{what} returned {kind} for {key!r}; a numeric numpy array under a text name is expected. "
                "Return (inputs, labels) as numpy arrays (tensor.numpy(), numpy.asarray(...))."
            )
        arrays[key] = value
    return arrays


@contextmanager
def _working_folder_on_path() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def import_function(spec: str) -> Callable[..., object]:
    """Return the callable that `package.module:function` names, with its failures as data errors.

    Raises:
        DataError: the module or the function is not there, or importing or (later) calling it fails.
    """
    module_name, _, name = spec.partition(":")
    with _working_folder_on_path():
        try:
            found: object = getattr(importlib.import_module(module_name), name, None)
        except Exception as err:
            raise DataError(
                f"cannot import {module_name!r} for {spec!r}: {type(err).__name__}: {err}"
            ) from err
    if not callable(found):
        raise DataError(f"{module_name!r} has no function {name!r}. Check the name.")
    function: Callable[..., object] = found

    def guarded(*args: object) -> object:
        with _working_folder_on_path():
            try:
                return function(*args)
            except Exception as err:
                raise DataError(f"{spec} failed: {type(err).__name__}: {err}") from err

    # The attributes of a metric function travel with it.
    vars(guarded).update(getattr(function, "__dict__", {}))
    return guarded


def _check(
    what: str,
    arrays: Mapping[str, Array],
    labels: Array | None,
    inputs: Sequence[TensorSpec],
    notes: list[str],
    lints: list[Lint],
) -> Dataset:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not all(counts.values()):
        raise DataError(f"{what} has no sample for {[name for name in counts if not counts[name]]}.")
    if len(set(counts.values())) != 1:
        raise DataError(f"{what} has different sample counts per input: {counts}. Make them equal.")
    count = next(iter(counts.values()))
    fitted: dict[str, Array] = {}
    for spec in inputs:
        fitted[spec.name], note = fit_array(arrays[spec.name], spec, what=what)
        if note:
            notes.append(note)
        _require_finite(fitted[spec.name], spec.name, what=what)
    lints += _constant_lints(fitted, inputs, what=what)
    if labels is not None:
        _require_labels(labels, count, what=what)
    description = f"{count} samples of {what}" + "".join(f"; {note}" for note in notes)
    return make_dataset(fitted, labels, description=description, lints=tuple(lints))


def _require_finite(array: Array, name: str, *, what: str) -> None:
    if array.dtype.kind != "f":
        return
    for start in range(0, len(array), _CHUNK_SAMPLES):
        is_finite = np.isfinite(array[start : start + _CHUNK_SAMPLES])
        if not is_finite.all():
            axes = tuple(range(1, is_finite.ndim))
            index = start + int(np.argmin(is_finite.all(axis=axes)))
            raise DataError(f"{what}: {name!r} has NaN or infinity in sample {index}. Remove or repair it.")


def _constant_lints(arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], *, what: str) -> list[Lint]:
    """Return warnings for inputs and channels that never change; refuse data that is constant as a whole."""
    constant = [name for name, array in arrays.items() if _is_same_in_all(array)]
    if len(constant) == len(arrays):
        raise DataError(
            f"{what} holds the same values in every sample of {constant}; nothing can be measured on it. "
            "Check how it was made."
        )
    lints = [
        Lint(code="data-constant-input", message=f"{what}: input {name!r} is the same in every sample")
        for name in constant
    ]
    for spec in inputs:
        array = arrays[spec.name]
        axis = {"nchw": 1, "nhwc": 3}.get(spec.layout or "", 0)
        if spec.name in constant or axis == 0 or array.ndim != 4 or array.shape[axis] < 2:
            continue
        others = tuple(a for a in range(4) if a != axis)
        dead = np.flatnonzero(array.min(axis=others) == array.max(axis=others))
        if dead.size:
            message = f"{what}: channels {dead[:8].tolist()} of input {spec.name!r} never change"
            lints.append(Lint(code="data-constant-channel", message=message))
    return lints


def _is_same_in_all(array: Array) -> bool:
    """Return whether all samples are equal (n > 1), or all values of the only sample are."""
    if len(array) == 1:
        return array.size > 1 and bool((array == array.reshape(-1)[0]).all())
    return all(
        bool((array[start : start + _CHUNK_SAMPLES] == array[0]).all())
        for start in range(0, len(array), _CHUNK_SAMPLES)
    )


def _require_labels(labels: Array, count: int, *, what: str) -> None:
    if labels.dtype.kind not in "biuf":
        raise DataError(
            f"{what} has labels of dtype {labels.dtype}; class numbers from 0 (integers) or float "
            "targets are expected."
        )
    if labels.ndim == 0 or len(labels) != count:
        got = len(labels) if labels.ndim else "a single value"
        raise DataError(f"{what} has {count} samples, but {got} labels. Give one label per sample.")
    if labels.dtype.kind == "f":
        _require_finite(labels, "labels", what=what)


def check_labels(dataset: Dataset, classes: int) -> npt.NDArray[np.int64]:
    """Return the labels, int64 [n], after checking that they are class numbers 0..classes-1.

    Raises:
        DataError: no labels, not integers, not one per sample, or out of range.
    """
    if dataset.labels is None:
        raise DataError(f"{dataset.description}: the metric needs labels, but there are none. Add 'labels'.")
    return class_labels(dataset.labels, classes, what=dataset.description)


def class_labels(labels: Array, classes: int, *, what: str) -> npt.NDArray[np.int64]:
    """Return `labels` as int64 [n] after checking that they are class numbers 0..classes-1.

    Raises:
        DataError: not integers, not one per sample, or out of range.
    """
    if labels.ndim != 1:
        hint = "labels.argmax(1)" if labels.ndim == 2 and labels.shape[1] > 1 else "labels.reshape(-1)"
        raise DataError(
            f"{what}: labels have shape {list(labels.shape)}; [n] class numbers are expected. Use {hint}."
        )
    if labels.dtype.kind not in "biu":
        raise DataError(
            f"{what}: labels have dtype {labels.dtype}; integers 0..{classes - 1} are expected. "
            "Cast them first."
        )
    numbers = labels.astype(np.int64)
    bad = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if bad.size:
        raise DataError(
            f"{what}: label {numbers[bad[0]]} of sample {bad[0]} is outside 0..{classes - 1}; the model has "
            f"{classes} classes. Check the label order (does it start at 0?) and the model's output."
        )
    return numbers
