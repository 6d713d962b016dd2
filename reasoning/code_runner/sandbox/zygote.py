"""The isolated, warmed-up process that programs are forked from, so that a run costs milliseconds.

    client --socket--> zygote --fork per program--> supervisor --fork--> program

The zygote never sees a program: it forks each supervisor before the task arrives, and the
supervisor ends after the task. So no source, input or output of one task is in memory when the next
program is forked.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import random
import signal
import site
import socket
import sys
import traceback

from . import frames, harness, libc, seccomp, supervisor
from .isolation import ISOLATIONS

# The zygote imports these modules once for all programs: modules that short programs use, and
# extension modules whose shared libraries lie outside the folder of the standard library, where a
# program cannot read them.
PRELOADED = """
    _strptime abc argparse array ast base64 bisect bz2 calendar cmath collections.abc contextlib
    copy csv ctypes dataclasses datetime decimal difflib enum fractions functools gzip hashlib heapq
    hmac html inspect io itertools json keyword lzma math numbers operator os pathlib pickle pprint
    queue random re secrets shutil signal sqlite3 statistics string struct subprocess tempfile
    textwrap threading time timeit tokenize traceback types typing unicodedata uuid warnings weakref
    zlib zoneinfo
""".split()

CLIENT_GONE = 3  # exit code of a supervisor whose client has closed


def main() -> None:
    """Serves a client's tasks until the client closes its socket, which is descriptor 0.

    The argument on the command line is JSON with isolation (a key of ISOLATIONS) and limits. The
    first message to the client is {"ready": true} or {"error": why}.
    """
    config = json.loads(sys.argv[1])
    client = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10))
    try:
        isolation = _prepare(config["isolation"])
    except Exception as error:
        frames.write(client, {"error": str(error) or type(error).__name__})
        return
    frames.write(client, {"ready": True})
    exit_code = 0
    while exit_code == 0:
        pid = os.fork()
        if pid == 0:
            _run_as_supervisor(client, isolation, config["limits"])
        exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _prepare(isolation_name):
    sys.path.remove("")  # the folder of this package
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # an interpreter may be built without a module
            importlib.import_module(name)
    site.setquit()  # `exit` and `quit`, which -S leaves out
    with contextlib.suppress(OSError):
        ctypes.CDLL("libgcc_s.so.1")  # glibc would load it later, when a thread ends
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # the kernel kills programs first when the machine's memory runs out
    isolation = ISOLATIONS[isolation_name]()
    isolation.enter()
    # Fills the cache of `fixed_part`, so that no program has to build it.
    seccomp.fixed_part(os.uname().machine, isolation.files, isolation.threads)
    gc.collect()
    gc.freeze()  # so that the collector does not touch pages that programs share
    return isolation


def _run_as_supervisor(client, isolation, limits):
    """Serves one task. Does not return."""
    exit_code = 1
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        isolation.open_scratch(limits)
        child = _fork_program(isolation, limits)
        task = frames.read(client)
        if task is None:
            child.end()
            exit_code = CLIENT_GONE
        else:
            frames.write(client, supervisor.Supervision(child, task, limits, client.fileno()).run())
            exit_code = 0
    finally:
        os._exit(exit_code)


def _fork_program(isolation, limits):
    """Starts the process of the program, which isolates itself at once and waits for the task."""
    pipes = [os.pipe() for _ in range(5)]
    theirs = [ends[1] if number in (1, 2, 4) else ends[0] for number, ends in enumerate(pipes)]
    ours = [ends[0] if number in (1, 2, 4) else ends[1] for number, ends in enumerate(pipes)]
    pid = os.fork()
    if pid == 0:
        _run_as_program(theirs, isolation, limits)
    for fd in theirs:
        os.close(fd)
    return supervisor.Child(pid, *ours)


def _run_as_program(pipes, isolation, limits):
    """Runs the program in this process. Does not return.

    Descriptors 0 to 2 belong to the program, 3 brings requests and 4 takes answers.
    """
    exit_code = 1
    try:
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in pipes]
        for target, fd in enumerate(high):
            os.dup2(fd, target)
        open_max = os.sysconf("SC_OPEN_MAX")  # read before `confine` lowers it
        isolation.confine(limits)
        os.closerange(5, open_max)
        _reset_interpreter()
        requests = (json.loads(line) for line in open(3, "rb"))
        task = next(requests)
        if task["kind"] == "program":
            os.closerange(3, 5)
            exit_code = harness.run_script(task["source"])
        else:
            harness.serve(
                task["kind"],
                task["source"],
                requests,
                lambda line: _write_all(4, line.encode() + b"\n"),
            )
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(exit_code)


def _reset_interpreter():
    """Makes the interpreter look freshly started, with the same randomness in every run."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.argv[:] = ["program.py"]
    sys.executable = ""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sandbox"]:
        del sys.modules[name]
    random.seed(0)


def _write_all(fd, data):
    while data:
        data = data[os.write(fd, data) :]
