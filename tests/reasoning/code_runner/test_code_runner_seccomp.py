"""Tests the system-call filter for both machines, with an independent BPF interpreter."""

import errno
import os
import platform
import re
import struct

import pytest

from reasoning.code_runner.sandbox import seccomp

X86_HEADERS = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
GENERIC_HEADER = "/usr/include/asm-generic/unistd.h"  # aarch64 has these numbers

ALLOWED = "allowed"
KILLED = "killed"
OWN_PID = 77

# Never allowed, whatever the options: (number on x86-64, number on aarch64).
FORBIDDEN = {
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "recvmsg": (47, 212), "recvmmsg": (299, 243), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "kcmp": (312, 272),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "setuid": (105, 146), "setgid": (106, 144), "setresuid": (117, 147), "setresgid": (119, 149),
    "setgroups": (116, 159), "capset": (126, 91), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "move_mount": (429, 429), "fsopen": (430, 430), "open_tree": (428, 428),
    "mount_setattr": (442, 442), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "inotify_init1": (294, 26), "setsid": (112, 157),
    "setpgid": (109, 154), "setpriority": (141, 140), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "reboot": (169, 142), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273), "mknodat": (259, 33),
    "openat2": (437, 437), "setxattr": (188, 5), "fchownat": (260, 54), "fchown": (93, 55),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "mlockall": (151, 230),
    "timer_create": (222, 107), "personality": (135, 92), "quotactl": (179, 60),
    "syslog": (103, 116), "swapon": (167, 224), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "vmsplice": (278, 75),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "seccomp": (317, 277),
}  # fmt: skip

OPTIONS = [
    {"files": files, "threads": threads}
    for files in ("scratch", "read", "none")
    for threads in (True, False)
]


def decide(bpf, architecture, number, *arguments):
    """Runs a seccomp filter by the rules of bpf(4): 'allowed', 'killed' or an errno."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("=HBBI", bpf))
    accumulator, position = 0, 0
    while True:
        code, jump_true, jump_false, value = program[position]
        position += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= value
        elif code in (0x15, 0x45):  # BPF_JMP | BPF_JEQ or BPF_JSET | BPF_K
            holds = accumulator == value if code == 0x15 else accumulator & value
            position += jump_true if holds else jump_false
        elif code == 0x06:  # BPF_RET | BPF_K
            action = value & 0xFFFF0000
            return {0x7FFF0000: ALLOWED, 0x80000000: KILLED, 0x00050000: value & 0xFFFF}[action]
        else:
            raise AssertionError(f"instruction {code:#x}")


@pytest.fixture(params=seccomp.MACHINES)
def machine(request):
    return request.param


def filter_of(machine, **options):
    """A function (call's name or number, arguments) -> decision."""
    architecture, column = seccomp.MACHINES[machine]
    options = {"files": "scratch", "threads": True} | options
    bpf = seccomp.build_filter(machine, OWN_PID, **options)
    tables = (seccomp.ALWAYS, seccomp.READ_PATHS, seccomp.SCRATCH_PATHS, seccomp.CONDITIONAL)
    numbers = {name: pair[column] for table in (*tables, FORBIDDEN) for name, pair in table.items()}

    def decision(call, *arguments):
        return decide(bpf, architecture, numbers.get(call, call), *arguments)

    return decision


def test_filters_are_not_too_long(machine):
    for options in OPTIONS:
        bpf = seccomp.build_filter(machine, OWN_PID, **options)
        assert len(bpf) % 8 == 0 and len(bpf) // 8 <= 4096  # BPF_MAXINSNS


@pytest.mark.parametrize(
    "path, column", [(X86_HEADERS, 0), (GENERIC_HEADER, 1)], ids=["x86_64", "aarch64"]
)
def test_numbers_are_those_of_the_kernel_headers(path, column):
    if not os.path.exists(path):
        pytest.skip(f"no {path}")
    with open(path) as file:
        found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", file.read())
    numbers = {name: int(number) for name, number in found}
    numbers.setdefault("newfstatat", numbers.get("fstatat"))
    tables = (seccomp.ALWAYS, seccomp.READ_PATHS, seccomp.SCRATCH_PATHS, seccomp.CONDITIONAL)
    checked = 0
    for table in (*tables, FORBIDDEN):
        for name, pair in table.items():
            if name in numbers:  # a header may be older than the call
                assert pair[column] == numbers[name], name
                checked += 1
            elif pair[column] is None:
                checked += 1
    assert checked > 200


def test_forbidden_calls_are_refused(machine):
    column = seccomp.MACHINES[machine][1]
    for options in OPTIONS:
        decision = filter_of(machine, **options)
        for name, pair in FORBIDDEN.items():
            if pair[column] is not None:
                assert decision(name) == errno.EPERM, (name, options)


def test_unknown_and_foreign_calls_are_refused(machine):
    decision = filter_of(machine)
    for number in (-1, 335, 500, 999, 2**31 - 1, 0x40000000 | 0, 0x40000000 | 57):
        assert decision(number) == errno.EPERM
    bpf = seccomp.build_filter(machine, OWN_PID, files="scratch", threads=True)
    for other in (0x40000003, 0x40000028, *(a for a, _ in seccomp.MACHINES.values())):
        if other != seccomp.MACHINES[machine][0]:
            assert decide(bpf, other, 0) == KILLED


def test_paths_by_kind_of_files(machine):
    for files, may_read, may_write in [
        ("none", False, False),
        ("read", True, False),
        ("scratch", True, True),
    ]:
        decision = filter_of(machine, files=files)
        expected = {True: ALLOWED, False: errno.EPERM}
        assert decision("read") == decision("write") == decision("mmap") == ALLOWED
        assert decision("openat", 0, 0, 0) == expected[may_read]
        assert decision("newfstatat") == expected[may_read]
        assert decision("unlinkat") == decision("fchmodat") == expected[may_write]


def test_open_flags(machine):
    decision = filter_of(machine, files="read")
    for flags, allowed in [
        (os.O_RDONLY | os.O_CLOEXEC, True),
        (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, True),  # Landlock sees that it writes
        (os.O_RDWR | os.O_TRUNC, True),
        (os.O_RDONLY | os.O_TRUNC, False),
        (os.O_ACCMODE, False),
        (os.O_ACCMODE | os.O_TRUNC, False),
    ]:
        assert (decision("openat", 0, 0, flags) == ALLOWED) == allowed, flags


def test_only_threads_can_be_started(machine):
    thread = 0x3D0F00  # what glibc's pthread_create passes
    fork = 17  # SIGCHLD
    decision = filter_of(machine)
    assert decision("clone", thread) == ALLOWED
    assert decision("clone", fork) == errno.EPERM
    for namespace in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 1 << 30):
        assert decision("clone", thread | namespace) == errno.EPERM
    assert decision("clone3") == errno.ENOSYS
    assert filter_of(machine, threads=False)("clone", thread) == errno.EPERM


def test_signals_and_limits_only_for_itself(machine):
    decision = filter_of(machine)
    for call in ("kill", "tgkill"):
        assert decision(call, OWN_PID, 9) == ALLOWED
        for other in (0, 1, OWN_PID + 1, 2**32 - 1, 2**64 - 1, 2**32 - OWN_PID):
            assert decision(call, other, 9) == errno.EPERM
    for call in seccomp.ASK_ABOUT_PROCESS:
        assert decision(call, 0) == decision(call, OWN_PID) == ALLOWED
        for other in (1, OWN_PID + 1, 2**32 - 1):
            assert decision(call, other) == errno.EPERM
    process, group, user = 0, 1, 2  # PRIO_PROCESS, PRIO_PGRP, PRIO_USER
    assert decision("getpriority", process, 0) == decision("getpriority", process, OWN_PID)
    assert decision("getpriority", process, 0) == ALLOWED
    for kind, other in [(process, 1), (group, 0), (user, 0), (group, OWN_PID)]:
        assert decision("getpriority", kind, other) == errno.EPERM


def test_descriptor_commands(machine):
    decision = filter_of(machine)
    assert decision("fcntl", 5, 1) == decision("fcntl", 5, 1030) == ALLOWED
    for command in (8, 10, 15, 1024, 1031, 1033):  # F_SETOWN, F_SETSIG, ..., F_SETPIPE_SZ
        assert decision("fcntl", 5, command) == errno.EPERM
    assert decision("ioctl", 0, 0x5401) == ALLOWED
    for command in (0x5412, 0x8901, 0x8912):  # TIOCSTI, FIOSETOWN, SIOCGIFCONF
        assert decision("ioctl", 0, command) == errno.EPERM
    for option in (1, 4, 22, 24, 38, 0x59616D61):
        assert decision("prctl", option) == errno.EPERM


def test_socket_pairs_lead_nowhere(machine):
    decision = filter_of(machine)
    assert decision("socketpair", 1, 1) == ALLOWED
    assert decision("socketpair", 16, 1) == errno.EPERM
    assert decision("sendto", 3, 0, 1, 0, 0) == ALLOWED
    for address in (1, 0x7F0000001000, 1 << 32):
        assert decision("sendto", 3, 0, 1, 0, address) == errno.EPERM


def test_this_machine_is_known():
    assert platform.machine() in seccomp.MACHINES
