"""The command line: each command parses, calls one library function, prints, and exits with the error's code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edgewright.cli import bundle, show, toolchain
from edgewright.cli.bench import bench
from edgewright.cli.compress import add_commands as add_compression
from edgewright.cli.ending import run_to_exit_code, unwind_on_termination
from edgewright.cli.explain import explain
from edgewright.cli.options import (
    FoldProcessing,
    Processing,
    RuntimeOptions,
    Seed,
    Shapes,
    Signature,
    Trust,
    Weights,
    split_names,
)
from edgewright.cli.pack import pack, unpack
from edgewright.cli.predict import predict
from edgewright.cli.predict import processing as show_processing
from edgewright.core.errors import UsageError

# Plain help: drawing it with rich alone would take longer than all the rest of `--help`.
app = typer.Typer(
    name="edgewright",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "A trained model in, proven edge artifacts out.\n\n"
        "Converts a model for every runtime and precision, runs each result in its real runtime, compares it with "
        "the source, measures it, and says what is true.\n\n"
        "Exit codes: 0 ok, 2 usage, 3 unavailable, 4 conversion failed, 5 over budget or tolerance, 6 integrity, "
        "7 worker crashed, 70 a bug of ours.\n\n"
        "EDGEWRIGHT_TIMEOUT_S and EDGEWRIGHT_MEMORY_MB limit each conversion and each run; EDGEWRIGHT_CACHE is the "
        "folder of finished steps, EDGEWRIGHT_TOOLCHAINS that of the toolchains."
    ),
)

app.command(short_help="Tell what each runtime would make of a model.")(explain)
add_compression(app)
app.command(short_help="Time artifacts in turns, or run C models on emulated devices.")(bench)
app.command(short_help="Run a model on images, sounds and numbers.")(predict)
app.command("processing", short_help="Show or write a model's pre- and post-processing.")(show_processing)
app.add_typer(bundle.app, name="bundle", short_help="Make a project for a platform, and check one.")
app.command(short_help="Pack an artifact for the download.")(pack)
app.command(short_help="Unpack a .ewz, checked.")(unpack)
app.add_typer(toolchain.app, name="toolchain", short_help="Environments for toolchains that need their own.")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A .pt2, .pt, .onnx, .tflite, .keras, .h5 or .pb file, a SavedModel folder, or package.module:factory.",
    ),
]
Layout = Annotated[
    str,
    typer.Option("--layout", metavar="LAYOUT", help="nchw or nhwc for images in and out (PyTorch sources)."),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SET",
        help="Evaluation set: .npz, IDX, a folder of images (of any raw data with --processing), or module:function.",
    ),
]
CalibrationData = Annotated[
    str,
    typer.Option(
        "--calibration", metavar="SET", help="Set for activation ranges; default: a seeded sample of --data."
    ),
]
CalibrationCount = Annotated[
    int, typer.Option("--calibration-count", metavar="N", help="Samples used for calibration.")
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="top1, top5, mse, cosine, roc_auc or module:function; top1 if labels are classes.",
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--value", metavar="NAME=NUMBER", help="Constant for an input that the data do not hold: sr=16000."
    ),
]
QuantizerName = Annotated[
    str,
    typer.Option(
        "--quantizer",
        metavar="NAME",
        help="Who makes w8a8: pt2e (PyTorch sources), native, or accuracy (OpenVINO).",
    ),
]
Json = show.Json
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep finished steps.")]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="Threads of the runtime.")]


@app.command(short_help="Convert, prove, measure, compare; recommend one.")
def build(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file or package.module:factory.")
    ] = "",
    weights: Weights = "",
    input_shape: Shapes = None,
    signature: Signature = "",
    trust: Trust = False,
    layout: Layout = "",
    data: Data = "",
    calibration: CalibrationData = "",
    calibration_count: CalibrationCount = 512,
    to: Annotated[
        str, typer.Option("--to", metavar="NAME,...", help="Runtimes, comma-separated; all: those installed.")
    ] = "litert,onnxruntime,openvino",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="NAME,...",
            help="fp32, fp16, w8 (weights), w8a8, w4a8 (weights and activations), w4, pruned.",
        ),
    ] = "fp32,fp16,w8,w8a8",
    threads: Annotated[
        str, typer.Option("--threads", metavar="N", help="Numbers of threads, comma-separated.")
    ] = "1",
    quantizer: QuantizerName = "",
    processing: Processing = "",
    fold_processing: FoldProcessing = False,
    metric: Metric = "",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="NAME=LIMIT",
            help="Limit: latency_p50_ms, latency_p95_ms, size_mb, memory_mb, drop_points, ...",
        ),
    ] = None,
    value: Values = None,
    option: RuntimeOptions = None,
    require: Annotated[
        str,
        typer.Option(
            "--require",
            metavar="WHICH",
            help="Exit 0 when `all` targets are ok, or when `one` is recommended.",
        ),
    ] = "all",
    recipe: Annotated[
        str,
        typer.Option("--recipe", metavar="FILE", help="Replay a recipe.toml instead of the options above."),
    ] = "",
    seed: Seed = 0,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for artifacts, evidence, recipe and report.")
    ] = Path("edgewright-out"),
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Convert, prove, measure and compare MODEL on every runtime and precision.

    Example: edgewright build model.onnx --data eval.npz --metric top1 --threads 1,2 --budget drop_points=0.5 --out out
    """
    from edgewright.pipeline import run_recipe
    from edgewright.recipe import Recipe

    if recipe and model:
        raise UsageError("give MODEL or --recipe, not both.")
    if not recipe and not model:
        raise UsageError("MODEL is missing. Example: edgewright build model.onnx --data eval.npz --out out")
    wanted = (
        Recipe.read(Path(recipe))
        if recipe
        else Recipe(
            model=model,
            weights=weights,
            input_shapes=tuple(input_shape or ()),
            signature=signature,
            trust=trust,
            layout=layout,
            data=data,
            calibration=calibration,
            calibration_count=calibration_count,
            runtimes=split_names(to, "--to"),
            precisions=split_names(precision, "--precision"),
            threads=_numbers(threads, "--threads"),
            quantizer=quantizer,
            processing=processing,
            fold_processing=fold_processing,
            metric=metric,
            budget=tuple(budget or ()),
            values=tuple(value or ()),
            options=tuple(option or ()),
            seed=seed,
            require=require,
        )
    )
    wanted = wanted.resolved()
    with show.progress(as_json, [target.id for target in wanted.targets()]) as progress:
        result = run_recipe(wanted, out=out, use_cache=not no_cache, progress=progress)
    show.build_result(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command(short_help="Build the sample that comes with the package.")
def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for artifacts, evidence, recipe and report.")
    ] = Path("edgewright-demo"),
    to: Annotated[
        str, typer.Option("--to", metavar="NAME,...", help="Runtimes, comma-separated; all: those installed.")
    ] = "litert,onnxruntime,openvino",
    threads: Annotated[
        str, typer.Option("--threads", metavar="N", help="Numbers of threads, comma-separated.")
    ] = "1",
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Build the sample that comes with the package: a small CNN on handwritten digits.

    Example: edgewright demo --out demo-out
    """
    from edgewright import sample
    from edgewright.pipeline import run_recipe
    from edgewright.recipe import Recipe

    recipe = Recipe(
        model=sample.MODEL,
        weights=str(sample.WEIGHTS),
        input_shapes=("x".join(map(str, sample.INPUT_SHAPE)),),
        data=str(sample.EVAL_DATA),
        calibration=str(sample.CALIBRATION_DATA),
        runtimes=split_names(to, "--to"),
        threads=_numbers(threads, "--threads"),
        metric="top1",
        budget=("latency_p95_ms=50", "size_mb=5"),
    ).resolved()
    with show.progress(as_json, [target.id for target in recipe.targets()]) as progress:
        result = run_recipe(recipe, out=out, use_cache=not no_cache, progress=progress)
    show.build_result(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command(short_help="Show what a model holds, without running it.")
def inspect(
    model: Model,
    weights: Weights = "",
    input_shape: Shapes = None,
    signature: Signature = "",
    as_json: Json = False,
) -> None:
    """Show the signature, parameters, MACs, operators, layers, precision and digest of MODEL, without running it.

    Example: edgewright inspect model.tflite
    """
    from edgewright.single import describe

    found = describe(
        model,
        weights=Path(weights) if weights else None,
        input_shapes=tuple(input_shape or ()),
        signature=signature or None,
    )
    show.inspection(found, as_json)


@app.command(short_help="Convert for one runtime, verified.")
def convert(
    model: Model,
    to: Annotated[str, typer.Option("--to", metavar="NAME,...", help="One runtime.")],
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME,...", help="fp32, fp16, w8, w8a8, w4a8, w4 or pruned.")
    ] = "fp32",
    weights: Weights = "",
    input_shape: Shapes = None,
    signature: Signature = "",
    trust: Trust = False,
    layout: Layout = "",
    data: Data = "",
    calibration: CalibrationData = "",
    calibration_count: CalibrationCount = 512,
    quantizer: QuantizerName = "",
    processing: Processing = "",
    fold_processing: FoldProcessing = False,
    metric: Metric = "",
    value: Values = None,
    option: RuntimeOptions = None,
    seed: Seed = 0,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the artifact and its record.")
    ] = Path("edgewright-out"),
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Convert MODEL for one runtime and verify it against the source.

    Example: edgewright convert model.onnx --to openvino --precision fp16 --out out
    """
    from edgewright.recipe import Recipe
    from edgewright.single import convert as convert_one

    recipe = Recipe(
        model=model,
        weights=weights,
        input_shapes=tuple(input_shape or ()),
        signature=signature,
        trust=trust,
        layout=layout,
        data=data,
        calibration=calibration,
        calibration_count=calibration_count,
        runtimes=(to,),
        precisions=(precision,),
        quantizer=quantizer,
        processing=processing,
        fold_processing=fold_processing,
        metric=metric,
        values=tuple(value or ()),
        options=tuple(option or ()),
        seed=seed,
    )
    with show.progress(as_json, [f"{to}-{precision}"]) as progress:
        verification = convert_one(recipe, out=out, use_cache=not no_cache, progress=progress)
    show.verification(verification, as_json)
    raise typer.Exit(verification.exit_code)


@app.command(short_help="Compare an artifact with its source.")
def verify(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A model file, or the folder a build wrote.")
    ],
    against: Annotated[
        str, typer.Option("--against", metavar="MODEL", help="The source: as MODEL of build.")
    ],
    weights: Weights = "",
    input_shape: Shapes = None,
    signature: Signature = "",
    trust: Trust = False,
    data: Data = "",
    processing: Processing = "",
    fold_processing: FoldProcessing = False,
    metric: Metric = "",
    value: Values = None,
    precision: Annotated[
        str,
        typer.Option("--precision", metavar="NAME,...", help="Whose tolerances apply; default: the file's."),
    ] = "",
    threads: Threads = 1,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run ARTIFACT in its runtime and compare it with the source on the same samples.

    Example: edgewright verify out/artifacts/litert-w8a8 --against model.pt2 --data eval.npz
    """
    from edgewright.recipe import Recipe
    from edgewright.single import verify as verify_one

    recipe = Recipe(
        model=against,
        weights=weights,
        input_shapes=tuple(input_shape or ()),
        signature=signature,
        trust=trust,
        data=data,
        processing=processing,
        fold_processing=fold_processing,
        metric=metric,
        precisions=("fp32",),
        values=tuple(value or ()),
        seed=seed,
    )
    with show.progress(as_json, [str(artifact)]) as progress:
        verification = verify_one(artifact, recipe, precision=precision, threads=threads, progress=progress)
    show.verification(verification, as_json)
    raise typer.Exit(verification.exit_code)


@app.command(short_help="Run an artifact once.")
def run(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A model file, or the folder a build wrote.")
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="[NAME=]FILE",
            help="An .npy file with the batch axis, or an image; NAME=FILE for several inputs.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write the output here (.npy; .npz for several)."),
    ] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Run ARTIFACT once in its runtime and show or save what comes out.

    Example: edgewright run out/artifacts/litert-fp32 --input x.npy --output y.npy
    """
    from edgewright.single import read_inputs, save_output
    from edgewright.single import run as run_one

    outputs = run_one(artifact, read_inputs(artifact, inputs), threads=threads)
    if output is not None:
        save_output(outputs, output)
    show.outputs(outputs, output, as_json)


@app.command(short_help="Compare two builds row by row.")
def compare(
    a: Annotated[Path, typer.Argument(metavar="A/results.json", help="The earlier results.")],
    b: Annotated[Path, typer.Argument(metavar="B/results.json", help="The later results.")],
    as_json: Json = False,
) -> None:
    """Compare two builds row by row; exit 5 when something got worse.

    Example: edgewright compare before/results.json after/results.json
    """
    from edgewright.report.compare import compare_results

    comparison = compare_results(a, b)
    show.record(comparison, as_json)
    raise typer.Exit(5 if comparison.is_regression else 0)


@app.command(short_help="Say what is here and what is missing.")
def doctor(as_json: Json = False) -> None:
    """Say which runtimes are here, what is missing, and the command that brings it; exit 3 when something is.

    Example: edgewright doctor --json
    """
    from edgewright.doctor import diagnose

    diagnosis = diagnose()
    show.diagnosis(diagnosis, as_json)
    raise typer.Exit(0 if diagnosis.is_ok else 3)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in split_names(text, option))
    except ValueError:
        raise UsageError(
            f"{option} is {text!r}; expected whole numbers separated by commas, e.g. 1,2."
        ) from None


def run_command_line(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error is one clear message on stderr."""
    return run_to_exit_code(app, arguments)


def run_and_exit() -> NoReturn:
    """Entry point of the console script."""
    unwind_on_termination()
    sys.exit(run_command_line(sys.argv[1:]))
