"""Tries out a `tokenizer.json` on hostile texts, in a process that may be killed.

`models.tokens.tokenizer_files` runs this script with the file and a limit of address space. The
exit status is 0 on success; otherwise standard output names the fault in one line.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import tokenizers

CPU_SECONDS = 20
# Long enough that a regular expression with exponential backtracking exceeds all limits.
_RUN = 2000
_CHARACTERS = "aA0 \n\t!-_.é你"
# More would take too long; published tokenizers have fewer characters in their patterns.
_MOST_CHARACTERS = 200


def main() -> int:
    """Tries out the file and returns the exit status."""
    path, memory_bytes = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (ValueError, OSError):
        pass  # Not every system has this limit; the one on time remains.
    try:
        text = Path(path).read_text(encoding="utf-8")
        tokenizer = tokenizers.Tokenizer.from_str(text)
        for probe in _probes(json.loads(text)):
            # One at a time: a batch would be spread over threads.
            tokenizer.decode(tokenizer.encode(probe).ids)
    except BaseException as error:  # A panic of the library derives from BaseException.
        print(" ".join(str(error).split())[:300] or type(error).__name__)
        return 1
    return 0


def _probes(state: Any) -> list[str]:
    """Returns runs of each character, including those in the file's patterns, and mixtures."""
    parts = {key: state.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")}
    named = sorted(set("".join(_strings(parts))) - set(_CHARACTERS))
    characters = [*_CHARACTERS, *named[:_MOST_CHARACTERS]]
    # Characters that may end a match follow each run, but not directly.
    end = "\0" + "".join(characters)
    return ["", *(character * _RUN + end for character in characters), end * 20]


def _strings(value: Any) -> list[str]:
    """Returns all strings in nested JSON values."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _strings(each)]


if __name__ == "__main__":
    sys.exit(main())
