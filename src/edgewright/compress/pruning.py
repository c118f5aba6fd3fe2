"""Structured pruning: whole channels, heads and neurons are removed, so that the model really gets smaller."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.compress.checkpoints import Checkpoints, ResumableFit, silent
from edgewright.compress.module import select_layers, to_module, to_program
from edgewright.compress.passes import Bench, Compressed, Fit
from edgewright.compress.prune_check import find_blocked
from edgewright.compress.prune_graph import Costs, Dependencies, Structure, count_costs, match
from edgewright.compress.prune_heads import set_heads
from edgewright.compress.prune_importance import IMPORTANCES, Importance, importance_of
from edgewright.compress.prune_latency import Stopwatch, find_share, remembered
from edgewright.compress.prune_search import Choice, Quantity, choose
from edgewright.core.errors import ConversionError, UnknownNameError, UsageError
from edgewright.core.program import Program
from edgewright.measure.latency import LatencyComparison

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgewright.compress.passes import Batch, Train

MAX_STEPS = 1000
_TRIES = 4
_NEAR = 0.01
_FAR = 0.05
_LATENCY_NAME = "latency.json"

Report = Callable[[str, "float | None"], None]


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """What shall remain, and how the channels are chosen. Exactly one of the three targets is given.

    Attributes:
        macs: share of the multiply-accumulates that remains, 0 < share < 1: 0.5 removes half of them.
        parameters: share of the parameters that remains.
        latency: the time of a call on `runtime` over the original's; the MACs for it are searched.
        runtime: where the latency counts; it is measured on this machine.
        threads: of the runtime.
        importance: "l2" (weights), "taylor" (weights x gradients on calibration samples with labels) or "batchnorm"
            (scales of batch normalisation): which channels matter least.
        steps: how often channels are removed; each step removes as many MACs (or parameters).
        epochs: fine-tuning after each step.
        final_epochs: more fine-tuning after the last step.
        round_to: layers keep a multiple of this many channels, as kernels work on several at once; layers with fewer
            than 4 times as many a multiple of half, and so on.
        ignore: names or globs of layers that keep all their outputs.
        heads: name or glob of layers that make queries, keys or values -> their number of heads: whole heads go.
        keep_fixed: leave layers whole that cannot be narrowed for sizes written into the model; else they are an error.
        keep_at_least: share of its channels that every layer keeps.
        global_ranking: choose the least important channels of all layers; else every layer loses the same share.
    """

    macs: float | None = None
    parameters: float | None = None
    latency: float | None = None
    runtime: str = "litert"
    threads: int = 1
    importance: Importance = "l2"
    steps: int = 1
    epochs: int = 0
    final_epochs: int = 0
    round_to: int = 8
    ignore: tuple[str, ...] = ()
    heads: Mapping[str, int] = field(default_factory=dict)
    keep_fixed: bool = False
    keep_at_least: float = 0.1
    global_ranking: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            UsageError: no target or several, a share outside 0..1, or a count out of range.
            UnknownNameError: no such importance.
        """
        given = {name: share for name, share in self._targets.items() if share is not None}
        if len(given) != 1:
            raise UsageError(
                f"got {', '.join(given) or 'no target'}; give exactly one of macs, parameters and latency: the share "
                "that remains, e.g. macs=0.5."
            )
        for name, share in given.items():
            if not 0 < share < 1:
                raise UsageError(
                    f"{name} is {share:g}, outside 0..1. Give the share that remains: {name}=0.5 removes half."
                )
        if self.importance not in IMPORTANCES:
            raise UnknownNameError.of("importance", self.importance, IMPORTANCES)
        if not 0 <= self.keep_at_least < 1:
            raise UsageError(
                f"keep_at_least is {self.keep_at_least:g}; a share of at least 0 and below 1 is expected."
            )
        ranges = (
            ("steps", self.steps, 1, MAX_STEPS),
            ("epochs", self.epochs, 0, 1 << 20),
            ("final_epochs", self.final_epochs, 0, 1 << 20),
            ("round_to", self.round_to, 1, 1024),
            ("threads", self.threads, 1, 256),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; {low}..{high} is expected.")

    @property
    def _targets(self) -> dict[str, float | None]:
        return {"macs": self.macs, "parameters": self.parameters, "latency": self.latency}

    @property
    def target(self) -> tuple[str, float]:
        """The name of the target, and the share that shall remain."""
        return next((name, share) for name, share in self._targets.items() if share is not None)


def prune(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    macs: float | None = None,
    parameters: float | None = None,
    latency: float | None = None,
    runtime: str = "litert",
    threads: int = 1,
    importance: Importance = "l2",
    steps: int = 1,
    train: Train | None = None,
    epochs: int = 0,
    final_epochs: int = 0,
    round_to: int = 8,
    ignore: Sequence[str] = (),
    heads: Mapping[str, int] | None = None,
    keep_fixed: bool = False,
    keep_at_least: float = 0.1,
    global_ranking: bool = True,
    calibration: Sequence[Batch] = (),
    labels: Sequence[Tensor] | None = None,
    checkpoints: Path | None = None,
    report: Report = silent,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of `module` with fewer channels, heads and neurons; see `PruneOptions`.

    The model's inputs and outputs keep their shapes. `macs=0.5` means that half of the multiply-accumulates remain.

    Args:
        example_inputs: the tensors of one call, batch axis first.
        train: called as train(module, epochs) after each step, trains in place.
        calibration: batches of inputs, and `labels`, class numbers int64 [n] of each, for importance "taylor".
        checkpoints: a folder; a run that was killed goes on there.
        seed: of the order in which measurements take turns, and of training.
        report: called with one line, and the share that is done where it is known.
    Raises:
        UsageError, UnknownNameError: an option is out of range, or names a layer that is not there.
        ConversionError: the model cannot be pruned so, with the tensor and layer that stand in the way; or not as far.
        DataError: "taylor" without samples and labels.
        TrainingError: training failed, or is needed and `train` is None.
    """
    options = PruneOptions(
        macs=macs,
        parameters=parameters,
        latency=latency,
        runtime=runtime,
        threads=threads,
        importance=importance,
        steps=steps,
        epochs=epochs,
        final_epochs=final_epochs,
        round_to=round_to,
        ignore=tuple(ignore),
        heads=dict(heads or {}),
        keep_fixed=keep_fixed,
        keep_at_least=keep_at_least,
        global_ranking=global_ranking,
    )
    fit = ResumableFit(train, Checkpoints(checkpoints) if checkpoints else None, report, seed)
    samples = _Samples(examples=tuple(example_inputs), calibration=calibration, labels=labels)
    return _Pruning(module, samples, options, report, seed).run(fit, checkpoints).module


class PrunePass:
    """The pass "prune" of recipes."""

    name = "prune"
    summary = "Remove whole channels, heads and neurons."
    precisions = ("fp32",)
    Options = PruneOptions

    def run(self, program: Program, options: PruneOptions, bench: Bench) -> Compressed:
        """Return `program` with fewer channels, see `prune`."""
        samples = _Samples(examples=bench.calibration[0], calibration=bench.calibration, labels=bench.labels)
        pruned = _Pruning(to_module(program), samples, options, bench.report, bench.seed).run(
            bench.fit, bench.folder
        )
        name, share = options.target
        where = f" on {options.runtime}" if name == "latency" else ""
        made = to_program(
            pruned.module,
            program,
            samples.examples,
            folder=bench.folder,
            step=f"prune({name} {share:g}{where}, {options.importance})",
        )
        return Compressed(program=made, facts=pruned.facts, tables=pruned.tables, notes=pruned.notes)


PASS = PrunePass()


@dataclass(frozen=True, kw_only=True)
class _Samples:
    examples: tuple[Tensor, ...]
    calibration: Sequence[Batch]
    labels: Sequence[Tensor] | None


@dataclass(frozen=True, kw_only=True)
class _Pruned:
    module: nn.Module
    facts: dict[str, float | int | str]
    tables: dict[str, list[dict[str, float | int | str]]]
    notes: tuple[str, ...]


class _Pruning:
    """One pruning of one module, from the first look at it to the last step."""

    def __init__(
        self, module: nn.Module, samples: _Samples, options: PruneOptions, report: Report, seed: int
    ) -> None:
        """Look at what can be removed; `module` stays as it is."""
        self._samples = samples
        self._options = options
        self._report = report
        self._seed = seed
        self._wants_gradient = {name: p.requires_grad for name, p in module.named_parameters()}
        self._modes = {name: layer.training for name, layer in module.named_modules()}
        _require_plain(module)
        self._ignored = list(select_layers(module, options.ignore))
        self._heads = _heads(module, options.heads)
        self._start = copy.deepcopy(module).eval()
        self._before = count_costs(self._start, samples.examples)
        structure = self._look()
        self._blocked = find_blocked(self._start, samples.examples, structure.groups, self._heads)
        self._refuse_fixed()
        self._ignored += [name for entry in self._blocked for name in entry.group.producers]
        self._structure = self._look()
        self._widths = {group.root: group.channels for group in self._structure.groups}

    def run(self, fit: Fit, folder: Path | None) -> _Pruned:
        """Remove channels step by step, and train; what a latency took to find is kept in `folder`."""
        name, share = self._options.target
        if name != "latency":
            quantity: Quantity = "parameters" if name == "parameters" else "macs"
            return self._result(self._remove_in_steps(quantity, share, fit), quantity, share, None)
        stopwatch = Stopwatch(
            self._start,
            self._samples.examples,
            runtime=self._options.runtime,
            threads=self._options.threads,
            seed=self._seed,
        )
        try:
            key = {"options": repr(self._options), "macs": self._before.macs, "seed": self._seed}
            share = remembered(
                folder / _LATENCY_NAME if folder else None, key, lambda: self._search_latency(stopwatch)
            )
            module = self._remove_in_steps("macs", share, fit)
            return self._result(module, "macs", share, stopwatch.compare(module))
        finally:
            stopwatch.close()

    def _remove_in_steps(self, quantity: Quantity, share: float, fit: Fit) -> nn.Module:
        options = self._options
        base = self._before.macs if quantity == "macs" else self._before.parameters
        module, heads = self._start, dict(self._heads)
        for step in range(1, options.steps + 1):
            remains = 1 - (1 - share) * step / options.steps
            module, heads = self._remove(module, heads, quantity, remains * base)
            costs = count_costs(module, self._samples.examples)
            reached = (costs.macs if quantity == "macs" else costs.parameters) / base
            self._report(
                f"step {step} of {options.steps}: {reached:.1%} of the {quantity} remain",
                step / options.steps,
            )
            self._restore(module)
            fit(f"prune-{step}", module, options.epochs + (options.final_epochs * (step == options.steps)))
        return module

    def _look(self) -> Structure:
        dependencies = Dependencies(copy.deepcopy(self._start), self._samples.examples)
        return dependencies.structure(self._ignored, self._heads)

    def _refuse_fixed(self) -> None:
        fixed = [entry for entry in self._blocked if entry.is_fixed]
        if not fixed or self._options.keep_fixed:
            return
        names = list(dict.fromkeys(name for entry in fixed for name in entry.group.producers))
        lines = "".join(f"\n- layer {', '.join(entry.group.producers)}: {entry.why}" for entry in fixed[:8])
        raise ConversionError(
            f"{len(fixed)} groups of layers cannot lose channels, for sizes written into the model:{lines}\n"
            f"Let the model take the size from the tensor (x.flatten(1), x.shape), or leave them whole: "
            f"ignore={names[:20]}, or keep_fixed."
        )

    def _remove(
        self, module: nn.Module, heads: Mapping[str, int], quantity: Quantity, target: float
    ) -> tuple[nn.Module, dict[str, int]]:
        """Return a copy of `module` with about `target` MACs or parameters, and its numbers of heads.

        What a removal saves is estimated from the layers' channels, then counted; where the two differ (attention's
        own products, for example) it is done again with the estimate corrected.
        """
        best: tuple[float, nn.Module, dict[str, int]] | None = None
        aim = target
        for _ in range(_TRIES):
            narrow, counts, choice, costs = self._try(module, heads, quantity, aim)
            if choice.least > aim * (1 + _FAR) and best is None:
                self._refuse_unreachable(choice, quantity, target)
            got = costs.macs if quantity == "macs" else costs.parameters
            miss = abs(got - target) / target
            if best is None or miss < best[0]:
                best = (miss, narrow, counts)
            if miss <= _NEAR:
                break
            aim *= target / got
        assert best is not None
        return best[1], best[2]

    def _try(
        self, module: nn.Module, heads: Mapping[str, int], quantity: Quantity, aim: float
    ) -> tuple[nn.Module, dict[str, int], Choice, Costs]:
        options, samples = self._options, self._samples
        narrow = copy.deepcopy(module)
        dependencies = Dependencies(narrow, samples.examples)
        groups = dependencies.structure(self._ignored, heads).groups
        if not groups:
            self._refuse_whole()
        scores = importance_of(narrow, groups, options.importance, samples.calibration, samples.labels)
        costs = count_costs(narrow, samples.examples)
        choice = choose(
            groups,
            scores,
            costs,
            quantity,
            aim,
            widths={group.root: self._widths.get(group.root, group.channels) for group in groups},
            round_to=options.round_to,
            keep_at_least=options.keep_at_least,
            is_global=options.global_ranking,
            # A first-order change of the loss can be weighed against what it buys; norms cannot.
            per_cost=options.importance == "taylor",
        )
        counts = dict(heads)
        headed: list[tuple[list[str], int, int]] = []
        for group in groups:
            channels = choice.channels.get(group.root, ())
            if not channels:
                continue
            dependencies.remove(group, channels)
            own = [name for name in group.producers if name in heads]
            for name in own:
                counts[name] = heads[name] - len(channels) * heads[name] // group.channels
            if own:
                headed.append((own, heads[own[0]], counts[own[0]]))
        for own, before, after in headed:
            set_heads(narrow, module, samples.examples, own, before, after)
        return narrow, counts, choice, count_costs(narrow.eval(), samples.examples)

    def _search_latency(self, stopwatch: Stopwatch) -> float:
        """Return the share of the MACs that brings the latency to the target."""
        _, _, choice, _ = self._try(self._start, self._heads, "macs", 0.0)
        base = self._before.macs
        found = find_share(
            lambda share: self._remove(self._start, self._heads, "macs", share * base)[0],
            min(1.0, choice.least / base),
            self._options.target[1],
            stopwatch,
            self._report,
        )
        return found.share

    def _refuse_whole(self) -> None:
        raise ConversionError(f"no layer of this model can lose channels. {self._why_whole()}")

    def _refuse_unreachable(self, choice: Choice, quantity: Quantity, target: float) -> None:
        base = self._before.macs if quantity == "macs" else self._before.parameters
        raise ConversionError(
            f"{quantity}={target / base:.3g} cannot be reached: {choice.least / base:.1%} remain when every layer that "
            f"can lose channels keeps only {self._options.keep_at_least:.0%} of them. {self._why_whole()}"
        )

    def _why_whole(self) -> str:
        reasons = [f"{', '.join(e.group.producers)}: {e.why}" for e in self._blocked]
        blocked = {name for entry in self._blocked for name in entry.group.producers}
        rest = [f"{name} {why}" for name, why in self._structure.whole.items() if name not in blocked]
        reasons += [*rest[:12], *(["..."] if len(rest) > 12 else [])]
        return f"These stay whole: {'; '.join(reasons)}." if reasons else ""

    def _restore(self, module: nn.Module) -> None:
        """Give modes and gradients back as they were in the original."""
        for name, layer in module.named_modules():
            layer.training = self._modes[name]
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self._wants_gradient[name])

    def _result(
        self, module: nn.Module, quantity: Quantity, share: float, latency: LatencyComparison | None
    ) -> _Pruned:
        after = count_costs(copy.deepcopy(module).eval(), self._samples.examples)
        before = self._before
        facts: dict[str, float | int | str] = {
            "macs before": before.macs,
            "macs": after.macs,
            "macs remaining": after.macs / before.macs if before.macs else 1.0,
            "parameters before": before.parameters,
            "parameters": after.parameters,
            "parameters remaining": after.parameters / before.parameters,
        }
        notes: list[str] = []
        if latency is not None:
            low, high = latency.ci95
            facts["latency remaining"] = latency.ratio
            notes.append(
                f"On {self._options.runtime} a call takes {latency.ratio:.1%} of the original's time (95 % {low:.1%} "
                f"to {high:.1%}), with {share:.1%} of the MACs as the search found; the target was "
                f"{self._options.latency:.1%}."
            )
        reached = facts[f"{quantity} remaining"]
        assert isinstance(reached, float)
        if abs(reached - share) > _FAR * share:
            notes.append(
                f"{reached:.1%} of the {quantity} remain instead of {share:.1%}: layers keep multiples of "
                f"{self._options.round_to} channels. Set round_to lower to come nearer."
            )
        for entry in self._blocked:
            stays = "stays" if len(entry.group.producers) == 1 else "stay"
            notes.append(f"{', '.join(entry.group.producers)} {stays} whole: {entry.why}.")
        rows: list[dict[str, float | int | str]] = []
        for name, cost in before.layers.items():
            now = after.layers[name]
            if cost.outs and (cost.macs or cost.matrix):
                rows.append(
                    {
                        "layer": name,
                        "outputs before": cost.outs,
                        "outputs": now.outs,
                        "macs before": cost.macs,
                        "macs": now.macs,
                    }
                )
        return _Pruned(module=module, facts=facts, tables={"Channels per layer": rows}, notes=tuple(notes))


def _require_plain(module: nn.Module) -> None:
    """Refuse weights that are computed: their channels cannot be removed."""
    from torch.nn.utils import parametrize

    for name, layer in module.named_modules():
        if parametrize.is_parametrized(layer):
            raise ConversionError(
                f"layer {name!r} computes its weight from others (a parametrization), so its channels cannot be "
                "removed. Prune first, then sparsify, cluster or quantize."
            )
        if type(layer).__name__ == "FakeQuantize":
            raise ConversionError("the model is quantized already. Prune first, then quantize.")


def _heads(module: nn.Module, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return layer -> number of heads.

    Raises:
        UnknownNameError: a pattern matches no layer.
        UsageError: a layer's outputs are not so many equal heads.
    """
    from torch import nn

    layers = select_layers(module, wanted)
    heads: dict[str, int] = {}
    for name, pattern in match(wanted, layers).items():
        layer, count = layers[name], wanted[pattern]
        if not isinstance(layer, nn.Linear) or count < 1 or layer.out_features % count:
            width = layer.out_features if isinstance(layer, nn.Linear) else 0
            raise UsageError(
                f"heads: {count} heads are given for layer {name!r}, {type(layer).__name__} with {width} outputs; "
                "expected a linear layer whose outputs are that many equal heads."
            )
        heads[name] = count
    return heads
