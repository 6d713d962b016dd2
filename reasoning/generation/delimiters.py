"""Says which texts end a step: one text, or the ends of lines and sentences of free text."""

# A model that writes free text seldom has one step on each line.
SENTENCES = "sentences"
_ENDS = ("\n", ". ", "! ", "? ")


def step_ends(delimiter: str) -> tuple[str, ...]:
    """Returns the texts that end a step.

    Args:
      delimiter: the text itself; `sentences` stands for the ends of lines and sentences. The end
        of a sentence has a blank, so "3.5" is no end. Where the blank belongs to the next word's
        token, that word still counts to the step.

    Raises:
      ValueError: it is empty.
    """
    if not delimiter:
        raise ValueError("delimiter is empty; give the text that ends a step, such as '\\n'")
    return _ENDS if delimiter == SENTENCES else (delimiter,)


def split_steps(text: str, delimiter: str) -> list[str]:
    """Returns the steps of a text, for readers; blank ones are left out."""
    steps = [text]
    for end in step_ends(delimiter):
        parts = [step.split(end) for step in steps]
        # What ends a sentence stays with it.
        steps = [
            each + (end.rstrip() if i < len(of) - 1 else "")
            for of in parts
            for i, each in enumerate(of)
        ]
    return [step for step in steps if step.strip()]
