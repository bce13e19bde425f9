"""A picture of how far each row is from its floor: bars, as SVG that any browser shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.measuring import Outcome

_WIDTH = 900
_NAMES = 430
_LINE = 22
_TOP = 34
_ENOUGH, _TOO_MUCH = "#3a7d44", "#b5651d"
# Beyond this many times the floor a row is to be looked at.
_OWED = 2.0


def ratios(outcomes: Sequence[Outcome]) -> str:
    """The rows that have a floor, as bars from nothing over their floor to their ratio.

    Returns:
        A whole SVG document; without bars when no row has a floor.
    """
    shown = [(each.row.name, each.ratio) for each in outcomes if each.ratio is not None]
    longest = max([3.0, *(ratio for _, ratio in shown)])
    scale = (_WIDTH - _NAMES - 60) / longest
    height = _TOP + _LINE * len(shown) + 10
    return "\n".join(_document(shown, scale, height)) + "\n"


def _document(shown: list[tuple[str, float]], scale: float, height: int) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">'
    )
    yield f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    yield f'<text x="{_NAMES}" y="16">times the floor (the line is the floor)</text>'
    for number, (name, ratio) in enumerate(shown):
        top = _TOP + number * _LINE
        colour = _ENOUGH if ratio <= _OWED else _TOO_MUCH
        yield f'<text x="{_NAMES - 8}" y="{top + 12}" text-anchor="end">{escape(name)}</text>'
        yield (
            f'<rect x="{_NAMES}" y="{top}" width="{ratio * scale:.1f}" height="16"'
            f' fill="{colour}"/>'
        )
        end = _NAMES + ratio * scale
        yield f'<text x="{end + 5:.1f}" y="{top + 12}">{ratio:.2f}</text>'
    floor = _NAMES + scale
    yield (
        f'<line x1="{floor:.1f}" y1="{_TOP - 6}" x2="{floor:.1f}" y2="{height - 6}"'
        ' stroke="black" stroke-dasharray="3 3"/>'
    )
    yield "</svg>"
