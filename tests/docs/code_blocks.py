"""The code blocks of a Markdown file as one program.

The program has the same line numbers as the Markdown file, so that a traceback points into the
document: ``python`` blocks stand in it as they are, and a ``sql`` or ``console`` block is one call,
on its first line, to the functions at the end of this module. The program runs in a folder of its
own, with this module on its path.

What may stand on the line before a block::

    <!-- not run: needs a server of yours -->
    <!-- output checked -->
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from typing import NamedTuple

# Languages whose blocks are run, and others that are only shown.
RUN = {"python", "sql", "console"}
SHOWN = {"", "dockerfile", "ini", "json", "mermaid", "sh", "text", "toml"}

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<language>.*)$")
_NOT_RUN = re.compile(r"^<!--\s*not run\b:?(?P<reason>.*)-->$")
_CHECKED = re.compile(r"^<!--\s*output checked\s*-->$")


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        line: the number of its first line of content.
        reason: why it is not run; None if it is, "" if the comment gives none.
        is_checked: whether the output that it shows has to be what the command prints.
    """

    language: str
    text: str
    line: int
    reason: str | None = None
    is_checked: bool = False


def read_blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    blocks: list[Block] = []
    lines = markdown.splitlines()
    number, before = 0, ""
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            # Blank lines may stand between a comment and its block.
            before = lines[number].strip() or before
            number += 1
            continue
        first = number = number + 1
        while number < len(lines) and lines[number].strip() != opening["ticks"]:
            number += 1
        if number == len(lines):
            raise ValueError(f"the block that begins in line {first} has no end")
        text = textwrap.dedent("\n".join(lines[first:number]))
        not_run = _NOT_RUN.match(before)
        blocks.append(
            Block(
                language=opening["language"].strip(),
                text=text,
                line=first + 1,
                reason=not_run["reason"].strip() if not_run else None,
                is_checked=_CHECKED.match(before) is not None,
            )
        )
        number, before = number + 1, ""
    return blocks


def program(blocks: list[Block]) -> str:
    """The source that runs these blocks, each at its own line."""
    lines: list[str] = []
    for block in blocks:
        if block.language not in RUN or block.reason is not None:
            continue
        lines += [""] * (block.line - 1 - len(lines))
        if block.language == "python":
            lines += block.text.splitlines()
        else:
            arguments = [block.text, *([True] if block.is_checked else [])]
            call = f"run_{block.language}({', '.join(map(repr, arguments))})"
            lines.append(f"__import__('code_blocks').{call}")
    return "\n".join(lines) + "\n"


def run_sql(text: str) -> None:
    """Read with it from the default database, as ``orch.sql()`` does."""
    import embedded_orch

    with embedded_orch.open() as orch:
        list(orch.sql(text))


def run_console(text: str, is_checked: bool = False) -> None:
    """Run the lines that begin with ``$``; what follows each is what it shows.

    Raises:
        AssertionError: a command failed, or the output is checked and differs.
    """
    for command, shown in split_console(text):
        if shlex.split(command)[0] != "embedded-orch":
            raise AssertionError(f"only embedded-orch is run: mark the block 'not run': {command}")
        finished = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if finished.returncode != 0:
            raise AssertionError(f"$ {command}\n{finished.stdout}{finished.stderr}")
        if is_checked and finished.stdout.strip() != shown.strip():
            raise AssertionError(f"$ {command}\nshown:\n{shown}\nprinted:\n{finished.stdout}")


def split_console(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output shown below it."""
    before, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    if before.strip() or not parts:
        raise AssertionError(f"a console block begins with a line '$ command': {text!r}")
    pairs = [part.partition("\n") for part in parts]
    return [(command.strip(), shown) for command, _, shown in pairs]


def command_script() -> str:
    """A shell script that is the command ``embedded-orch`` on this interpreter."""
    entry = "import sys; from embedded_orch.cli import main; sys.exit(main())"
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(entry)} "$@"\n'
