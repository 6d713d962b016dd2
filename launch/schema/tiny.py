"""The schema of the recipe in the tiny world, whose base model is trained from scratch."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from launch.schema.fields import Section, Setting
from launch.schema.model import Model
from launch.schema.recipe import RecipeConfig
from launch.schema.sections import Pretraining


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTraining(Section):
    """The tokenizer, trained on the corpus."""

    vocab_size: Annotated[int, Setting("vocabulary size", unit="tokens", least=300)]
    documents: Annotated[int, Setting("corpus documents to train it on", unit="documents", least=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConfig(RecipeConfig):
    """The recipe in the tiny world."""

    world = "launch.recipe.worlds.tiny"
    example = "configs/tiny.py"

    tokenizer: TokenizerTraining
    model: Model
    pretrain: Pretraining

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        yield from super().check()
        verifiers, search, distill = self.verifiers, self.search, self.distill
        for name, section in (("verifiers", verifiers), ("search", search), ("distill", distill)):
            if section is None:
                yield name, "is None, but the tiny world has all stages"
        if verifiers is None or search is None or distill is None:
            return
        for name, model in (("model", self.model), ("distill.base.model", distill.base.model)):
            if model.vocab_size < self.tokenizer.vocab_size:
                yield (
                    f"{name}.vocab_size",
                    f"is smaller than tokenizer.vocab_size={self.tokenizer.vocab_size}",
                )
        if not search.shots:
            yield "search.shots", "must be at least 1: the prompts of base models are compared too"
        if distill.base.pretrain is None:
            yield "distill.base.pretrain", "is None: the tiny world's student learns its language"
        if verifiers.language_share and not self.model.tie_embeddings:
            yield "verifiers.language_share", "needs model.tie_embeddings=true: set it to 0"
        context = self.model.max_length
        for name, longest in self.lengths().items():
            if context is not None and longest >= context:
                yield f"{name}.max_new_tokens", f"leaves no room in model.max_length={context}"
