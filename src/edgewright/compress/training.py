"""The built-in training of classifiers, which goes on after a kill with exactly the same weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgewright.compress.checkpoints import Reached, Report, finite_names, require_finite, silent
from edgewright.compress.modes import evaluating, set_mode
from edgewright.compress.training_options import TrainingOptions, augment, learning_rate
from edgewright.compress.user_training import load_train, seed_of
from edgewright.core.errors import (
    DataError,
    IntegrityError,
    TrainingError,
    UsageError,
    first_line,
)
from edgewright.core.tensors import Layout
from edgewright.data.datasets import Dataset, check_labels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Trainer", "TrainingOptions", "accuracy", "load_train"]

_REPORT_EVERY_S = 2.0
_PROBE_SAMPLES = 64
_MAX_EPOCHS = 100_000


class Trainer:
    """Trains classifiers on labelled samples: a training function, `trainer(module, epochs)`.

    The model gives scores [n, classes]: logits, or probabilities where they are positive and sum to 1 (models that
    end in a softmax). Every epoch has seeds of its own, so that a training that was killed and goes on gives
    exactly the weights of one that was not.
    """

    def __init__(
        self,
        data: Dataset,
        options: TrainingOptions | None = None,
        *,
        layout: Layout | None = None,
        report: Report = silent,
    ) -> None:
        """Take the samples.

        Args:
            data: inputs in the order of the model's, [n, ...]; labels are class numbers, int [n].
            layout: of images, for augmentation; None is channels first.
            report: called with a line and the share that is done, where the caller of `train_epochs` has no other.
        Raises:
            DataError: no labels, or not one class number per sample.
            UsageError: augmentation of samples that are no images.
        """
        import numpy as np
        import torch

        self.options = options or TrainingOptions()
        self._report = report
        self._layout: Layout = layout or "nchw"
        self._sha256 = data.sha256
        labels = check_labels(data, int(np.iinfo(np.int64).max))
        if not len(labels):
            raise DataError("the training data have no sample.")
        self._labels = torch.from_numpy(np.ascontiguousarray(labels))
        self._inputs = _tensors(data)
        if self.options.augment != "none" and not (
            len(self._inputs) == 1 and self._inputs[0].ndim == 4 and self._inputs[0].is_floating_point()
        ):
            shapes = [list(tensor.shape) for tensor in self._inputs]
            raise UsageError(
                f"augment {self.options.augment!r} needs one input of float images [n, channels, height, width]; "
                f"got shapes {shapes}. Use augment 'none'."
            )

    def __call__(self, module: torch.nn.Module, epochs: int, /) -> None:
        """Train `module` in place; it is in evaluation mode afterwards.

        Raises:
            TrainingError: the model does not take the samples or give scores, or NaN or infinity came up.
        """
        self.train_epochs(
            module, epochs, salt="", reached=None, keep=lambda reached: None, report=self._report
        )

    def describe(self) -> dict[str, object]:
        """Return, as JSON values, what decides the result besides the module."""
        return {"trainer": "built-in 1", "data_sha256": self._sha256, **asdict(self.options)}

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
        """Train `module` in place up to the end of epoch `epochs`, from `reached` on, see `EpochTrain`.

        Raises:
            TrainingError: as of calling the trainer.
        """
        import torch

        if not 0 <= epochs <= _MAX_EPOCHS:
            raise UsageError(f"got {epochs} epochs; 0..{_MAX_EPOCHS} are expected.")
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if epochs == 0:
            return
        if not parameters:
            raise TrainingError("the model has no parameter to train.")
        finite = finite_names(module)
        with _threads(self.options.threads), torch.random.fork_rng(devices=[]):
            loss_of = self._loss(module)
            format_ = self._memory_format(module)
            module.to(memory_format=format_)  # type: ignore[call-overload]
            try:
                optimizer = self._optimizer(parameters)
                done = reached.epochs if reached else 0
                if reached:
                    _restore(optimizer, reached.tensors)
                clock = _Clock(epochs - done, self._batches)
                for epoch in range(done, epochs):
                    set_mode(module, training=True)
                    for step, loss in enumerate(
                        self._epoch(module, optimizer, loss_of, epoch, epochs, salt, format_), start=1
                    ):
                        if not math.isfinite(loss):  # before it is sent back
                            raise _diverged(module, finite, loss, epoch + 1, step)
                        clock.tick(loss, epoch + 1, epochs, report)
                    require_finite(module, finite, what=f"epoch {epoch + 1}")
                    keep(Reached(epochs=epoch + 1, tensors=_state(optimizer)))
            finally:
                module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        module.zero_grad(set_to_none=True)
        set_mode(module, training=False)

    @property
    def _batches(self) -> int:
        return max(1, len(self._labels) // self.options.batch_size)

    def _epoch(
        self,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        epoch: int,
        epochs: int,
        salt: str,
        format_: torch.memory_format,
    ) -> Iterator[float]:
        """Train one epoch, counted from 0; yield the loss of each step before it is sent back."""
        import torch

        torch.manual_seed(seed_of(f"{self.options.seed} {salt} {epoch}"))
        order = torch.randperm(len(self._labels))
        size, batches = self.options.batch_size, self._batches
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        device = parameters[0].device
        for step in range(batches):
            chosen = order[step * size : (step + 1) * size]
            inputs = [tensor[chosen] for tensor in self._inputs]
            if self.options.augment != "none":
                inputs = [augment(inputs[0], self.options, self._layout)]
            inputs = [_in_format(tensor, format_).to(device) for tensor in inputs]
            rate = learning_rate(self.options, epoch * batches + step, epochs * batches)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(module(*inputs), self._labels[chosen].to(device))
            yield float(loss.detach())
            loss.backward()  # type: ignore[no-untyped-call]
            if self.options.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
            optimizer.step()

    def _optimizer(self, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        options = self.options
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if options.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(options.momentum, 0.999))
        return torch.optim.SGD(
            groups, lr=options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0
        )

    def _loss(self, module: torch.nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss of (outputs, labels) that fits what `module` gives."""
        import torch
        from torch.nn import functional

        smoothing = self.options.label_smoothing
        outputs = self._outputs(module)
        largest = int(self._labels.max())
        if outputs.shape[1] <= largest:
            raise DataError(
                f"the training data have label {largest}, but the model gives {outputs.shape[1]} classes, "
                f"counted from 0. Check the labels."
            )
        are_probabilities = is_probabilities(outputs)

        def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
            scores = first_output(outputs)
            if are_probabilities:
                scores = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
            return functional.cross_entropy(scores, labels, label_smoothing=smoothing)

        return loss_of

    def _outputs(self, module: torch.nn.Module) -> Tensor:
        """Return what `module` gives for a few samples, float [n, classes]."""
        import torch

        probe = _copy_of(module)
        device = next(probe.parameters()).device
        count = min(_PROBE_SAMPLES, len(self._labels))
        inputs = [tensor[:count].to(device) for tensor in self._inputs]
        try:
            with torch.no_grad():
                outputs = first_output(probe(*inputs))
        except Exception as err:
            shapes = [list(tensor.shape) for tensor in inputs]
            raise TrainingError(
                f"the model does not take a batch of training samples, shapes {shapes}: "
                f"{first_line(err)}. Export it with a dynamic batch, and check the data."
            ) from err
        if outputs.ndim != 2 or outputs.shape[0] != count or not outputs.is_floating_point():
            raise TrainingError(
                f"the model gives {outputs.dtype} {list(outputs.shape)} for {count} samples; the built-in trainer "
                f"needs float scores [{count}, classes]. Give your own loop as package.module:train."
            )
        return outputs

    def _memory_format(self, module: torch.nn.Module) -> torch.memory_format:
        """Return channels-last for convolutions over images, whose values stay the same.

        A step of LeNet-5 takes half the time on a CPU, one of a depthwise-separable network as long as before.
        A model with views over channels cannot be run so; a copy is tried on two samples.
        """
        import torch

        images = [tensor for tensor in self._inputs if tensor.ndim == 4 and tensor.is_floating_point()]
        filters = [p for p in module.parameters() if p.ndim == 4]
        if not images or not filters or self._layout != "nchw":
            return torch.contiguous_format
        probe = _copy_of(module)
        probe.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        device = filters[0].device
        inputs = [_in_format(tensor[:2].to(device), torch.channels_last) for tensor in self._inputs]
        try:
            first_output(probe(*inputs)).sum().backward()  # type: ignore[no-untyped-call]
        except RuntimeError:
            return torch.contiguous_format
        return torch.channels_last


def accuracy(module: torch.nn.Module, data: Dataset, *, batch_size: int = 256) -> float:
    """Return the share of samples, 0..1, whose largest score is that of their label; the module's mode stays.

    Args:
        module: gives scores [n, classes].
        data: inputs in the order of the model's, [n, ...]; labels are class numbers, int [n].
    Raises:
        DataError: no labels, or not one class number per sample.
    """
    import numpy as np
    import torch

    inputs = _tensors(data)
    labels = torch.from_numpy(check_labels(data, int(np.iinfo(np.int64).max)))
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    hits = 0
    with torch.no_grad(), evaluating(module):
        for start in range(0, len(labels), batch_size):
            batch = [tensor[start : start + batch_size].to(device) for tensor in inputs]
            guessed = first_output(module(*batch)).argmax(1).cpu()
            hits += int((guessed == labels[start : start + batch_size]).sum())
    return hits / len(labels)


def first_output(outputs: object) -> Tensor:
    """Return the tensor, or the first one, that a model returned.

    Raises:
        TrainingError: it returned no tensor.
    """
    import torch

    found = outputs
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    if isinstance(found, (tuple, list)) and found:
        found = found[0]
    if not isinstance(found, torch.Tensor):
        raise TrainingError(f"the model returned {type(outputs).__name__}, but a tensor is expected.")
    return found


def is_probabilities(outputs: Tensor) -> bool:
    """Return whether `outputs`, [n, classes, ...], are positive and sum to 1 over the classes, as of a softmax."""
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        return False
    return bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-3).all())


def _tensors(data: Dataset) -> list[Tensor]:
    import numpy as np
    import torch

    return [torch.from_numpy(np.ascontiguousarray(array)) for array in data.inputs.values()]


def _copy_of(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy in evaluation mode: a run on it changes no observer and no running mean of `module`."""
    probe = copy.deepcopy(module)
    set_mode(probe, training=False)
    return probe


def _in_format(tensor: Tensor, format_: torch.memory_format) -> Tensor:
    return tensor.contiguous(memory_format=format_) if tensor.ndim == 4 else tensor


def _state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of `optimizer` as "<number of the parameter>/<name>" -> tensor."""
    import torch

    return {
        f"{number}/{name}": value
        for number, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
        if isinstance(value, torch.Tensor)
    }


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give `optimizer` the moments that `_state` returned.

    Raises:
        IntegrityError: they do not fit the parameters.
    """
    import torch

    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        parameter = ordered[int(number)] if number.isdigit() and int(number) < len(ordered) else None
        if parameter is None or tensor.shape not in (parameter.shape, torch.Size([])):
            raise IntegrityError(f"the checkpoint's optimizer state {key!r} does not fit the model.")
        # In the parameter's own memory order: vector and scalar kernels may round differently.
        moment = tensor.clone() if tensor.ndim == 0 else torch.empty_like(parameter).copy_(tensor)
        optimizer.state[parameter][name] = moment.detach()


def _diverged(
    module: torch.nn.Module, finite: frozenset[str], loss: float, epoch: int, step: int
) -> TrainingError:
    what = f"step {step} of epoch {epoch} (loss {loss})"
    try:
        require_finite(module, finite, what=what)
    except TrainingError as err:
        return err
    return TrainingError(
        f"the loss is {loss} in step {step} of epoch {epoch}, though all weights are finite. Lower the learning "
        "rate, or limit the gradient (clip_norm). The last good checkpoint stays."
    )


class _Clock:
    """Tells the progress, at most every two seconds and at the end of each epoch."""

    def __init__(self, epochs: int, batches: int) -> None:
        self._steps = epochs * batches
        self._batches = batches
        self._start_s = self._told_s = time.monotonic()
        self._done = 0
        self._loss_sum = 0.0

    def tick(self, loss: float, epoch: int, epochs: int, report: Report) -> None:
        """Count a step with its loss."""
        self._done += 1
        self._loss_sum += loss
        in_epoch = (self._done - 1) % self._batches + 1
        now_s = time.monotonic()
        if in_epoch == self._batches or now_s - self._told_s >= _REPORT_EVERY_S:
            self._told_s = now_s
            left_s = (now_s - self._start_s) / self._done * (self._steps - self._done)
            share = (epoch - 1 + in_epoch / self._batches) / epochs
            report(
                f"epoch {epoch}/{epochs}  loss {self._loss_sum / in_epoch:.4f}  {left_s:.0f} s left", share
            )
        if in_epoch == self._batches:
            self._loss_sum = 0.0


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
