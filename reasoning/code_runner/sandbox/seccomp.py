"""Builds the seccomp-BPF filter (seccomp(2)) of the system calls that a sandboxed program may make.

The filter is an allowlist: every call that it does not name fails with EPERM. It never lets a
program create or execute a process, make or connect a socket, trace or signal another process, or
change its privileges. So these rules hold on every kernel with seccomp, under any isolation.
"""

import ctypes
import functools
import struct

from . import libc

# Machine -> (AUDIT_ARCH_* of linux/audit.h, its column in the tables below).
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Name -> (number on x86-64, number on aarch64); None if the machine has no such call.
ALWAYS = {
    # Reading and writing open descriptors.
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286),
    "pwritev2": (328, 287), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "fstat": (5, 80), "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46),
    "fallocate": (285, 47), "fadvise64": (221, 223), "copy_file_range": (326, 285),
    "sendfile": (40, 71), "recvfrom": (45, 207), "shutdown": (48, 210), "getsockopt": (55, 209),
    "getsockname": (51, 204), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "epoll_create": (213, None), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441), "eventfd": (284, None), "eventfd2": (290, 19),
    # Memory.
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216),
    "mprotect": (10, 226), "madvise": (28, 233), "msync": (26, 227), "membarrier": (324, 283),
    # Threads, if `clone` allows them.
    "futex": (202, 98), "futex_waitv": (449, 449), "set_robust_list": (273, 99),
    "set_tid_address": (218, 96), "rseq": (334, 293),
    "sched_yield": (24, 124), "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126), "getcpu": (309, 168),
    # The process's own signals and timers.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132), "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102),
    "pause": (34, None), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    # Questions about the process itself; setrlimit can only lower what the sandbox has set.
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148),
    "getresgid": (120, 150), "getgroups": (115, 158), "getpgrp": (111, None),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164), "uname": (63, 160),
    "sysinfo": (99, 179), "umask": (95, 166),
    "getrandom": (318, 278), "arch_prctl": (158, None), "wait4": (61, 260), "waitid": (247, 95),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip

# Calls by path that change nothing. `open` and `openat` join them after a check of their flags.
READ_PATHS = {
    "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17),
    "chdir": (80, 49), "fchdir": (81, 50), "statfs": (137, 43), "fstatfs": (138, 44),
}  # fmt: skip

# Calls by path that change a file, or that use metadata which Landlock does not cover. They are
# allowed only if the program has its own view of mounts.
SCRATCH_PATHS = {
    "creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None),
    "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11),
    "llistxattr": (195, 12), "flistxattr": (196, 13),
}  # fmt: skip

# Calls that are allowed for some arguments only.
CONDITIONAL = {
    "open": (2, None), "openat": (257, 56), "clone": (56, 220), "clone3": (435, 435),
    "kill": (62, 129), "tgkill": (234, 131), "fcntl": (72, 25), "ioctl": (16, 29),
    "prctl": (157, 167), "prlimit64": (302, 261), "socketpair": (53, 199), "sendto": (44, 206),
    "get_robust_list": (274, 100), "getpgid": (121, 155), "getsid": (124, 156),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "getpriority": (140, 141),
}  # fmt: skip

# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, record locks, open-file-description locks,
# F_DUPFD_CLOEXEC, F_GETPIPE_SZ. F_SETOWN is missing because it would let SIGIO reach another
# process, F_SETPIPE_SZ because it takes memory that no limit counts.
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
IOCTL_COMMANDS = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
PRCTL_OPTIONS = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA

# Calls that ask about the process that their first argument names; 0 is the caller itself.
ASK_ABOUT_PROCESS = (
    "prlimit64", "get_robust_list", "getpgid", "getsid", "sched_getaffinity", "sched_getparam",
    "sched_getscheduler",
)  # fmt: skip
PRIO_PROCESS = 0

CLONE_THREAD = 0x10000
CLONE_NEW_NAMESPACES = 0x7E020000
AF_UNIX = 1
O_ACCMODE, O_TRUNC = 0o3, 0o1000

ALLOW = 0x7FFF0000
EPERM, ENOSYS = 0x00050000 | 1, 0x00050000 | 38
KILL_PROCESS = 0x80000000

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _ANY_BIT = 0x15, 0x45
_NUMBER, _ARCHITECTURE = 0, 4  # Offsets in struct seccomp_data.


def _instruction(code, value, jump_true=0, jump_false=0):
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def _return(value):
    return _instruction(_RETURN, value)


def _load_argument(index, high_word=False):
    # For an argument that the kernel takes as an int, the low word is enough: the kernel ignores
    # the high word too.
    return _instruction(_LOAD, 16 + 8 * index + 4 * high_word)


def _if(code, value, then):
    """Emits the return `then` for the case that A equals `value`, or shares a bit with it."""
    return [_instruction(code, value, 0, 1), then]


def _if_not(value, then):
    return [_instruction(_EQUAL, value, 1, 0), then]


def _argument_in(index, values):
    tests = [i for value in values for i in _if(_EQUAL, value, _return(ALLOW))]
    return [_load_argument(index), *tests, _return(EPERM)]


def _open_flags(index):
    # O_RDONLY|O_TRUNC empties a file that it opens for reading, and access mode 3 opens a file for
    # neither reading nor writing. Older Landlock versions let both pass.
    return [
        _load_argument(index),
        _instruction(_AND, O_ACCMODE | O_TRUNC),
        *_if(_EQUAL, O_TRUNC, _return(EPERM)),
        _instruction(_AND, O_ACCMODE),
        *_if(_EQUAL, O_ACCMODE, _return(EPERM)),
        _return(ALLOW),
    ]


def build_filter(machine: str, own_pid: int, *, files: str, threads: bool) -> bytes:
    """Returns the filter for one program as a BPF program of 8 bytes per instruction.

    Args:
      machine: "x86_64" or "aarch64".
      own_pid: the process id of the program as the program sees it. The program may signal or ask
        about this process only.
      files: "scratch" (it may read and write paths: for an own view of mounts), "read" (it may read
        paths) or "none".
      threads: whether the program may start threads. It can never start processes.
    """
    about_itself = {
        "kill": _argument_in(0, [own_pid]),
        "tgkill": _argument_in(0, [own_pid]),
        "getpriority": [
            _load_argument(0),
            *_if_not(PRIO_PROCESS, _return(EPERM)),
            *_argument_in(1, [0, own_pid]),
        ],
    } | {name: _argument_in(0, [0, own_pid]) for name in ASK_ABOUT_PROCESS}
    return fixed_part(machine, files, threads) + b"".join(
        [*_conditions(machine, about_itself), _return(EPERM)]
    )


@functools.lru_cache
def fixed_part(machine: str, files: str, threads: bool) -> bytes:
    """Returns the part of `build_filter` that is the same for every program.

    The zygote builds it once.
    """
    architecture, column = MACHINES[machine]
    allowed = dict(ALWAYS)
    thread_flags = [
        _load_argument(0),
        *_if(_ANY_BIT, CLONE_NEW_NAMESPACES, _return(EPERM)),
        *_if(_ANY_BIT, CLONE_THREAD, _return(ALLOW)),
        _return(EPERM),
    ]
    no_address = [
        _load_argument(4),
        *_if_not(0, _return(EPERM)),
        _load_argument(4, high_word=True),
        *_if_not(0, _return(EPERM)),
        _return(ALLOW),
    ]
    conditions = {
        "clone": thread_flags if threads else [_return(EPERM)],
        # The flags of clone3 lie in memory, where the filter cannot see them. After ENOSYS, libc
        # calls clone instead.
        "clone3": [_return(ENOSYS)],
        "fcntl": _argument_in(1, FCNTL_COMMANDS),
        "ioctl": _argument_in(1, IOCTL_COMMANDS),
        "prctl": _argument_in(0, PRCTL_OPTIONS),
        # asyncio wakes itself over a socket pair. The pair leads nowhere, because a program may
        # not name an address.
        "socketpair": _argument_in(0, [AF_UNIX]),
        "sendto": no_address,
    }
    if files != "none":
        allowed |= READ_PATHS
        conditions |= {"open": _open_flags(1), "openat": _open_flags(2)}
    if files == "scratch":
        allowed |= SCRATCH_PATHS
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        *_if_not(architecture, _return(KILL_PROCESS)),
        _instruction(_LOAD, _NUMBER),
    ]
    for numbers in allowed.values():
        if numbers[column] is not None:
            program += _if(_EQUAL, numbers[column], _return(ALLOW))
    return b"".join([*program, *_conditions(machine, conditions)])


def _conditions(machine, blocks):
    """Yields a block for each call, which ends in a return.

    After the blocks, A still holds the number of the call.
    """
    column = MACHINES[machine][1]
    for name, block in blocks.items():
        number = CONDITIONAL[name][column]
        if number is not None:
            yield _instruction(_EQUAL, number, 0, len(block))
            yield from block


def install(bpf: bytes) -> None:
    """Applies the filter to this thread and all that it starts, for good. Needs no_new_privs."""

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    program = Program(len(bpf) // 8, bpf)
    libc.call(
        "prctl",
        libc.PR_SET_SECCOMP,
        ctypes.c_ulong(2),
        ctypes.byref(program),
        ctypes.c_ulong(0),
        ctypes.c_ulong(0),
    )
