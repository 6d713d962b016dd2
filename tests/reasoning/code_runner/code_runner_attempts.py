r"""Lists attempts to break out of the code sandbox, for its tests.

Each attempt is a program that reads its targets (see `targets`) as JSON from standard input and
prints ESCAPED if it got what it wanted. It uses only the standard library, because another user's
interpreter runs it too.

Run as a program from the checkout, this file makes every attempt under every isolation that this
user can set up, and prints how many were refused; the exit code is 1 if one escaped:

    python tests/reasoning/code_runner/code_runner_attempts.py
    setpriv --reuid=65534 --regid=65534 --clear-groups \
        /usr/bin/python3 tests/reasoning/code_runner/code_runner_attempts.py
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import socket
import sys
import tempfile

PRELUDE = """
import ctypes, json, os, signal, socket, sys, threading, time
aims = json.loads(input())
libc = ctypes.CDLL(None, use_errno=True)
def escaped_if(result):
    if result:
        print("ESCAPED", result)
"""


@dataclasses.dataclass(frozen=True)
class Attempt:
    name: str
    program: str
    # Whether it succeeds without a sandbox, for any user: shows that the attempt is a real one.
    works_bare: bool = False

    @property
    def source(self):
        return PRELUDE + self.program


DEVICES = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"]


def _state_of_devices():
    return [(os.stat(path).st_mode, os.stat(path).st_uid) for path in DEVICES]


@contextlib.contextmanager
def targets():
    """Sets up what the attempts are after. Yields the aims, and a function that tells what changed.

    The targets are open to every user: only the sandbox may keep a program from them.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="targets-"))
        os.chmod(folder, 0o777)
        canary = os.path.join(folder, "canary")
        socket_folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="targets-"))
        os.chmod(socket_folder, 0o755)
        socket_path = os.path.join(socket_folder, "socket")
        abstract_name = os.path.basename(folder)

        def listen(family, address, kind=socket.SOCK_STREAM):
            server = stack.enter_context(socket.socket(family, kind))
            server.bind(address)
            if kind == socket.SOCK_STREAM:
                server.listen(1000)
            return server

        tcp = listen(socket.AF_INET, ("127.0.0.1", 0))
        listen(socket.AF_UNIX, socket_path)
        os.chmod(socket_path, 0o777)
        listen(socket.AF_UNIX, "\0" + abstract_name)
        listen(socket.AF_UNIX, "\0datagram-" + abstract_name, socket.SOCK_DGRAM)
        with open(canary, "w") as file:
            file.write("canary")
        os.chmod(canary, 0o666)
        untouched, devices = os.stat(canary), _state_of_devices()

        def changes():
            if os.listdir(folder) != ["canary"]:
                return f"the folder now holds {os.listdir(folder)}"
            if _state_of_devices() != devices:
                return f"the devices were {devices}, are {_state_of_devices()}"
            now = os.stat(canary)
            same = all(
                getattr(now, name) == getattr(untouched, name)
                for name in ("st_mode", "st_size", "st_nlink", "st_mtime_ns", "st_ino")
            )
            return None if same else f"the canary was {untouched}, is {now}"

        aims = {
            "canary": canary,
            "folder": folder,
            "home": os.path.expanduser("~"),
            "repository": os.path.dirname(os.path.abspath(__file__)),
            "pid": os.getpid(),
            "tcp_port": tcp.getsockname()[1],
            "socket_path": socket_path,
            "abstract_name": abstract_name,
            "devices": DEVICES,
        }
        yield json.dumps(aims) + "\n", changes


def escapes(runner):
    """Makes every attempt with a runner. Returns those that got out, with what they said."""
    with targets() as (aims, changes):
        found = {}
        for attempt in ATTEMPTS:
            result = runner.run_program(attempt.source, stdin=aims)
            if "ESCAPED" in result.stdout or changes():
                found[attempt.name] = (result.stdout[:200], changes())
        return found


def _system_call(name, arguments):
    """An attempt by raw system call, by its number on x86-64 and aarch64."""
    numbers = {
        "fork": (57, None),
        "vfork": (58, None),
        "clone": (56, 220),
        "socket": (41, 198),
        "memfd_create": (319, 279),
        "io_uring_setup": (425, 425),
        "userfaultfd": (323, 282),
        "perf_event_open": (298, 241),
        "bpf": (321, 280),
        "add_key": (248, 217),
        "pidfd_open": (434, 434),
        "shmget": (29, 194),
        "mq_open": (240, 180),
        "unshare": (272, 97),
        "mount": (165, 40),
        "chroot": (161, 51),
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "setsid": (112, 157),
        "inotify_init1": (294, 26),
        "timer_create": (222, 107),
        "personality": (135, 92),
        "open_tree": (428, 428),
        "execveat": (322, 281),
    }
    number = numbers[name][{"x86_64": 0, "aarch64": 1}[platform.machine()]]
    if number is None:
        return []
    program = f"escaped_if(libc.syscall({number}, {arguments}) >= 0 and {name!r})"
    return [Attempt(f"raw_{name}", program)]


_ROBUST_LIST = {"x86_64": 274, "aarch64": 100}[platform.machine()]

ATTEMPTS = [
    # Files.
    Attempt("read_file", "escaped_if(open(aims['canary']).read())", True),
    Attempt("read_by_dots", "escaped_if(open('../' * 20 + aims['canary']).read())", True),
    Attempt("read_users", "escaped_if(open('/etc/passwd').read())", True),
    Attempt("list_folder", "escaped_if(os.listdir(aims['folder']))", True),
    Attempt("list_home", "escaped_if(os.listdir(aims['home']))"),
    Attempt("read_repository", "escaped_if(os.listdir(aims['repository']))", True),
    Attempt(
        "read_through_symlink",
        "os.symlink(aims['canary'], 'link'); escaped_if(open('link').read())",
        True,
    ),
    Attempt(
        "list_through_symlink_to_root",
        "os.symlink('/', 'root'); escaped_if(os.listdir('root' + aims['folder']))",
        True,
    ),
    Attempt(
        "read_below_open_root",
        "root = os.open('/', os.O_PATH)\n"
        "escaped_if(os.read(os.open(aims['canary'][1:], os.O_RDONLY, dir_fd=root), 99))",
        True,
    ),
    Attempt("hard_link", "os.link(aims['canary'], 'copy'); escaped_if(open('copy').read())"),
    Attempt("write_file", "escaped_if(open(aims['folder'] + '/new', 'w'))", True),
    Attempt("truncate_file", "os.truncate(aims['canary'], 0); escaped_if('truncated')", True),
    Attempt("change_mode", "os.chmod(aims['canary'], 0o777); escaped_if('changed')", True),
    Attempt(
        "change_mode_of_devices",
        "for device in aims['devices']:\n"
        "    try: os.chmod(device, os.stat(device).st_mode & 0o777); escaped_if(device)\n"
        "    except OSError: pass",
    ),
    Attempt(
        "change_times_of_devices",
        "for device in aims['devices']:\n"
        "    try: os.utime(device, ns=(os.stat(device).st_atime_ns, os.stat(device).st_mtime_ns))\n"
        "    except OSError: continue\n"
        "    escaped_if(device)",
    ),
    Attempt(
        "change_mode_of_open_device",
        "for device in aims['devices']:\n"
        "    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_PATH):\n"
        "        try: os.fchmod(os.open(device, flags), os.stat(device).st_mode & 0o777)\n"
        "        except OSError: continue\n"
        "        escaped_if(device)",
    ),
    Attempt(
        "stir_random_devices",
        "for device in ('/dev/random', '/dev/urandom'):\n"
        "    try: escaped_if(os.write(os.open(device, os.O_WRONLY), b'x'))\n"
        "    except OSError: pass",
    ),
    Attempt(
        "change_mode_of_folders",
        "for path in ('/', '/dev', os.path.dirname(os.__file__), os.__file__, '/usr'):\n"
        "    try: os.chmod(path, os.stat(path).st_mode & 0o777); escaped_if(path)\n"
        "    except OSError: pass",
    ),
    Attempt(
        "change_times_of_folders",
        "for path in ('/', '/dev', os.path.dirname(os.__file__), os.__file__, '/usr'):\n"
        "    try: os.utime(path, ns=(os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns))\n"
        "    except OSError: continue\n"
        "    escaped_if(path)",
    ),
    Attempt("change_times", "os.utime(aims['canary'], (0, 0)); escaped_if('changed')", True),
    Attempt("remove_file", "os.unlink(aims['canary']); escaped_if('removed')", True),
    Attempt("rename_file", "os.rename(aims['canary'], 'mine'); escaped_if('renamed')"),
    Attempt(
        "write_standard_library",
        "for path in [p for p in sys.path if os.path.isdir(p)]:\n"
        "    for target in (os.__file__, path + '/planted.py'):\n"
        "        try: escaped_if(open(target, 'a'))\n"
        "        except OSError: pass\n"
        "os.chmod(os.__file__, 0o777); escaped_if('changed')",
    ),
    Attempt(
        "read_packages", "escaped_if(os.listdir(os.path.dirname(os.__file__) + '/site-packages'))"
    ),
    Attempt("chroot", "os.chroot('.'); escaped_if('changed root')"),
    Attempt(
        "inherited_descriptors",
        "for fd in range(3, 5000):\n"
        "    try: escaped_if((fd, os.fstat(fd)))\n"
        "    except OSError: pass",
    ),
    # The parent, its environment and memory.
    Attempt("own_environment", "escaped_if('secret-7c1d' in str(os.environ))", True),
    Attempt(
        "environments_in_proc",
        "for pid in ['self', 'thread-self', aims['pid'], os.getppid(), *range(1, 400)]:\n"
        "    for name in ('environ', 'cmdline', 'maps', 'stat', 'mem', 'root/etc/passwd'):\n"
        "        try: escaped_if(open(f'/proc/{pid}/{name}', 'rb').read(1) or name)\n"
        "        except OSError: pass",
        True,
    ),
    Attempt("list_proc", "escaped_if(os.listdir('/proc'))", True),
    Attempt("read_sys", "escaped_if(os.listdir('/sys'))", True),
    Attempt("signal_parent", "os.kill(aims['pid'], 0); escaped_if('signalled')", True),
    Attempt("signal_own_parent", "os.kill(os.getppid(), 0); escaped_if(os.getppid())", True),
    Attempt("signal_all", "os.kill(-1, 0); escaped_if('signalled')"),
    Attempt("stop_parent", "os.kill(aims['pid'], signal.SIGSTOP); escaped_if('stopped')"),
    Attempt("pidfd_of_parent", "escaped_if(os.pidfd_open(aims['pid']))", True),
    Attempt(
        "signal_parent_by_pipe",  # SIGIO to the owner of a descriptor
        "import fcntl\nr, w = os.pipe()\n"
        "fcntl.fcntl(r, 8, aims['pid']); escaped_if(fcntl.fcntl(r, 9) == aims['pid'])",
        True,
    ),
    Attempt("trace_parent", "escaped_if(libc.ptrace(0x4206, aims['pid'], 0, 0) == 0)"),
    Attempt("trace_me", "escaped_if(libc.ptrace(0, 0, 0, 0) == 0)", True),
    Attempt("renice_parent", "os.setpriority(0, aims['pid'], 5); escaped_if('reniced')"),
    Attempt(
        "limit_parent",
        "import resource\nescaped_if(resource.prlimit(aims['pid'], resource.RLIMIT_CORE))",
        True,
    ),
    # 0 and the own process id name the program itself; everything else is another process.
    *(
        Attempt(
            f"{name}_of_others",
            "for pid in (aims['pid'], os.getppid(), 1, 2):\n"
            "    if pid in (0, os.getpid()): continue\n"
            f"    try: {call}\n"
            "    except OSError: continue\n"
            f"    escaped_if((pid, {name!r}))",
            True,
        )
        for name, call in {
            "group": "os.getpgid(pid)",
            "session": "os.getsid(pid)",
            "affinity": "os.sched_getaffinity(pid)",
            "scheduler": "os.sched_getscheduler(pid)",
            "scheduling": "os.sched_getparam(pid)",
            "priority": "os.getpriority(os.PRIO_PROCESS, pid)",
        }.items()
    ),
    Attempt(
        "priority_of_user",
        "escaped_if(os.getpriority(os.PRIO_USER, 0) or 'told')",
        True,
    ),
    Attempt(
        "robust_list_of_others",
        "head, size = ctypes.c_void_p(), ctypes.c_size_t()\n"
        f"number = {_ROBUST_LIST}\n"
        "for pid in (aims['pid'], os.getppid(), 1, 2):\n"
        "    if pid in (0, os.getpid()): continue\n"
        "    got = libc.syscall(number, pid, ctypes.byref(head), ctypes.byref(size))\n"
        "    escaped_if(got == 0 and pid)",
        True,
    ),
    # The network.
    Attempt(
        "connect_tcp",
        "escaped_if(socket.create_connection(('127.0.0.1', aims['tcp_port']), 1))",
        True,
    ),
    Attempt(
        "send_udp",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "escaped_if(s.sendto(b'hello', ('127.0.0.1', 9)))",
        True,
    ),
    Attempt(
        "listen", "s = socket.socket(); s.bind(('', 0)); s.listen(); escaped_if('listens')", True
    ),
    Attempt(
        "connect_unix",
        "s = socket.socket(socket.AF_UNIX); s.connect(aims['socket_path']); escaped_if(1)",
        True,
    ),
    Attempt(
        "connect_abstract",
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect('\\0' + aims['abstract_name']); escaped_if(1)",
        True,
    ),
    Attempt(
        "send_from_socket_pair",
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "escaped_if(a.sendto(b'x', '\\0datagram-' + aims['abstract_name']))",
        True,
    ),
    Attempt("netlink", "escaped_if(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))", True),
    # Other processes.
    Attempt("fork", "escaped_if(os.fork() and 'forked')", True),
    Attempt(
        "daemon",
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0: time.sleep(30)\n"
        "    os._exit(0)\n"
        "escaped_if('left a daemon')",
    ),
    Attempt(
        "fork_bomb",
        "def bomb():\n"
        "    for _ in range(1000):\n"
        "        try:\n"
        "            if os.fork() == 0: bomb()\n"
        "            escaped_if('forked')\n"
        "        except OSError: pass\n"
        "bomb()",
    ),
    Attempt("run_shell", "escaped_if(os.popen('echo from a shell').read())", True),
    Attempt("execute", "os.execv('/bin/echo', ['echo', 'ESCAPED'])", True),
    Attempt(
        "run_by_subprocess",
        "import subprocess\nescaped_if(subprocess.run(['/bin/true']).returncode == 0)",
        True,
    ),
    Attempt("become_root", "os.setresuid(0, 0, 0); escaped_if('root')"),
    Attempt("x32_call", "escaped_if(libc.syscall(0x40000000 | 39) > 0)"),
    *_system_call("fork", "0"),
    *_system_call("vfork", "0"),
    *_system_call("clone", "17, 0, 0, 0, 0"),  # SIGCHLD: a process
    *_system_call("socket", "2, 1, 0"),
    *_system_call("memfd_create", "b'x', 0"),
    *_system_call("io_uring_setup", "8, ctypes.create_string_buffer(120)"),
    *_system_call("userfaultfd", "1"),
    *_system_call("perf_event_open", "ctypes.create_string_buffer(128), 0, -1, -1, 0"),
    *_system_call("bpf", "0, ctypes.create_string_buffer(128), 128"),
    *_system_call("add_key", "b'user', b'x', b'y', 1, -2"),
    *_system_call("pidfd_open", "os.getpid(), 0"),
    *_system_call("shmget", "0, 4096, 0o1600"),
    *_system_call("mq_open", "b'queue', 0o102, 0o600, None"),
    *_system_call("unshare", "0x10000000"),
    *_system_call("mount", "b'tmpfs', b'.', b'tmpfs', 0, None"),
    *_system_call("chroot", "b'.'"),
    *_system_call("ptrace", "0, 0, 0, 0"),
    *_system_call("process_vm_readv", "aims['pid'], None, 0, None, 0, 0"),
    *_system_call("setsid", "0"),
    *_system_call("inotify_init1", "0"),
    *_system_call("timer_create", "0, None, ctypes.create_string_buffer(8)"),
    *_system_call("personality", "0x0040000"),
    *_system_call("open_tree", "-100, b'/', 1"),
    *_system_call("execveat", "-100, b'/bin/true', None, None, 0"),
    # Resources.
    Attempt("allocate_10_gb", "escaped_if(len(bytearray(10 * 2**30)))"),
    Attempt(
        "allocate_bit_by_bit",
        "import mmap\nheld = []\n"
        "while len(held) < 10240: held.append(mmap.mmap(-1, 2**20))\n"
        "escaped_if(len(held))",
    ),
    Attempt(
        "fill_scratch",
        "for i in range(64):\n"
        "    with open(f'{i}', 'wb') as file: file.write(bytes(2**20))\n"
        "escaped_if('64 MB written')",
        True,
    ),
    Attempt(
        "fill_scratch_with_empty_files",
        "for i in range(20_000): open(f'{i}', 'w').close()\nescaped_if('20000 files')",
        True,
    ),
    Attempt(
        "open_thousands_of_descriptors",
        "held = [os.pipe() for _ in range(2000)]\nescaped_if(len(held))",
    ),
    Attempt(
        "raise_limits",
        "import resource\n"
        "for name in ('RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_NOFILE', 'RLIMIT_FSIZE', 'RLIMIT_CORE'):\n"
        "    kind = getattr(resource, name)\n"
        "    soft, hard = resource.getrlimit(kind)\n"
        "    try: resource.setrlimit(kind, (hard + 1, hard + 1))\n"
        "    except (ValueError, OSError): continue\n"
        "    escaped_if(name)",
    ),
    Attempt(
        "start_thousands_of_threads",
        "new = lambda: threading.Thread(target=time.sleep, args=(1,), daemon=True)\n"
        "threads = [new() for _ in range(999)]\n"
        "for thread in threads: thread.start()\n"
        "escaped_if(len(threads))",
    ),
    Attempt("big_pipe", "import fcntl\nescaped_if(fcntl.fcntl(os.pipe()[0], 1031, 2**20))", True),
]


# Programs that end by a limit or a crash, each with the statuses that are right.
OVERRUNS = {
    "loop": ("while True: pass", {"timeout"}),
    "sleep": ("import time; time.sleep(3600)", {"timeout"}),
    "ignore_signals": (
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass",
        {"timeout"},
    ),
    "wait_for_input": ("while True:\n    try: input()\n    except EOFError: pass", {"timeout"}),
    "write_1_gb": ("for _ in range(1024): print('x' * 2**20)", {"output"}),
    "write_1_gb_of_errors": (
        "import os\nfor _ in range(1024): os.write(2, b'x' * 2**20)",
        {"output"},
    ),
    "many_objects": ("x = []\nwhile True: x.append([0] * 1000)", {"memory", "timeout"}),
    "huge_power": ("print(9**9**9**9)", {"timeout", "memory"}),
    "huge_digits": (
        "import sys\nsys.set_int_max_str_digits(0)\nprint(10 ** (10**8))",
        {"timeout", "output", "memory"},
    ),
    "many_digits": ("print(10 ** (10**7))", {"timeout", "output"}),
    "recursion": ("def f(): f()\nf()", {"error"}),
    "recursion_unlimited": (
        "import sys\nsys.setrecursionlimit(10**9)\n"
        "class A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        {"killed", "memory", "error"},
    ),
    "null_pointer": ("import ctypes; ctypes.string_at(0)", {"killed"}),
    "kill_itself": ("import os; os.kill(os.getpid(), 9); os.abort()", {"killed"}),
    "exit_in_thread": (
        "import os, threading, time\n"
        "threading.Thread(target=os._exit, args=(7,)).start()\ntime.sleep(60)",
        {"error"},
    ),
    "close_everything": ("import os; os.closerange(0, 100)\nwhile True: pass", {"timeout"}),
}


def escapes_by_isolation():
    """Makes every attempt under every isolation. Returns isolation -> (escapes, or why it is not
    to be had here).
    """
    from reasoning.code_runner import CodeRunner, Limits, SandboxUnavailable
    from reasoning.code_runner.local import ISOLATIONS

    found = {}
    for isolation in ISOLATIONS:
        try:
            limits = Limits(wall_s=10.0, cpu_s=2, threads=8)
            with CodeRunner(1, limits, isolation=isolation) as runner:
                found[isolation] = escapes(runner)
        except SandboxUnavailable as error:
            found[isolation] = str(error)
    return found


def main():
    sys.path[0] = str(pathlib.Path(__file__).parents[3])  # the checkout
    os.environ["SECRET"] = "secret-7c1d"
    all_escaped = []
    for isolation, escaped in escapes_by_isolation().items():
        if isinstance(escaped, str):
            print(f"{isolation}: not available to user {os.geteuid()} here: {escaped}")
            continue
        refused = len(ATTEMPTS) - len(escaped)
        print(f"{isolation}, user {os.geteuid()}: {refused} of {len(ATTEMPTS)} attempts refused")
        all_escaped += [f"{isolation}: {name}: {said}" for name, said in escaped.items()]
    print("\n".join(all_escaped) or "none got out")
    sys.exit(bool(all_escaped))


if __name__ == "__main__":
    main()
