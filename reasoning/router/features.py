"""Features of a query's text: a few counts for rules, and hashed words for knn and linear."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse

# Columns of `hashed_words` and of `counts`.
WIDTH, COUNTS = 4096, 7
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OPERATOR = re.compile(r"(?<=[\w)])\s*[-+*/^=<>%]\s*(?=[\w(])")
_WORD = re.compile(r"[^\W\d_]+")
_CLAUSE = re.compile(r"[,;.!?\n]+")
# Words that ask for several steps, in English; other languages are judged by numbers and clauses.
_REASONING = frozenset(
    "prove derive calculate compute solve explain why how each every total remaining altogether"
    " percent twice half times per average probability implement function program code algorithm"
    " debug schedule compare optimize minimum maximum if then before after than".split()
)
_SMALL_TALK = frozenset(
    "hello hi hey thanks thank bye goodbye morning evening night welcome cheers please yo greetings"
    " salut bonjour hallo hola ciao danke merci".split()
)


@dataclasses.dataclass(frozen=True)
class Surface:
    """Counts that are read off a query.

    Attributes:
      words: words.
      numbers: numbers.
      operators: mathematical operators between two operands.
      clauses: parts between marks of punctuation.
      reasoning: different words that ask for several steps.
      small_talk: whether it greets or thanks, and holds no number and few words.
    """

    words: int
    numbers: int
    operators: int
    clauses: int
    reasoning: int
    small_talk: bool

    @property
    def complexity(self) -> float:
        """How many steps the query seems to ask for, from 0 (none) to 1 (very many)."""
        if self.small_talk:
            return 0.0
        steps = (
            0.12 * max(0, self.numbers - 1)
            + 0.12 * self.operators
            + 0.06 * max(0, self.clauses - 1)
            + 0.10 * self.reasoning
            + 0.01 * max(0, self.words - 6)
        )
        return float(1 - np.exp(-steps))

    def vector(self) -> np.ndarray:
        """Returns the counts on a scale of about 1, float64 `[7]`."""
        counts = (self.words, self.numbers, self.operators, self.clauses, self.reasoning)
        return np.array([*np.log1p(counts), self.small_talk, self.complexity], float)


def surface(query: str) -> Surface:
    """Returns the counts of a query."""
    words = [word.casefold() for word in _WORD.findall(query)]
    numbers = len(_NUMBER.findall(query))
    clauses = [part for part in _CLAUSE.split(query) if part.strip()]
    return Surface(
        words=len(words),
        numbers=numbers,
        operators=len(_OPERATOR.findall(query)),
        clauses=len(clauses),
        reasoning=len(_REASONING & set(words)),
        small_talk=bool(_SMALL_TALK & set(words)) and not numbers and len(words) <= 8,
    )


def counts(queries: Sequence[str]) -> np.ndarray:
    """Returns the counts of each query, float64 `[n, 7]`; see `Surface.vector`."""
    return np.stack([surface(query).vector() for query in queries])


def hashed_words(queries: Sequence[str], width: int = WIDTH) -> sparse.csr_matrix:
    """Returns hashed words and word pairs of each query, `[n, width]`, rows of length 1.

    The features need no vocabulary, so a saved router needs none. Numbers count by their length
    only: their values say nothing about difficulty.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # Imported late: it is slow.

    vectorizer = HashingVectorizer(
        n_features=width, ngram_range=(1, 2), alternate_sign=False, token_pattern=r"[^\W_]+|[-+*/=]"
    )
    shown = [_NUMBER.sub(lambda found: "0" * len(found.group()), query) for query in queries]
    return sparse.csr_matrix(vectorizer.transform(shown))
