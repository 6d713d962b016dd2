"""Holds the program that tries to escape. Every worker runs it before any untrusted program."""

# This program reads its targets as JSON from standard input and prints the name of each attempt
# that worked. An attempt that works does no harm.
ESCAPES = """
import ctypes, json, os, socket

aims = json.loads(input())
libc = ctypes.CDLL(None)


def attempt(name, act):
    try:
        result = act()
    except BaseException:
        return
    if result != -1:
        print(name, flush=True)


def fork():
    if os.fork() == 0:
        os._exit(0)


def read(path):
    with open(path) as file:
        return file.read()


attempt("file_read", lambda: read(aims["canary"]))
attempt("file_written", lambda: open(aims["canary"] + ".written", "w"))
attempt("file_linked", lambda: os.link(aims["canary"], aims["canary"] + ".link"))
attempt("file_mode_changed", lambda: os.chmod(aims["canary"], 0o600))
attempt("environment_read", lambda: read("/proc/%d/environ" % aims["pid"]))
attempt("folder_listed", lambda: os.listdir(os.path.dirname(aims["canary"])))
attempt("process_started", fork)
attempt("process_signalled", lambda: os.kill(aims["pid"], 0))
attempt("process_traced", lambda: libc.ptrace(0x4206, aims["pid"], 0, 0))
attempt("internet_socket", lambda: socket.socket(socket.AF_INET))
attempt("local_socket", lambda: socket.socket(socket.AF_UNIX))
attempt("user_changed", lambda: os.setuid(0))
attempt("namespace_entered", lambda: libc.unshare(0x10000000))
attempt("memory_limit_passed", lambda: bytearray(2 * aims["memory_bytes"]))
# This attempt comes last because it replaces the program if it works; echo then reports it.
attempt("program_executed", lambda: libc.execl(b"/bin/echo", b"echo", b"program_executed", None))
"""
