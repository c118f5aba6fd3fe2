"""`edgewright bundle`: the project around a model for a platform, and its check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from edgewright.cli import show
from edgewright.cli.options import Processing
from edgewright.cli.show import Json

if TYPE_CHECKING:
    from edgewright.deploy.bundle import Bundle
    from edgewright.deploy.check import BundleCheck


class _MakeByDefault(TyperGroup):
    """Lets `bundle DIR --for web` be `bundle make DIR --for web`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put `make` in front of arguments that begin with no command."""
        is_make = bool(args) and args[0] not in (*self.commands, "-h", "--help")
        return super().parse_args(ctx, ["make", *args] if is_make else args)


app = typer.Typer(
    cls=_MakeByDefault,
    rich_markup_mode=None,
    no_args_is_help=True,
    help=(
        "Make a project for a platform around a model and its processing, and check one.\n\n"
        "Example: edgewright bundle out --for web --name Birds --out birds-web"
    ),
)


@app.command(short_help="Write the project for a platform.")
def make(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a build or of an artifact, or a model file.")
    ],
    platform: Annotated[
        str, typer.Option("--for", metavar="PLATFORM", help="android, ios, linux, cpp or web.")
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Names the types and the project: BirdFinder.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The new folder; none is replaced.")],
    processing: Processing = "",
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="A text file with a label a line.")
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            "--sample", metavar="FILE", help="Becomes a golden case, as `predict` takes it; again for more."
        ),
    ] = None,
    version: Annotated[str, typer.Option("--version", metavar="X.Y.Z", help="Of the bundle.")] = "1.0.0",
    licence: Annotated[str, typer.Option("--licence", metavar="SPDX", help="Of the model: Apache-2.0.")] = "",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="NAME=VALUE", help="Of the platform, see `bundle platforms`; again for more."
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign the manifest: a private Ed25519 key, a PEM file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a project that holds the model, its processing in C, a typed API, a sample app and a golden test.

    Example: edgewright bundle out --for cpp --name Birds --out birds --processing imagenet --sample cat.jpg
    """
    from edgewright.deploy.bundle import BundleRequest, make_bundle

    request = BundleRequest(
        source=source,
        platform=platform,
        name=name,
        version=version,
        processing=processing,
        labels=labels,
        samples=tuple(sample or ()),
        licence=licence,
        options=tuple(option or ()),
        sign=sign,
    )
    with show.progress(as_json, [platform], unit="bundles") as progress:
        made = make_bundle(request, out, progress=progress)
    _show_bundle(made, as_json)


@app.command(short_help="Verify digests, signature, golden cases and libraries.")
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A bundle.")],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="KEY", help="Who has to have signed it: a public Ed25519 key, a PEM file."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Say whether a bundle is what its manifest says, and gives its golden results here.

    Nothing of it is run before its digests are right and, with --key, its signature.

    Example: edgewright bundle check birds-web --key public.pem
    """
    from edgewright.deploy.check import check_bundle

    with show.progress(as_json, ["bundle"], unit="bundles") as progress:
        found = check_bundle(folder, key=key, progress=progress)
    _show_check(found, as_json)
    return found.exit_code


@app.command(short_help="List the platforms, their runtimes and options.")
def platforms(as_json: Json = False) -> None:
    """List what bundles there are: the runtimes of the models that each takes, and what --option says to it.

    Example: edgewright bundle platforms
    """
    from edgewright.deploy import registry

    found = [registry.platform(name) for name in registry.names()]
    if as_json:
        record = {
            each.name: {
                "summary": each.summary, "runtimes": list(each.runtimes), "options": dict(each.options),
            }
            for each in found
        }  # fmt: skip
        print(json.dumps(record, indent=2))
        return
    for each in found:
        print(f"{each.name:9}{each.summary}\n         runtimes: {', '.join(each.runtimes)}")
        for name, text in each.options.items():
            print(f"         --option {name}=  {text}")


def _show_bundle(made: Bundle, as_json: bool) -> None:
    if as_json:
        print(json.dumps(made.to_json(), indent=2))
        return
    print(made.folder)
    for size in made.written.sizes:
        parts = [("model", size.model_bytes), ("runtime", size.runtime_bytes), ("core", size.core_bytes)]
        texts = [f"{what} {'not measured' if count is None else f'{count:,}'}" for what, count in parts]
        known = [count for _, count in parts if count is not None]
        total = f"; together {sum(known):,} bytes" if len(known) == len(parts) else " bytes"
        print(f"  size, {size.abi}: {', '.join(texts)}{total}{f' ({size.note})' if size.note else ''}")
    proofs = made.record["proofs"]
    assert isinstance(proofs, list)
    for proof in proofs:
        print(f"  proof: {proof}")
    for note in made.written.notes:
        print(f"  note: {note}")


def _show_check(found: BundleCheck, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    for row in found.rows:
        print(f"{'wrong' if row.problems else 'ok':6}{row.what}{f'; {row.note}' if row.note else ''}")
        for problem in row.problems:
            print(f"      {problem}")
