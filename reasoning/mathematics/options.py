"""Defines the conventions of grading that users may choose, as one set of switches."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class GradingOptions:
    r"""Switches that decide what counts as the same answer where mathematics alone does not decide.

    A task takes them in its spec, as in `math500:FILE?number_words=true&units=required`.
    `docs/grading.md` shows an example of each.

    Attributes:
      boxes: which of several `\boxed{...}` is the answer. "joined": boxes with only "and", "or" or
        a comma between them are one list, otherwise the last box counts; "last": the last box
        always counts.
      prose_in_tags: whether to look for the answer in a sentence between `<answer>` tags. If not,
        all the text between the tags is the answer, unless a part of it is marked.
      arithmetic: whether an unfinished calculation, such as 32*32, may stand for a number, such as
        1024.
      percent: "either": 50% is 50 and also 0.5; "fraction": 50% is 0.5 only.
      number_words: whether "eighteen" is 18.
      units: "optional": a unit may be missing on either side, but two units must agree; "required":
        the answer must give the unit that the reference gives; "ignored": units are not compared.
      min_significant: the fewest significant digits with which a decimal may stand for a number
        that is no finite decimal, such as a third or the square root of two.

    Raises:
      ValueError: a value is none of these.
    """

    boxes: str = "joined"
    prose_in_tags: bool = False
    arithmetic: bool = False
    percent: str = "either"
    number_words: bool = False
    units: str = "optional"
    min_significant: int = 6

    def __post_init__(self) -> None:
        choices = {
            "boxes": ("joined", "last"),
            "percent": ("either", "fraction"),
            "units": ("optional", "required", "ignored"),
            "prose_in_tags": (False, True),
            "arithmetic": (False, True),
            "number_words": (False, True),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if not any(value is choice or value == choice for choice in allowed):
                words = ", ".join(str(choice).lower() for choice in allowed)
                raise ValueError(f"grading option {name}={value!r}: choose from {words}")
        digits = self.min_significant
        if not isinstance(digits, int) or isinstance(digits, bool) or not 1 <= digits <= 50:
            raise ValueError(f"grading option min_significant={digits!r}: give 1 to 50")


DEFAULT = GradingOptions()
