"""The ways to wall a program in, strongest first. All end in the same limits on resources and a
system-call filter.

`limits` is everywhere the dict of `Limits`' fields.
"""

import fcntl
import importlib
import os
import resource
import signal
import sys

from . import landlock, libc, namespaces, seccomp

ZONEINFO = "/usr/share/zoneinfo"


def readable_folders():
    """What a program may read: standard library and time-zone tables; outermost folders only."""
    folders = sorted(path for path in [*sys.path, ZONEINFO] if os.path.isdir(path))
    return [f for f in folders if not any(f.startswith(outer + "/") for outer in folders)]


class SeccompOnly:
    """The system-call filter alone, which then refuses every call that takes a path.

    So there are no files at all, and only the modules that the zygote has imported beforehand. No
    threads either: there is no user of its own to count them by. Works in containers that forbid
    the rest. The other ways extend this one.
    """

    files, threads = "none", False  # what the filter leaves to programs

    MODULES = """
        asyncio concurrent.futures doctest encodings.ascii encodings.idna encodings.latin_1
        encodings.utf_16 fileinput gettext importlib.resources locale logging optparse platform
        sched socket unittest urllib.parse xml.etree.ElementTree
    """.split()

    def enter(self):
        """Called once, in the zygote."""
        for name in self.MODULES:
            importlib.import_module(name)

    def open_scratch(self, limits):
        """Called in the supervisor of one program, just before it forks that program's process."""

    def confine(self, limits):
        """Called in the program's process, before it has read the program. Cannot be undone."""
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
        # The program goes when its supervisor goes. Only now: a change of user clears it.
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
    """The standard library may be read, and Landlock keeps all other files out of reach.

    No scratch folder, because Landlock cannot limit its size, and no threads. Names and sizes of
    the machine's files stay visible to stat(2).
    """

    files = "read"

    def enter(self):
        rules = landlock.device_rules(namespaces.DEVICES)
        for folder in readable_folders():
            # One rule for each entry, because Landlock cannot take back a part of what it granted.
            # The folder itself need not be listed: the import system has done so already.
            names = set(os.listdir(folder)) - namespaces.HIDDEN
            rules += [(os.path.join(folder, name), landlock.READ) for name in names]
        # Above the numbers that the program's pipes will take.
        self._ruleset = fcntl.fcntl(landlock.create_ruleset(rules), fcntl.F_DUPFD_CLOEXEC, 10)

    def confine(self, limits):
        os.chdir("/")
        self._seal(limits, self._ruleset)


class MountView(SeccompOnly):
    """Namespaces: files of its own with an empty scratch folder, no network, no other processes.

    Landlock, where the kernel has it, repeats the rules for files.
    """

    files = "scratch"

    def __init__(self, new_user):
        self._new_user = new_user
        # Root becomes a user that nobody else is, from the range that systemd keeps for such
        # users, so that limits counted by user are the program's own.
        self._user = namespaces.INNER_ID if new_user else 61184 + os.getpid() % 4096
        # The kernel does not limit how many threads the machine's root has, whatever a user
        # namespace calls it.
        self.threads = not (new_user and os.geteuid() == 0)

    def enter(self):
        self._folders = readable_folders()
        namespaces.enter(self._new_user)
        namespaces.build_view(self._folders)

    def open_scratch(self, limits):
        namespaces.fresh_scratch(limits["scratch_bytes"], self._user, self._user)

    def confine(self, limits):
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


ISOLATIONS = {
    "namespaces": lambda: MountView(new_user=False),
    "user-namespaces": lambda: MountView(new_user=True),
    "landlock": Landlock,
    "seccomp": SeccompOnly,
}


def _set_limit(name, value):
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # Soft and hard at once: past a hard CPU limit the kernel kills outright.
    resource.setrlimit(kind, (value, value))
