"""Wraps, through ctypes, the few kernel calls that the standard library lacks."""

import ctypes
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# The Landlock calls have the same number on every machine, pivot_root has not.
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38


def call(name: str, *args: Any) -> int:
    """Calls a libc function and returns its result.

    Raises:
      OSError: the result is -1; the error names the function.
    """
    result = getattr(_libc, name)(*args)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def system_call(name: str, number: int, *args: Any) -> int:
    """Makes a system call that libc has no wrapper for, and returns its result.

    Raises:
      OSError: the result is -1; the error names the call.
    """
    result = _libc.syscall(ctypes.c_long(number), *args)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def prctl(option: int, argument: int) -> None:
    """Calls prctl(2) with one argument.

    Raises:
      OSError: the call failed.
    """
    # Every argument is an unsigned long, and the unused ones must be zero.
    call("prctl", ctypes.c_int(option), *(ctypes.c_ulong(a) for a in (argument, 0, 0, 0)))


def drop_capabilities() -> None:
    """Gives up every capability of this thread. This is final once no_new_privs is set."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    call("capset", header, (ctypes.c_uint32 * 6)())
