"""The models that a server offers under OpenAI's interface, and the prompts that they get."""

import dataclasses
from typing import Any

from models.tokens import chat_template
from reasoning.prompts import CHAT_TEMPLATE, DIRECT_SYSTEM, R1_SYSTEM
from reasoning.response import ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, opened_by
from reasoning.serving.batch.engine import Engine
from reasoning.serving.batch.text import Vocabulary

CHEAP, REASONER, AUTO = "cheap", "reasoner", "auto"
# Ways to make a model think or not: by a variable of its chat template, by the tags that open or
# close the chain, or by a system prompt.
TEMPLATE, TAGS, SYSTEM = "template", "tags", "system"


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt: its token ids, and the tags of the response that it opens already."""

    ids: list[int]
    opening: str


class Checkpoint:
    """A model that is loaded, with its engine.

    Attributes:
      name: the name that clients see.
      style: the way to make it think: `TEMPLATE`, `TAGS` or `SYSTEM`.
      closing: the text that closes a chain and begins an answer.
      named_budgets: whether it was trained to keep a budget that the question names.
    """

    def __init__(
        self, name: str, vocabulary: Vocabulary, engine: Engine, named_budgets: bool = False
    ):
        self.name, self.vocabulary, self.engine = name, vocabulary, engine
        self.named_budgets = named_budgets
        self.tokenizer = tokenizer = vocabulary.tokenizer
        tags = all(len(tokenizer.encode(tag)) == 1 for tag in (THINK_OPEN, THINK_CLOSE))
        reads = tokenizer.template_reads("enable_thinking")
        self.style = TEMPLATE if reads else TAGS if tags else SYSTEM
        answers = len(tokenizer.encode(ANSWER_OPEN)) == 1
        self.closing = f"{THINK_CLOSE}{ANSWER_OPEN}" if answers else f"\n{THINK_CLOSE}\n\n"

    def prompt(
        self, messages: list[dict[str, str]], thinking: bool | None, variables: dict[str, Any]
    ) -> Prompt:
        """Renders a conversation.

        Args:
          messages: dicts with `role` and `content`.
          thinking: whether the model shall write a chain; None leaves it to the model.
          variables: further variables of the chat template.

        Raises:
          ValueError: the chat template refuses these messages.
        """
        if thinking is not None and self.style == TEMPLATE:
            variables = variables | {"enable_thinking": thinking}
        if thinking is not None and self.style == SYSTEM:
            system = R1_SYSTEM if thinking else DIRECT_SYSTEM
            if messages[0]["role"] == "system":
                system = f"{messages[0]['content']}\n\n{system}"
                messages = messages[1:]
            messages = [{"role": "system", "content": system}, *messages]
        if self.tokenizer.template is not None:
            text = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, **variables
            )
        else:
            text = chat_template.render(
                CHAT_TEMPLATE, messages=messages, add_generation_prompt=True,
                **({"eos_token": ""} | self.tokenizer.special_tokens),
            )  # fmt: skip
        if thinking is not None and self.style == TAGS and not opened_by(text):
            text += " " * (not text[-1:].isspace()) + THINK_OPEN + "\n"
            if not thinking:
                text += self.closing.lstrip()
        return Prompt(self.tokenizer.encode_prompts([text])[0], opened_by(text))
