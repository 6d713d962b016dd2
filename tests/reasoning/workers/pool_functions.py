"""Functions that workers run in the tests; a worker must be able to import them by name."""

import ctypes
import json
import os
import pickle
import signal
import struct
import time


def square(x):
    return x * x


def slow_square(x):
    time.sleep(0.005)
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
    elif how == "nap":
        time.sleep(0.8)
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
    elif how == "not JSON":
        return lambda: None
    elif how == "deep":
        result = []
        for _ in range(100_000):
            result = [result]
        return result
    elif how.startswith("forge"):
        forge(how)
    return how


class Canary:
    """Unpickling one creates a file."""

    path = ""

    def __reduce__(self):
        return open, (self.path, "w")


def forge(how):
    """Writes to every descriptor what no honest worker writes, then goes on as one would."""
    _, kind, path = how.split(" ", 2)
    Canary.path = path
    body = {
        "pickle": pickle.dumps((0, "returned", Canary())),
        "ticket": json.dumps([10**6, "returned", '"forged"']).encode(),
        "number": b"7",
        "deep": b"[" * 100_000,
        "long": None,
    }[kind]
    frame = struct.pack("!i", 2**31 - 1) if body is None else struct.pack("!i", len(body)) + body
    for fd in range(3, 64):
        try:
            os.write(fd, frame)
        except OSError:
            pass


def modules_loaded():
    import sys

    return sorted(sys.modules)


_CALLS = []


def calls_seen(name):
    _CALLS.append(name)
    return list(_CALLS)


def order_of_a_set(words):
    return list(set(words))
