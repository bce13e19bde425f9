"""What Python source files tell: one alone, and all of them together.

Plain Python that knows nothing of flows. :func:`facts_of` reads one file; :func:`gather` turns the
facts about many into a :class:`Report`, which is the same for the same facts: no times, no ids,
everything in order.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

TOP = 12  # rows in a table of the largest
SMALLEST_STEP = 3  # files below 2**4 lines are counted together
NOT_AT_IMPORT = {"__name__ == '__main__'", "TYPE_CHECKING", "typing.TYPE_CHECKING"}

# -- One file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileFacts:
    """What one file contains. Imports are as they are written: ``os.path``, ``..parser.Parser``."""

    size_bytes: int
    lines: int
    problem: str | None = None  # why it does not parse; then the rest is empty
    functions: int = 0
    classes: int = 0
    longest: tuple[tuple[int, str, int], ...] = ()  # (lines, qualified name, first line)
    imports: tuple[str, ...] = ()  # those that run when the module itself is imported
    late_imports: tuple[str, ...] = ()  # those in functions, or only for the script or the typist


def facts_of(source: bytes) -> FileFacts:
    """What ``source``, the bytes of a Python file, contains.

    Source that does not parse is a finding and no error: a second look would find the same.
    """
    size, lines = len(source), len(source.splitlines())
    try:
        tree = ast.parse(source, filename="source")
    except SyntaxError as error:
        return FileFacts(size, lines, f"{type(error).__name__}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        # What the ast module's documentation says null bytes and deep nesting raise.
        return FileFacts(size, lines, f"{type(error).__name__}: {error}")
    classes = 0
    functions: list[tuple[int, str, int]] = []
    imports: set[str] = set()
    late_imports: set[str] = set()
    for node, scope, is_late in statements(tree):
        if isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            functions.append((length, f"{scope}{node.name}", node.lineno))
        else:
            (late_imports if is_late else imports).update(names_imported(node))
    return FileFacts(
        size,
        lines,
        None,
        len(functions),
        classes,
        tuple(sorted(functions, key=lambda it: (-it[0], it[1:]))[:TOP]),
        tuple(sorted(imports)),
        tuple(sorted(late_imports - imports)),
    )


def statements(tree: ast.Module) -> Iterator[tuple[ast.AST, str, bool]]:
    """Each node below ``tree`` but expressions, its scope ("Class."), and if it runs late.

    Late is what does not run when the module is imported: bodies of functions, and what stands
    under ``if __name__ == "__main__"`` or ``if TYPE_CHECKING``.
    """
    stack: list[tuple[ast.AST, str, bool]] = [(tree, "", False)]
    while stack:
        node, scope, is_late = stack.pop()
        yield node, scope, is_late
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            scope = f"{scope}{node.name}."
            is_late = is_late or not isinstance(node, ast.ClassDef)
        elif isinstance(node, ast.If) and not is_late:
            is_late = ast.unparse(node.test) in NOT_AT_IMPORT
        # No statement hides in an expression, and expressions can be nested very deep.
        stack += [
            (child, scope, is_late)
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.expr)
        ]


def names_imported(node: ast.AST) -> list[str]:
    """The dotted names that an import statement asks for, with the dots of a relative import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        start = "." * node.level + (f"{node.module}." if node.module else "")
        return [f"{start}{alias.name}" for alias in node.names]
    return []


# -- The import graph ----------------------------------------------------------------------------


def module_name(name: str) -> str:
    """``json.decoder`` for ``json/decoder.py``, and ``json`` for ``json/__init__.py``."""
    return ".".join(PurePosixPath(name).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(name: str, written: Iterable[str], modules: Collection[str]) -> set[str]:
    """Which of ``modules`` the imports ``written`` in the file ``name`` lead to."""
    module = module_name(name)
    package = module.split(".") if name.endswith("__init__.py") else module.split(".")[:-1]
    found: set[str] = set()
    for text in written:
        target = text.lstrip(".")
        if dots := len(text) - len(target):
            target = ".".join([*package[: len(package) + 1 - dots], target])
        while target and target not in modules:  # json.decoder.JSONDecoder is in json.decoder
            target = target.rpartition(".")[0]
        found.add(target)
    return found - {"", module}


def cycles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node, largest first, each in order.

    R. Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of its own in
    place of the recursion: a chain of imports may be longer than Python's.
    """
    number: dict[str, int] = {}  # in which order the nodes were met
    low: dict[str, int] = {}  # the earliest open node that can be reached
    unassigned: dict[str, None] = {}  # a stack whose members are found quickly
    components: list[list[str]] = []
    for root in sorted(graph):
        path = [] if root in number else [root]
        ahead: list[Iterator[str]] = []
        while path:
            node = path[-1]
            if node not in number:
                number[node] = low[node] = len(number)
                unassigned[node] = None
                ahead.append(iter(sorted(graph[node])))
            for target in ahead[-1]:
                if target not in number:
                    path.append(target)
                    break
                if target in unassigned:
                    low[node] = min(low[node], number[target])
            else:
                path.pop()
                ahead.pop()
                if path:
                    low[path[-1]] = min(low[path[-1]], low[node])
                if low[node] == number[node]:
                    components.append(_taken_down_to(node, unassigned))
    return sorted((it for it in components if len(it) > 1), key=lambda it: (-len(it), it))


def _taken_down_to(node: str, stack: dict[str, None]) -> list[str]:
    taken = [stack.popitem()[0]]
    while taken[-1] != node:
        taken.append(stack.popitem()[0])
    return sorted(taken)


# -- All files -----------------------------------------------------------------------------------


class Table(NamedTuple):
    """Rows under a title and a sentence about them."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: list[tuple[str | int, ...]]


class Report(NamedTuple):
    """What a report shows, whatever it is written in."""

    title: str
    totals: dict[str, int]
    packages: list[tuple[str, int]]  # (name, lines), largest first
    sizes: list[tuple[str, int]]  # (files of so many lines, how many)
    tables: list[Table]


def gather(title: str, facts: Mapping[str, FileFacts], unreadable: Mapping[str, str]) -> Report:
    """The report about ``facts``, by file name below the root, and the files without any."""
    parsed = {name: it for name, it in sorted(facts.items()) if it.problem is None}
    problems = {name: it.problem for name, it in facts.items() if it.problem is not None}
    packages: Counter[str] = Counter()
    for name, it in parsed.items():
        packages[name.partition("/")[0].removesuffix(".py")] += it.lines
    totals = {
        "files": len(facts) + len(unreadable),
        "packages": len(packages),
        "lines": sum(it.lines for it in parsed.values()),
        "functions": sum(it.functions for it in parsed.values()),
        "classes": sum(it.classes for it in parsed.values()),
        "do not parse": len(problems),
        "could not be read": len(unreadable),
    }
    wrong: list[tuple[str | int, ...]] = sorted((problems | dict(unreadable)).items())
    tables = [
        _largest_files(parsed),
        _longest_functions(parsed),
        *_import_tables(parsed),
        Table("Files with a problem", "Counted above and nowhere else.", ("File", "Why"), wrong),
    ]
    return Report(title, totals, largest(packages), _size_steps(parsed), tables)


def largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The ``TOP`` largest of ``counts``, by name where they are equal."""
    return sorted(counts.items(), key=lambda it: (-it[1], it[0]))[:TOP]


def _size_steps(parsed: Mapping[str, FileFacts]) -> list[tuple[str, int]]:
    """How many files have so many lines, in steps that double."""
    steps = Counter(max(it.lines.bit_length() - 1, SMALLEST_STEP) for it in parsed.values())
    return [
        (f"{1 << step:,}" if step > SMALLEST_STEP else "0", steps[step])
        for step in range(SMALLEST_STEP, max(steps, default=SMALLEST_STEP) + 1)
    ]


def _largest_files(parsed: Mapping[str, FileFacts]) -> Table:
    return Table(
        "Largest files",
        "In lines, with comments and blank ones.",
        ("File", "Lines", "Functions", "Classes"),
        [
            (name, lines, parsed[name].functions, parsed[name].classes)
            for name, lines in largest({name: it.lines for name, it in parsed.items()})
        ],
    )


def _longest_functions(parsed: Mapping[str, FileFacts]) -> Table:
    found = [
        (length, name, function, line)
        for name, it in parsed.items()
        for length, function, line in it.longest
    ]
    return Table(
        "Longest functions",
        "In lines, with the functions inside them.",
        ("Function", "Where", "Lines"),
        [
            (function, f"{name}:{line}", length)
            for length, name, function, line in sorted(found, key=lambda it: (-it[0], it[1:]))[:TOP]
        ],
    )


def _import_tables(parsed: Mapping[str, FileFacts]) -> Iterator[Table]:
    modules = {module_name(name): name for name in parsed}
    at_import = {
        module: imported_modules(name, parsed[name].imports, modules)
        for module, name in modules.items()
    }
    at_any_time = {
        module: at_import[module] | imported_modules(name, parsed[name].late_imports, modules)
        for module, name in modules.items()
    }
    importers = Counter(target for targets in at_import.values() for target in targets)
    yield Table(
        "Most imported modules",
        "By how many others import them as soon as they are imported themselves.",
        ("Module", "Imported by"),
        list(largest(importers)),
    )
    found = cycles(at_import)
    knot = max(map(len, cycles(at_any_time)), default=0)
    yield Table(
        "Import cycles",
        f"{len(found)} groups of modules import each other as they are imported. Were the imports "
        f"inside functions done then too, the largest group would have {knot} modules.",
        ("Group", "Modules"),
        [(", ".join(group), len(group)) for group in found[:TOP]],
    )
