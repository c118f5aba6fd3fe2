"""The command `bench`: artifacts timed on this machine, or C models on emulated devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewright.cli import show
from edgewright.cli.options import Seed, split_names
from edgewright.core.errors import UsageError


def bench(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT...",
            help="Model files, folders of a build, or bundles; for --device also .c files.",
        ),
    ],
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="Threads; default: what the record says.")
    ] = None,
    launches: Annotated[
        int | None, typer.Option("--launches", metavar="N", help="Fresh processes per artifact; default: 8.")
    ] = None,
    seed: Seed = 0,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample",
            metavar="FILE",
            help="Timed end to end, where a processing.toml is beside: an image, a WAV; default: synthetic.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME,...",
            help="C models under QEMU: m0plus, m3, m4, m7, m33, m55, rv32, or all. Counts instructions, no time.",
        ),
    ] = "",
    board: Annotated[
        str,
        typer.Option(
            "--board", metavar="NAME,...", help="C models: whether they fit these boards, e.g. pico-2."
        ),
    ] = "",
    as_json: show.Json = False,
) -> None:
    """Time artifacts in turns, in fresh processes, and compare each with the first, with intervals.

    One with a processing.toml beside it is also timed end to end: from a raw input to the result, the processing in C.

    With --device or --board: run C models on emulated cores, check every output bit, and say what they take and where
    they fit.

    Example: edgewright bench out/artifacts/litert-fp32 out/artifacts/litert-w8a8

    Example: edgewright bench out/artifacts/c-w8a8 --device m4,m55
    """
    if device or board:
        if threads is not None or launches is not None or sample is not None:
            raise UsageError(
                "--threads, --launches and --sample are for timing; on a device nothing is timed. Leave them out."
            )
        _on_devices(artifacts, device, board, as_json)
        return
    from edgewright.benchmark import bench as bench_all

    with show.progress(as_json, [str(path) for path in artifacts]) as progress:
        result = bench_all(
            artifacts,
            threads=threads,
            launches=8 if launches is None else launches,
            seed=seed,
            sample=sample,
            progress=progress,
        )
    show.benchmark(result, as_json)


def _on_devices(artifacts: list[Path], device: str, board: str, as_json: bool) -> None:
    from edgewright.microcontrollers.device_bench import bench_on_devices
    from edgewright.microcontrollers.qemu import DEVICES

    devices = tuple(DEVICES) if device == "all" else split_names(device, "--device") if device else ()
    with show.progress(as_json, (), unit="models") as progress:
        found = bench_on_devices(
            artifacts, devices, boards=split_names(board, "--board") if board else (), progress=progress
        )
    show.record(found, as_json)
    raise typer.Exit(found.exit_code)
