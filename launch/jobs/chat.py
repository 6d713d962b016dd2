"""Keeps the turns of a conversation with a model, asks for replies and shows them."""

from collections.abc import Iterator

from rich.console import Console

from launch.jobs.asked import LocalModel, Opened, ServerModel
from models.decoding.sampling import SamplingParams
from models.tokens import chat_template
from reasoning.generation.generator import fold_seed
from reasoning.generation.streaming import stream, until
from reasoning.hidden_reasoning import THINKING, split_thinking, summarise
from reasoning.prompts import CHAT_TEMPLATE
from reasoning.response import after_chain, opened_by

SHOW, HIDE, SUMMARY = "show", "hide", "summary"
THINKING_MODES = (SHOW, HIDE, SUMMARY)
# A model without a chat template may go on with the user's next turn; this text ends its own.
NEXT_TURN = "\nUser:"


class Conversation:
    """The turns with one model; a model without a chat template gets `User:` and `Assistant:`.

    Attributes:
      messages: dicts with `role` and `content`; replies without their chains of thought.
    """

    def __init__(
        self,
        model: LocalModel | ServerModel,
        opened: Opened,
        *,
        system: str = "",
        max_new_tokens: int,
        sampling: SamplingParams,
        seed: int = 0,
    ):
        self._model, self._opened = model, opened
        self._most, self._sampling, self._seed = max_new_tokens, sampling, seed
        self._system, self._turns = system, 0
        self.reset()

    def reset(self) -> None:
        """Forgets all turns but the system prompt."""
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def ask(self, text: str) -> Iterator[tuple[str, str]]:
        """Yields the reply as the model writes it (see `split_thinking`), then keeps both turns.

        If the caller stops reading early, the part of the reply that came is kept.

        Raises:
          ValueError: the conversation leaves no room for a reply, or the template refuses it.
          ServerError: the server did not answer.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        chunks, opening = self._chunks(messages)
        self._turns += 1
        shown = [opening]
        try:
            yield from split_thinking(_kept(chunks, shown), opening)
        finally:
            reply = after_chain("".join(shown))
            for tag in ("<answer>", "</answer>"):
                reply = reply.replace(tag, "")
            self.messages = [*messages, {"role": "assistant", "content": reply.strip()}]

    def _chunks(self, messages: list[dict[str, str]]) -> tuple[Iterator[str], str]:
        """Returns the reply's chunks, and the start of the reply that the prompt already holds."""
        seed = fold_seed(self._seed, "chat", self._turns)
        tokenizer, plain = self._opened.tokenizer, False
        steps, config = self._opened.steps, self._opened.config
        if tokenizer is None or steps is None or config is None:
            chunks = self._model.generator.stream_chat(
                messages, max_new_tokens=self._most, sampling=self._sampling, seed=seed
            )
            return chunks, ""
        if tokenizer.template is not None:
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        else:
            plain = True
            prompt = chat_template.render(
                CHAT_TEMPLATE, messages=messages, add_generation_prompt=True,
                **({"eos_token": ""} | tokenizer.special_tokens),
            )  # fmt: skip
        room = config.max_length - len(tokenizer.encode_prompts([prompt])[0])
        if room < 1:
            raise ValueError(
                f"the conversation fills the context of {config.max_length} tokens; type /reset"
                " to forget it"
            )
        chunks = stream(
            steps, prompt,
            max_new_tokens=min(self._most, room), sampling=self._sampling, seed=seed,
        )  # fmt: skip
        return (until(chunks, NEXT_TURN) if plain else chunks), opened_by(prompt)


def _kept(chunks: Iterator[str], shown: list[str]) -> Iterator[str]:
    for chunk in chunks:
        shown.append(chunk)
        yield chunk


def show(reply: Iterator[tuple[str, str]], mode: str, console: Console) -> None:
    """Prints a reply as it comes.

    Args:
      reply: (kind, text) chunks, as `Conversation.ask` yields them.
      mode: how to show the thinking: "show" prints it dimly, "hide" says only that there is some,
        "summary" tells its length, how often it checks itself, and its last line.
      console: where to print.
    """
    thought, begun = "", False

    def end_of_thinking() -> None:
        if mode == SHOW:
            console.print()
        elif mode == SUMMARY:
            console.print(summarise(thought), style="dim italic", markup=False, highlight=False)

    for kind, text in reply:
        if kind == THINKING:
            if not thought and mode != SHOW:
                console.print("(thinking)", style="dim italic", markup=False, highlight=False)
            thought += text
            if mode == SHOW:
                console.print(text, end="", style="dim", markup=False, highlight=False)
            continue
        if thought and not begun:
            end_of_thinking()
        # White space between the chain and the answer belongs to neither.
        text = text if begun else text.lstrip()
        begun = begun or bool(text)
        console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
    if thought and not begun:
        end_of_thinking()
    console.print()
