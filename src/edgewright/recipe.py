"""Recipe: everything that decides what a build does, TOML <-> frozen record."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from edgewright.backends import registry
from edgewright.core.budget import Budget
from edgewright.core.contracts import Configurable
from edgewright.core.errors import RecipeError, UnavailableError, UnknownNameError, UsageError
from edgewright.core.files import write_text
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.core.tensors import parse_layout
from edgewright.data.preparation import DataRequest

RECIPE_VERSION = 1
DEFAULT_RUNTIMES = ("litert", "onnxruntime", "openvino")
DEFAULT_PRECISIONS = ("fp32", "fp16", "w8", "w8a8")
_MAX_RECIPE_BYTES = 1 << 20


EVERY_RUNTIME = "all"
_NEVER_IN_ALL = ("reference",)  # the source itself, run by its own framework


def installed_runtimes() -> tuple[str, ...]:
    """Return the names of the registered runtimes that can be used here, the main ones first."""
    names = [name for name in registry.names() if name not in _NEVER_IN_ALL]
    names.sort(key=lambda name: (name not in DEFAULT_RUNTIMES, name))
    found = []
    for name in names:
        try:
            support = registry.get(name).probe()
        except UnavailableError:  # a third party's that cannot be loaded: doctor tells why
            continue
        if support.is_available and support.is_installed:
            found.append(name)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A build, as the user asked for it.

    Attributes:
        model: a path, or `package.module:factory`.
        weights: safetensors or state dict of the factory.
        input_shapes: "1x3x32x32" or "name=1x3x32x32[:dtype]", one per input of the factory.
        signature: of a SavedModel; empty is serving_default.
        trust: run code that the model carries, in a worker.
        layout: nchw or nhwc for rank-4 inputs and outputs; empty keeps the source's.
        data: the evaluation set; calibration: the set that ranges are taken from.
        processing: a specification's file, or the name of a preset: folders of raw data are prepared as it says, and
            each artifact gets a copy.
        fold_processing: move what the graph can carry of it into the model, before anything is converted.
        metric: a name of `data.metrics`, or `module:function`; empty means fidelity to the source (cosine).
        values: constants for inputs that no data set holds, "name=number".
        options: of single runtimes, "runtime.name=value"; "name=value" where there is one runtime.
        only_made: leave out the precisions that a runtime does not make, rather than call them unavailable.
    """

    model: str
    weights: str = ""
    input_shapes: tuple[str, ...] = ()
    signature: str = ""
    trust: bool = False
    layout: str = ""
    data: str = ""
    calibration: str = ""
    calibration_count: int = 512
    runtimes: tuple[str, ...] = DEFAULT_RUNTIMES
    precisions: tuple[str, ...] = DEFAULT_PRECISIONS
    threads: tuple[int, ...] = (1,)
    quantizer: str = ""
    processing: str = ""
    fold_processing: bool = False
    metric: str = ""
    budget: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    seed: int = 0
    require: str = "all"
    only_made: bool = False

    def __post_init__(self) -> None:
        for name in ("runtimes", "precisions", "threads"):
            chosen = getattr(self, name)
            if not chosen:
                raise UsageError(f"{name} is empty; name at least one.")
            if len(set(chosen)) != len(chosen):
                raise UsageError(f"{name} names one twice: {', '.join(map(str, chosen))}.")
        for precision in self.precisions:
            Precision.parse(precision)
        if self.quantizer and self.quantizer not in list(Quantizer):
            raise UnknownNameError.of("quantizer", self.quantizer, list(Quantizer))
        parse_layout(self.layout)
        if self.require not in ("all", "one"):
            raise UnknownNameError.of("requirement", self.require, ("all", "one"))
        if not 1 <= self.calibration_count <= 100_000:
            raise UsageError(f"calibration_count is {self.calibration_count}; expected 1..100000.")
        if self.fold_processing and not self.processing:
            raise UsageError("fold_processing is set, but no processing is named. Name one.")
        Budget.parse(self.budget)
        if not self.is_for_all:
            self.targets()

    @property
    def is_for_all(self) -> bool:
        """True when the runtimes are still to be found: "all" is those that are installed."""
        return self.runtimes == (EVERY_RUNTIME,)

    def resolved(self) -> Recipe:
        """Return the recipe with "all" replaced by the runtimes installed here, each in the precisions it makes."""
        if not self.is_for_all:
            return self
        return replace(self, runtimes=installed_runtimes(), only_made=True)

    def targets(self) -> tuple[Target, ...]:
        """Return every runtime x precision x threads, in that order.

        Raises:
            UsageError: an option of a runtime that is not among them, that has none, or that it does not take.
        """
        options = self._options_by_runtime()
        return tuple(
            Target(
                runtime=runtime,
                precision=Precision.parse(precision),
                threads=threads,
                layout=parse_layout(self.layout),
                quantizer=Quantizer(self.quantizer) if self.quantizer else None,
                options=tuple(options.get(runtime, ())),
            )
            for runtime in self.runtimes
            for precision in self.precisions
            for threads in self.threads
            if not self.only_made or precision in registry.get(runtime).precisions
        )

    def _options_by_runtime(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for text in self.options:
            head, equals, value = text.partition("=")
            runtime, _, name = head.rpartition(".")
            if not runtime and len(self.runtimes) == 1:
                runtime = self.runtimes[0]
            if not equals or not name or not runtime:
                raise UsageError(
                    f"option {text!r} is not RUNTIME.NAME=VALUE, e.g. ethos-u55-128.optimise=Size."
                )
            if runtime not in self.runtimes:
                raise UsageError(
                    f"option {text!r} is of {runtime}, which is not among {', '.join(self.runtimes)}."
                )
            found.setdefault(runtime, []).append(f"{name}={value}")
        for runtime, texts in found.items():
            backend = registry.get(runtime)
            if not isinstance(backend, Configurable):
                raise UsageError(f"{runtime} has no options, but {', '.join(texts)} is given. Leave it out.")
            found[runtime] = list(backend.settle_options(texts))
        return found

    def data_request(self) -> DataRequest:
        """Return what the recipe says about data."""
        return DataRequest(
            data=self.data,
            calibration=self.calibration,
            calibration_count=self.calibration_count,
            needs_calibration=any(precision in INTEGER_PRECISIONS for precision in self.precisions),
            metric=self.metric,
            values=self.values,
            seed=self.seed,
        )

    def to_toml(self) -> str:
        """Return the recipe as TOML; defaults are written too, so that a later default changes nothing."""
        import tomli_w

        record = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return tomli_w.dumps({"edgewright_recipe": RECIPE_VERSION, **record})

    def save(self, path: Path) -> None:
        """Write the recipe to `path` atomically."""
        write_text(path, self.to_toml())

    @staticmethod
    def read(path: Path) -> Recipe:
        """Return the recipe in the TOML file at `path`.

        Raises:
            RecipeError: missing, too large, not TOML, another version, or a value of the wrong type.
            UnknownNameError: an unknown key, with the nearest known one.
        """
        record = read_recipe_table(path, "edgewright_recipe", RECIPE_VERSION)
        return _from_record(record, path)


def _from_record(record: Mapping[str, object], path: Path) -> Recipe:
    known = {field.name: field for field in fields(Recipe)}
    values: dict[str, object] = {}
    for name, value in record.items():
        if name not in known:
            raise UnknownNameError.of("recipe key", name, known)
        values[name] = typed_value(name, value, str(known[name].type), path)
    if "model" not in values:
        raise RecipeError(f"recipe {path} has no key 'model'. Name the model to build.")
    return Recipe(**values)  # type: ignore[arg-type]


def read_recipe_table(path: Path, key: str, version: int) -> dict[str, object]:
    """Return what the TOML file at `path` holds beside `key`, whose value is `version`.

    Raises:
        RecipeError: missing, too large, not TOML, or another version.
    """
    try:
        if path.stat().st_size > _MAX_RECIPE_BYTES:
            raise RecipeError(f"recipe {path} is larger than {_MAX_RECIPE_BYTES} bytes.")
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise RecipeError(f"recipe {path} cannot be read: {err.strerror}. Check the path.") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as err:
        raise RecipeError(f"recipe {path} is not TOML: {err}.") from err
    got = record.pop(key, None)
    if type(got) is not int or got != version:
        raise RecipeError(f"recipe {path} has {key} = {got!r}; expected {version}.")
    return record


def typed_value(name: str, value: object, kind: str, path: Path) -> object:
    """Return the value of key `name` for a field of the type `kind`, lists as tuples.

    Raises:
        RecipeError: it is of another type.
    """
    kinds: dict[str, tuple[type, str]] = {
        "str": (str, "text"),
        "int": (int, "a whole number"),
        "bool": (bool, "true or false"),
        "tuple[str, ...]": (str, "a list of texts"),
        "tuple[int, ...]": (int, "a list of whole numbers"),
        "Mapping[str, object]": (dict, "a table"),
    }
    item, expected = kinds[kind]
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(type(entry) is item for entry in value):
            return tuple(value)
    elif type(value) is item:
        return value
    raise RecipeError(f"recipe {path}: {name} is {value!r}, but {expected} is expected.")
