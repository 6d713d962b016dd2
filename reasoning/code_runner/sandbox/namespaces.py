"""Gives a process an almost empty view of the machine, by namespaces(7).

The process gets its own mounts, network, processes, IPC and host name.
"""

import ctypes
import os
from collections.abc import Iterable

from . import libc

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
# In a user namespace, a remount must keep these flags; statvfs reports them under the same bits.
_KEPT_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME

SCRATCH = "/scratch"
# These folders appear empty to a program, because an installed data set may hold the answers.
HIDDEN = {"site-packages", "dist-packages"}
# Maps each device to whether a program may write to it.
DEVICES = {"/dev/null": True, "/dev/zero": True, "/dev/urandom": False, "/dev/random": False}
# The one user that exists inside a user namespace.
INNER_ID = 1000


def _mount(source, target, kind, flags, options=None):
    source, target, kind, options = (
        None if text is None else os.fsencode(text) for text in (source, target, kind, options)
    )
    libc.call("mount", source, target, kind, ctypes.c_ulong(flags), options)


def _pivot_root(new_root, put_old):
    number = libc.PIVOT_ROOT[os.uname().machine]
    libc.system_call("pivot_root", number, os.fsencode(new_root), os.fsencode(put_old))


def enter(new_user: bool) -> None:
    """Moves this process into new namespaces. Its children enter a process namespace one by one.

    Args:
      new_user: also make a user namespace, which an ordinary user needs to make the others.

    Raises:
      OSError: the kernel refuses.
    """
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    libc.call("unshare", flags | (CLONE_NEWUSER if new_user else 0))
    if new_user:
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{INNER_ID} {user} 1"),
            ("gid_map", f"{INNER_ID} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    libc.call("sethostname", b"sandbox", 7)


def build_view(folders: Iterable[str]) -> None:
    """Reduces this mount namespace to `folders` and a few devices, all of them read-only.

    Folders of installed packages inside them (HIDDEN) appear empty.
    """
    real = {folder: os.path.realpath(folder) for folder in folders}
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    # There are two changes of root. In the first new root the host's files stay reachable below
    # /host, so that they can be bound into the second.
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    os.chdir("/tmp")
    os.mkdir("host")
    os.mkdir("view")
    _pivot_root(".", "host")
    os.chdir("/")
    _mount("tmpfs", "/view", "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755")
    for folder, source in real.items():
        os.makedirs(f"/view{folder}", exist_ok=True)
        _bind_read_only(f"/host{source}", f"/view{folder}")
        for name in HIDDEN:
            if os.path.isdir(f"/view{folder}/{name}"):
                _mount(
                    "tmpfs",
                    f"/view{folder}/{name}",
                    "tmpfs",
                    MS_RDONLY | MS_NOSUID | MS_NODEV,
                    "size=4k,mode=755",
                )
    os.makedirs("/view/dev")
    for device in DEVICES:
        with open(f"/view{device}", "w"):
            pass
        # Devices are mounted read-only, because otherwise a program that counts as their owner
        # could change their mode and times on the host. Writing to the device still works.
        _bind_read_only(f"/host{device}", f"/view{device}", forbid_devices=False)
    os.mkdir(f"/view{SCRATCH}")
    if not os.path.lexists("/view/tmp"):
        os.symlink(SCRATCH, "/view/tmp")
    os.chdir("/view")
    _pivot_root(".", ".")
    libc.call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    _mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _bind_read_only(source, target, forbid_devices=True):
    _mount(source, target, None, MS_BIND)
    flags = os.statvfs(target).f_flag & _KEPT_FLAGS | MS_RDONLY | MS_NOSUID
    if forbid_devices:
        flags |= MS_NODEV
    _mount(None, target, None, MS_REMOUNT | MS_BIND | flags)


def fresh_scratch(size_bytes: int, user: int, group: int) -> None:
    """Gives this process and its children an empty scratch folder in memory that ends with them.

    The next child is also the first process of a process namespace: it sees no other process, and
    every process that it starts ends with it.
    """
    libc.call("unshare", CLONE_NEWNS | CLONE_NEWPID)
    # There is one inode for each 4 kB, because the size does not count the memory of empty files.
    options = (
        f"size={size_bytes},nr_inodes={max(16, size_bytes // 4096)},mode=700,uid={user},gid={group}"
    )
    _mount("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
