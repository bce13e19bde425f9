"""A :class:`~source_facts.Report` as Markdown, and as one HTML page with its plots inside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from source_facts import Report, Table

# -- Markdown ------------------------------------------------------------------------------------


def as_markdown(report: Report) -> str:
    """The report as Markdown, with bars of block characters for the plot."""
    peak = max((lines for _, lines in report.packages), default=0) or 1
    bars: list[tuple[str | int, ...]] = [
        (name, lines, "█" * max(1, round(30 * lines / peak))) for name, lines in report.packages
    ]
    packages = Table("Largest packages", "In lines.", ("Package", "Lines", ""), bars)
    sizes = Table(
        "Sizes of files",
        "Each row begins at twice the lines of the one before.",
        ("Lines from", "Files"),
        [(f"{start}", files) for start, files in report.sizes],
    )
    totals = [f"- {count:,} {_plain(name)}" for name, count in report.totals.items()]
    parts = [f"# {_plain(report.title)}", "\n".join(totals)]
    parts += [_markdown_table(table) for table in (packages, sizes, *report.tables)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    numbers = _number_columns(table)
    lines = [
        _markdown_row(table.columns),
        _markdown_row(["---:" if is_number else "---" for is_number in numbers], raw=True),
        *(_markdown_row(row) for row in table.rows),
    ]
    rows = "\n".join(lines) if table.rows else "None."
    return f"## {_plain(table.title)}\n\n{_plain(table.note)}\n\n{rows}"


def _markdown_row(cells: Iterable[str | int], *, raw: bool = False) -> str:
    return f"| {' | '.join(it if raw else _plain(it) for it in map(_shown, cells))} |"


def _plain(text: str) -> str:
    """``text`` with all that Markdown or HTML would take for a sign of its own made harmless."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", one_line)


# -- HTML ----------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #647084;
  --line: #e3e7ed; --bar: #3b6fd4 }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1a2029; --ink: #e5e9f0;
  --soft: #97a3b6; --line: #2b3440; --bar: #6d9bf1 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1180px; padding: 40px 24px 64px; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans",
  sans-serif }
h1 { margin: 0 0 24px; font-size: 28px; line-height: 1.2; letter-spacing: -.01em;
  overflow-wrap: anywhere }
h2 { margin: 0; font-size: 17px }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px; min-width: 0 }
.card p { margin: 2px 0 14px; color: var(--soft); font-size: 13px }
.grid { display: grid; gap: 20px; grid-template-columns: repeat(12, 1fr); align-items: start }
.half { grid-column: span 6 } .whole { grid-column: span 12 }
.totals { display: grid; gap: 12px; margin: 0 0 20px;
  grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)) }
.totals div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px }
.totals dt { color: var(--soft); font-size: 13px }
.totals dd { margin: 0; font-size: 23px; font-weight: 600; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: 13px }
th { text-align: left; color: var(--soft); font-weight: 500 }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top }
tr:last-child td { border-bottom: 0 }
td.text { overflow-wrap: anywhere }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
svg { display: block; width: 100%; height: auto; font-size: 12px }
svg text { fill: var(--ink) } svg .soft { fill: var(--soft) } svg rect { fill: var(--bar) }
svg line { stroke: var(--line) }
@media (max-width: 860px) { .half { grid-column: span 12 } }
"""


def as_html(report: Report) -> str:
    """The report as a page that needs nothing else: no script, no font, no picture."""
    totals = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{count:,}</dd></div>"
        for name, count in report.totals.items()
    )
    cards = [
        _card("Largest packages", "In lines.", bars(report.packages), "half"),
        _card("Sizes of files", "Files with so many lines.", columns(report.sizes), "half"),
        *(_table_card(table) for table in report.tables),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(report.title)}</h1>
<dl class="totals">{totals}</dl>
<main class="grid">
{"".join(cards)}</main>
</body>
</html>
"""


def bars(values: Sequence[tuple[str, int]]) -> str:
    """Horizontal bars, one below the other, as SVG."""
    peak = max((value for _, value in values), default=0) or 1
    rows = [
        f'<text x="142" y="{26 * i + 17}" text-anchor="end">{escape(_short(name))}</text>'
        f'<rect x="152" y="{26 * i + 4}" width="{max(320 * value / peak, 1):.1f}" height="18" '
        f'rx="3"><title>{escape(name)}: {value:,}</title></rect>'
        f'<text class="soft" x="{320 * value / peak + 160:.1f}" y="{26 * i + 17}">{value:,}</text>'
        for i, (name, value) in enumerate(values)
    ]
    return _svg(540, 26 * len(values), rows)


def columns(values: Sequence[tuple[str, int]]) -> str:
    """Upright columns, one beside the other, as SVG; each is named for where it begins."""
    peak = max((value for _, value in values), default=0) or 1
    step = 540 / max(len(values), 1)
    shapes = ['<line x1="0" y1="270" x2="540" y2="270"/>']
    for i, (name, value) in enumerate(values):
        height, middle = 240 * value / peak, (i + 0.5) * step
        shapes.append(
            f'<rect x="{i * step + 2:.1f}" y="{270 - height:.1f}" width="{step - 4:.1f}" '
            f'height="{height:.1f}" rx="3"><title>from {escape(name)} lines: {value:,}</title>'
            f'</rect><text x="{middle:.1f}" y="{263 - height:.1f}" text-anchor="middle">'
            f'{value:,}</text><text class="soft" x="{i * step + 2:.1f}" y="288">{escape(name)}'
            "</text>"
        )
    shapes.append('<text class="soft" x="540" y="308" text-anchor="end">lines and more</text>')
    return _svg(540, 312, shapes)


def _svg(width: int, height: int, shapes: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(shapes)}</svg>'


def _short(name: str, limit: int = 20) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def _card(title: str, note: str, content: str, width: str) -> str:
    return (
        f'<section class="card {width}"><h2>{escape(title)}</h2><p>{escape(note)}</p>'
        f'<div class="scroll">{content}</div></section>\n'
    )


def _table_card(table: Table) -> str:
    kinds = ["number" if is_number else "text" for is_number in _number_columns(table)]

    def row(tag: str, cells: Iterable[str | int]) -> str:
        shown = (
            f'<{tag} class="{kind}">{escape(_shown(cell))}</{tag}>'
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(row("td", cells) for cells in table.rows)
    content = f"<table><thead>{row('th', table.columns)}</thead><tbody>{body}</tbody></table>"
    is_wide = any(len(_shown(cell)) > 90 for cells in table.rows for cell in cells)
    return _card(table.title, table.note, content, "whole" if is_wide else "half")


# -- Both ----------------------------------------------------------------------------------------


def _number_columns(table: Table) -> list[bool]:
    """For each column, if it holds numbers, which are set to the right."""
    if not table.rows:
        return [False for _ in table.columns]
    return [isinstance(cell, int) for cell in table.rows[0]]


def _shown(cell: str | int) -> str:
    return f"{cell:,}" if isinstance(cell, int) else cell
