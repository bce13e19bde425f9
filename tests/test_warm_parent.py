"""The programs that tests fork from a warm parent are processes as any other."""

from __future__ import annotations

import os
import signal

from tests.warm_parent import run_forked, talking


def test_what_a_forked_program_prints_and_how_it_ends_are_told() -> None:
    ended = run_forked("import sys; print(sys.argv); sys.exit('no more')", "one", 2)

    assert (ended.returncode, ended.stdout, ended.stderr) == (
        1,
        "['-c', 'one', '2']\n",
        "no more\n",
    )


def test_a_forked_program_that_fails_says_why() -> None:
    ended = run_forked("raise LookupError('where')")

    assert ended.returncode == 1
    assert ended.stderr.endswith("LookupError: where\n")


def test_a_signal_that_ends_a_forked_program_is_told() -> None:
    assert run_forked("import os; os.kill(os.getpid(), 9)").returncode == -signal.SIGKILL


def test_a_forked_program_has_its_own_environment_and_main_module() -> None:
    ended = run_forked(
        """
        import os, sys
        def here(): ...
        print(os.environ["POINT"], os.getenv("EMBEDDED_ORCH_HOME"))
        print(sys.modules[here.__module__].here is here)
        """,
        POINT="north",
    )

    assert ended.stdout == "north None\nTrue\n"


def test_a_forked_program_ends_as_the_interpreter_does() -> None:
    """With what is left to do at the exit, after its threads."""
    ended = run_forked(
        """
        import atexit, threading, time
        atexit.register(print, "at the exit")
        def last():
            time.sleep(0.01)
            print("a thread")
        threading.Thread(target=last).start()
        """
    )

    assert (ended.returncode, ended.stdout) == (0, "a thread\nat the exit\n")


def test_a_forked_program_holds_no_descriptor_of_another() -> None:
    text = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], flush=True); "
    with talking(text + "input()") as first, talking(text + "input()") as second:
        assert [first.stdout.readline(), second.stdout.readline()] == ["[0, 1, 2]\n"] * 2


def test_one_is_talked_to_and_has_gone_when_it_was_killed() -> None:
    with talking("while True: print(input()[::-1], flush=True)") as process:
        for word, answer in (("abc", "cba\n"), ("12", "21\n")):
            print(word, file=process.stdin, flush=True)
            assert process.stdout.readline() == answer
        assert process.poll() is None
        process.kill()

        assert process.poll() == -signal.SIGKILL
        assert not os.path.exists(f"/proc/{process.pid}")
