"""From the words of a command line to its exit status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after the command's name; those of the process when not given.

    Returns:
        The exit status: 0 when all is well, 1 when there is a problem, 2 when the command line is
        wrong.
    """
    from embedded_orch.cli.arguments import parse
    from embedded_orch.errors import InvalidURL, OrchestratorError

    _print_what_can_be_printed()
    try:
        chosen = parse(arguments)
        return chosen.command(chosen)
    except SystemExit as leaving:
        # argparse has said what is wrong, or has printed its help.
        return leaving.code if isinstance(leaving.code, int) else 1
    except InvalidURL as error:
        return _complain(error, status=2)
    except OrchestratorError as error:
        return _complain(error, status=1)
    except BrokenPipeError:
        return _stop_writing()
    except KeyboardInterrupt:
        return _INTERRUPTED


def _complain(error: Exception, *, status: int) -> int:
    from embedded_orch.cli.text import printable

    print(f"embedded-orch: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    return status


def _print_what_can_be_printed() -> None:
    """A terminal that cannot show a character gets its number instead of a traceback."""
    from io import TextIOWrapper

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stop_writing() -> int:
    """Whoever read our output, such as ``head``, has seen enough."""
    import os

    # What is still buffered would raise again when the interpreter flushes it at its end.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return 0
