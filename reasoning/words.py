"""The words of a text and their runs, as measures and filters of text count them.

What a word is depends on the script. In scripts with spaces it is what stands between them. Chinese
and Japanese are written without: there a character counts as a word, so that a phrase is found
again wherever it stands. Of Thai, Lao, Khmer and Burmese four letters do.
"""

import re
from collections.abc import Mapping

from reasoning.scripts import LETTER, LETTERS_PER_WORD, runs_by_script

# A longer run of letters is cut into pieces, so that repetition without spaces is seen too. Digits
# stand alone for the same reason.
_LONGEST_WORD = 16
_TOKEN = re.compile(rf"\d|(?:{LETTER})+|[^\w\s]")
_PLAIN = re.compile(r"[\x00-\xff]*")


def words_of(text: str) -> list[str]:
    """Words, digits and marks in lower case; long words in pieces."""
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
    """About how many words a text has: two characters of Chinese or Japanese make one."""
    count = 0.0
    for word in words_of(text):
        script = runs_by_script(word)[0][0] if len(word) == 1 and word.isalpha() else ""
        count += 1 / LETTERS_PER_WORD[script] if script in ("han", "kana") else 1
    return count


def _piece_length(script):
    if script in ("han", "kana"):
        return 1
    return LETTERS_PER_WORD.get(script, _LONGEST_WORD)


def _pieces(letters, length):
    return ["".join(letters[i : i + length]) for i in range(0, len(letters), length)]


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order; none where there are fewer words."""
    return list(zip(*(words[i:] for i in range(n))))


def vocabulary_share(
    text: str, language: str, vocabularies: Mapping[str, frozenset[str]]
) -> float | None:
    """Share of the text's words that are in one language's list, among those in any list.

    Args:
      vocabularies: Words in lower case by language.

    Returns:
      None where no word is in a list.
    """
    words = [word.strip(".,!?").lower() for word in text.split()]
    counts = {
        name: sum(word in vocabulary for word in words) for name, vocabulary in vocabularies.items()
    }
    total = sum(counts.values())
    return counts[language] / total if total else None
