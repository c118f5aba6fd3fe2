"""`edgewright predict` and `edgewright processing`: raw inputs in, results out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright.cli.options import Processing
from edgewright.cli.show import Json, printable
from edgewright.core.errors import DataError, EdgewrightError, UsageError
from edgewright.core.files import write_aside

if TYPE_CHECKING:
    from edgewright.prediction import Prediction, Predictor
    from edgewright.processing.specification import Specification

_Model = Annotated[
    Path, typer.Argument(metavar="FILE", help="An artifact: a model file, or the folder that a build wrote.")
]
_Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="A text file with a label a line, for the classes."),
]
_Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Images, WAVs, .npy or .csv files, or folders of them; NAME=FILE where a model takes several.",
    ),
]
_Draw = Annotated[
    Path | None,
    typer.Option(
        "--draw", metavar="FILE|DIR", help="Draw the results: a .png or .jpg, or a folder for several inputs."
    ),
]
_Lines = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the results as JSON lines, one an input.")
]
_Sound = Annotated[
    Path | None,
    typer.Option(
        "--sound",
        metavar="FILE|DIR",
        help="Write the sound that is made: a .wav, or a folder for several inputs.",
    ),
]
_Threads = Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of the runtime.")]
_PICTURES = (".png", ".jpg", ".jpeg")
_SOUND = ".wav"
_MAX_STEM = 80


def predict(
    model: _Model,
    inputs: _Inputs,
    processing: Processing = "",
    labels: _Labels = None,
    draw: _Draw = None,
    out: _Lines = None,
    sound: _Sound = None,
    threads: _Threads = 1,
    as_json: Json = False,
) -> None:
    """Run a model on raw inputs, from the file of an image or a sound to labels, boxes, masks and waveforms.

    Example: edgewright predict mobilenet.tflite cat.jpg --processing mobilenet_v1 --labels labels.txt --draw cat.png
    """
    from edgewright.prediction import find_inputs, load

    with load(model, processing=processing or None, labels=labels, threads=threads) as predictor:
        jobs = find_inputs(predictor.specification, inputs)
        _check_places(draw, sound, len(jobs))
        failed = _predict_all(predictor, jobs, draw=draw, sound=sound, out=out, as_json=as_json)
    if failed:
        raise DataError(f"{failed} of {len(jobs)} inputs gave no result; see above.")


def processing(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="An artifact: a model file, or the folder that a build wrote; several for a preset of several.",
        ),
    ],
    processing: Processing = "",
    labels: _Labels = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write processing.toml and its label files there."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the processing of a model, checked against its signature; with --out, write it to be edited.

    Of several models, write it into the folder that holds them: that folder is then what `predict` and `bundle` take.

    Example: edgewright processing mobilenet.tflite --processing mobilenet_v1 --labels labels.txt --out .
    """
    from edgewright.prediction import specify
    from edgewright.processing.specification import specification_text, write_specification

    checked = specify(models, processing=processing or None, labels=labels)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = write_specification(checked.specification, out)
        if not as_json:
            print(path)
            return
    if as_json:
        print(json.dumps(checked.to_json(), indent=2))
        return
    print(specification_text(checked.specification), end="")
    for line in checked.lines():
        print(f"# {line}")


def _check_places(draw: Path | None, sound: Path | None, count: int) -> None:
    """Raise UsageError where the results of `count` inputs cannot be written to these."""
    from edgewright.processing.raw import RAW_SUFFIXES

    if draw is not None and draw.suffix.lower() in RAW_SUFFIXES["image"].difference(_PICTURES):
        raise UsageError(f"--draw {draw}: {', '.join(_PICTURES)}, or a folder, is expected.")
    if draw is not None and count > 1 and draw.suffix.lower() in _PICTURES:
        raise UsageError(f"--draw {draw} is one picture, but there are {count} inputs. Give a folder.")
    if sound is not None and count > 1 and sound.suffix.lower() == _SOUND:
        raise UsageError(f"--sound {sound} is one file, but there are {count} inputs. Give a folder.")


def _predict_all(
    predictor: Predictor,
    jobs: list[dict[str, str]],
    *,
    draw: Path | None,
    sound: Path | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Print, write and draw the results of each job; return how many failed."""
    failed = 0
    with ExitStack() as stack:
        lines = None
        if out is not None:
            lines = stack.enter_context(stack.enter_context(write_aside(out)).open("w", encoding="utf-8"))
        for job, stem in zip(_counted(jobs), _own_stems(jobs), strict=True):
            source = next(iter(job.values()))
            try:
                prediction = predictor(source=source, named=job)
                if draw is not None:
                    place = draw if draw.suffix.lower() in _PICTURES else draw / f"{stem}.png"
                    _draw(prediction, place, predictor.specification)
                if sound is not None:
                    _write_sound(prediction, sound, stem)
            except EdgewrightError as err:
                if len(jobs) == 1:
                    raise
                failed += 1
                record: dict[str, object] = {"input": source, "error": str(err)}
                said = str(err) if source in str(err) else f"{source}: {err}"
                print(f"edgewright: {printable(said)}", file=sys.stderr)
            else:
                record = prediction.to_json()
                for note in prediction.notes:
                    print(f"edgewright: note: {printable(source)}: {note}", file=sys.stderr)
                if out is None and not as_json:
                    _show(prediction)
            if as_json:
                print(json.dumps(record), flush=True)
            if lines is not None:
                lines.write(f"{json.dumps(record)}\n")
    return failed


def _own_stems(jobs: list[dict[str, str]]) -> list[str]:
    """Return a name for what is written of each job: its file's, numbered where several have the same."""
    stems: list[str] = []
    taken: set[str] = set()
    for job in jobs:
        stem = re.sub(r"[^\w .-]", "_", Path(next(iter(job.values()))).stem)[:_MAX_STEM] or "input"
        number, own = 1, stem
        while own.lower() in taken:
            number += 1
            own = f"{stem}-{number}"
        taken.add(own.lower())
        stems.append(own)
    return stems


def _counted(jobs: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Yield the jobs, with a bar on stderr where there are several and somebody looks."""
    if len(jobs) == 1 or not sys.stderr.isatty():
        yield from jobs
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(jobs, description="predict", console=Console(stderr=True), transient=True)


def _draw(prediction: Prediction, path: Path, specification: Specification) -> None:
    from edgewright.report.drawing import draw_results

    path.parent.mkdir(parents=True, exist_ok=True)
    orders = {row.name: row.order for row in specification.inputs}
    picture = draw_results(prediction.raw, prediction.results, orders=orders)
    with write_aside(path) as aside, aside.open("wb") as stream:
        picture.save(stream, format="PNG" if path.suffix.lower() == ".png" else "JPEG")


def _write_sound(prediction: Prediction, place: Path, stem: str) -> None:
    import numpy as np

    from edgewright.processing.audio_files import wav_bytes
    from edgewright.processing.results import Waveform

    made = {name: result for name, result in prediction.results.items() if isinstance(result, Waveform)}
    is_file = place.suffix.lower() == _SOUND
    if not made or (is_file and len(made) > 1):
        raise UsageError(
            f"--sound {place} is given, but the model makes {len(made)} sounds ({', '.join(made) or 'none'})."
            + (" Give a folder." if made else "")
        )
    for name, result in made.items():
        path = place if is_file else place / (f"{stem}_{name}.wav" if len(made) > 1 else f"{stem}.wav")
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as aside:
            aside.write_bytes(wav_bytes(np.asarray(result.samples, dtype=np.float32), result.rate_hz))


def _show(prediction: Prediction) -> None:
    from edgewright.processing.results import result_lines

    print(printable(prediction.source))
    for name, result in prediction.results.items():
        for line in result_lines(name, result):
            print(f"  {line}")
