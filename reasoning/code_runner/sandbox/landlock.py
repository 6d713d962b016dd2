"""Limits access to files by path with Landlock, which needs no privilege.

See landlock(7); Linux has it from version 5.13 on.
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping

from . import libc

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
REFER, TRUNCATE = 1 << 13, 1 << 14

READ = READ_FILE | READ_DIR
READ_WRITE = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
)
_FOR_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE  # rights that a rule on a file may grant


def device_rules(devices: Mapping[str, bool]) -> list[tuple[str, int]]:
    """Returns the rules for devices.

    Args:
      devices: maps each path to whether it may be written to.
    """
    return [
        (path, READ_FILE | WRITE_FILE if writable else READ_FILE)
        for path, writable in devices.items()
    ]


def abi_version() -> int:
    """Returns the kernel's Landlock version, or 0 if Landlock is missing or switched off."""
    try:
        return libc.system_call(
            "landlock_create_ruleset", libc.LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1
        )
    except OSError:
        return 0


def create_ruleset(rules: Iterable[tuple[str, int]]) -> int:
    """Compiles rules for `restrict_self` and returns a file descriptor.

    Args:
      rules: pairs (path, rights). A right on a folder holds for everything beneath it. Landlock
        refuses every access that no rule grants. Where the kernel can, it also refuses TCP, and
        signals and abstract sockets that lead out of the sandbox.

    Raises:
      OSError: the kernel has no Landlock.
    """
    abi = abi_version()
    if not abi:
        raise OSError("the kernel has no Landlock, or it is switched off")
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    fields = [handled]
    if abi >= 4:
        fields.append(0b11)  # bind and connect over TCP
    if abi >= 6:
        fields.append(0b11)  # scopes: abstract UNIX sockets, signals
    attribute = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.system_call(
        "landlock_create_ruleset",
        libc.LANDLOCK_CREATE_RULESET,
        attribute,
        ctypes.c_size_t(len(attribute)),
        0,
    )
    for path, rights in rules:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(path):
                rights &= _FOR_FILES
            beneath = struct.pack("=Qi", rights & handled, fd)
            libc.system_call("landlock_add_rule", libc.LANDLOCK_ADD_RULE, ruleset, 1, beneath, 0)
        finally:
            os.close(fd)
    return ruleset


def restrict_self(ruleset: int) -> None:
    """Applies the rules to this thread and all that it starts, for good. Needs no_new_privs."""
    libc.system_call("landlock_restrict_self", libc.LANDLOCK_RESTRICT_SELF, ruleset, 0)
