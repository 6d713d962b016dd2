"""Runs a program, or evaluates expressions with it, and writes the results as plain data.

This code runs in the process of the program, which can change it at will. So it holds no secret and
nobody relies on its word: it gets inputs, and another process compares what it reports with the
expected values. It imports nothing of this project, because a remote sandbox is sent its text.
"""

import atexit
import json
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable
from typing import Any

LONG_INT_BITS = 4096


def plain(value: Any) -> Any:
    """Converts plain data to JSON that keeps types apart.

    Scalars stay as they are, and a container stands under the name of its type. Long integers are
    written in base 16, which takes linear time and has no limit on digits. A subclass counts as its
    base (a Counter is a dict). Sets and dicts are sorted, so that equal values give equal text.

    Raises:
      TypeError: a value is not None, bool, int, float, str, list, tuple, set, frozenset or dict.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= LONG_INT_BITS else {"int": hex(value)}
    if isinstance(value, float):
        return float(value) + 0.0  # turns -0.0 into 0.0, because the two are equal
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [plain(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {
            "set" if isinstance(value, set) else "frozenset": sorted(
                (plain(item) for item in value), key=json.dumps
            )
        }
    if isinstance(value, dict):
        return {
            "dict": sorted(
                ([plain(key), plain(item)] for key, item in value.items()), key=json.dumps
            )
        }
    raise TypeError(f"a {type(value).__name__} is not plain data")


def encode(value: Any) -> str:
    """Returns one line of text for a plain value. Lines are equal only if type and value are."""
    return json.dumps({"value": plain(value)})


def encode_error(error: BaseException) -> str:
    """Returns one line of text for an exception, of at most 500 characters of message."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = "an exception that cannot be printed"
    return json.dumps({"error": text[:500]})


def serve(kind: str, source: str, requests: Iterable[Any], reply: Callable[[str], Any]) -> None:
    """Loads the program, then answers requests one at a time.

    Args:
      kind: "calls" (the source is a program and a request is an expression in its names) or
        "expressions" (the source is an expression and a request is a dict of variables).
      source: the program or expression.
      requests: the requests; the next one is taken only after the last answer was sent.
      reply: gets one line of text for loading, then one for each request.
    """
    sys.set_int_max_str_digits(0)
    try:
        if kind == "expressions":
            code = compile(source.strip(), "<expression>", "eval", dont_inherit=True)
        else:
            program = types.ModuleType("program")
            sys.modules["program"] = program
            exec(compile(source, "program.py", "exec", dont_inherit=True), program.__dict__)
    except BaseException as error:
        reply(encode_error(error))
        return
    reply(encode(None))
    for request in requests:
        try:
            answer = encode(
                eval(code, dict(request))
                if kind == "expressions"
                else eval(request, program.__dict__)
            )
        except BaseException as error:
            answer = encode_error(error)
        reply(answer)


def run_script(source: str) -> int:
    """Runs the source as `python program.py` would, to the end of its threads and exit handlers.

    Returns the exit code.
    """
    # Programs were written for interpreters without a limit on digits; the time limit is enough.
    sys.set_int_max_str_digits(0)
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exit_code = _exit_code(
        lambda: exec(compile(source, "program.py", "exec", dont_inherit=True), main.__dict__)
    )
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    main.__dict__.clear()  # closes and thereby flushes the files that the program left open
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        stream.flush()
    return exit_code


def _exit_code(run):
    try:
        run()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return (stop.code or 0) & 0xFF
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException as error:
        # The traceback leaves out the two frames of this module.
        traceback.print_exception(type(error), error, error.__traceback__.tb_next.tb_next)
        return 1
    return 0
