"""Defines the ways to isolate a program, the strongest first.

All of them end in the same resource limits and a system-call filter. Every argument `limits` is the
dict of the fields of `Limits`.
"""

import fcntl
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import landlock, libc, namespaces, seccomp

ZONEINFO = "/usr/share/zoneinfo"


def readable_folders() -> list[str]:
    """Returns the folders that a program may read: the standard library and the time-zone tables.

    A folder inside another of them is left out.
    """
    folders = sorted(path for path in [*sys.path, ZONEINFO] if os.path.isdir(path))
    return [f for f in folders if not any(f.startswith(outer + "/") for outer in folders)]


class SeccompOnly:
    """Isolates by the system-call filter alone, which here refuses every call that takes a path.

    So a program has no files, and only the modules that the zygote imported beforehand. It has no
    threads either, because the sandbox has no user of its own by which the kernel could count them.
    This way works in containers that forbid the others. The other ways extend this one.
    """

    files, threads = "none", False  # arguments of `seccomp.build_filter`

    MODULES = """
        asyncio concurrent.futures doctest encodings.ascii encodings.idna encodings.latin_1
        encodings.utf_16 fileinput gettext importlib.resources locale logging optparse platform
        sched socket unittest urllib.parse xml.etree.ElementTree
    """.split()

    def enter(self) -> None:
        """Prepares the zygote; called once, in the zygote."""
        for name in self.MODULES:
            importlib.import_module(name)

    def open_scratch(self, limits: Mapping[str, Any]) -> None:
        """Makes the scratch folder; called in a program's supervisor before it forks the
        program.
        """

    def confine(self, limits: Mapping[str, Any]) -> None:
        """Isolates the process of the program, before it has read the program. Cannot be undone."""
        os.chdir("/")
        self._seal(limits, ruleset=None)

    def _seal(self, limits, ruleset):
        _set_limit("RLIMIT_AS", limits["memory_bytes"])
        _set_limit("RLIMIT_CPU", limits["cpu_s"])
        _set_limit("RLIMIT_FSIZE", limits["scratch_bytes"])
        _set_limit("RLIMIT_NOFILE", limits["open_files"])
        for name in ("RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE"):
            _set_limit(name, 0)
        libc.drop_capabilities()
        # The kernel kills the program when its supervisor ends. This is set only now because a
        # change of user clears it.
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        if ruleset is not None:
            landlock.restrict_self(ruleset)
        machine, own_pid = os.uname().machine, os.getpid()
        seccomp.install(
            seccomp.build_filter(machine, own_pid, files=self.files, threads=self.threads)
        )


class Landlock(SeccompOnly):
    """Lets a program read the standard library; Landlock keeps all other files out of reach.

    There is no scratch folder, because Landlock cannot limit its size, and there are no threads.
    Programs can still see the names and sizes of the machine's files through stat(2).
    """

    files = "read"

    def enter(self) -> None:
        """Compiles the rules for files; called once, in the zygote."""
        rules = landlock.device_rules(namespaces.DEVICES)
        for folder in readable_folders():
            # Each entry gets its own rule, because Landlock cannot take back a part of a grant.
            # Programs need not list the folder: the import system has done so already.
            names = set(os.listdir(folder)) - namespaces.HIDDEN
            rules += [(os.path.join(folder, name), landlock.READ) for name in names]
        # The descriptor lies above the numbers that the program's pipes will take.
        self._ruleset = fcntl.fcntl(landlock.create_ruleset(rules), fcntl.F_DUPFD_CLOEXEC, 10)

    def confine(self, limits: Mapping[str, Any]) -> None:
        """Isolates the process of the program; see `SeccompOnly.confine`."""
        os.chdir("/")
        self._seal(limits, self._ruleset)


class MountView(SeccompOnly):
    """Isolates by namespaces: own files with an empty scratch folder, and no network.

    The program sees no other processes. If the kernel has Landlock, it enforces the same rules for
    files a second time.

    Args:
      new_user: also make a user namespace, which a user other than root needs.
    """

    files = "scratch"

    def __init__(self, new_user: bool):
        self._new_user = new_user
        # Root becomes a user that nobody else uses, from the range that systemd keeps for this, so
        # that limits which the kernel counts by user count this program alone.
        self._user = namespaces.INNER_ID if new_user else 61184 + os.getpid() % 4096
        # The kernel does not limit the threads of the machine's root, not even inside a user
        # namespace where root has another id.
        self.threads = not (new_user and os.geteuid() == 0)

    def enter(self) -> None:
        """Moves the zygote into namespaces with few files; called once, in the zygote."""
        self._folders = readable_folders()
        namespaces.enter(self._new_user)
        namespaces.build_view(self._folders)

    def open_scratch(self, limits: Mapping[str, Any]) -> None:
        """Mounts an empty scratch folder; see `SeccompOnly.open_scratch`."""
        namespaces.fresh_scratch(limits["scratch_bytes"], self._user, self._user)

    def confine(self, limits: Mapping[str, Any]) -> None:
        """Isolates the process of the program; see `SeccompOnly.confine`."""
        os.chdir(namespaces.SCRATCH)
        ruleset = None
        if landlock.abi_version():
            rules = [(folder, landlock.READ) for folder in self._folders]
            rules += landlock.device_rules(namespaces.DEVICES)
            ruleset = landlock.create_ruleset([*rules, (namespaces.SCRATCH, landlock.READ_WRITE)])
        # In a user namespace the zygote and the supervisor count as the same user.
        _set_limit("RLIMIT_NPROC", limits["threads"] + 2 * self._new_user)
        if not self._new_user:
            os.setgroups([])
            os.setresgid(self._user, self._user, self._user)
            os.setresuid(self._user, self._user, self._user)
        self._seal(limits, ruleset)


ISOLATIONS: dict[str, Callable[[], SeccompOnly]] = {
    "namespaces": lambda: MountView(new_user=False),
    "user-namespaces": lambda: MountView(new_user=True),
    "landlock": Landlock,
    "seccomp": SeccompOnly,
}


def _set_limit(name, value):
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # Soft and hard limit are equal, because the kernel kills at once past a hard CPU limit.
    resource.setrlimit(kind, (value, value))
