"""Splits texts into words and runs of words, for measures and filters of text.

The meaning of "word" depends on the script. In scripts with spaces, a word is the text between
spaces. Chinese and Japanese have no spaces: each character counts as a word, so that a repeated
phrase is found at any position. In Thai, Lao, Khmer and Burmese, four letters count as a word.
"""

import re
from collections.abc import Mapping, Sequence

from reasoning.scripts import LETTER, LETTERS_PER_WORD, runs_by_script

# Longer runs of letters are cut into pieces, to detect repetition without spaces. Each digit is a
# word of its own for the same reason.
_LONGEST_WORD = 16
_TOKEN = re.compile(rf"\d|(?:{LETTER})+|[^\w\s]")
_PLAIN = re.compile(r"[\x00-\xff]*")


def words_of(text: str) -> list[str]:
    """Returns a text's words, digits and marks in lower case; long words are cut into pieces."""
    words = []
    for token in _TOKEN.findall(text.lower()):
        if not token[0].isalpha():
            words.append(token)
        elif _PLAIN.fullmatch(token):
            words += _pieces(token, _LONGEST_WORD)
        else:
            for script, letters in runs_by_script(token):
                words += _pieces(letters, _piece_length(script))
    return words


def count_words(text: str) -> float:
    """Returns about how many words a text has; two Chinese or Japanese characters count as one."""
    count = 0.0
    for word in words_of(text):
        script = runs_by_script(word)[0][0] if len(word) == 1 and word.isalpha() else ""
        count += 1 / LETTERS_PER_WORD[script] if script in ("han", "kana") else 1
    return count


def _piece_length(script: str) -> int:
    """Returns the number of letters that count as one word in a script."""
    if script in ("han", "kana"):
        return 1
    return LETTERS_PER_WORD.get(script, _LONGEST_WORD)


def _pieces(letters: Sequence[str], length: int) -> list[str]:
    """Cuts letters into strings of `length` letters; the last one may be shorter."""
    return ["".join(letters[i : i + length]) for i in range(0, len(letters), length)]


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    """Returns all runs of n consecutive words, in order; none if there are fewer words."""
    return list(zip(*(words[i:] for i in range(n))))


def vocabulary_share(
    text: str, language: str, vocabularies: Mapping[str, frozenset[str]]
) -> float | None:
    """Returns the share of a text's known words that are in one language's list.

    Args:
      text: the text.
      language: a key of `vocabularies`.
      vocabularies: language -> its words in lower case. A word is known if it is in any list.

    Returns:
      The share in [0, 1]; None if no word is known.
    """
    words = [word.strip(".,!?").lower() for word in text.split()]
    counts = {
        name: sum(word in vocabulary for word in words) for name, vocabulary in vocabularies.items()
    }
    total = sum(counts.values())
    return counts[language] / total if total else None
