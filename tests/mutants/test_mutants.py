"""Each defence is guarded by tests that fail without it; see :mod:`tests.mutants.mutants`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mutants import mutants
from tests.mutants.mutants import MUTANTS, ROOT, Mutant, Survived, catch, mutated


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
class TestMutant:
    def test_has_its_place_in_the_source_and_its_tests(self, mutant: Mutant) -> None:
        assert mutated(mutant) != (ROOT / mutant.file).read_text(encoding="utf-8")
        for test in mutant.tests:
            assert (ROOT / test.partition("::")[0]).exists()

    @pytest.mark.soak
    def test_is_caught(self, mutant: Mutant) -> None:
        print(catch(mutant))


@pytest.mark.slow
class TestCatching:
    HARMLESS = Mutant(
        "nothing",
        "embedded_orch/engine/identity.py",
        "_DIGEST_BYTES = 12\n",
        "_DIGEST_BYTES = 6 + 6\n",
        ("tests/engine/test_identity.py",),
    )

    def test_tells_the_test_that_has_failed(self) -> None:
        caught = catch(MUTANTS["resume key"])

        assert caught.startswith("tests/engine/test_identity.py::test_")

    def test_tells_of_one_that_no_test_notices(self) -> None:
        with pytest.raises(Survived, match="nothing: not any more, and no test of"):
            catch(self.HARMLESS)

    def test_does_not_take_a_broken_run_for_a_catch(self) -> None:
        with pytest.raises(RuntimeError, match="file or directory not found"):
            catch(self.HARMLESS._replace(tests=("tests/engine/test_nothing.py",)))

    def test_refuses_a_place_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="the mutant has to follow"):
            mutated(self.HARMLESS._replace(before="no such line"))

    def test_runs_the_package_of_the_copy(self, tmp_path: Path) -> None:
        mutants.copy_source(tmp_path)
        test = tmp_path / "tests" / "test_where.py"
        test.write_text(
            "import os, embedded_orch\n"
            "def test_where():\n"
            "    here = os.path.dirname(embedded_orch.__file__)\n"
            "    assert os.path.samefile(here, 'embedded_orch')\n"
        )

        finished = mutants.run_tests(tmp_path, ("tests/test_where.py",))

        assert finished.returncode == 0, finished.stdout
        assert os.path.samefile(ROOT, Path(__file__).parent.parent.parent)
