"""Finds the answer in a sentence: cuts off explaining clauses, or takes the only number."""

import re

# Matches the start of a clause that explains an answer and is no part of it.
_CLAUSE = re.compile(
    r",?\s+(?:which|because|since|where|as|so|thus|hence|therefore|that|i\.e\.|namely|meaning|giving"
    r"|making|obtained|assuming|when|while|rather than|instead of|in total|in all|altogether"
    r"|and (?:so|thus|therefore|hence|not))\b"
    r"|,\s+(?:not|in|with|after|based|given|the|it|he|she|they|we|this|these|from|using|counting"
    r"|including|rounded|exactly|just|only|is|are|was|were|being|an|for (?:a|the|both))\b"
    r"|\s+[–—-]\s+(?=[A-Za-z]{2})|;\s+(?=.*[A-Za-z]{3})|(?:(?<=\s)|(?<=\$))\((?=[^()]*[A-Za-z]{2})",
    re.IGNORECASE,
)
# Matches words that take the answer back or offer another one.
_HEDGE = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|alternatively|either|unless|though|however|but|if|except"
    r"|wrong|incorrect|mistake|actually|correction|wait|otherwise)\b",
    re.IGNORECASE,
)
_CHANGED = re.compile(
    r"\b(?:not|no|never|than|or|either|between|least|most|over|under|about|almost|nearly|around"
    r"|approximately|roughly|except|minus|half|halves|twice|double|triple|times|dozens?|hundreds?"
    r"|thousands?|millions?|billions?|lakhs?|thirds?|quarters?|fourths?|fifths?|tenths?|squared"
    r"|cubed|factorial|negative|percent|up to|maximum|minimum|unknown|wrong|incorrect|and|to"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|per|each other)\b"
    r"|n't\b|[<>≤≥±]",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\.(?:\s|$)|[!?]\s|。|！|।")
_DISPLAY = re.compile(r"(?<!\\)\\[\[\]]")
_ABBREVIATION = re.compile(r"(?<![A-Za-z])(?:Rs|vs|No|approx|e\.g|i\.e)$")
# Matches a formula between dollar signs or \( \). "$18 a day for $5" is money and no formula.
_FORMULA = (
    r"\$\$[^$]+\$\$"
    r"|(?<![\\\w$])\$(?=[^\s$])(?:[^$\n]|\\\$){0,300}?(?<=[^\s\\])\$(?!\d)"
    r"|(?<![\\\w$])\$[ ][^$\n]{0,300}?\\[A-Za-z][^$\n]{0,300}?\$(?!\d)"
    r"|\\\(.{1,300}?\\\)|\\\[(?:.|\n){1,600}?\\\]"
)
_MATH = re.compile(rf"(?P<formula>{_FORMULA})|(?P<word>[^\s$]+|\$)")
# Matches the fraction of a mixed number, as in "2 1/2 cups".
_FRACTION = re.compile(r"\s(\d{1,4}/\d{1,4})(?![\w/])")
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+[A-Za-z]{2,}")


def first_sentence(text: str) -> str:
    """Returns the text up to the end of its first sentence.

    A decimal point or an abbreviation is no end.
    """
    for match in _SENTENCE_END.finditer(text):
        before = text[: match.start()]
        if _ABBREVIATION.search(before):
            continue
        in_formula = before.count("$") % 2 and not text.count("$") % 2  # otherwise it is money
        in_formula = in_formula or len(_DISPLAY.findall(before)) % 2 == 1
        if not in_formula and before.count("{") == before.count("}"):
            return before
    return text


def without_clause(text: str) -> str:
    """Returns an announced answer without the clause that explains it.

    "72, which is the total" is 72. If the clause takes the answer back or offers another one, it
    stays, so that the text is no answer.
    """
    for match in _CLAUSE.finditer(text):
        before, clause = text[: match.start()], text[match.start() :]
        if not before.strip() or before.count("{") != before.count("}"):
            continue
        opened = before.count("(") + before.count("[") - before.count(")") - before.count("]")
        in_formula = before.count("$") % 2 and not text.count("$") % 2  # otherwise it is money
        if in_formula or opened > 0:
            continue
        if _HEDGE.search(clause):
            return text
        return before
    return text


def only_number(sentence: str) -> str | None:
    """Returns the only number or formula of a sentence, or None if there is no single one.

    The result is also None if a word of the sentence changes the number.
    """
    found = mathematics(sentence)
    if len(found) != 1 or _CHANGED.search(sentence.replace(found[0], " ")):
        return None
    return found[0]


def mathematics(text: str) -> list[str]:
    """Returns the formulas and numbers of a text, in order.

    A number includes everything that is written together with it.
    """
    found, end = [], 0
    pieces = list(_pieces(text))
    for start, piece, is_formula in pieces:
        if start < end:
            continue
        end = start + len(piece)
        if is_formula:
            found.append(piece)
        elif any(c.isdigit() for c in piece):
            fraction = _FRACTION.match(text, end)
            if fraction and piece.lstrip("+-−").isdigit():
                piece, end = f"{piece} {fraction[1]}", fraction.end()
            found.append(_trimmed(piece))
    return [piece for piece in found if piece]


def _pieces(text):
    """Yields (start, text, whether it is a formula) for all formulas and other words."""
    word_start, word_end = 0, -1
    for match in _MATH.finditer(text):
        piece = match.group()
        words = re.sub(r"\\[a-z]+\s*\{[^{}]*\}", "", piece)
        if match["formula"] and not _PLAIN_WORD.search(words):
            if word_end >= 0:
                yield word_start, text[word_start:word_end], False
                word_end = -1
            yield match.start(), piece, True
            continue
        # These are words: two amounts of money with words between them look like a formula.
        for word in re.finditer(r"\S+", piece):
            start, end = match.start() + word.start(), match.start() + word.end()
            if word_end == start:
                word_end = end
                continue
            if word_end >= 0:
                yield word_start, text[word_start:word_end], False
            word_start, word_end = start, end
    if word_end >= 0:
        yield word_start, text[word_start:word_end], False


def _trimmed(piece):
    """Returns a number without the punctuation and the brackets around it."""
    before = None
    while piece != before:
        before = piece
        if piece.startswith(("**", "__")):
            piece = piece[2:]
        piece = piece.rstrip(",;:!?.。，、\"'`*_")
        piece = piece.lstrip(",;:!?。，、\"'`*_#~=")
        for opening, closing in ("()", "[]", "{}"):
            if piece.startswith(opening) and piece.count(opening) > piece.count(closing):
                piece = piece[1:]
            if piece.endswith(closing) and piece.count(closing) > piece.count(opening):
                piece = piece[:-1]
    return piece
