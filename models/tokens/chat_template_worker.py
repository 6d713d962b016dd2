"""Renders chat templates in a separate process, which may hang or be killed.

Run as a script by `models.tokens.chat_template`. It reads one JSON request per line from
standard input and writes one JSON reply per line. It imports no project code, so it starts fast.
"""

import datetime
import functools
import json
import resource
import signal
import sys
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`, which marks assistant text for SFT masks: no-op."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def main() -> None:
    """Answers requests until standard input ends; a signal kills a request that takes too long."""
    memory_bytes, max_characters = int(sys.argv[1]), int(sys.argv[2])
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (ValueError, OSError):
        pass  # Not every system has this limit; the limits on time and output remain.
    for line in sys.stdin:
        # The signal's default action ends the process, whatever code it is in.
        signal.setitimer(signal.ITIMER_PROF, json.loads(line[: line.index(" ")]))
        reply = _answer(line[line.index(" ") :], max_characters)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def _answer(request: str, max_characters: int) -> dict[str, Any]:
    """Returns `{"text": ...}` or `{"error": ..., "line": ...}` (the template's line or None)."""
    try:
        template, variables = json.loads(request)
        text = _compile(template).render(**variables)
    except jinja2.TemplateSyntaxError as error:
        return {"error": error.message, "line": error.lineno}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except Exception as error:  # Templates can raise any exception.
        return _described(error)
    if len(text) > max_characters:
        return {"error": f"its text has {len(text)} characters; at most {max_characters} are taken"}
    return {"text": text}


def _described(error: Exception) -> dict[str, Any]:
    """Returns the error in one line, and the line of the template that raised it."""
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = step.tb_lineno
        step = step.tb_next
    message = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, RecursionError):
        message = "it calls itself without end"
    return {"error": message, "line": line}


@functools.lru_cache
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)


def _to_json(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    # Jinja's own filter escapes for HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


if __name__ == "__main__":
    main()
