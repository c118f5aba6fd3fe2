"""`edgewright toolchain`: environments of their own for toolchains whose pins clash with others'."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright.cli import show

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help=(
        "List, install and remove toolchains that live in an environment of their own.\n\n"
        "Each is made from a locked, hash-checked list of packages, in the user's cache folder "
        "(EDGEWRIGHT_TOOLCHAINS points elsewhere), and only when asked for."
    ),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `edgewright toolchain list`.")]


@app.command("list", short_help="Show each toolchain's state, size and the command that brings it.")
def list_all(as_json: show.Json = False) -> None:
    """Show each toolchain's state, size and the command that brings it.

    Example: edgewright toolchain list
    """
    from edgewright.workers import environments

    show.toolchains([environments.look(name) for name in environments.names()], as_json)


@app.command(short_help="Make the environment of a toolchain.")
def install(name: Name, as_json: show.Json = False) -> None:
    """Make the environment of NAME from its lock; nothing is done when it is there and unchanged.

    Example: edgewright toolchain install tensorflow
    """
    from edgewright.workers import environments

    with show.progress(as_json, [name]) as progress:
        found = environments.install(name, progress=progress)
    show.toolchains([found], as_json)


@app.command(short_help="Delete the environment of a toolchain.")
def remove(name: Name, as_json: show.Json = False) -> None:
    """Delete the environment of NAME.

    Example: edgewright toolchain remove tensorflow
    """
    from edgewright.workers import environments

    environments.remove(name)
    show.toolchains([environments.look(name)], as_json)
