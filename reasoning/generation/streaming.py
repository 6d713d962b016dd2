"""A response as it is being written, in chunks of text."""

from collections.abc import Iterable, Iterator

from models.decoding.sampling import SamplingParams
from models.paths.places import ROOT
from reasoning.generation.steps import StepGenerator


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


def until(chunks: Iterable[str], end: str) -> Iterator[str]:
    """The chunks up to a text that ends them, which may come in several chunks."""
    held = ""
    for chunk in chunks:
        held += chunk
        if end in held:
            yield held.partition(end)[0]
            return
        kept = overlap(held, end)
        if len(held) > kept:
            yield held[: len(held) - kept]
            held = held[len(held) - kept :]
    if held:
        yield held


def overlap(text: str, end: str) -> int:
    """Returns the length of the longest end of `text` that begins `end`, but is not all of it."""
    for length in range(min(len(end) - 1, len(text)), 0, -1):
        if text.endswith(end[:length]):
            return length
    return 0
