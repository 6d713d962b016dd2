"""Finds the script of a letter, and cuts words where the script changes.

`reasoning.words` uses it to count words in scripts with and without spaces.
"""

import functools
import re
import sys
import unicodedata

# Scripts without spaces between words -> about how many letters make a word.
LETTERS_PER_WORD = {"han": 2, "kana": 2, "thai": 4, "lao": 4, "khmer": 4, "myanmar": 4}
# First word of a letter's Unicode name -> its script, where the two differ.
_NAMES = {
    "cjk": "han", "ideographic": "han", "hiragana": "kana", "katakana": "kana",
    "katakana-hiragana": "kana",
}  # fmt: skip


def _marks() -> str:
    """Returns the vowel signs and accents that follow a letter, as ranges for a class of `re`."""
    marks = [
        code for code in range(min(sys.maxunicode, 0xFFFF) + 1)
        if unicodedata.category(chr(code)) in ("Mn", "Mc")
    ]  # fmt: skip
    ranges = []
    for code in marks:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)


MARKS = _marks()
# A letter with its marks. Zero-width joiners occur inside Indic and Persian words.
LETTER = rf"[^\W\d_][{MARKS}\u200c\u200d]*"


@functools.lru_cache(maxsize=4096)
def script_of(letter: str) -> str:
    """Returns the script of a letter in lower case, such as "latin", "han", "kana" or "bengali".

    Returns "" for a letter without a script, such as a mathematical letter.
    """
    name = unicodedata.name(letter, "").partition(" ")[0].lower()
    return "" if name == "mathematical" else _NAMES.get(name, name)


def has_visible(text: str) -> bool:
    """Returns whether a text has a visible character: no blank, control, format sign or mark."""
    return any(
        unicodedata.category(c)[0] not in "CZ"
        and unicodedata.category(c) not in ("Mn", "Me")
        and c not in _BLANK_LETTERS
        for c in text
    )


# Letters and signs without a glyph: Hangul fillers, the empty Braille pattern and Khmer's inherent
# vowels.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5")

_UNSPACED = frozenset(LETTERS_PER_WORD)
_RUN = re.compile(rf"(?:{LETTER})+")
_LETTER = re.compile(LETTER)


def runs_by_script(word: str) -> list[tuple[str, list[str]]]:
    """Cuts a word where the script changes.

    Returns:
      (script, letters with their marks) of each run, in order.
    """
    runs: list[tuple[str, list[str]]] = []
    for letter in _LETTER.findall(word):
        script = script_of(letter[0])
        if runs and runs[-1][0] == script:
            runs[-1][1].append(letter)
        else:
            runs.append((script, [letter]))
    return runs
