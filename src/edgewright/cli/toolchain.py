"""`edgewright toolchain`: what is installed on request: environments of their own, and packages of npm."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright.cli import show

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help=(
        "List, install and remove toolchains that are brought on request only.\n\n"
        "Each is a locked, hash-checked list of packages: of Python in an environment of its own, or of npm. They "
        "lie in the user's cache folder (EDGEWRIGHT_TOOLCHAINS points elsewhere)."
    ),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `edgewright toolchain list`.")]


@app.command("list", short_help="Show each toolchain's state, size and the command that brings it.")
def list_all(as_json: show.Json = False) -> None:
    """Show each toolchain's state, size and the command that brings it.

    Example: edgewright toolchain list
    """
    from edgewright.workers import toolchains

    show.toolchains([toolchains.look(name) for name in toolchains.names()], as_json)


@app.command(short_help="Bring a toolchain.")
def install(name: Name, as_json: show.Json = False) -> None:
    """Bring the packages of NAME from its lock; nothing is done when they are there and unchanged.

    Example: edgewright toolchain install tensorflow
    """
    from edgewright.workers import toolchains

    with show.progress(as_json, [name]) as progress:
        found = toolchains.install(name, progress=progress)
    show.toolchains([found], as_json)


@app.command(short_help="Delete a toolchain.")
def remove(name: Name, as_json: show.Json = False) -> None:
    """Delete what was installed of NAME.

    Example: edgewright toolchain remove tensorflow
    """
    from edgewright.workers import toolchains

    toolchains.remove(name)
    show.toolchains([toolchains.look(name)], as_json)
