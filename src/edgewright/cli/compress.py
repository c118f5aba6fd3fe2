"""The command `compress`, and one command per technique: the same with one step."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from edgewright.cli import show
from edgewright.cli.options import Seed, Shapes, Signature, Trust, Weights
from edgewright.compress.names import SUMMARIES
from edgewright.core.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from edgewright.compression import CompressionResult
    from edgewright.compression_recipe import CompressionRecipe, CompressionStep

# No pass is imported for `edgewright --help`; the options of one come from its dataclass when somebody asks.
_EXAMPLES = {
    "prune": "macs=0.5 epochs=5",
    "sparsify": "sparsity=0.8 epochs=5",
    "cluster": "bits=4",
    "distill": "epochs=10 --teacher teacher.onnx",
    "qat": "epochs=2",
    "repair": "drop_points=0.5",
}
_DEFAULT_RUNTIMES = "litert,onnxruntime,openvino"

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model file of any source format, or package.module:factory."),
]
Data = Annotated[
    str,
    typer.Option("--data", metavar="SET", help="Evaluation set, which no pass sees: as of build."),
]
TrainData = Annotated[
    str,
    typer.Option("--train-data", metavar="SET", help="Labelled samples for the built-in training."),
]
TrainFunction = Annotated[
    str,
    typer.Option(
        "--train", metavar="NAME", help="Your own loop: package.module:train, called with (module, epochs)."
    ),
]
Training = Annotated[
    list[str] | None,
    typer.Option(
        "--training", metavar="NAME=VALUE", help="Option of the built-in training: learning_rate=0.01."
    ),
]
CalibrationSet = Annotated[
    str,
    typer.Option("--calibration", metavar="SET", help="Samples for ranges; default: some of --train-data."),
]
Teacher = Annotated[
    str,
    typer.Option(
        "--teacher", metavar="MODEL", help="Model to learn from, any format; default: the original."
    ),
]
TeacherWeights = Annotated[
    str, typer.Option("--teacher-weights", metavar="FILE", help="Weights of the teacher's factory.")
]
Metric = Annotated[str, typer.Option("--metric", metavar="NAME", help="As of build.")]
To = Annotated[
    str,
    typer.Option("--to", metavar="NAME,...", help=f"Runtimes to measure on; default: {_DEFAULT_RUNTIMES}."),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="Threads of the runtimes.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for steps, artifacts and report.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on in --out: finished steps are kept, the others go on from a checkpoint."
    ),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor keep conversions and measurements.")
]


class _WithPassOptions(TyperCommand):
    """A command whose help ends with the options of its pass, or of all passes: read when somebody asks."""

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]
        """Return the help, with OPTION=VALUE explained."""
        return super().get_help(ctx) + "\n\n" + _options_help(str(self.name))


def compress(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Takes the place of the recipe's model.")
    ] = "",
    recipe: Annotated[
        str,
        typer.Option("--recipe", metavar="FILE", help="compress.toml: the steps, the data and the training."),
    ] = "",
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step", metavar="'PASS OPTION=VALUE ...'", help="A step, instead of --recipe; once per step."
        ),
    ] = None,
    weights: Weights = "",
    input_shape: Shapes = None,
    signature: Signature = "",
    trust: Trust = False,
    data: Data = "",
    train_data: TrainData = "",
    train: TrainFunction = "",
    training: Training = None,
    calibration: CalibrationSet = "",
    teacher: Teacher = "",
    teacher_weights: TeacherWeights = "",
    metric: Metric = "",
    to: To = "",
    threads: Threads = 1,
    seed: Seed = 0,
    out: Out = Path("edgewright-compressed"),
    resume: Resume = False,
    no_cache: NoCache = False,
    as_json: show.Json = False,
) -> None:
    """Compress MODEL by a chain of passes; show size, accuracy and latency after each step on every runtime.

    Example: edgewright compress --recipe compress.toml --out out

    Example: edgewright compress model.onnx --step "prune macs=0.5" --step "qat epochs=2" --train-data train.npz
    --data eval.npz --out out
    """
    from edgewright.compression_recipe import CompressionRecipe, CompressionStep

    if bool(recipe) == bool(step):
        raise UsageError(
            "give the steps by --recipe FILE, or one by one by --step 'prune macs=0.5': one of the two."
        )
    if not recipe:
        steps = [CompressionStep.parse(text) for text in step or ()]
        made = _recipe(
            model, steps, weights, input_shape, signature, trust, data, train_data, train, training, calibration,
            teacher, teacher_weights, metric, threads, seed,
        )  # fmt: skip
    else:
        given = {
            "--weights": weights, "--input-shape": input_shape, "--signature": signature, "--trust": trust,
            "--data": data, "--train-data": train_data, "--train": train, "--training": training,
            "--calibration": calibration, "--teacher": teacher, "--teacher-weights": teacher_weights,
            "--metric": metric, "--threads": threads != 1, "--seed": seed,
        }  # fmt: skip
        extra = [name for name, value in given.items() if value]
        if extra:
            raise UsageError(
                f"{', '.join(extra)}: say that in the recipe, or give --step instead of --recipe."
            )
        made = CompressionRecipe.read(Path(recipe), model=model)
    _run(made, to, out, resume=resume, no_cache=no_cache, as_json=as_json)


def _technique(name: str) -> Callable[..., None]:
    """Return the command of one pass."""

    def command(
        model: Model,
        option: Annotated[
            list[str] | None,
            typer.Argument(metavar="OPTION=VALUE", help="Options of the pass, see below."),
        ] = None,
        weights: Weights = "",
        input_shape: Shapes = None,
        signature: Signature = "",
        trust: Trust = False,
        data: Data = "",
        train_data: TrainData = "",
        train: TrainFunction = "",
        training: Training = None,
        calibration: CalibrationSet = "",
        teacher: Teacher = "",
        teacher_weights: TeacherWeights = "",
        metric: Metric = "",
        to: To = "",
        threads: Threads = 1,
        seed: Seed = 0,
        out: Out = Path("edgewright-compressed"),
        resume: Resume = False,
        no_cache: NoCache = False,
        as_json: show.Json = False,
    ) -> None:
        from edgewright.compression_recipe import CompressionStep

        made = _recipe(
            model, [CompressionStep.of(name, option or ())], weights, input_shape, signature, trust, data, train_data,
            train, training, calibration, teacher, teacher_weights, metric, threads, seed,
        )  # fmt: skip
        _run(made, to, out, resume=resume, no_cache=no_cache, as_json=as_json)

    command.__name__ = name
    command.__doc__ = (
        f"{SUMMARIES[name]} MODEL's file stays; the new one is --out/steps/01-{name}/model.pt2, measured beside it."
        f'\n\n    The same as `edgewright compress MODEL --step "{name} OPTION=VALUE ..."`.'
        f"\n\n    Example: edgewright {name} model.pt2 {_EXAMPLES[name]} --train-data train.npz "
        "--data eval.npz --out out"
    )
    return command


def add_commands(app: typer.Typer) -> None:
    """Add `compress` and the commands of the single techniques to `app`."""
    app.command(
        cls=_WithPassOptions, short_help="Prune, distil, quantize, cluster, pack: measured step by step."
    )(compress)
    for name in _EXAMPLES:
        app.command(name, cls=_WithPassOptions, short_help=SUMMARIES[name])(_technique(name))


def _recipe(
    model: str,
    steps: Sequence[CompressionStep],
    weights: str,
    input_shape: list[str] | None,
    signature: str,
    trust: bool,
    data: str,
    train_data: str,
    train: str,
    training: list[str] | None,
    calibration: str,
    teacher: str,
    teacher_weights: str,
    metric: str,
    threads: int,
    seed: int,
) -> CompressionRecipe:
    from edgewright.compression_recipe import CompressionRecipe
    from edgewright.core.options import options_record, read_settings

    if not model:
        raise RecipeError(
            "MODEL is missing. Example: edgewright compress model.onnx --step 'prune macs=0.5' --out out"
        )
    options: dict[str, object] = {}
    if training:
        from edgewright.compress.training import TrainingOptions

        options = options_record(read_settings(TrainingOptions, training, what="training"))
        options = {name: value for name, value in options.items() if value is not None}
    return CompressionRecipe(
        model=model,
        steps=tuple(steps),
        weights=weights,
        input_shapes=tuple(input_shape or ()),
        signature=signature,
        trust=trust,
        data=data,
        train_data=train_data,
        train=train,
        training=options,
        calibration=calibration,
        teacher=teacher,
        teacher_weights=teacher_weights,
        metric=metric,
        threads=threads,
        seed=seed,
    )


def _run(
    recipe: CompressionRecipe, to: str, out: Path, *, resume: bool, no_cache: bool, as_json: bool
) -> None:
    from edgewright.compression import compress_model
    from edgewright.core.compression import step_id

    if to:
        names = tuple(part.strip() for part in to.split(","))
        if not all(names):
            raise UsageError(f"--to is {to!r}; expected names separated by commas.")
        recipe = replace(recipe, runtimes=names)
    steps = [step_id(number, step.name) for number, step in enumerate(recipe.steps, start=1)]
    with show.progress(as_json, steps, unit="steps") as progress:
        result = compress_model(recipe, out=out, resume=resume, use_cache=not no_cache, progress=progress)
    _show(result, as_json)
    if result.error is not None:
        raise result.error
    raise typer.Exit(result.exit_code)


def _show(result: CompressionResult, as_json: bool) -> None:
    if as_json and result.error is not None:
        return  # stdout holds one record: that of the error; the other is in results.json
    show.compression(result, as_json)


def _options_help(command: str) -> str:
    """Return the options of the pass of `command`, of every pass for `compress`."""
    from edgewright.compress import registry
    from edgewright.core.errors import EdgewrightError
    from edgewright.core.options import option_fields

    lines = []
    for name in registry.names() if command == "compress" else [command]:
        try:
            fields = option_fields(registry.get(name).Options)  # type: ignore[arg-type]
        except EdgewrightError as err:
            lines += [f"{name}: {err}"]
            continue
        lines.append(f"Options of {name}: {SUMMARIES[name]}")
        for field in fields:
            default = f", default {field.default}" if field.default else ", needed"
            lines.append(f"  {field.name}  ({field.kind}{default})")
            lines += textwrap.wrap(field.text, 74, initial_indent="      ", subsequent_indent="      ")
        lines.append("")
    return "\n".join(lines).rstrip()
