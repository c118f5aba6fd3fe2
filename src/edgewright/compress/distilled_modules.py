"""A student that learns from its teachers in any training loop; imported in a worker alone.

The user's loop computes its own loss of the student's outputs. The gradients of the distillation are added where
they enter: at the outputs, and through the losses of hidden layers, when that loss is sent back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from edgewright.compress.modes import evaluating
from edgewright.compress.module import find_layer
from edgewright.compress.training import is_probabilities
from edgewright.core.errors import ConversionError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class HiddenPair:
    """A layer of the student and the layer of the teacher that it shall follow."""

    student: str
    teacher: str
    weight: float
    is_attention: bool


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What is learned from the teachers, and how strongly: see `distill.DistillOptions`."""

    temperature: float
    alpha: float
    match: str
    pairs: tuple[HiddenPair, ...] = ()


class Distilled(nn.Module):
    """The student; in training mode the teachers' gradients join those of the user's loss.

    Only the student and the adapters of hidden layers are in its parameters and its state.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Sequence[nn.Module],
        plan: Distillation,
        examples: Sequence[Tensor],
    ) -> None:
        """Check that student and teachers fit, and make the adapters.

        Args:
            examples: the tensors of one call, batch axis first; empty where no hidden layer is matched.
        Raises:
            UnknownNameError: a layer of a pair is not there.
            ConversionError: outputs or features of student and teacher cannot be compared.
        """
        super().__init__()
        self.student = student
        self.adapters = nn.ModuleList()
        self._teachers = tuple(teachers)  # a tuple: their parameters are not ours to train or to keep
        self._plan = plan
        self._are_probabilities: list[bool] | None = None
        self._hidden_teacher = (_inside(teachers[0]),)
        for pair in plan.pairs:
            _require_layer(student, pair.student, "student")
            _require_layer(self._hidden_teacher[0], pair.teacher, "teacher")
        if plan.pairs and isinstance(teachers[0], Adapted) and teachers[0].one_at_a_time:
            raise ConversionError(
                "the teacher takes one sample at a time, so its hidden layers cannot be matched. Leave hints and "
                "attention out, or export the teacher with a dynamic batch."
            )
        if examples:
            self._fit_to(examples)

    def forward(self, *inputs: Tensor) -> object:
        """Return what the student gives."""
        if not self.training or not torch.is_grad_enabled():
            return self.student(*inputs)
        plan = self._plan
        with captured(self.student, [pair.student for pair in plan.pairs]) as features:
            outputs = self.student(*inputs)
        # The trainer may run the student channels last, which a teacher with views over channels cannot be run in.
        inputs = tuple(tensor.contiguous() for tensor in inputs)
        with (
            torch.no_grad(),
            captured(self._hidden_teacher[0], [pair.teacher for pair in plan.pairs]) as aims,
        ):
            taught = [tensors_of(teacher(*inputs)) for teacher in self._teachers]
        given = tensors_of(outputs)
        self._check_outputs(given, taught)
        gradients = self._output_gradients(given, taught)
        hidden = given[0].new_zeros(())
        for pair, adapter in zip(plan.pairs, self.adapters, strict=True):
            loss = attention_loss if pair.is_attention else hint_loss
            feature = adapter(features[pair.student])
            hidden = hidden + pair.weight * loss(feature, aims[pair.teacher])
        joined = _Join.apply(hidden, 1 - plan.alpha, len(given), *given, *gradients)  # type: ignore[no-untyped-call]
        return _like(outputs, list(joined))

    def _output_gradients(self, given: Sequence[Tensor], taught: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return alpha times the gradient of the distillation loss with respect to each output of the student."""
        plan = self._plan
        leaves = [output.detach().requires_grad_() for output in given]
        with torch.enable_grad():
            loss = given[0].new_zeros(())
            for index, leaf in enumerate(leaves):
                aims = [outputs[index] for outputs in taught]
                if plan.match == "values":
                    loss = loss + functional.mse_loss(leaf, torch.stack(aims).mean(0))
                else:
                    loss = loss + soft_target_loss(
                        self._logits(leaf, 0),
                        [self._logits(aim, 1 + number) for number, aim in enumerate(aims)],
                        plan.temperature,
                    )
            found = torch.autograd.grad(plan.alpha * loss, leaves)
        return list(found)

    def _logits(self, scores: Tensor, model: int) -> Tensor:
        """Return the logits of `model` (0 is the student) whose outputs may be probabilities."""
        assert self._are_probabilities is not None
        return _log(scores) if self._are_probabilities[model] else scores

    def _check_outputs(self, given: Sequence[Tensor], taught: Sequence[Sequence[Tensor]]) -> None:
        shapes = [list(output.shape) for output in given]
        for number, outputs in enumerate(taught):
            others = [list(output.shape) for output in outputs]
            if shapes != others:
                which = f"teacher {number}" if len(taught) > 1 else "the teacher"
                raise ConversionError(
                    f"the student gives {_texts(shapes)}, but {which} gives {_texts(others)}: their outputs cannot be "
                    "compared. Give a teacher of the same task, with the same classes in the same order, or cut "
                    "both at the same outputs."
                )
        if self._plan.match == "classes" and (len(shapes) != 1 or len(shapes[0]) not in (2, 4)):
            raise ConversionError(
                f"the student gives {_texts(shapes)}; soft targets need one output of scores, [n, classes] or "
                "[n, classes, height, width]. Match the values instead: match 'values'."
            )
        if self._are_probabilities is None:
            if not all(bool(output.isfinite().all()) for outputs in taught for output in outputs):
                raise ConversionError(
                    "the teacher gives NaN or infinity for these inputs, so nothing can be learned from it. Check its "
                    "weights, and that it takes inputs of this scale."
                )
            models = [given[0], *(outputs[0] for outputs in taught)]
            self._are_probabilities = [is_probabilities(scores.detach()) for scores in models]

    def _fit_to(self, examples: Sequence[Tensor]) -> None:
        """Run one batch in evaluation mode: check the outputs and make one adapter per pair."""
        pairs = self._plan.pairs
        with torch.no_grad(), evaluating(self.student), evaluating(*self._teachers):
            with captured(self.student, [pair.student for pair in pairs]) as features:
                given = tensors_of(self.student(*examples))
            with captured(self._hidden_teacher[0], [pair.teacher for pair in pairs]) as aims:
                taught = [tensors_of(teacher(*examples)) for teacher in self._teachers]
        self._check_outputs(given, taught)
        self.adapters.extend(
            adapter_of(pair, features.get(pair.student), aims.get(pair.teacher)) for pair in pairs
        )


class _Join(torch.autograd.Function):
    """The outputs unchanged; backward scales their gradients, adds given ones and sends 1 to the hidden loss."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden: Tensor, share: float, count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(hidden, *tensors[count:])
        ctx.share, ctx.count = share, count  # type: ignore[attr-defined]
        return tuple(output.view_as(output) for output in tensors[:count])

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, *added = ctx.saved_tensors  # type: ignore[attr-defined]
        joined = [
            ctx.share * gradient + extra  # type: ignore[attr-defined]
            for gradient, extra in zip(gradients, added, strict=True)
        ]
        return (torch.ones_like(hidden), None, None, *joined, *([None] * len(added)))


def soft_target_loss(student: Tensor, teachers: Sequence[Tensor], temperature: float) -> Tensor:
    """Return T^2 KL(p || q) per sample (and position): p the mean of the teachers' softmax(z / T), q the student's.

    Args:
        student: logits [n, classes, ...]; `teachers`: each shaped like it.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network".
    """
    aim = torch.stack([functional.softmax(logits / temperature, 1) for logits in teachers]).mean(0)
    told = functional.log_softmax(student / temperature, 1)
    entropies = functional.kl_div(told, aim, reduction="none").sum(1)
    return temperature**2 * entropies.mean()


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two features, pooled to the smaller image first.

    Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets".
    """
    return functional.mse_loss(*_same_size(student, teacher))


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two attention maps, each of length 1 per sample.

    The map of a feature [n, channels, height, width] is the mean over channels of its squares.

    Source: Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", activation-based, p = 2.
    """
    maps = [
        functional.normalize(feature.square().mean(1).flatten(1)) for feature in _same_size(student, teacher)
    ]
    return functional.mse_loss(maps[0], maps[1])


def adapter_of(pair: HiddenPair, student: Tensor | None, teacher: Tensor | None) -> nn.Module:
    """Return the layer that gives features of the student the teacher's number of channels.

    Nothing where they are equal or where attention is compared, which has no channels.

    Raises:
        ConversionError: a layer was not run, gives no tensor, or the features cannot be compared.
    """
    names = f"layer {pair.student!r} of the student and {pair.teacher!r} of the teacher"
    if student is None or teacher is None:
        raise ConversionError(f"{names} cannot be compared: one of them gives no float tensor.")
    have, want = list(student.shape), list(teacher.shape)
    apart = ConversionError(
        f"{names} give {have} and {want}, which cannot be compared. Choose layers of the same kind: "
        "images [n, channels, height, width], or sequences and vectors with equal other axes."
    )
    if len(have) != len(want):
        raise apart
    if pair.is_attention:
        if len(have) != 4:
            raise apart
        return nn.Identity()
    if have[2:] == want[2:] and have[1] == want[1]:
        return nn.Identity()
    if len(have) == 2:
        return nn.Linear(have[1], want[1])
    if len(have) == 4:
        return nn.Identity() if have[1] == want[1] else nn.Conv2d(have[1], want[1], 1, bias=False)
    if len(have) == 3 and have[1] == want[1]:
        return nn.Linear(have[2], want[2])
    if len(have) == 3 and have[2] == want[2]:
        return nn.Conv1d(have[1], want[1], 1, bias=False)
    raise apart


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both features [n, c, h, w], the larger image averaged to the size of the smaller."""
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    (rows, columns), (others, more) = student.shape[2:], teacher.shape[2:]
    size = (min(rows, others), min(columns, more))
    return functional.adaptive_avg_pool2d(student, size), functional.adaptive_avg_pool2d(teacher, size)


@contextmanager
def captured(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Give a mapping that the layers `names` fill with their float outputs when `module` runs in the block."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        def keep(layer: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, (tuple, list)) and output:
                output = output[0]
            if isinstance(output, Tensor) and output.is_floating_point():
                found[name] = output.clone()  # the next layer may write over it (ReLU in place)

        return find_layer(module, name).register_forward_hook(keep)

    handles = [hook(name) for name in dict.fromkeys(names)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def tensors_of(outputs: object) -> list[Tensor]:
    """Return the tensors that a model returned, in order.

    Raises:
        ConversionError: it returned no float tensor, or no tuple, list or mapping of them.
    """
    found = outputs
    if isinstance(found, Mapping):
        found = list(found.values())
    values = list(found) if isinstance(found, (tuple, list)) else [found]
    tensors = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    if not tensors or len(tensors) != len(values):
        kinds = ", ".join(str(getattr(value, "dtype", type(value).__name__)) for value in values[:5])
        raise ConversionError(
            f"the model returns {kinds or 'nothing'}; distillation compares float tensors. Cut the model before "
            "what is no float."
        )
    return tensors


def _like(outputs: object, tensors: list[Tensor]) -> object:
    """Return `tensors` in the structure of `outputs`."""
    if isinstance(outputs, Mapping):
        return dict(zip(outputs, tensors, strict=True))
    if isinstance(outputs, list):
        return tensors
    return tuple(tensors) if isinstance(outputs, tuple) else tensors[0]


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def _texts(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(map(str, shapes))


class Adapted(nn.Module):
    """A teacher that takes the inputs of the student."""

    def __init__(
        self, teacher: nn.Module, orders: Sequence[tuple[int, ...] | None], *, one_at_a_time: bool
    ) -> None:
        """Describe the inputs.

        Args:
            orders: the permutation of each input; None leaves it.
            one_at_a_time: the teacher takes one sample a call; their outputs are joined along axis 0.
        """
        super().__init__()
        self.teacher = teacher
        self._orders = tuple(orders)
        self.one_at_a_time = one_at_a_time

    def forward(self, *inputs: Tensor) -> object:
        turned = [
            tensor if order is None else tensor.permute(order).contiguous()
            for tensor, order in zip(inputs, self._orders, strict=True)
        ]
        if not self.one_at_a_time:
            return self.teacher(*turned)
        rows = [
            tensors_of(self.teacher(*(tensor[index : index + 1] for tensor in turned)))
            for index in range(len(turned[0]))
        ]
        return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))


def _require_layer(module: nn.Module, name: str, whose: str) -> None:
    known = [title for title, _ in module.named_modules() if title]
    if name not in known:
        raise UnknownNameError.of(f"layer of the {whose}", name, known)


def _inside(teacher: nn.Module) -> nn.Module:
    """Return the module whose layers have the teacher's own names."""
    return teacher.teacher if isinstance(teacher, Adapted) else teacher
