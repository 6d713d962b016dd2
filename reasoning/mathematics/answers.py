"""Finds the final answer in a model's response."""

import re

from reasoning.mathematics.options import DEFAULT, GradingOptions
from reasoning.mathematics.reading.quantity import parse_quantity
from reasoning.mathematics.reading.text import canonical, unwrap
from reasoning.mathematics.sentences import (
    first_sentence,
    mathematics,
    only_number,
    without_clause,
)
from reasoning.response import after_chain

_ANSWER_TAG = re.compile(r"</?answer>")
_BOX_OR_BRACE = re.compile(r"\\(?:f?boxed|fbox)\s*\{|\\[{}\\]|[{}]")
# Matches the text between boxes that are one list.
_SPACE = r"(?:[\s$.,;&\\()\[\]]|\\q?quad(?![A-Za-z]))*"
_JOINT = re.compile(rf"{_SPACE}(?:(?:\\text\s?\{{)?\s?\b(?:and|or|und|et|y)\b\s?\}}?)?{_SPACE}")
_JOINS = re.compile(r"[,;&]|\b(?:and|or|und|et|y)\b")
# "#### 18" is the form of GSM8K, "A: 18" that of its authors' models.
_HASHES = re.compile(r"^[ \t*]*####(?!#)[ \t]*([^\n]+)", re.MULTILINE)
_STEP = re.compile(r"(?:step|part|case|problem|question|section|solution|method)\b", re.IGNORECASE)
_MARKS = r"[ \t*_#>✅✔️🎯\U0001f3af-]"
_WORDS_FOR_ANSWER = r"(?:final[ \t]+|correct[ \t]+)?(?:answers?|result)"
_FOREIGN = (
    r"réponse(?:\s+finale)?|respuesta(?:\s+final)?|resposta(?:\s+final)?|risposta(?:\s+finale)?"
    r"|antwort|ответ|答案|正解|答え|정답|उत्तर|svar|odpowiedź|cevap"
)
_ANNOUNCED = re.compile(
    rf"^{_MARKS}{{0,12}}(?P<head>A|{_WORDS_FOR_ANSWER})(?:[ \t]+\([^()\n]{{1,30}}\))?[ \t*_]{{0,6}}"
    rf"(?P<colon>[:=：])"
    rf"|^{_MARKS}{{0,12}}{_WORDS_FOR_ANSWER}[ \t*_]{{0,6}}$"
    rf"|\b{_WORDS_FOR_ANSWER}\b[^\n.:=!?$]{{0,40}}?"
    rf"(?:\s(?:is|are|was|equals|would be|should be|must be)\b|:|：)[ \t]*:?"
    rf"(?:[ \t]*(?:therefore|thus|hence|simply|just|exactly|equal to|given by)\b)?"
    rf"|(?:{_FOREIGN})\s{{0,3}}(?:est|es|é|è|ist|lautet|is|是|为|為|は|은|는|है)?\s{{0,3}}[:：—-]?",
    re.IGNORECASE | re.MULTILINE,
)
_OTHER_LABEL = re.compile(r"^[ \t*_]*[B-D][ \t*_]*[:=]", re.MULTILINE)
_NEXT_BLOCK = re.compile(r"\s*(\$\$.*?\$\$|\\\[.*?\\\]|[^\n]+)", re.DOTALL)
_TEXT = re.compile(r"\\[a-z]+\s?\{[^{}]*\}")
_RELATIONS = frozenset(["<", ">", "<=", ">=", "!=", "≤", "≥", "≠", "≈", "~", "not", "than"])
_OPERATORS = _RELATIONS | frozenset("+-*/×·÷^±−")
# Matches the subject of "The largest number of points is 19."
_SUBJECT = re.compile(
    r"the\b[^.!?;,]{1,300}\b(?:is|are|was|equals)\s+(?:equal to\s+)?", re.IGNORECASE
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,} [A-Za-z]{2,}")
# The longest line that may follow an announcement, and the most characters that are searched for a
# number.
_MAX_LINE, _MAX_TAIL = 4000, 20_000


def extract_answer(text: str, options: GradingOptions = DEFAULT) -> str | None:
    r"""Returns the final answer in a response, or None. It never looks into the chain of thought.

    It takes the first of these that the text has, and the last place of that kind: the content of
    `<answer>` (if several blocks differ, are nested or are not closed, there is no answer);
    `\boxed{...}`; the text after "####"; the text after "A:", "Answer:" or "the answer is", on
    that line or the next; the last formula or number with everything written together with it.
    Inside `<answer>`, it looks only for a box or an announcement; otherwise the whole content is
    the answer, so two numbers are no answer. Takes time linear in the length of the text.

    Args:
      text: the whole response.
      options: the conventions of grading.
    """
    visible = after_chain(text)
    if _ANSWER_TAG.search(visible):
        blocks = _answer_blocks(visible)
        if len(blocks) != 1:
            return None
        block = blocks.pop()
        answer = _marked(block, options)
        if answer is None and options.prose_in_tags:
            answer = only_number(block) if len(mathematics(block[:_MAX_TAIL])) == 1 else None
        return answer or unwrap(block) or None
    answer = _marked(visible, options)
    if answer is None:
        answer = _last_mathematics(visible)
    return answer


def _answer_blocks(text):
    """Returns the contents of the answer blocks; none if a block is nested or never closed."""
    blocks, start = set(), None
    for tag in _ANSWER_TAG.finditer(text):
        if tag.group() == "<answer>":
            if start is not None:
                return set()
            start = tag.end()
        elif start is not None:
            blocks.add(text[start : tag.start()].strip())
            start = None
    return blocks if start is None else set()


def last_boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{...}` with balanced braces.

    Of nested boxes, the outermost one counts.
    """
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]].strip() if boxes else None


def _boxes(text):
    """Returns (start, start of content, end of content) of the outermost boxes, in order."""
    boxes, opened = [], []
    for match in _BOX_OR_BRACE.finditer(text):
        token = match.group()
        if token[-1] == "{" and (token[0] != "\\" or "box" in token):
            opened.append((match.start(), match.end()) if "box" in token else None)
        elif token == "}" and opened:
            start = opened.pop()
            if start is not None:
                while boxes and boxes[-1][0] > start[0]:
                    boxes.pop()  # The popped box stood inside this one.
                boxes.append((*start, match.start()))
    return boxes


def _boxed(text, options):
    """Returns the boxed answer: the last box, or the list of all boxes that are joined to it."""
    boxes = _boxes(text)
    if not boxes:
        return None
    contents = [text[boxes[-1][1] : boxes[-1][2]].strip()]
    for earlier, later in zip(boxes[-2::-1], boxes[:0:-1]):
        between = text[earlier[2] + 1 : later[0]]
        if options.boxes == "last" or len(between) > 40 or not _JOINT.fullmatch(between):
            break
        if not _JOINS.search(between):
            break
        contents.insert(0, text[earlier[1] : earlier[2]].strip())
    # "15 39/40, or 639/40" in two boxes is one number in two spellings.
    found = [parse_quantity(canonical(content)) for content in contents]
    quantities = [quantity for quantity in found if quantity is not None]
    if len(contents) > 1 and len(quantities) == len(found):
        if len({(each.value, each.percent, each.unit, each.base) for each in quantities}) == 1:
            return contents[-1]
    return ", ".join(dict.fromkeys(contents))


def _marked(text, options):
    """Returns the answer that is marked as such, or None."""
    for find in (
        lambda: _boxed(text, options),
        lambda: _behind_hashes(text),
        lambda: _announced(text),
    ):
        answer = find()
        if answer is not None:
            return unwrap(answer) or None
    return None


def _behind_hashes(text):
    last = None
    for match in _HASHES.finditer(text):
        last = match
    if last is None or len(last[1]) > _MAX_LINE:
        return None
    content = unwrap(last[1])
    followed = text[last.end() :].strip()
    if _ANNOUNCED.search(content) or (_STEP.match(content) and (followed or ":" in content)):
        return None
    if followed and re.search("[A-Za-z]{3}", content) and re.search(r"\w", followed):
        return None  # It is a heading.
    return _reduced(content)


def _announced(text):
    last = None
    for match in _ANNOUNCED.finditer(text):
        if match["colon"] and not _is_announcement(match, text):
            continue
        last = match
    if last is None:
        return None
    end = text.find("\n", last.end())
    content = text[last.end() : end if end >= 0 else len(text)].strip()
    if len(content) > _MAX_LINE:
        return content
    if not content.strip(" \t*_:"):
        block = _NEXT_BLOCK.match(text, last.end() if end < 0 else end)
        content = block[1][:_MAX_LINE] if block else ""
    return _reduced(content.strip()) or None


def _is_announcement(match, text):
    """Says whether a match announces an answer.

    "A: 5" does; "a: 5", "A = 5" and a list of "A: 5", "B: 3" do not.
    """
    if match["head"].lower() != "a":
        return True
    return match["head"] == "A" and match["colon"] != "=" and not _OTHER_LABEL.search(text)


def _reduced(content):
    """Returns an answer without the words that only explain it."""
    subject = _SUBJECT.match(content)
    if subject:
        content = content[subject.end() :]
    sentence = first_sentence(content)
    rest = content[len(first_sentence(content)) :]
    if re.search(r"\b(?:or|wait|actually|correction|no)\b", rest[:60], re.IGNORECASE):
        sentence = content
    answer = unwrap(without_clause(sentence))
    words = _TEXT.sub("", answer)
    if parse_quantity(answer) is None and _PROSE.search(words):
        return only_number(answer) or answer
    return answer


def _last_mathematics(text):
    """Returns the last formula or number; the last formula if the text has no number."""
    tail = text[-_MAX_TAIL:]
    found = mathematics(tail)
    with_digits = [piece for piece in found if any(c.isdigit() for c in piece)]
    answer = (with_digits or found)[-1:]
    if not answer:
        return None
    before = tail[: tail.rfind(answer[0])].split()[-8:]
    return unwrap(_with_operators(before, answer[0])) or None


def _with_operators(before, answer):
    """Returns a number with the signs and numbers before it: "x > 5" is not the answer 5."""
    taken = [answer]
    while before and before[-1] in _OPERATORS and (len(before) > 1 or before[-1] in _RELATIONS):
        if before[-1] not in _RELATIONS and not any(c.isdigit() for c in before[-2]):
            break  # The sign is a dash.
        taken = [*before[-2:], *taken]
        before = before[:-2]
    return " ".join(taken)
