"""Reads answers in words: names, choices, "no solution"."""

import re

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_TOKEN = re.compile(r"[^\W_]+|[^\s\w.,!\"()\[\]{}]|_")
_JOINED = re.compile(r"\s*(?:,|;|&|\band\b)\s*(?:and\b\s*)?")
# Matches a word, a \text{...} or a choice. Letters that are a run of the alphabet ("abc") or have
# no vowel are a product of variables.
_WORDS = re.compile(
    r"\\text\{[^{}]*\}|\(?[A-Za-z]\)?|[A-Za-z]{3}[A-Za-z0-9 ,'-]*"
    r"|[A-Za-z]-[A-Za-z]{3,}|[A-Za-z]{2,3}|(?=.*[^\x00-\x7f])[^\W\d_][^\W\d_ ,]*"
)
_LETTER = re.compile(r"(?:\\text\{)?(?:\(([A-Za-z])\)|([A-Za-z]))\}?")
_CHOICE = re.compile(
    r"(?:(?:option|choice)\s)?(?:\\text\{)?(?:(?:option|choice)\s)?[\[({]?([A-Za-z])[\])}.:]{0,2}\}?",
    re.IGNORECASE,
)
_LABELLED = re.compile(r"(?:\\text\{)?\(?([A-Z])[).:]\}?\s?(.+)")
_OTHER_CHOICE = re.compile(
    r"(?<![A-Za-z])[A-Z](?![A-Za-z])|\b(?:or|and|not|nor|but)\b|[=<>?]", re.IGNORECASE
)
_SHORT_WORDS = frozenset("no yes up on in am pm".split())
# Maps spellings to their meaning.
_MEANINGS = {
    "no solution exist": "no solution",
    "there is no solution": "no solution",
    "there are no solution": "no solution", "doe not exist": "does not exist",
    "dne": "does not exist", "all real number": "all real numbers", "all real": "all real numbers",
    "all real x": "all real numbers", "infinitely many solution": "infinitely many",
    "infinite solution": "infinitely many",
}  # fmt: skip


def is_text(text: str) -> bool:
    """Says whether a canonical reference is words (or a single letter) and not mathematics."""
    if has_meaning(text):
        return True
    if not _WORDS.fullmatch(text):
        return False
    if "\\" in text or not text.isascii():
        return True
    letters = text.strip("()")
    if len(letters) == 2:
        return letters.lower() in _SHORT_WORDS
    return not _is_product(letters)


def _is_product(letters):
    if not letters.isalpha() or not letters.islower() or not 3 <= len(letters) <= 5:
        return False
    codes = sorted(map(ord, letters))
    if len(set(codes)) < len(codes):
        return False
    run = codes[-1] - codes[0] == len(codes) - 1
    return run or not set(letters) & set("aeiouy")


def has_meaning(text: str) -> bool:
    """Says whether a text is one of the phrases that have several spellings."""
    return meaning(text) in _MEANINGS.values()


def meaning(text: str) -> str:
    """Returns the words in lower case and singular, without punctuation that changes nothing."""
    text = _TEXT.sub(r" \1 ", text).replace("$", "")
    text = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", " ", text)
    words = [_singular(token) for token in _TOKEN.findall(text.lower())]
    if len(words) > 1 and words[0] in ("the", "a", "an"):
        words = words[1:]
    if len(words) == 2 and words[0] in ("option", "choice") and len(words[1]) == 1:
        words = words[1:]
    joined = " ".join(words)
    return _MEANINGS.get(joined, joined)


def same_words(expected: str, given: str) -> bool:
    """Says whether two texts have the same words; lists ("Alice and Bob") may be in any order."""
    letter = _LETTER.fullmatch(expected)
    if letter:
        return _same_letter(letter[1] or letter[2], bool(letter[1]), given)
    if meaning(expected) == meaning(given):
        return True
    if re.search(r"[\[(]", given) and not re.search(r"[\[(]", expected) and "," in given:
        return False  # An ordered pair is no list.
    lists = [_list(text) for text in (expected, given)]
    return len(lists[0]) > 1 and lists[0] == lists[1]


def _same_letter(letter, enclosed, given):
    """Says whether an answer is a choice or a variable: (C) and [C] are C, but n! is not n."""
    other = _CHOICE.fullmatch(given)
    labelled = _LABELLED.fullmatch(given)
    if letter.isupper() and labelled and not _OTHER_CHOICE.search(labelled[2]):
        return labelled[1] == letter  # "(C) 42"
    if not other:
        return False
    if letter.islower() and not enclosed:
        return _LETTER.fullmatch(given) is not None and other[1] == letter
    return other[1].lower() == letter.lower()


def _list(text):
    text = _TEXT.sub(r" \1 ", text).replace(r"\{", "").replace(r"\}", "")
    return sorted(meaning(part) for part in _JOINED.split(text.lower()) if part.strip())


def _singular(word):
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
