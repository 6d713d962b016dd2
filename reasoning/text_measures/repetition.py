"""Measures how much a text repeats itself, by n-grams of its words.

A word depends on the script. In scripts with spaces it lies between two spaces. Chinese and
Japanese have no spaces, so each character counts as a word, and a phrase is found again wherever it
stands. In Thai, Lao, Khmer and Burmese, four letters count as a word.
"""

from reasoning.words import ngrams, words_of


def repeated_share(text: str, n: int) -> float:
    """Returns 1 - distinct n-grams / n-grams of words; 0 for a text without n-grams."""
    grams = ngrams(words_of(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
