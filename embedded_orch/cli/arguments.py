"""The command line: what can be asked for, and by which words."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

_DATABASE_HELP = (
    "a path, sqlite:///path or postgresql://...; else EMBEDDED_ORCH_URL, else orch.db in "
    "EMBEDDED_ORCH_HOME or in your folder for data"
)
_EXIT_STATUS = "exit status: 0 all is well, 1 there is a problem, 2 the command line is wrong"


class Arguments(argparse.Namespace):
    """A command line that was understood.

    Attributes:
        command: runs it and returns the exit status.
        db: the URL; None for the default database.
    """

    command: Callable[[Arguments], int]
    db: str | None = None
    flow: str | None
    state: str | None
    limit: int
    id: str
    run_id: str | None
    force: bool
    input: str | None
    signal: str
    value: str | None
    tasks: int
    sql: bool
    path: str
    level: int | None
    text: str | None
    older_than: timedelta | None
    unfinished_older_than: timedelta | None
    dry_run: bool


def parse(words: Sequence[str] | None) -> Arguments:
    """Understand a command line.

    Raises:
        SystemExit: it is wrong, or asks for help; what there is to say has been printed.
    """
    return _parser().parse_args(words, namespace=Arguments())


def _parser() -> argparse.ArgumentParser:
    anywhere = argparse.ArgumentParser(add_help=False)
    # Left out and not None, so that the one before the command's name is kept.
    anywhere.add_argument("--db", metavar="URL", default=argparse.SUPPRESS, help=_DATABASE_HELP)
    parser = argparse.ArgumentParser(
        prog="embedded-orch",
        description="Look at the runs of a database of embedded_orch, and look after it.",
        epilog=_EXIT_STATUS,
        parents=[anywhere],
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_runs(commands, anywhere)
    _add_run(commands, anywhere)
    _add_moves(commands, anywhere)
    _add_recovery(commands, anywhere)
    _add_logs(commands, anywhere)
    _add_prune(commands, anywhere)
    _add_db(commands, anywhere)
    version = commands.add_parser("version", help="print the versions in use")
    version.set_defaults(command=_version)
    return parser


if TYPE_CHECKING:
    # argparse has no other name for it.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def _add_runs(commands: Commands, anywhere: argparse.ArgumentParser) -> None:
    from embedded_orch.states import StateType

    runs = commands.add_parser("runs", parents=[anywhere], help="list flow runs, newest first")
    runs.add_argument("--flow", metavar="NAME", help="only runs of this flow")
    runs.add_argument(
        "--state",
        type=str.upper,
        choices=[each.value for each in StateType],
        metavar="TYPE",
        help=f"only runs in a state of this type: {', '.join(StateType)}",
    )
    runs.add_argument("--limit", type=_count, default=20, metavar="N", help="at most so many (20)")
    runs.set_defaults(command=_runs)


def _add_run(commands: Commands, anywhere: argparse.ArgumentParser) -> None:
    run = commands.add_parser(
        "run", parents=[anywhere], help="show one flow run: its states, tasks and error"
    )
    run.add_argument("id", metavar="ID", help="its id, or as many of its first digits as it takes")
    run.add_argument(
        "--tasks",
        type=_count,
        default=100,
        metavar="N",
        help="at most so many task runs (100), those that did not complete first",
    )
    run.set_defaults(command=_run)


def _add_logs(commands: Commands, anywhere: argparse.ArgumentParser) -> None:
    logs = commands.add_parser(
        "logs", parents=[anywhere], help="print what one flow run or task run logged"
    )
    logs.add_argument(
        "id",
        metavar="ID",
        help="of a flow run, or as many of its first digits as it takes; or the id of a task run",
    )
    logs.add_argument("--level", type=_level, metavar="LEVEL", help="only from this level on")
    logs.add_argument(
        "--text",
        metavar="SEARCH",
        help='only lines with one of these words or "phrases"; +must -not',
    )
    logs.add_argument(
        "--limit", type=_count, default=1000, metavar="N", help="at most so many, the newest (1000)"
    )
    logs.set_defaults(command=_logs)


def _add_moves(commands: Commands, anywhere: argparse.ArgumentParser) -> None:
    for name, command, what in (
        ("cancel", _cancel, "cancel one flow run, with all that it called"),
        ("pause", _pause, "suspend one flow run, at the next task that it calls"),
        ("resume", _let_go_on, "let one paused flow run go on"),
    ):
        move = commands.add_parser(name, parents=[anywhere], help=what)
        move.add_argument("id", metavar="ID", help="its id, or its first digits")
        move.set_defaults(command=command)
        if name == "resume":
            move.add_argument("--input", metavar="JSON", help="the input that it waits for")
    signal = commands.add_parser(
        "signal", parents=[anywhere], help="send one flow run a signal that it waits for"
    )
    signal.add_argument("id", metavar="ID", help="its id, or its first digits")
    signal.add_argument("signal", metavar="NAME", help="of the signal")
    signal.add_argument("value", metavar="VALUE", nargs="?", help="as JSON; null when not given")
    signal.set_defaults(command=_signal)


def _add_prune(commands: Commands, anywhere: argparse.ArgumentParser) -> None:
    prune = commands.add_parser(
        "prune", parents=[anywhere], help="remove runs that ended long ago, with all of theirs"
    )
    prune.add_argument(
        "--older-than",
        type=_duration,
        metavar="AGE",
        help="runs that completed so long ago, such as 30d; else as EMBEDDED_ORCH_RETENTION says, "
        "or 90d",
    )
    prune.add_argument(
        "--unfinished-older-than",
        type=_duration,
        metavar="AGE",
        help="runs that failed, crashed or were cancelled so long ago; else 365d, or longer where "
        "--older-than is",
    )
    prune.add_argument("--dry-run", action="store_true", help="only count them")
    prune.set_defaults(command=_prune)


def _add_recovery(commands: Commands, anywhere: argparse.ArgumentParser) -> None:
    why = commands.add_parser(
        "why", parents=[anywhere], help="say why a run is where it is, and what would move it"
    )
    why.add_argument(
        "id",
        metavar="ID",
        help="of a flow run, or as many of its first digits as it takes; or the id of a task run",
    )
    why.set_defaults(command=_why)
    recover = commands.add_parser(
        "recover", parents=[anywhere], help="set right what processes left that are gone"
    )
    recover.add_argument(
        "run_id", metavar="ID", nargs="?", help="only the process of this flow run"
    )
    recover.add_argument(
        "--force",
        action="store_true",
        help="take the run also from a process that lives, such as one that hangs",
    )
    recover.set_defaults(command=_recover)


def _add_db(commands: Commands, anywhere: argparse.ArgumentParser) -> None:
    db = commands.add_parser("db", parents=[anywhere], help="look after the database")
    actions = db.add_subparsers(metavar="ACTION", required=True)
    upgrade = actions.add_parser(
        "upgrade", parents=[anywhere], help="make the schema, or bring it up to date"
    )
    upgrade.add_argument(
        "--sql", action="store_true", help="print the statements, and change nothing"
    )
    upgrade.set_defaults(command=_upgrade)
    check = actions.add_parser(
        "check", parents=[anywhere], help="look for damage and for contradictions"
    )
    check.set_defaults(command=_check)
    repair = actions.add_parser(
        "repair", parents=[anywhere], help="mend what the check finds, as far as that can be done"
    )
    repair.add_argument(
        "--dry-run", action="store_true", help="only say what there is to do, and change nothing"
    )
    repair.set_defaults(command=_repair)
    backup = actions.add_parser(
        "backup", parents=[anywhere], help="copy a SQLite database while it is in use"
    )
    backup.add_argument("path", metavar="PATH", help="the new file")
    backup.set_defaults(command=_backup)
    vacuum = actions.add_parser(
        "vacuum", parents=[anywhere], help="give the room of removed rows back to the file system"
    )
    vacuum.set_defaults(command=_vacuum)


def _count(word: str) -> int:
    try:
        count = int(word)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no number from 1 on")
    return count


def _duration(word: str) -> timedelta:
    from embedded_orch.errors import ConfigurationError
    from embedded_orch.times import duration_from_text

    try:
        return duration_from_text(word)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _level(word: str) -> int:
    from logging import getLevelNamesMapping

    names = getLevelNamesMapping()
    if word.isdecimal():
        return int(word)
    if word.upper() not in names:
        raise argparse.ArgumentTypeError(f"{word!r} is no level; there are {', '.join(names)}")
    return names[word.upper()]


# Each command in a module of its own, imported when it is the one.


def _runs(arguments: Arguments) -> int:
    from embedded_orch.cli.listing import list_runs

    return list_runs(arguments)


def _run(arguments: Arguments) -> int:
    from embedded_orch.cli.showing import show_run

    return show_run(arguments)


def _logs(arguments: Arguments) -> int:
    from embedded_orch.cli.logs import print_logs

    return print_logs(arguments)


def _cancel(arguments: Arguments) -> int:
    from embedded_orch.cli.moving import cancel

    return cancel(arguments)


def _pause(arguments: Arguments) -> int:
    from embedded_orch.cli.moving import pause

    return pause(arguments)


def _let_go_on(arguments: Arguments) -> int:
    from embedded_orch.cli.moving import let_go_on

    return let_go_on(arguments)


def _signal(arguments: Arguments) -> int:
    from embedded_orch.cli.moving import send_signal

    return send_signal(arguments)


def _why(arguments: Arguments) -> int:
    from embedded_orch.cli.recovering import why

    return why(arguments)


def _recover(arguments: Arguments) -> int:
    from embedded_orch.cli.recovering import recover

    return recover(arguments)


def _upgrade(arguments: Arguments) -> int:
    from embedded_orch.cli.upkeep import upgrade

    return upgrade(arguments)


def _check(arguments: Arguments) -> int:
    from embedded_orch.cli.upkeep import check

    return check(arguments)


def _repair(arguments: Arguments) -> int:
    from embedded_orch.cli.upkeep import repair

    return repair(arguments)


def _backup(arguments: Arguments) -> int:
    from embedded_orch.cli.upkeep import back_up

    return back_up(arguments)


def _prune(arguments: Arguments) -> int:
    from embedded_orch.cli.upkeep import prune

    return prune(arguments)


def _vacuum(arguments: Arguments) -> int:
    from embedded_orch.cli.upkeep import vacuum

    return vacuum(arguments)


def _version(arguments: Arguments) -> int:
    from embedded_orch.cli.upkeep import print_versions

    return print_versions(arguments)
