"""Selects sampled responses to train on: they must be right, readable, in one language and new.

From its rejection samples, DeepSeek-R1 (arXiv:2501.12948, 2.3.1 and 2.3.3) keeps the right ones and
drops chains with mixed languages, long paragraphs or code blocks. Texts that share n-grams with the
evaluation are dropped too (appendix of that paper; GPT-3, arXiv:2005.14165, appendix C).
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from reasoning.problem import Problem
from reasoning.response import parse_response, without_opening
from reasoning.text_measures.languages import consistency
from reasoning.text_measures.repetition import repeated_share
from reasoning.words import count_words, ngrams, words_of

NO_FORMAT = "not well formed"


@dataclasses.dataclass(frozen=True)
class Readability:
    """The limits that a readable chain of thought must keep.

    Attributes:
      min_lines, max_lines: the number of lines that are not blank; min_lines=0 accepts answers
        without a chain.
      max_line_words: the words of the longest line; a longer line is a paragraph that is hard to
        follow.
      max_repeated: the share of 8-grams that may be repeated.
      min_consistency: the share of words that must be in the question's language.
    """

    min_lines: int = 1
    max_lines: int = 200
    max_line_words: int = 80
    max_repeated: float = 0.3
    min_consistency: float = 1.0

    def fault(self, response: str, problem: Problem) -> str | None:
        """Says in words why a response is not readable; returns None if it is readable."""
        parsed = parse_response(response)
        if not parsed.well_formed or parsed.chain is None:
            return NO_FORMAT
        lines = [line for line in parsed.chain.splitlines() if line.strip()]
        if len(lines) < self.min_lines:
            return "chain too short"
        if len(lines) > self.max_lines or any(
            count_words(line) > self.max_line_words for line in lines
        ):
            return "chain or paragraph too long"
        if "```" in parsed.chain:
            return "code block in the chain"
        if any(not c.isprintable() and not c.isspace() for c in response) or "\ufffd" in response:
            return "unprintable characters"
        if repeated_share(parsed.chain, 8) > self.max_repeated:
            return "repetitive"
        share = consistency(parsed.chain, problem)
        if share is not None and share < self.min_consistency:
            return "mixed languages"
        return None


class Decontaminator:
    """Finds texts that share n words in a row with the evaluation.

    `reasoning.words.words_of` says what a word is. An evaluation text of fewer than n words must
    occur as a whole.

    Args:
      texts: the questions of the evaluation, and its reference solutions if there are any.
      n: the number of words in a row.

    Raises:
      ValueError: `n` is below 1.
    """

    def __init__(self, texts: Iterable[str], n: int = 13):
        if n < 1:
            raise ValueError(
                f"decontamination by n-grams of n={n} words finds nothing: give at least 1"
            )
        self._grams: dict[int, set[tuple[str, ...]]] = collections.defaultdict(set)
        for text in texts:
            words = words_of(text)
            length = min(n, len(words))
            if length:
                self._grams[length].update(ngrams(words, length))

    def shared(self, text: str) -> str | None:
        """Returns words that a text shares with the evaluation, or None for a clean text."""
        words = words_of(text)
        for length, held_out in self._grams.items():
            for gram in ngrams(words, length):
                if gram in held_out:
                    return " ".join(gram)
        return None


class Deduplicator:
    """Remembers responses by their words, so case, blanks and line ends make no difference.

    Args:
      max_overlap: of two responses to one question, the second is a duplicate if the Jaccard index
        of their sets of 5-grams exceeds this. With 1, only responses with the same words are
        duplicates.
    """

    def __init__(self, max_overlap: float = 0.9):
        self._max_overlap = max_overlap
        self._seen: dict[tuple[str, ...], list[tuple[tuple[str, ...], frozenset]]] = {}

    def is_new(self, question: str, response: str) -> bool:
        """Says whether a response is no duplicate. If so, the response is remembered."""
        earlier = self._seen.setdefault(tuple(words_of(question)), [])
        words = words_of(response)
        grams = frozenset(ngrams(words, 5))
        for other, other_grams in earlier:
            union = len(grams | other_grams)
            if tuple(words) == other or (
                union and len(grams & other_grams) / union > self._max_overlap
            ):
                return False
        earlier.append((tuple(words), grams))
        return True


@dataclasses.dataclass(frozen=True)
class VerifiedSample:
    """A sampled response to a training problem, with its verdict.

    Attributes:
      prompt: the text that the response continues in training.
      response: the whole response, with any tag that the prompt opened.
    """

    problem: Problem
    prompt: str
    response: str
    correct: bool

    def record(self) -> dict[str, Any]:
        """Returns a JSON record in the form that `train.data` reads; no tag is opened twice."""
        return {
            "prompt": self.prompt,
            "response": without_opening(self.prompt, self.response),
            "task": self.problem.task,
            "question": self.problem.question,
            "answer": self.problem.answer,
        }


def curate(
    candidates: Sequence[VerifiedSample],
    readability: Readability,
    decontaminator: Decontaminator,
    *,
    per_problem: int | None = None,
    max_overlap: float = 0.9,
) -> tuple[list[VerifiedSample], dict[str, int]]:
    """Keeps the candidates that are right, readable, clean and no duplicates, in their order.

    Args:
      candidates: the verified samples.
      readability: the limits that a chain must keep.
      decontaminator: finds texts that share words with the evaluation.
      per_problem: the most samples to keep of one problem; None for all.
      max_overlap: see `Deduplicator`.

    Returns:
      The kept samples, and counts: of those sampled, those kept, and those dropped for each reason.
    """
    kept, counts = [], collections.Counter(sampled=len(candidates))
    of_problem: collections.Counter[str] = collections.Counter()
    deduplicator = Deduplicator(max_overlap)
    for candidate in candidates:
        question = candidate.problem.question
        fault = readability.fault(candidate.response, candidate.problem)
        if not candidate.correct and fault != NO_FORMAT:
            reason = "wrong"
        elif fault:
            reason = fault
        elif decontaminator.shared(question) or decontaminator.shared(candidate.response):
            reason = "shared with the evaluation"
        elif per_problem is not None and of_problem[question] >= per_problem:
            reason = "enough of this problem"
        elif not deduplicator.is_new(question, candidate.response):
            reason = "duplicate"
        else:
            reason = "kept"
            kept.append(candidate)
            of_problem[question] += 1
        counts[reason] += 1
    return kept, dict(counts)
