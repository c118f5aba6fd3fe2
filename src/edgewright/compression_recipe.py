"""The recipe of a compression, `compress.toml`: which passes, in which order, with which data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends import registry as backends
from edgewright.compress import registry
from edgewright.core.errors import FormatMismatchError, RecipeError, UnknownNameError
from edgewright.core.files import write_text
from edgewright.core.options import options_record, read_options, read_settings
from edgewright.recipe import DEFAULT_RUNTIMES, read_recipe_table, typed_value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

COMPRESSION_VERSION = 1
ENTROPY = "entropy"  # works on artifacts, all other passes on programs
_VERSION_KEY = "edgewright_compression"
_MAX_STEPS = 64
_MAX_SEED = 2**32 - 1
_PLACES = (
    "model",
    "weights",
    "teacher",
    "teacher_weights",
    "data",
    "calibration",
    "train_data",
    "import_from",
)
_DATA = ("data", "calibration", "train_data")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class CompressionStep:
    """A pass by name, and its checked options (an instance of the pass's `Options`).

    Attributes:
        training: options of the built-in training for this step alone, over those of the recipe.
    """

    name: str
    options: object
    training: Mapping[str, object] = field(default_factory=dict)

    @staticmethod
    def read(record: Mapping[str, object], *, what: str) -> CompressionStep:
        """Return the step of a table with the keys "pass" and perhaps "training"; the others are its options.

        Raises:
            UsageError: no such pass, no such option, or an option out of range.
        """
        name = record.get("pass")
        if not isinstance(name, str):
            raise RecipeError(f"{what} has pass = {name!r}; the name of a pass is expected: {_pass_names()}.")
        training = record.get("training", {})
        if not isinstance(training, dict):
            raise RecipeError(f"{what} has training = {training!r}; a table is expected.")
        options = {key: value for key, value in record.items() if key not in ("pass", "training")}
        return CompressionStep(
            name=name, options=read_options(_options_of(name), options, what=name), training=training
        )

    @staticmethod
    def parse(text: str) -> CompressionStep:
        """Return the step of a text such as "prune macs=0.5", as `--step` takes it."""
        try:
            words = shlex.split(text)
        except ValueError as err:
            raise RecipeError(f"step {text!r} cannot be read: {err}.") from err
        if not words:
            raise RecipeError(
                f"a step is empty; expected a pass and its options, e.g. 'prune macs=0.5' ({_pass_names()})."
            )
        return CompressionStep.of(words[0], words[1:])

    @staticmethod
    def of(name: str, settings: Sequence[str]) -> CompressionStep:
        """Return the step of pass `name` with `option=value` texts."""
        return CompressionStep(name=name, options=read_settings(_options_of(name), settings, what=name))

    def record(self) -> dict[str, object]:
        """Return the options as JSON values, defaults included."""
        return options_record(self.options)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class CompressionRecipe:
    """A compression, as the user asked for it. Every path is absolute, or relative to the working folder.

    Attributes:
        model, weights, input_shapes, signature, trust: as of a build's recipe.
        teacher, teacher_weights: the model to learn from, of any source format and with the same inputs; empty: the
            original teaches, where a pass needs a teacher.
        data: the evaluation set, which no pass ever sees.
        metric, values: as of a build's recipe.
        train_data: labelled samples for the built-in training.
        train: `package.module:train`, the user's own loop, called with (module, epochs).
        training: options of the built-in training, see `compress.training.TrainingOptions`.
        calibration: samples for ranges and sensitivities; default: a seeded sample of `train_data`.
        import_from: a folder that `package.module` names are found in, beside the working folder.
        threads: of every runtime that is measured.
    """

    model: str
    steps: tuple[CompressionStep, ...]
    weights: str = ""
    input_shapes: tuple[str, ...] = ()
    signature: str = ""
    trust: bool = False
    teacher: str = ""
    teacher_weights: str = ""
    data: str = ""
    metric: str = ""
    values: tuple[str, ...] = ()
    train_data: str = ""
    train: str = ""
    training: Mapping[str, object] = field(default_factory=dict)
    calibration: str = ""
    calibration_count: int = 512
    import_from: str = ""
    runtimes: tuple[str, ...] = DEFAULT_RUNTIMES
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.steps:
            raise RecipeError(
                'the recipe has no step. Add one: a table [[step]] with pass = "prune", for instance.'
            )
        if len(self.steps) > _MAX_STEPS:
            raise RecipeError(f"the recipe has {len(self.steps)} steps; at most {_MAX_STEPS} are run.")
        if not self.runtimes or len(set(self.runtimes)) != len(self.runtimes):
            raise RecipeError(f"runtimes are {list(self.runtimes)}; name at least one, and each once.")
        for runtime in self.runtimes:
            backends.get(runtime)
        if not 1 <= self.calibration_count <= 100_000:
            raise RecipeError(f"calibration_count is {self.calibration_count}; expected 1..100000.")
        if not 0 <= self.seed <= _MAX_SEED:
            raise RecipeError(f"seed is {self.seed}; expected 0..{_MAX_SEED}.")
        if self.train and not _FUNCTION.fullmatch(self.train):
            raise RecipeError(f"train is {self.train!r}; expected package.module:function.")
        if self.teacher_weights and not self.teacher:
            raise RecipeError("teacher_weights are given, but no teacher. Name the teacher's factory, too.")
        for step in self.steps if self.training or any(step.training for step in self.steps) else ():
            self.training_options(step)
        if not self.passes:
            raise RecipeError(f"{ENTROPY} alone compresses nothing. Pack a file with: edgewright pack FILE")
        for step in self.steps[:-1]:
            if step.name == ENTROPY:
                raise RecipeError(f"{ENTROPY} packs the artifacts of the last model. Make it the last step.")
        for step in self.steps:
            if is_training(step) and not (self.train or self.train_data):
                raise RecipeError(
                    f"{step.name} is to train, but there is nothing to train with. Give train_data "
                    "(labelled samples), or train (package.module:function), or set epochs to 0."
                )

    @property
    def passes(self) -> tuple[CompressionStep, ...]:
        """The steps that make a program; what is left packs artifacts."""
        return tuple(step for step in self.steps if step.name != ENTROPY)

    @property
    def packs(self) -> bool:
        """True when the artifacts of the last program are to be packed."""
        return self.steps[-1].name == ENTROPY

    def training_options(self, step: CompressionStep) -> DataclassInstance:
        """Return the options of the built-in training for `step`.

        Raises:
            UsageError: an unknown key, a value of another type, or out of range.
        """
        from edgewright.compress.training import TrainingOptions

        return read_options(TrainingOptions, {**self.training, **step.training}, what="training")

    def check_chain(self, precision: str) -> None:
        """Check that each pass reads the precision that the one before it makes; the first one reads `precision`.

        Raises:
            FormatMismatchError: one does not, with what it reads.
        """
        before = "the original"
        for step in self.passes:
            found = registry.get(step.name)
            if precision not in found.precisions:
                raise FormatMismatchError(
                    f"pass {step.name!r} reads {', '.join(found.precisions)}, but {before} is {precision}. "
                    f"Put {step.name!r} earlier in the chain, or leave it out."
                )
            precision = made_precision(step, precision)
            before = f"the model after {step.name!r}"

    def to_toml(self) -> str:
        """Return the recipe as TOML; defaults are written too, so that a later default changes nothing."""
        import tomli_w

        record: dict[str, object] = {_VERSION_KEY: COMPRESSION_VERSION}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name not in ("steps", "training"):
                record[one.name] = list(value) if isinstance(value, tuple) else value
        if self.training:
            record["training"] = dict(self.training)
        record["step"] = [_step_table(step) for step in self.steps]
        return tomli_w.dumps(record)

    def save(self, path: Path) -> None:
        """Write the recipe to `path` atomically."""
        write_text(path, self.to_toml())

    @staticmethod
    def read(path: Path, *, model: str = "") -> CompressionRecipe:
        """Return the recipe in the TOML file at `path`; relative paths in it are relative to its folder.

        Args:
            model: takes the place of the recipe's model, and is relative to the working folder.
        Raises:
            RecipeError: missing, too large, not TOML, another version, or a value of the wrong type.
            UnknownNameError: an unknown key, pass or option, with the nearest known one.
            UsageError: an option that its pass refuses.
        """
        record = read_recipe_table(path, _VERSION_KEY, COMPRESSION_VERSION)
        known = {one.name: str(one.type) for one in fields(CompressionRecipe) if one.name != "steps"}
        values: dict[str, object] = {"steps": _steps(record.pop("step", []), path)}
        for name, value in record.items():
            if name not in known:
                raise UnknownNameError.of("recipe key", name, (*known, "step"))
            values[name] = typed_value(name, value, known[name], path)
        folder = path.resolve().parent
        for name in _PLACES:
            if name in values:
                values[name] = _absolute(str(values[name]), folder, is_data=name in _DATA)
        values.setdefault("import_from", str(folder))
        if model:
            values["model"] = model
        if not values.get("model"):
            raise RecipeError(
                f"recipe {path} has no key 'model', and no MODEL is given. Name the model to compress."
            )
        return CompressionRecipe(**values)  # type: ignore[arg-type]

    def with_runtimes(self, runtimes: Sequence[str]) -> CompressionRecipe:
        """Return the recipe for other runtimes."""
        return replace(self, runtimes=tuple(runtimes))


def is_training(step: CompressionStep) -> bool:
    """Return whether the step's options ask for training: passes call it `epochs`, or `final_epochs` and the like."""
    record = step.record()
    epochs = [value for name, value in record.items() if name == "epochs" or name.endswith("_epochs")]
    return any(isinstance(value, int | float) and value > 0 for value in epochs)


def made_precision(step: CompressionStep, precision: str) -> str:
    """Return the precision of what `step` makes of a program in `precision`.

    That is its option "precision", or what the pass says that it always `makes`, or else what it was given.
    """
    made = getattr(step.options, "precision", "") or getattr(registry.get(step.name), "makes", "")
    return str(made) or precision


def _options_of(name: str) -> type[DataclassInstance]:
    found: type[DataclassInstance] = registry.get(name).Options  # type: ignore[assignment]
    return found


def _pass_names() -> str:
    return ", ".join(registry.names())


def _steps(value: object, path: Path) -> tuple[CompressionStep, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RecipeError(f"recipe {path}: step is {value!r}, but tables [[step]] are expected.")
    if len(value) > _MAX_STEPS:
        raise RecipeError(f"recipe {path} has {len(value)} steps; at most {_MAX_STEPS} are run.")
    return tuple(
        CompressionStep.read(entry, what=f"recipe {path}: step {number}")
        for number, entry in enumerate(value, 1)
    )


def _absolute(place: str, folder: Path, *, is_data: bool) -> str:
    """Return a path of the recipe as an absolute one; `module:function` stays, `folder:prefix` of data does not."""
    base, colon, rest = place.rpartition(":")
    if not place or (folder / place).exists():
        return str(folder / place) if place else ""
    if is_data and colon and (folder / base).is_dir():
        return f"{folder / base}:{rest}"
    return place if _FUNCTION.fullmatch(place) else str(folder / place)


def _step_table(step: CompressionStep) -> dict[str, object]:
    training = {"training": dict(step.training)} if step.training else {}
    return {"pass": step.name, **_without_none(step.record()), **training}


def _without_none(record: Mapping[str, object]) -> dict[str, object]:
    """Return the record without what TOML cannot write; None is the default wherever it can be."""
    return {name: value for name, value in record.items() if value is not None}
