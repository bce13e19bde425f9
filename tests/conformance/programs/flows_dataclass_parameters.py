"""A dict becomes a dataclass where one is declared; an object stays itself."""

from dataclasses import dataclass

from embedded_orch import flow


@dataclass
class Window:
    start: int
    end: int


@flow
def load(window: Window):
    return window


given = Window(1, 2)
assert load({"start": "1", "end": 2}) == given
assert load(given) is given
