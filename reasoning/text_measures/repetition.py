"""How much of a text repeats itself."""

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


def repeated_share(text: str, n: int) -> float:
    """1 - distinct n-grams / n-grams, of words; 0 for a text without n-grams."""
    grams = ngrams(words_of(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
