"""A response as it is being written: its text by chunks, and what of it is thinking."""

import re
from collections.abc import Iterable, Iterator

from models.decoding.sampling import SamplingParams
from models.paths.places import ROOT
from reasoning.generation.steps import StepGenerator
from reasoning.response import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN

THINKING, ANSWERING = "thinking", "answering"
_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_TAG = re.compile("|".join(map(re.escape, _TAGS)))


def stream(
    steps: StepGenerator,
    prompt: str,
    *,
    max_new_tokens: int,
    chunk_tokens: int = 8,
    sampling: SamplingParams = SamplingParams(),
    seed: int = 0,
) -> Iterator[str]:
    """Yields the text of one response as it comes; the prompt is read once.

    Args:
      chunk_tokens: most tokens of a chunk; one ends at the end of a line, too.

    Raises:
      ValueError: a prompt without room for its response.
    """
    paths = steps.start(
        [prompt], capacity=1, width=1, max_new_tokens=max_new_tokens,
        step_tokens=min(chunk_tokens, max_new_tokens), delimiter="\n",
        sampling=sampling, seed=seed,
    )  # fmt: skip
    place, ended = ROOT, False
    while not ended:
        (((step,)),) = paths.extend([[place]], [[0]])
        place, ended = 0, step.ended
        yield step.text


def split_thinking(chunks: Iterable[str], opened: bool = False) -> Iterator[tuple[str, str]]:
    """Yields `(THINKING or ANSWERING, text)`, the tags of the format left out.

    A tag may come in several chunks: what may be the beginning of one is held back until it is
    known. `reasoning.response.after_chain` says the same of a whole response.

    Args:
      chunks: a response, in parts.
      opened: the prompt has opened the chain of thought already.
    """
    state, held = THINKING if opened else ANSWERING, ""
    for chunk in chunks:
        held += chunk
        while found := _TAG.search(held):
            if before := held[: found.start()]:
                yield state, before
            if found.group() == THINK_OPEN:
                state = THINKING
            elif found.group() == THINK_CLOSE:
                state = ANSWERING
            held = held[found.end() :]
        kept = _begun_tag(held)
        if len(held) > kept:
            yield state, held[: len(held) - kept]
            held = held[len(held) - kept :]
    if held:
        yield state, held


def until(chunks: Iterable[str], end: str) -> Iterator[str]:
    """The chunks up to a text that ends them, which may come in several chunks."""
    held = ""
    for chunk in chunks:
        held += chunk
        if end in held:
            yield held.partition(end)[0]
            return
        kept = _overlap(held, end)
        if len(held) > kept:
            yield held[: len(held) - kept]
            held = held[len(held) - kept :]
    if held:
        yield held


def _begun_tag(text: str) -> int:
    """Length of the longest end of a text that may begin a tag."""
    return max(_overlap(text, tag) for tag in _TAGS)


def _overlap(text: str, end: str) -> int:
    for length in range(min(len(end) - 1, len(text)), 0, -1):
        if text.endswith(end[:length]):
            return length
    return 0
