"""Which language a chain of thought is in: by vocabulary in the tiny world, else by script."""

import re
import unicodedata

from reasoning.problem import Problem
from reasoning.tiny_world import language as tiny

# Script of a letter, from the first word of its Unicode name. Languages of one script (English and
# German, say) are told apart in the tiny world only.
_SCRIPTS = {
    "LATIN": "latin", "CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana", "HANGUL": "hangul",
    "CYRILLIC": "cyrillic", "ARABIC": "arabic", "GREEK": "greek", "HEBREW": "hebrew",
    "DEVANAGARI": "devanagari", "THAI": "thai",
}  # fmt: skip
# Scripts without spaces between words: each of their letters counts as a word.
_UNSPACED = ("han", "kana", "thai")
# Japanese is written in both.
_ACCEPTED = {"kana": ("kana", "han")}
_WORD = re.compile(r"[^\W\d_]+")
_TAG = re.compile(r"</?(?:think|answer)>")


def consistency(text: str, problem: Problem) -> float | None:
    """Share of the text's words that are in the language of the problem's question.

    In the tiny world by the vocabularies of its languages; elsewhere a word is of the question's
    language if it is in the script that most of the question's words are in. None where no word
    tells.
    """
    language = problem.metadata.get("language")
    if problem.task.startswith("tiny_") and language in tiny.LANGUAGES:
        return tiny.consistency(text, language)
    asked = script_counts(problem.question)
    counts = script_counts(_TAG.sub(" ", text))
    if not asked or not counts:
        return None
    script = "kana" if "kana" in asked else max(asked, key=asked.get)
    accepted = _ACCEPTED.get(script, (script,))
    return sum(counts.get(each, 0) for each in accepted) / sum(counts.values())


def script_counts(text: str) -> dict[str, int]:
    """Words by script; words of scripts that are not known here are left out."""
    counts: dict[str, int] = {}
    for word in _WORD.findall(text):
        for script, letters in _runs(word):
            counts[script] = counts.get(script, 0) + (letters if script in _UNSPACED else 1)
    return counts


def _runs(word: str) -> list[tuple[str, int]]:
    """Runs of letters of one script, (script, length)."""
    runs: list[tuple[str, int]] = []
    for letter in word:
        script = _SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0])
        if script is None:
            continue
        if runs and runs[-1][0] == script:
            runs[-1] = (script, runs[-1][1] + 1)
        else:
            runs.append((script, 1))
    return runs
