"""Which mount a path lies on, by tables as the kernel writes them, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedded_orch import errors
from embedded_orch.db.sqlite.filesystems import network_filesystem, refuse_network_filesystem

ROOT = "24 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw"


def mount(number: int, parent: int, point: str, file_system: str) -> str:
    escaped = point.replace("\\", "\\134").replace(" ", "\\040").replace("\n", "\\012")
    return (
        f"{number} {parent} 0:{number} / {escaped} rw shared:{number} master:1 - {file_system} x rw"
    )


def table(folder: Path, *lines: str) -> str:
    path = folder / "mountinfo"
    path.write_text("\n".join([ROOT, *lines]) + "\n")
    return str(path)


SHARED = (
    "nfs nfs4 cifs smb3 ceph lustre gpfs beegfs 9p virtiofs vboxsf "
    "fuse.sshfs fuse.rclone fuse.s3fs fuse.glusterfs fuse.gvfsd-fuse"
)
LOCAL_OR_UNKNOWN = "ext4 xfs btrfs zfs tmpfs overlay fuseblk fuse.gocryptfs fuse a_new_one"


@pytest.mark.parametrize("file_system", SHARED.split())
def test_a_shared_file_system_is_named(tmp_path: Path, file_system: str) -> None:
    mounts = table(tmp_path, mount(30, 24, "/share", file_system))

    assert network_filesystem("/share/a/b.db", mountinfo_path=mounts) == file_system


@pytest.mark.parametrize("file_system", LOCAL_OR_UNKNOWN.split())
def test_a_local_or_unknown_one_is_not(tmp_path: Path, file_system: str) -> None:
    mounts = table(tmp_path, mount(30, 24, "/share", file_system))

    assert network_filesystem("/share/a/b.db", mountinfo_path=mounts) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/runs.db", None),
        ("/mnt", "nfs4"),
        ("/mnt/runs.db", "nfs4"),
        ("/mnt/local/runs.db", None),
        ("/mnt/local/deep/runs.db", "cifs"),
        ("/mnt/locals/runs.db", "nfs4"),
        ("/mntx/runs.db", None),
    ],
)
def test_the_longest_mount_point_counts(tmp_path: Path, path: str, expected: str | None) -> None:
    mounts = table(
        tmp_path,
        mount(30, 24, "/mnt", "nfs4"),
        mount(31, 30, "/mnt/local", "ext4"),
        mount(32, 31, "/mnt/local/deep", "cifs"),
    )

    assert network_filesystem(path, mountinfo_path=mounts) == expected


def test_a_mount_on_the_same_point_hides_the_earlier_one(tmp_path: Path) -> None:
    mounts = table(tmp_path, mount(30, 24, "/mnt", "ext4"), mount(31, 30, "/mnt", "nfs4"))

    assert network_filesystem("/mnt/runs.db", mountinfo_path=mounts) == "nfs4"


def test_of_two_side_by_side_on_one_point_the_later_counts(tmp_path: Path) -> None:
    mounts = table(tmp_path, mount(30, 24, "/mnt", "nfs4"), mount(31, 24, "/mnt", "ext4"))

    assert network_filesystem("/mnt/runs.db", mountinfo_path=mounts) is None


def test_a_mount_over_a_folder_above_hides_what_was_mounted_in_it(tmp_path: Path) -> None:
    mounts = table(tmp_path, mount(30, 24, "/mnt/deep", "nfs4"), mount(31, 24, "/mnt", "ext4"))

    assert network_filesystem("/mnt/deep/runs.db", mountinfo_path=mounts) is None


def test_a_bind_mount_has_the_type_of_what_it_shows(tmp_path: Path) -> None:
    bind = "40 24 0:52 /exported/home /home/me rw,relatime - nfs4 server:/exported rw,vers=4.2"
    mounts = table(tmp_path, mount(30, 24, "/srv", "nfs4"), bind)

    assert network_filesystem("/home/me/runs.db", mountinfo_path=mounts) == "nfs4"


@pytest.mark.parametrize("name", ["with a blank", "back\\slash", "new\nline", "ünicode", "-"])
def test_odd_names_are_decoded(tmp_path: Path, name: str) -> None:
    mounts = table(tmp_path, mount(30, 24, f"/mnt/{name}", "nfs"))

    assert network_filesystem(f"/mnt/{name}/runs.db", mountinfo_path=mounts) == "nfs"


def test_a_name_that_is_not_unicode_is_found(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_bytes(ROOT.encode() + b"\n30 24 0:9 / /mnt/\xff rw - nfs x rw\n")

    assert network_filesystem(os.fsdecode(b"/mnt/\xff/a.db"), mountinfo_path=str(path)) == "nfs"


def test_symbolic_links_are_followed_also_by_files_that_do_not_exist_yet(tmp_path: Path) -> None:
    real = (tmp_path / "real").resolve()
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    mounts = table(tmp_path, mount(30, 24, str(real), "cifs"))

    assert network_filesystem(tmp_path / "link" / "new.db", mountinfo_path=mounts) == "cifs"


def test_fields_that_are_missing_or_many_do_not_shift_the_type(tmp_path: Path) -> None:
    none = "30 24 0:30 / /none rw - nfs x rw"
    many = "31 24 0:31 / /many rw shared:1 master:2 propagate_from:3 unbindable - nfs4 x - rw"
    mounts = table(tmp_path, none, many)

    assert network_filesystem("/none/a", mountinfo_path=mounts) == "nfs"
    assert network_filesystem("/many/a", mountinfo_path=mounts) == "nfs4"


def test_without_the_root_in_the_table_other_mounts_are_still_found(tmp_path: Path) -> None:
    """As in a chroot."""
    path = tmp_path / "mountinfo"
    path.write_text(mount(30, 24, "/share", "nfs") + "\n")

    assert network_filesystem("/share/a", mountinfo_path=str(path)) == "nfs"
    assert network_filesystem("/other/a", mountinfo_path=str(path)) is None


@pytest.mark.parametrize("content", [None, "", "no table\n", "1 2 3 4\n"])
def test_without_a_table_nothing_is_known(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "mountinfo"
    if content is not None:
        path.write_text(content)

    assert network_filesystem("/anywhere", mountinfo_path=str(path)) is None


def test_a_table_that_goes_in_circles_ends(tmp_path: Path) -> None:
    mounts = table(tmp_path, mount(30, 31, "/a", "nfs"), mount(31, 30, "/a", "nfs"))
    circle = tmp_path / "circle"
    circle.write_text(mount(30, 30, "/", "nfs") + "\n")

    assert network_filesystem("/a/b", mountinfo_path=mounts) is None
    assert network_filesystem("/a/b", mountinfo_path=str(circle)) == "nfs"


def test_the_refusal_names_the_choices(tmp_path: Path) -> None:
    mounts = table(tmp_path, mount(30, 24, "/share", "nfs4"))

    with pytest.raises(errors.NetworkFilesystem) as caught:
        refuse_network_filesystem("/share/runs.db", mountinfo_path=mounts)

    message = str(caught.value)
    assert "/share/runs.db" in message
    assert "nfs4" in message
    assert "local disk" in message
    assert 'journal="truncate"' in message


def test_a_local_file_is_not_refused(tmp_path: Path) -> None:
    refuse_network_filesystem("/srv/runs.db", mountinfo_path=table(tmp_path))
