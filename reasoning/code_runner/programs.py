"""Finds the Python program in a response: chooses which of its Markdown code blocks are to be run.

The rule looks only at the text and never runs or parses a block, so it cannot depend on which block
would pass. Every step takes time in proportion to the length of the text.
"""

import re
from collections.abc import Iterable

# A longer text is no honest answer, so its program is not looked for.
MAX_CHARS = 1 << 20

_PYTHON_TAGS = ("python", "python3", "py", "py3")
_OPENING = re.compile(r"([ \t]*)(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*)")
_TAG = re.compile(r"[\w+#-]+")
# Matches the start of lines that look like Python; prose hardly ever begins like this.
_CODE_LINE = re.compile(
    r"(?:async\s+)?(?:def|class)\s+\w+[^:]*:|(?:for|while|if|with|try)\b.*:\s*$"
    r"|import\s+[\w.]+(?:\s*,|\s+as\b|\s*$)|from\s+[\w.]+\s+import\b|print\s*\(|[@#\"']"
    r"|\w[\w.\[\], ]*(?::[\w.\[\], ]*)?[-+*/%&|]?=(?!=)|\w[\w.]*\("
)
# Matches a heading above the output of a program.
_OUTPUT_HEADING = re.compile(r"\W*(?:(?:sample|expected|example|program)\s+)?outputs?\W*", re.I)
# These find what a block defines beside variables: functions, classes, the names after `for` and
# `as`, and imports.
_DEFINITION = re.compile(r"\b(?:def|class|for|as)\s+(\w+)")
_IMPORT = re.compile(r"\bimport\s+([\w., \t]+)")
_PARAMETERS = re.compile(r"\bdef\s+\w+\s*\(([^)\n]*)|\blambda\b([^:\n]*)")
_NAME = re.compile(r"[^\W\d]\w*")


def find_program(text: str, called: Iterable[str] = ()) -> str:
    """Returns the program in a response, or "" if there is none.

    A block fenced by backticks or tildes counts if it is closed, whatever the length and the
    indentation of its fence. The function takes the blocks that are marked as Python; if there are
    none, the unmarked blocks that look like code; if there are none, the other blocks that look
    like code; else the last block, an unmarked one if possible. The program is the last block
    taken. If that block uses a name that it does not define and an earlier block defines, the
    response split the program, and the earlier block goes before it. A text without fences is
    itself the program; if it is prose, its indented part is the program.

    Args:
      text: the text that a reader sees, without the chain of thought.
      called: code that will run with the program, such as "add(2, 3)"; its names count as used.
    """
    if len(text) > MAX_CHARS:
        return ""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks, has_fence = _fenced_blocks(lines)
    if not has_fence:
        return _without_fences(lines)
    chosen = [code for tag, code in blocks if tag in _PYTHON_TAGS]
    if not chosen:
        unmarked = [code for tag, code in blocks if not tag]
        others = [code for tag, code in blocks if tag]
        for candidates in (unmarked, others):
            chosen = chosen or [code for code in candidates if _looks_like_code(code)]
        chosen = chosen or unmarked[-1:] or others[-1:]
    return _join(chosen, called)


def _fenced_blocks(lines):
    """Returns (tag in lower case, code) of every closed block, and whether any fence was opened."""
    blocks, opened, heading = [], None, ""
    for line in lines:
        match = _OPENING.match(line)
        if opened is None:
            if match:
                indent, fence, info = match.groups()
                found = _TAG.search(info)
                tag = found.group().lower() if found else ""
                if not tag and _OUTPUT_HEADING.fullmatch(heading):
                    tag = "output"
                opened, code = (indent, fence, tag), []
            elif line.strip():
                heading = line.strip()
        elif match and _closes(match, opened[1]):
            blocks.append((opened[2], _dedent(code)))
            opened, heading = None, ""
        else:
            code.append(_outdent(line, opened[0]))
    return blocks, bool(blocks) or opened is not None


def _closes(match, fence):
    _, closing, info = match.groups()
    return closing.startswith(fence) and not info.strip()


def _outdent(line, indent):
    """Returns the line without the block's own indentation, as far as the line has it."""
    if line.startswith(indent):
        return line[len(indent) :]
    return line.lstrip(" \t") if not line[: len(indent)].strip() else line


def _without_fences(lines):
    flush = [line for line in lines if line.strip() and not _is_indented(line)]
    if not flush or any(_CODE_LINE.match(line) for line in flush):
        return _dedent(lines)
    # The text is prose. After an empty line, four blanks or a tab begin a code block in Markdown.
    indented, in_block, before = [], False, ""
    for line in lines:
        if line.strip():
            in_block = _is_indented(line) and (in_block or not before.strip())
        if in_block:
            indented.append(line)
        before = line
    return _dedent(indented or lines)


def _is_indented(line):
    return line.startswith(("    ", "\t")) and bool(line.strip())


def _indent(line):
    return line[: len(line) - len(line.lstrip(" \t"))]


def _dedent(lines):
    first = next((line for line in lines if line.strip()), "")
    return "\n".join(_outdent(line, _indent(first)) for line in lines).strip()


def _looks_like_code(code):
    return any(_CODE_LINE.match(line.strip()) for line in code.split("\n"))


def _join(blocks, called):
    """Returns the last block, preceded by those earlier blocks that define what it uses."""
    if not blocks:
        return ""
    program = [blocks[-1]]
    used = set(_NAME.findall(" ".join(called)))
    defined: set[str] = set()
    for code in reversed(blocks):
        names = _defined(code)
        if code is blocks[-1] or (names - defined) & used:
            if code is not blocks[-1]:
                program.append(code)
            used |= set(_NAME.findall(code))
            defined |= names
    return "\n\n".join(reversed(program))


def _defined(code):
    texts = [*_DEFINITION.findall(code), *_IMPORT.findall(code)]
    for parameters in map("".join, _PARAMETERS.findall(code)):
        texts += [part.partition("=")[0].partition(":")[0] for part in parameters.split(",")]
    for line in code.split("\n"):
        target, sign, value = line.partition("=")
        if sign and not value.startswith("=") and target[-1:] not in tuple("!<>"):
            target = target.partition(":")[0]
            if "(" not in target:
                texts.append(target)
    return {name for text in texts for name in _NAME.findall(text)}
