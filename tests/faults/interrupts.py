"""An interrupt at every point at which one can come, as Ctrl-C and time limits make them.

CPython looks for signals, and for exceptions that other threads sent, after calls of what is
written in C, where a function begins, and where a loop jumps back. A trace function that is told of
every instruction raises at the Nth of these points in our own code, and in that of the standard
library's locks that it calls.
"""

from __future__ import annotations

import dis
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import embedded_orch

if TYPE_CHECKING:
    from types import FrameType

_OURS = str(Path(embedded_orch.__file__).parent)
_LOCKS = threading.__file__
_LOOKS = frozenset(
    dis.opmap[name]
    for name in ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD")
    if name in dis.opmap
)
_RESUME, _NOP = dis.opmap["RESUME"], dis.opmap["NOP"]
# The argument of RESUME behind a "yield from" and behind an "await", where it does not look.
_DELEGATES = (2, 3)


class Interrupt:
    """Raises KeyboardInterrupt at one point of what this thread does in a ``with`` block.

    Args:
        at: which point, from 1 on.

    Attributes:
        seen: how many points there were until then.
        where: the one at which it was raised.
    """

    def __init__(self, at: int) -> None:
        self.seen = 0
        self.where: str | None = None
        self._at = at
        # Whether the interpreter looks behind the last instruction of each frame that is watched.
        self._looks: dict[FrameType, bool] = {}

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        self._looks.clear()

    def _enter_frame(self, frame: FrameType, event: str, argument: object) -> Any:
        file = frame.f_code.co_filename
        if file == _LOCKS:
            # What starts a thread is the interpreter's own, and cannot be interrupted safely.
            if frame.f_code.co_name == "start" or frame.f_back not in self._looks:
                return None
        elif not file.startswith(_OURS):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            has_looked = self._looks.get(frame, False)
            self._looks[frame] = _looks_behind(frame)
            # Where a loop jumps back to a NOP, that one need not be in the handlers of the jump.
            if has_looked and frame.f_code.co_code[frame.f_lasti] != _NOP:
                self.seen += 1
                if self.seen == self._at:
                    self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                    sys.settrace(self._before)
                    raise KeyboardInterrupt
        elif event == "return":
            self._looks.pop(frame, None)
            caller = frame.f_back
            if caller in self._looks and frame.f_code.co_name != "__init__":
                # It does not where a function of Python's returns to another.
                self._looks[caller] = False
        return self._step


def _looks_behind(frame: FrameType) -> bool:
    code, at = frame.f_code.co_code, frame.f_lasti
    return code[at] in _LOOKS or (code[at] == _RESUME and code[at + 1] & 3 not in _DELEGATES)
