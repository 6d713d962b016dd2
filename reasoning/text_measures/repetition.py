"""How much of a text repeats itself."""

from reasoning.words import ngrams, words_of


def repeated_share(text: str, n: int) -> float:
    """1 - distinct n-grams / n-grams, of words; 0 for a text without n-grams."""
    grams = ngrams(words_of(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
