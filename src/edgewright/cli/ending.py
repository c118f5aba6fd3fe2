"""How a command ends: every error becomes one message and one exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import typer

from edgewright.cli.show import printable
from edgewright.compress.names import PASSES
from edgewright.core.errors import EdgewrightError, UsageError

BUG_EXIT_CODE = 70
INTERRUPTED_EXIT_CODE = 130
TERMINATED_EXIT_CODE = 143


def run_to_exit_code(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command of `app` and return its exit code; every error is one clear message on stderr."""
    outcome: object
    try:
        outcome = app(args=arguments, prog_name="edgewright", standalone_mode=False)
        sys.stdout.flush()
    except typer.Exit as exit_:
        outcome = int(exit_.exit_code)
    except EdgewrightError as err:
        _report(err, "--json" in arguments)
        return err.exit_code
    except (KeyboardInterrupt, typer.Abort):
        outcome = INTERRUPTED_EXIT_CODE
    except _Terminated:
        _print_stopped("terminated", arguments)
        return TERMINATED_EXIT_CODE
    except BrokenPipeError:
        return _without_reader()
    except SystemExit as end:
        # Typer's own answer to a reader of stdout that went away, as `| head` does; nothing else here exits so.
        return _without_reader() if isinstance(end.__context__, BrokenPipeError) else int(str(end.code or 0))
    except Exception as err:
        if isinstance(err, typer.BadParameter.__bases__[0]):  # click's UsageError, which typer keeps private
            if type(err).__name__ == "NoArgsIsHelpError":  # its message is the help
                print(err, file=sys.stderr)
                return UsageError.exit_code
            _report(UsageError(f"{err} See edgewright --help."), "--json" in arguments)
            return UsageError.exit_code
        traceback.print_exc()
        print("edgewright: this is a bug of ours; please report it with the lines above.", file=sys.stderr)
        return BUG_EXIT_CODE
    code = outcome if isinstance(outcome, int) else 0
    if code == INTERRUPTED_EXIT_CODE:  # typer itself turns a KeyboardInterrupt into an Exit
        _print_stopped("interrupted", arguments)
    return code


def _print_stopped(how: str, arguments: list[str]) -> None:
    is_compression = bool(arguments) and arguments[0] in ("compress", *PASSES)
    again = "run it again with --resume" if is_compression else "run it again"
    print(f"edgewright: {how}; finished steps are kept, {again} to go on.", file=sys.stderr)


def unwind_on_termination() -> None:
    """Let SIGTERM unwind the stack as an interrupt does, so that every worker and temporary file goes."""
    signal.signal(signal.SIGTERM, _terminate)


class _Terminated(BaseException):
    """SIGTERM came."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _without_reader() -> int:
    """Point stdout nowhere, since nobody reads it: the interpreter's last flush shall not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _report(err: EdgewrightError, as_json: bool) -> None:
    if as_json:
        record = {"error": type(err).__name__, "message": str(err), "exit_code": err.exit_code}
        print(json.dumps(record))
    # An error has several lines where its author wanted them; what else would steer a terminal is a name's.
    message = "\n".join(printable(line) for line in str(err).split("\n"))
    print(f"edgewright: {message}", file=sys.stderr)
