"""Whether a path lies on a file system where write-ahead logging cannot work.

SQLite's WAL needs two things of a file system: that memory mapped from the ``-shm`` file is one
memory for all who map it, and that byte-range locks exclude all who take them
(https://www.sqlite.org/wal.html, "all processes using a database must be on the same host
computer"). A file system whose other users live behind a network, or on the other side of a
virtual machine's border, gives neither, and does not say so: databases there work until they are
corrupt.

Python's ``statvfs`` has no field for the type, so it is read from the kernel's mount table
(proc_pid_mountinfo(5)). Where there is no such table (macOS, Windows) the answer is "unknown".
"""

from __future__ import annotations

import os
import re

from embedded_orch import errors

# The names that the kernel gives in the table.
_NETWORK_TYPES = frozenset(
    {
        # Network file systems: each client has its own page cache, so its own -shm.
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "ncp",
        "afs",
        "coda",
        # Cluster and parallel file systems. Some keep caches coherent between hosts, at a price
        # and not for every mmap; none is what SQLite asks for, "the same host".
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "mmfs",
        "beegfs",
        "beegfs_nodev",
        "pvfs2",
        "orangefs",
        "gfs",
        "gfs2",
        "ocfs2",
        "panfs",
        "wekafs",
        "dfs",
        # Shared folders of a virtual machine: the host is the other user. 9p is also how WSL
        # mounts the disks of Windows. On virtiofs WAL databases were reported malformed within a
        # minute of two writers (github.com/NousResearch/hermes-agent/issues/110847).
        "9p",
        "virtiofs",
        "vboxsf",
        "vmhgfs",
        "prl_fs",
        "drvfs",
        # Docker Desktop's shared folders on macOS.
        "fakeowner",
        "osxfs",
        "grpcfuse",
    }
)

# FUSE is one mechanism for many file systems: what follows "fuse." names the program behind it.
# Those of a local disk (fuseblk, fuse.ntfs-3g, fuse.mergerfs, fuse.gocryptfs, ...) are left alone,
# and so is plain "fuse", which says nothing.
_NETWORK_FUSE_PROGRAMS = frozenset(
    {
        "sshfs",
        "rclone",
        "s3fs",
        "s3ql",
        "goofys",
        "mountpoint-s3",
        "geesefs",
        "gcsfuse",
        "blobfuse",
        "blobfuse2",
        "juicefs",
        "seaweedfs",
        "weed",
        "glusterfs",
        "ceph",
        "ceph-fuse",
        "mfs",
        "mfsmount",
        "lizardfs",
        "beegfs",
        "davfs",
        "davfs2",
        "curlftpfs",
        "smbnetfs",
        "cvmfs2",
        "gvfsd-fuse",
        "kio-fuse",
        "google-drive-ocamlfuse",
        "onedriver",
        "vmhgfs-fuse",
        "grpcfuse",
        "osxfs",
        "virtiofs",
    }
)

_OCTAL = re.compile(r"\\([0-7]{3})")


class _Mount:
    """One line of the mount table."""

    __slots__ = ("file_system", "identity", "parent", "point")

    def __init__(self, line: str) -> None:
        # 36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/sda1 rw: a number of optional
        # fields end with a lone dash.
        before, _, after = line.partition(" - ")
        fields = before.split()
        self.identity = fields[0]
        self.parent = fields[1]
        self.point = _decode(fields[4])
        self.file_system = after.split()[0]


def _decode(field: str) -> str:
    """The path in a field of the table, where blanks and backslashes are three octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def network_filesystem(
    path: str | os.PathLike[str], *, mountinfo_path: str = "/proc/self/mountinfo"
) -> str | None:
    """The type of the network file system that ``path`` lies on.

    Args:
        path: a file or folder, which need not exist; symbolic links are followed.
        mountinfo_path: the mount table.

    Returns:
        The type as the mount table names it, such as ``nfs4``; None for a local file system, one
        that is not known here, and where there is no mount table.
    """
    # Before the table is read: this walks the path, so that what is mounted on demand is there.
    real = os.path.realpath(path)
    try:
        with open(mountinfo_path, encoding="utf-8", errors="surrogateescape") as table:
            mounts = [_Mount(line) for line in table if line.strip()]
    except (OSError, IndexError):
        # No table, or one that is none.
        return None
    mount = _mount_of(real, mounts)
    if mount is None or not _is_network(mount.file_system):
        return None
    return mount.file_system


def _mount_of(path: str, mounts: list[_Mount]) -> _Mount | None:
    """The mount that the kernel reaches when it walks ``path`` from the root.

    The longest mount point that is a prefix of the path is almost always it, but not when
    something was mounted later over a folder above: that hides the earlier ones. Each line names
    its parent mount, so the walk can be repeated: from a mount go on to that of its children whose
    mount point comes first on the path, until none is left. Of several at one point the last line
    is on top.
    """
    identities = {mount.identity for mount in mounts}
    # Roots are those whose parent is outside of this namespace, or themselves.
    ahead = [m for m in mounts if m.parent not in identities or m.parent == m.identity]
    found: _Mount | None = None
    seen: set[str] = set()
    while ahead:
        on_path = [m for m in ahead if m.identity not in seen and _is_prefix(m.point, path)]
        if not on_path:
            break
        found = min(reversed(on_path), key=lambda mount: len(mount.point))
        seen.add(found.identity)
        parent = found.identity
        ahead = [mount for mount in mounts if mount.parent == parent]
    return found


def _is_prefix(point: str, path: str) -> bool:
    return point in ("/", path) or path.startswith(point + "/")


def _is_network(file_system: str) -> bool:
    kind, _, program = file_system.partition(".")
    if kind == "fuse":
        return program in _NETWORK_FUSE_PROGRAMS
    return file_system in _NETWORK_TYPES


def refuse_network_filesystem(
    path: str | os.PathLike[str], *, mountinfo_path: str = "/proc/self/mountinfo"
) -> None:
    """Refuse a path where write-ahead logging does not work.

    Raises:
        NetworkFilesystem: it lies on one; the message names the type and the choices.
    """
    file_system = network_filesystem(path, mountinfo_path=mountinfo_path)
    if file_system is not None:
        raise errors.NetworkFilesystem(
            f"{os.fspath(path)} lies on a network or shared file system ({file_system}), where "
            f"SQLite's write-ahead log loses data: move the file to a local disk, or open it with "
            f'journal="truncate" if one process alone uses it'
        )
