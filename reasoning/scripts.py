"""Which script a letter belongs to, and how texts are cut into words in scripts without spaces."""

import functools
import re
import sys
import unicodedata

# Scripts without spaces between words, and how many letters of theirs are about a word.
LETTERS_PER_WORD = {"han": 2, "kana": 2, "thai": 4, "lao": 4, "khmer": 4, "myanmar": 4}
# Where the first word of a letter's Unicode name is not the name of its script.
_NAMES = {
    "cjk": "han", "ideographic": "han", "hiragana": "kana", "katakana": "kana",
    "katakana-hiragana": "kana",
}  # fmt: skip


def _marks() -> str:
    """Vowel signs and accents that belong to the letter before them, for a class of `re`."""
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
# A letter with its marks. Joiners hold some letters of Indic and Persian words together.
LETTER = rf"[^\W\d_][{MARKS}\u200c\u200d]*"


@functools.lru_cache(maxsize=4096)
def script_of(letter: str) -> str:
    """The script of a letter in lower case, such as "latin", "han", "kana" or "bengali".

    "" for what belongs to none, such as a letter of mathematics.
    """
    name = unicodedata.name(letter, "").partition(" ")[0].lower()
    return "" if name == "mathematical" else _NAMES.get(name, name)


def has_visible(text: str) -> bool:
    """Whether a text shows anything: not only blanks, control and format characters or marks."""
    return any(
        unicodedata.category(c)[0] not in "CZ"
        and unicodedata.category(c) not in ("Mn", "Me")
        and c not in _BLANK_LETTERS
        for c in text
    )


# Letters and signs that are drawn as nothing: Hangul fillers, the empty Braille pattern, Khmer's
# inherent vowels.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5")

_UNSPACED = frozenset(LETTERS_PER_WORD)
_RUN = re.compile(rf"(?:{LETTER})+")
_LETTER = re.compile(LETTER)


def runs_by_script(word: str) -> list[tuple[str, list[str]]]:
    """Cuts a word where the script changes: (script, letters with their marks) of each run."""
    runs: list[tuple[str, list[str]]] = []
    for letter in _LETTER.findall(word):
        script = script_of(letter[0])
        if runs and runs[-1][0] == script:
            runs[-1][1].append(letter)
        else:
            runs.append((script, [letter]))
    return runs
