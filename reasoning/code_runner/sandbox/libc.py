"""The few kernel calls that the standard library does not wrap, through ctypes."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# These system calls are newer than the split of the tables: one number on every machine.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38


def call(name, *args):
    """Calls a libc function; a result of -1 becomes an OSError that names the function."""
    result = getattr(_libc, name)(*args)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def system_call(name, number, *args):
    """Makes a system call that libc has no wrapper for."""
    result = _libc.syscall(ctypes.c_long(number), *args)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def prctl(option, argument):
    # Every argument is an unsigned long, and the unused ones must be zero.
    call("prctl", ctypes.c_int(option), *(ctypes.c_ulong(a) for a in (argument, 0, 0, 0)))


def drop_capabilities():
    """Gives up every capability of this thread, for good once no_new_privs is set."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    call("capset", header, (ctypes.c_uint32 * 6)())
