"""How much of a text repeats itself, by n-grams of its words.

What a word is depends on the script. In scripts with spaces it is what stands between them. Chinese
and Japanese are written without: there a character counts as a word, so that a phrase is found
again wherever it stands. Of Thai, Lao, Khmer and Burmese four letters do.
"""

from reasoning.words import ngrams, words_of


def repeated_share(text: str, n: int) -> float:
    """1 - distinct n-grams / n-grams, of words; 0 for a text without n-grams."""
    grams = ngrams(words_of(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
