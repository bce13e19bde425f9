"""The storages: what they read and write, and where they refuse to."""

from __future__ import annotations

import builtins
import os
import stat
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from embedded_orch import errors, flow
from embedded_orch.filesystems import (
    LocalFileSystem,
    NullFileSystem,
    RemoteFileSystem,
    check_path,
    storage_from,
)
from tests.opened import opened


class TestLocal:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        storage = LocalFileSystem(basepath=tmp_path / "new")

        assert storage.write_path("a/b.bin", b"\x00one") == str(tmp_path / "new" / "a" / "b.bin")
        storage.write_path("a/b.bin", b"two")

        assert storage.read_path("a/b.bin") == b"two"
        assert storage.read_path(str(tmp_path / "new" / "a" / "b.bin")) == b"two"
        assert [each.name for each in tmp_path.joinpath("new", "a").iterdir()] == ["b.bin"]

    def test_files_have_the_rights_that_other_files_of_the_process_have(
        self, tmp_path: Path
    ) -> None:
        LocalFileSystem(tmp_path).write_path("file", b"")
        tmp_path.joinpath("other").touch()

        modes = {stat.S_IMODE(tmp_path.joinpath(name).stat().st_mode) for name in ("file", "other")}
        assert len(modes) == 1

    @pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "link/secret"])
    def test_paths_outside_of_the_base_are_refused(self, tmp_path: Path, path: str) -> None:
        base = tmp_path / "base"
        base.mkdir()
        tmp_path.joinpath("secret").write_bytes(b"secret")
        base.joinpath("link").symlink_to(tmp_path)
        storage = LocalFileSystem(base)

        with pytest.raises(ValueError, match="outside of the base path"):
            storage.read_path(path)
        with pytest.raises(ValueError, match="outside of the base path"):
            storage.write_path(path, b"changed")
        assert tmp_path.joinpath("secret").read_bytes() == b"secret"

    def test_what_is_no_file_is_said_to_be_none(self, tmp_path: Path) -> None:
        storage = LocalFileSystem(tmp_path)
        tmp_path.joinpath("folder").mkdir()

        with pytest.raises(ValueError, match="does not exist"):
            storage.read_path("missing")
        with pytest.raises(ValueError, match="is not a file"):
            storage.read_path("folder")
        with pytest.raises(ValueError, match="is not a file"):
            storage.write_path("folder", b"")

    def test_without_a_base_it_is_the_current_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)

        LocalFileSystem().write_path("file", b"here")

        assert tmp_path.joinpath("file").read_bytes() == b"here"

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_asynchronous_code_awaits_it(self, tmp_path: Path, backend: str) -> None:
        storage = LocalFileSystem(tmp_path)

        @flow
        async def writing() -> bytes:
            await storage.write_path("one", b"1")
            await storage.awrite_path("two", b"2")
            return (await storage.read_path("one")) + (await storage.aread_path("two"))

        with opened(":memory:"):
            assert anyio.run(writing, backend=backend) == b"12"

    def test_a_write_that_fails_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = LocalFileSystem(tmp_path)
        storage.write_path("file", b"whole")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            storage.write_path("file", b"half")

        assert storage.read_path("file") == b"whole"
        assert [each.name for each in tmp_path.iterdir()] == ["file"]


class TestRemote:
    @pytest.fixture(autouse=True)
    def fsspec(self) -> None:
        pytest.importorskip("fsspec")

    def test_what_is_written_is_read(self) -> None:
        storage = RemoteFileSystem("memory://bucket/folder")

        assert storage.write_path("a/b", b"one") == "memory://bucket/folder/a/b"

        assert storage.read_path("a/b") == b"one"
        assert storage.read_path("memory://bucket/folder/a/b") == b"one"
        assert storage.filesystem.cat_file("/bucket/folder/a/b") == b"one"

    def test_settings_reach_the_file_system_and_are_not_shown(self, tmp_path: Path) -> None:
        storage = RemoteFileSystem(f"local://{tmp_path}/base", {"auto_mkdir": True})

        storage.write_path("file", b"one")

        assert storage.filesystem.auto_mkdir is True
        assert tmp_path.joinpath("base", "file").read_bytes() == b"one"
        assert "auto_mkdir" not in repr(storage)

    @pytest.mark.parametrize("path", ["../x", "a/../../x", "memory://other/x", "s3://bucket/x"])
    def test_paths_outside_of_the_base_are_refused(self, path: str) -> None:
        storage = RemoteFileSystem("memory://bucket/folder")

        with pytest.raises(ValueError, match="outside of the base path"):
            storage.write_path(path, b"")

    @pytest.mark.parametrize("base", ["", "folder", "://x", "s3://", "file:///tmp/x", 3])
    def test_a_base_that_is_no_url_is_refused(self, base: Any) -> None:
        with pytest.raises(ValueError, match="Base path"):
            RemoteFileSystem(base)

    def test_a_kind_of_url_that_there_is_not_is_refused(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="nowhere://x"):
            storage_from("nowhere://x")


def test_what_to_install_is_said_where_fsspec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fsspec", None)

    with pytest.raises(errors.MissingExtra, match=r"install embedded_orch\[storage\]"):
        storage_from("s3://bucket/folder")


def test_fsspec_is_imported_by_nobody_who_does_not_use_it(tmp_path: Path) -> None:
    from tests.programs import run_program

    program = """
        import sys, embedded_orch
        from embedded_orch import task

        @task(result_storage=sys.argv[1])
        def one():
            return 1

        with embedded_orch.open(":memory:"):
            assert one() == 1
        assert "fsspec" not in sys.modules
    """
    assert run_program(program, tmp_path).stderr == ""


def test_nothing_is_kept_by_a_null_file_system() -> None:
    storage = NullFileSystem()

    storage.write_path("file", b"one")

    assert storage.read_path("file") == b""


class TestFrom:
    def test_a_path_a_file_url_and_a_storage(self, tmp_path: Path) -> None:
        wanted = LocalFileSystem(tmp_path)

        assert storage_from(str(tmp_path)) == wanted
        assert storage_from(tmp_path) == wanted
        assert storage_from(f"file://{tmp_path}") == wanted
        assert storage_from(wanted) is wanted

    @pytest.mark.parametrize("given", ["", "  ", 3, b"x", object(), LocalFileSystem, builtins.open])
    def test_what_is_no_storage_is_refused(self, given: Any) -> None:
        with pytest.raises(errors.ConfigurationError, match="storage"):
            storage_from(given)

    @pytest.mark.parametrize("block", ["local-file-system/mine", "s3-bucket/results"])
    def test_names_of_blocks_are_refused_until_there_are_blocks(self, block: str) -> None:
        with pytest.raises(errors.ConfigurationError, match="names a block"):
            storage_from(block)
        assert storage_from(f"./{block}") == LocalFileSystem(block)


@pytest.mark.parametrize("path", ["a", "a/b.json", "2026-01-31 10:00", "…/ü", "a..b", "x" * 1024])
def test_paths_that_stay_below_are_taken(path: str) -> None:
    assert check_path(path, what="the key") == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "..",
        "../a",
        "a/..",
        "a/../b",
        "a\\..\\b",
        "/a",
        "a//b",
        "a/",
        "./a",
        "~/a",
        "C:/a",
        "s3://a/b",
        "a\0b",
        "a\nb",
        "x" * 1025,
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="the key"):
        check_path(path, what="the key")
