"""`edgewright pack` and `unpack`: an artifact as one small file for the download, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright.cli.show import Json
from edgewright.core.errors import UsageError

if TYPE_CHECKING:
    from edgewright.ewz import PackReport, UnpackReport


def pack(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="An artifact: a file or a folder.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The .ewz to write; default: FILE.ewz. None is replaced."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Pack an artifact losslessly into one .ewz: weights entropy-coded, the rest by zstd.

    Example: edgewright pack out/artifacts/litert-w8a8/model.tflite --out model.ewz
    """
    from edgewright.ewz import SUFFIX
    from edgewright.ewz import pack as pack_one

    path = source.with_name(source.name + SUFFIX) if out is None else out
    if path.is_file():
        raise UsageError(f"{path} exists already, and nothing is replaced. Remove it, or give another --out.")
    _show_packed(pack_one(source, path), as_json)


def unpack(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A .ewz.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for its files; none is replaced.")
    ] = Path(),
    limit_mb: Annotated[
        float | None,
        typer.Option(
            "--limit-mb",
            metavar="MB",
            help="Unpack to at most so much; default: 64 MiB, or 1,024 times FILE.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Unpack a .ewz: all digests are checked before a file appears.

    Example: edgewright unpack model.ewz --out device
    """
    from edgewright.ewz import unpack as unpack_one

    if limit_mb is not None and not 0 < limit_mb <= 1e9:
        raise UsageError(f"--limit-mb is {limit_mb:g}; a number of megabytes above 0 is expected.")
    limit_bytes = None if limit_mb is None else int(limit_mb * 1e6)
    _show_unpacked(unpack_one(source, out, limit_bytes=limit_bytes), as_json)


def _show_packed(report: PackReport, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
        return
    disk, download = report.source_bytes, report.packed_bytes
    coded = [r for r in report.ranges if r.kind != "rest"]
    weights = sum(r.size_bytes for r in coded)
    print(f"download  {download:,} bytes: {report.path}")
    print(f"disk      {disk:,} bytes in {_files(len(report.files))}, {disk / download:.2f} times as much")
    print("RAM       not known before it runs: edgewright build and bench measure it")
    print(f"weights   {weights:,} -> {report.weight_bytes:,} bytes in {len(coded)} ranges", end="")
    print(f"; zero-order entropy {sum(r.entropy_bytes for r in coded):,.0f}" if coded else "")
    print(f"tables    {report.control_bytes:,} bytes, with the places of the ranges")
    print(f"rest      {disk - weights:,} -> {report.rest_bytes:,} bytes")
    print(f"header    {report.header_bytes:,} bytes")
    print(f"sha256    {report.digest}")


def _show_unpacked(report: UnpackReport, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
        return
    print(f"download  {report.packed_bytes:,} bytes")
    print(f"disk      {report.source_bytes:,} bytes in {_files(len(report.files))}, every digest right")
    for file in report.files:
        print(f"          {file}")


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
