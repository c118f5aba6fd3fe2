"""Checkpoints of training: tensors and a record in one file, and a training that goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgewright.compress.modes import set_mode
from edgewright.compress.user_training import call_train, describe_train
from edgewright.core.errors import IntegrityError, TrainingError, UsageError, first_line
from edgewright.core.files import MAX_MODEL_BYTES, write_aside

if TYPE_CHECKING:
    import torch

    from edgewright.compress.passes import Train

_SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_MAX_RECORD_BYTES = 1 << 20
_MAX_TENSORS = 1 << 20
_MODULE = "module/"
_STATE = "state/"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds."""

    tensors: dict[str, torch.Tensor]
    record: dict[str, object]


class Checkpoints:
    """A folder of checkpoints, one safetensors file each.

    A file appears under its name only when it is whole and on the disk, so a kill or a power cut at any moment
    leaves the checkpoint before it. Its metadata hold the record as JSON and a SHA-256 over record and tensors.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made when the first checkpoint is saved."""
        self.folder = folder

    def path_of(self, name: str) -> Path:
        """Return the file of the checkpoint called `name`.

        Raises:
            UsageError: `name` is no file name of letters, digits, '.', '_' and '-'.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name[:80]!r} cannot name a checkpoint. Use up to 120 letters, digits, '.', '_' and '-'."
            )
        return self.folder / (name + _SUFFIX)

    def save(self, name: str, tensors: Mapping[str, torch.Tensor], record: Mapping[str, object]) -> Path:
        """Write a checkpoint in place of the one before it, and return its file.

        Args:
            tensors: any number, of any shape and dtype; tensors that share memory are written twice.
            record: JSON values.
        Raises:
            UsageError: the folder cannot be written or the disk is full.
        """
        from safetensors.torch import save

        path = self.path_of(name)
        copies = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        text = json.dumps(record, allow_nan=False)
        assert len(text) <= _MAX_RECORD_BYTES, "a checkpoint's record is small"
        with write_aside(path) as aside:
            # Not safetensors' own `save_file`: a kill leaves its temporary file, whose name nobody knows, behind.
            aside.write_bytes(save(copies, {"record": text, "sha256": _digest(copies, text)}))
            _flush(aside)
        _flush(self.folder)
        for left in self.folder.glob(f".{path.name}.*.part"):  # of a run that was killed while it wrote
            left.unlink(missing_ok=True)
        return path

    def load(self, name: str) -> Checkpoint | None:
        """Return the checkpoint called `name`, or None when there is none.

        Raises:
            IntegrityError: the file is damaged, truncated, or no checkpoint.
        """
        path = self.path_of(name)
        if not path.exists():
            return None
        problem = "it is larger than any checkpoint"
        try:
            if path.stat().st_size <= MAX_MODEL_BYTES:
                return _read(path)
        except Exception as err:  # safetensors and torch raise many classes for a damaged header
            problem = first_line(err)
        raise IntegrityError(
            f"checkpoint {path} is damaged: {problem}. Delete this file to train this stage again."
        )

    def remove(self, name: str) -> None:
        """Delete the checkpoint called `name`, if there is one."""
        self.path_of(name).unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint:
    """Return what `path` holds; any exception means that it is damaged."""
    from safetensors import safe_open

    # The tensors are mapped from the file: nothing is allocated that the file does not have.
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        text, promised = metadata.get("record", ""), metadata.get("sha256", "")
        names = list(file.keys())
        if not text or len(text) > _MAX_RECORD_BYTES or len(names) > _MAX_TENSORS:
            raise ValueError("it has no record")
        tensors = {name: file.get_tensor(name).clone() for name in names}
    if _digest(tensors, text) != promised:
        raise ValueError("its content does not match its digest")
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("its record is no JSON object")
    return Checkpoint(tensors=tensors, record=record)


def _digest(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    """Return the hex SHA-256 over the record, and names, dtypes, shapes and bytes of the tensors by name."""
    import torch

    digest = hashlib.sha256(f"{len(text)}\n{text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Have the system write `path`, a file or a folder, to the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Report = Callable[[str, "float | None"], None]


def silent(line: str, share: float | None, /) -> None:
    """Show nothing."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Where a training stands between two epochs: what besides the module is needed to go on."""

    epochs: int
    tensors: Mapping[str, torch.Tensor]


@runtime_checkable
class EpochTrain(Protocol):
    """A training function that can go on from the end of any epoch, as `training.Trainer` can."""

    def __call__(self, module: torch.nn.Module, epochs: int, /) -> None:
        """Train `module` in place."""
        ...

    def describe(self) -> dict[str, object]:
        """Return, as JSON values, what decides the result besides the module."""
        ...

    def train_epochs(
        self,
        module: torch.nn.Module,
        epochs: int,
        *,
        salt: str,
        reached: Reached | None,
        keep: Callable[[Reached], None],
        report: Report,
    ) -> None:
        """Train `module` in place up to the end of epoch `epochs`.

        Args:
            salt: mixed into the seed of every epoch.
            reached: where to go on; `module` then has the weights of that moment.
            keep: to be called at the end of every epoch.
        """
        ...


class ResumableFit:
    """Trains a module in place under a name, and never twice: the `Fit` of passes.

    A finished stage is loaded, a partial one goes on at the epoch where it was (`EpochTrain`; the user's own loop
    starts again), and gives exactly the weights of an uninterrupted run. A checkpoint of other starting weights,
    other epochs or another training is refused, never used.
    """

    def __init__(
        self, train: Train | None, checkpoints: Checkpoints | None, report: Report = silent, seed: int = 0
    ) -> None:
        """Set up.

        Args:
            train: the training function; None refuses every stage with more than 0 epochs.
            checkpoints: where stages are kept; None keeps nothing.
            seed: mixed into all random numbers, with the stage's name.
        """
        self._train = train
        self._checkpoints = checkpoints
        self._report = report
        self._seed = seed

    def __call__(self, stage: str, module: torch.nn.Module, epochs: int, /) -> None:
        """Train `module` for `epochs`, or load what an earlier run left behind under the name `stage`.

        It is in evaluation mode afterwards; 0 epochs leave it as it is.

        Raises:
            TrainingError: no training function, it failed, it left NaN or infinity in the weights, or the
                checkpoint belongs to another training.
            IntegrityError: the checkpoint is damaged.
        """
        if epochs < 0:
            raise UsageError(f"got {epochs} epochs; 0 or more are expected.")
        if epochs == 0:
            return
        if self._train is None:
            raise TrainingError(
                f"stage {stage!r} needs training, but there is no training data and no training function. "
                "Give training data, or your own loop as package.module:train."
            )
        salt = f"{self._seed} {stage}"
        made_by = {"training": describe_train(self._train), "seed": self._seed, "epochs": epochs}
        made_by["start"] = _digest(state_of(module), "")
        kept = self._checkpoints.load(stage) if self._checkpoints else None
        reached = self._take_up(stage, module, kept, made_by) if kept else None
        if reached and reached.epochs == epochs:
            self._report(f"{stage}: {epochs} epochs were trained before", 1.0)
            set_mode(module, training=False)
            return
        finite = finite_names(module)

        def keep(now: Reached) -> None:
            require_finite(module, finite, what=f"epoch {now.epochs} of stage {stage!r}")
            if now.epochs < epochs:
                self._save(stage, module, now, made_by)

        if isinstance(self._train, EpochTrain):
            self._train.train_epochs(
                module, epochs, salt=salt, reached=reached, keep=keep, report=self._report
            )
        else:
            self._report(f"{stage}: training {epochs} epochs with {made_by['training']}", None)
            call_train(self._train, module, epochs, salt=salt)
        set_mode(module, training=False)
        require_finite(module, finite, what=f"stage {stage!r}")
        self._save(stage, module, Reached(epochs=epochs, tensors={}), made_by)

    def _save(self, stage: str, module: torch.nn.Module, now: Reached, made_by: dict[str, object]) -> None:
        if self._checkpoints is None:
            return
        tensors = {_MODULE + name: tensor for name, tensor in state_of(module).items()}
        tensors |= {_STATE + name: tensor for name, tensor in now.tensors.items()}
        self._checkpoints.save(stage, tensors, {"epochs_done": now.epochs, "made_by": made_by})

    def _take_up(
        self, stage: str, module: torch.nn.Module, kept: Checkpoint, made_by: dict[str, object]
    ) -> Reached:
        """Load `kept` into `module` and return where it stands."""
        assert self._checkpoints is not None
        path = self._checkpoints.path_of(stage)
        made, done = kept.record.get("made_by"), kept.record.get("epochs_done")
        before = made if isinstance(made, dict) else {}
        if before != json.loads(json.dumps(made_by)):
            raise TrainingError(_other_training(path, before, made_by))
        epochs = made_by["epochs"]
        if not isinstance(done, int) or not isinstance(epochs, int) or not 0 < done <= epochs:
            raise IntegrityError(f"checkpoint {path} says {done!r} epochs of {epochs}. Delete this file.")
        weights = {
            name.removeprefix(_MODULE): tensor
            for name, tensor in kept.tensors.items()
            if name.startswith(_MODULE)
        }
        try:
            module.load_state_dict(weights)
        except (RuntimeError, KeyError) as err:
            why = " ".join(str(err).split())[:300]
            raise IntegrityError(
                f"checkpoint {path} does not fit the model: {why}. Delete this file to train again."
            ) from err
        state = {
            name.removeprefix(_STATE): tensor
            for name, tensor in kept.tensors.items()
            if name.startswith(_STATE)
        }
        return Reached(epochs=done, tensors=state)


def _other_training(path: Path, before: Mapping[str, object], now: Mapping[str, object]) -> str:
    old, new = _flat(before), _flat(now)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    parts = [
        "other starting weights" if name == "start" else f"{name} {old.get(name)!r}, not {new.get(name)!r}"
        for name in names[:5]
    ]
    return (
        f"checkpoint {path} is of another training: {'; '.join(parts)}. "
        "Train as before to go on, or choose another folder, or delete this file to train again."
    )


def _flat(record: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of `module` by name: parameters and persistent buffers."""
    import torch

    return {
        name: value.detach() for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)
    }


def finite_names(module: torch.nn.Module) -> frozenset[str]:
    """Return the names of the tensors of `module` that hold neither NaN nor infinity."""
    return frozenset(name for name, value in state_of(module).items() if _is_finite(value))


def require_finite(module: torch.nn.Module, names: frozenset[str], *, what: str) -> None:
    """Check that the tensors `names` of `module`, finite before, still are, after `what`.

    Observers of quantization hold infinities until they have seen data, so what was not finite is not checked.

    Raises:
        TrainingError: one is not, or is gone; the first is named.
    """
    state = state_of(module)
    for name in sorted(names):
        if name not in state:
            raise TrainingError(
                f"after {what} the model has no tensor {name!r} any more. A training function may change "
                "values, but not the layers."
            )
    for name, value in state.items():  # in the order of the layers: the first bad one is the useful one
        if name in names and not _is_finite(value):
            bad = int((~value.isfinite()).sum())
            raise TrainingError(
                f"after {what}, {bad} of {value.numel()} values of {name!r} are NaN or infinite. Lower the "
                "learning rate, or limit the gradient (clip_norm). The last good checkpoint stays."
            )


def _is_finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
