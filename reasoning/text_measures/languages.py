"""Measures whether a chain of thought is in the language of its question.

Only words of natural language count: no LaTeX, symbols, single letters, function names, units,
code, names or short quotations. If the task of the problem has word lists, a word belongs to the
language whose list contains it. Otherwise a word belongs to the question's language if it is in the
same script, so languages with the same script (such as English and German) count as one.

Chinese and Japanese share characters. Japanese prose mixes them with kana, which Chinese does not
have. So a sentence of many characters without kana is not Japanese, and one with kana is not
Chinese. A question of characters alone may be in either language, unless one of its characters
exists in only one of them.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

from reasoning.problem import Problem
from reasoning.scripts import LETTER, LETTERS_PER_WORD, runs_by_script
from reasoning.tasks import vocabularies_of
from reasoning.text_measures.markup import parts_of
from reasoning.words import vocabulary_share

# Script -> codes of the languages that are recognized by it. A problem's metadata may name them.
_SCRIPT_OF_LANGUAGE = {
    "chinese": ["zh"], "japanese": ["ja"], "hangul": ["ko"],
    "latin": "en de fr es it pt nl sv da no fi pl cs ro hu tr vi id ms sw ca hr sk sl et lv lt"
             .split(),
    "cyrillic": "ru uk bg be mk kk".split(), "greek": ["el"], "hebrew": ["he"],
    "arabic": "ar fa ur ps".split(), "devanagari": "hi mr ne".split(), "bengali": "bn as".split(),
    "tamil": ["ta"], "telugu": ["te"], "kannada": ["kn"], "malayalam": ["ml"], "gujarati": ["gu"],
    "gurmukhi": ["pa"], "sinhala": ["si"], "thai": ["th"], "lao": ["lo"], "khmer": ["km"],
    "myanmar": ["my"], "georgian": ["ka"], "armenian": ["hy"], "ethiopic": ["am"],
}  # fmt: skip
_NAMED = {code: script for script, codes in _SCRIPT_OF_LANGUAGE.items() for code in codes}
# Scripts with capitals. A capital marks a name.
_CASED = ("latin", "cyrillic", "greek", "armenian")

_TAG = re.compile(r"</?(?:think|answer)>")
_WORD = re.compile(rf"(?:{LETTER})+")
_SENTENCE_END = re.compile(r"[\n。．！？!?;；]|\.(?=\s|$)")
_FULLWIDTH = re.compile(r"[\uff21-\uff3a\uff41-\uff5a]")
# These pairs of Latin letters are words; other pairs are symbols or units.
_SHORT_WORDS = frozenset(
    "am an as at be by do go he if in is it me my no of on or so to up us we".split()
)
_SYMBOLS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log exp max min sup inf lim mod"
    " det gcd lcm gcf hcf sgn deg arg dim ker sqrt abs rad mol kcal kwh mph kmh km cm mm kg mg ml"
    " iff qed".split()
)
# Characters that stand before or after a word in a formula.
_BEFORE_SYMBOL, _AFTER_SYMBOL = frozenset("0123456789_\\^=+*"), frozenset("0123456789_^=+*(")
_LONGEST_NAME = 3  # words
_LONGEST_QUOTE = 5
# Five words with only blanks between them are prose; four may be code, such as `for x in y`.
_PROSE_IN_CODE = re.compile(r"[^\W\d_]+(?: [^\W\d_]+){4,}")
_TEXT_IN_LATEX = re.compile(r"\\(?:text\w*|mbox)\s?\{([^{}]*)\}")
# Chinese words of one character that Japanese hardly uses, although its standard has them.
_CHINESE_WORDS = frozenset("嗎麼這們沒裡呢吧你妳她您很")
_JAPANESE_SENTENCE = 8  # so many characters without kana are no Japanese sentence
_MIX = 4  # the most characters for each kana in Japanese; most texts have fewer than one


def consistency(text: str, problem: Problem) -> float | None:
    """Returns the share of a text's words that are in the language of the problem's question.

    The language is the `language` in the metadata (a code such as "en" or "zh"), or else the
    language of the question. The result is None if no word shows a language. DeepSeek-R1
    (arXiv:2501.12948, 2.3.2) uses this share as a reward.
    """
    language = problem.metadata.get("language")
    vocabularies = vocabularies_of(problem.task)
    if vocabularies and language is not None and language in vocabularies:
        return vocabulary_share(text, language, vocabularies)
    code = str(language or "").lower().partition("-")[0].partition("_")[0]
    script = _NAMED.get(code) or _script_of_question(problem.question)
    if script is None:
        return None
    known = frozenset(word.casefold() for word in _WORD.findall(problem.question))
    sentences = _sentences(text)
    if script == "han":
        shares = [script_share(sentences, each, known) for each in ("chinese", "japanese")]
        return max((share for share in shares if share is not None), default=None)
    return script_share(sentences, script, known)


@dataclasses.dataclass(frozen=True)
class _Word:
    """A run of letters of one script in a sentence.

    Attributes:
      size: the number of words it counts for; in scripts without spaces it is a stretch of text.
      is_quoted: whether it stands in a short quotation.
    """

    text: str
    script: str
    size: int
    is_quoted: bool


def script_share(
    sentences: Sequence[Sequence[_Word]], script: str, known: frozenset[str]
) -> float | None:
    """Returns the share of words that are in a script; None if there are no words.

    Names, short quotations and words of the question do not count as foreign, as long as they are
    no more than the words in the script itself.

    Args:
      sentences: the words of each sentence.
      script: the name of the script, or "chinese" or "japanese".
      known: the words of the question, casefolded.
    """
    native = foreign = excused = 0
    for words, is_native in zip(sentences, _natives(sentences, script), strict=True):
        others: list[_Word] = []
        for word, at_home in zip(words, is_native, strict=True):
            if not at_home:
                others.append(word)
                continue
            native += 0 if word.is_quoted else word.size
            more = _excused(others, known)
            excused, foreign = excused + more, foreign + sum(w.size for w in others) - more
            others = []
        more = _excused(others, known)
        excused, foreign = excused + more, foreign + sum(w.size for w in others) - more
    foreign += max(0, excused - native)
    return native / (native + foreign) if native + foreign else None


def _excused(words: Sequence[_Word], known: frozenset[str]) -> int:
    """Returns how many of these consecutive words in another script do not count as foreign."""
    names = len(words) <= _LONGEST_NAME and all(_is_name(word) for word in words)
    return sum(
        word.size for word in words if names or word.is_quoted or word.text.casefold() in known
    )


def _is_name(word):
    return word.is_quoted or (word.script in _CASED and word.text[0].isupper())


def _natives(sentences, script):
    """Says of each word in each sentence whether it is in the script or language."""
    if script not in ("chinese", "japanese"):
        return [[word.script == script for word in words] for words in sentences]
    counts = [_letters(words) for words in sentences]
    if script == "chinese":
        # All characters of a Japanese sentence count as foreign.
        scripts = [
            ("han", "bopomofo") if kana < 3 or kana < 0.15 * (kana + han) else ()
            for kana, han in counts
        ]
        return [
            [word.script in own for word in words]
            for words, own in zip(sentences, scripts, strict=True)
        ]
    is_japanese = [
        not _only_in(words, "gb2312", "cp932") and (kana or han < _JAPANESE_SENTENCE)
        for words, (kana, han) in zip(sentences, counts, strict=True)
    ]
    all_kana = sum(kana for kana, _ in counts)
    allowed = max(3, _MIX * all_kana)
    natives = []
    for words, japanese in zip(sentences, is_japanese, strict=True):
        of_sentence = []
        for word in words:
            own = word.script == "kana"
            if word.script == "han" and japanese:
                own = word.size <= allowed
                allowed -= word.size
            of_sentence.append(own)
        natives.append(of_sentence)
    return natives


def _letters(words):
    """Returns the number of kana letters and the number of han letters."""
    return tuple(sum(w.size for w in words if w.script == script) for script in ("kana", "han"))


def _only_in(words, encoding, other):
    """Says whether any character exists in one country's standard and not in the other's."""
    return any(
        _encodes(c, encoding) and not _encodes(c, other)
        for word in words
        if word.script == "han"
        for c in word.text
    )


@functools.lru_cache(maxsize=16384)
def _encodes(character, encoding):
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _script_of_question(question: str) -> str | None:
    """Returns the script of most of a question, or "chinese" or "japanese" if that is clear."""
    words = [word for sentence in _sentences(question) for word in sentence]
    words = [word for word in words if not word.is_quoted] or words
    counts: dict[str, float] = {}
    for word in words:
        script = "han" if word.script in ("kana", "bopomofo") else word.script
        weight = 0.5 if script == "han" else 1  # a Chinese word has about two characters
        counts[script] = counts.get(script, 0) + weight * word.size
    if not counts:
        return None
    script = max(counts, key=lambda each: counts[each])
    if script != "han":
        return script
    kana, han = _letters(words)
    is_chinese = _only_in(words, "gb2312", "cp932") or any(
        _CHINESE_WORDS.intersection(word.text) for word in words
    )
    if kana >= 0.2 * (kana + han) or (kana and not is_chinese):
        return "japanese"
    if is_chinese:
        return "chinese"
    # Japan simplified some characters in another way than China, and made some of its own.
    reformed = any(
        not _encodes(c, "gb2312") and not _encodes(c, "big5") and _encodes(c, "cp932")
        for word in words
        if word.script == "han"
        for c in word.text
    )
    return "japanese" if reformed else "han"


def _sentences(text: str) -> list[list[_Word]]:
    """Returns the natural-language words of each sentence."""
    text = _FULLWIDTH.sub(lambda match: chr(ord(match[0]) - 0xFEE0), _TAG.sub(" ", text))
    sentences: list[list[_Word]] = [[]]
    for part in parts_of(text):
        for number, piece in enumerate(_SENTENCE_END.split(part.text)):
            if number:
                sentences.append([])
            sentences[-1] += _words_of_part(part.kind, piece)
    return [words for words in sentences if words]


def _words_of_part(kind: str, text: str) -> list[_Word]:
    if kind == "prose":
        return list(_words(text))
    # Code counts only where it reads as prose (a comment, say); LaTeX where it sets text.
    if kind == "code":
        text = " | ".join(_PROSE_IN_CODE.findall(text))
    elif kind == "latex":
        text = " | ".join(_TEXT_IN_LATEX.findall(text))
    words = list(_words(text))
    length = sum(word.size / LETTERS_PER_WORD.get(word.script, 1) for word in words)
    if kind != "code" and length > _LONGEST_QUOTE:
        return words
    return [dataclasses.replace(word, is_quoted=True) for word in words]


def _words(text: str):
    for match in _WORD.finditer(text):
        before = text[match.start() - 1 : match.start()]
        after = text[match.end() : match.end() + 1]
        in_formula = before in _BEFORE_SYMBOL or after in _AFTER_SYMBOL
        for script, letters in runs_by_script(match[0]):
            word = "".join(letters)
            if script in LETTERS_PER_WORD:
                # In Chinese and Japanese, each character counts as a word.
                length = 1 if script in ("han", "kana") else LETTERS_PER_WORD[script]
                yield _Word(word, script, -(-len(letters) // length), False)
            elif script and not _is_symbol(word, script, in_formula):
                yield _Word(word, script, 1, False)


def _is_symbol(word: str, script: str, in_formula: bool) -> bool:
    if len(word) == 1 or (script in _CASED and in_formula):
        return True
    if script == "greek":
        return len(word) < 4  # angles and products: αβ, ΔΕΖ
    if script != "latin":
        return False
    short = len(word) == 2 and word.lower() not in _SHORT_WORDS
    return short or word.lower() in _SYMBOLS or (word.isupper() and len(word) <= 4)
