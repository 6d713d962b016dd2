"""Functions for workers to run: they must be importable by name."""

import ctypes
import os
import signal
import time


def square(x):
    return x * x


def pid_and_square(x):
    return os.getpid(), x * x


def misbehave(how):
    """Returns `how`, unless it names a way not to return."""
    if how == "loop":
        while True:
            pass
    elif how == "sleep":
        time.sleep(60)
    elif how == "tower":
        return 9**9**9
    elif how == "exit":
        os._exit(3)
    elif how == "sys.exit":
        raise SystemExit(0)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "memory":
        return len(bytearray(8 << 30))
    elif how == "raise":
        raise KeyError("no such thing")
    elif how == "ignore signals":
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
    elif how == "unpicklable":
        return lambda: None
    return how


def modules_loaded():
    import sys

    return sorted(sys.modules)


_CALLS = []


def calls_seen(name):
    _CALLS.append(name)
    return list(_CALLS)
