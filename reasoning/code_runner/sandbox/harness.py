"""Runs a program, or calls into it, and writes down what came out as plain data.

This runs in the same process as the program, which can do to it what it likes. So it holds no
secret and its word counts for nothing: it is given inputs, and what it reports is compared with the
expected values elsewhere. It imports nothing of ours, so that a remote sandbox can be sent its
text.
"""

import atexit
import json
import sys
import threading
import traceback
import types

LONG_INT_BITS = 4096


def plain(value):
    """Plain data as JSON that keeps types apart: scalars bare, containers under their type's name.

    Long integers are written in base 16, which takes linear time and has no limit on digits.
    Subclasses count as their base (a Counter is a dict). Sets and dicts are put in one order, so
    that equal values make equal text. Raises TypeError for anything else than None, bool, int,
    float, str, list, tuple, set, frozenset and dict.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= LONG_INT_BITS else {"int": hex(value)}
    if isinstance(value, float):
        return float(value) + 0.0  # the two zeros are equal
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


def encode(value):
    """One line of text for a plain value; equal lines mean equal type and value."""
    return json.dumps({"value": plain(value)})


def encode_error(error):
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = "an exception that cannot be printed"
    return json.dumps({"error": text[:500]})


def serve(kind, source, requests, reply):
    """Loads the program, then answers requests one at a time.

    Args:
      kind: "calls" (source is a program, a request an expression in its names) or "expressions"
        (source is an expression, a request a dict of variables).
      source: the program or expression.
      requests: an iterator of requests; nothing is taken from it before the last answer is out.
      reply: called with a line of text: first on loading, then for each request.
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


def run_script(source):
    """Runs the source as `python program.py` would, to the end of its threads and exit handlers.
    Returns the exit code.
    """
    # Programs were written for interpreters without this limit; the one on time is enough.
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
    main.__dict__.clear()  # closes, and so flushes, files that the program left open
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
        # Without the harness's own two frames.
        traceback.print_exception(type(error), error, error.__traceback__.tb_next.tb_next)
        return 1
    return 0
