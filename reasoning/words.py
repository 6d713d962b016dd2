"""The words of a text and their runs, as measures and filters of text count them."""

import re

# A long run of letters is cut into pieces, so that repetition without spaces is seen too. Digits
# stand alone for the same reason.
_WORD = re.compile(r"\d|[^\W\d]{1,16}|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words, digits and marks in lower case; words of more than 16 letters in pieces."""
    return _WORD.findall(text.lower())


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order; none where there are fewer words."""
    return list(zip(*(words[i:] for i in range(n))))
