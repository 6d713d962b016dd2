"""Named prompt templates, which turn a question into the text that a model continues."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from models.tokens.tokenizer import Tokenizer

# The template of DeepSeek-R1-Zero (arXiv:2501.12948, table 1).
R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer. The reasoning process and answer are enclosed within <think> </think> "
    "and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>. User: {question}. Assistant:"
)
# The same request as a system prompt, for models with a chat template.
R1_SYSTEM = (
    "First think about the question step by step, then give the final answer. Put the reasoning "
    "within <think> </think> tags and the answer within <answer> </answer> tags."
)
PLAIN = "User: {question}\nAssistant:"
# Opens the chain of thought, for base models that do not always open one.
THINK = PLAIN + " <think>\n"
# Starts the response with words that lead to a chain of thought (arXiv:2205.11916).
COT = PLAIN + " Let's think step by step.\n"
# Asks for the answer alone, for models that follow instructions.
DIRECT_SYSTEM = "Give the final answer only, without any reasoning."
# Name the most tokens of a response in the question (L1, arXiv:2503.04697), or ask for no chain.
BUDGET = "{question} Answer within {budget} tokens."
NO_CHAIN = "{question} Answer without thinking."
# `PLAIN` as a chat template, for tokenizers that this project trains.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

TEMPLATES = ("plain", "think", "cot", "r1_zero", "chat", "chat_r1", "chat_direct")

PromptTemplate = Callable[[str], str]


def naming_budget(question: str, budget: int) -> str:
    """Returns a question that names the most tokens of its response; 0 asks for no chain."""
    return (BUDGET if budget else NO_CHAIN).format(question=question, budget=budget)


def get_template(name: str, tokenizer: Tokenizer | None) -> PromptTemplate:
    """Returns the template of a name: a function from a question to a prompt.

    - `plain`: a bare user turn.
    - `think`: a user turn, and a response that starts inside the chain of thought.
    - `cot`: a user turn, and a response that starts with "Let's think step by step."
    - `r1_zero`: the template of DeepSeek-R1-Zero, for base models.
    - `chat`: the tokenizer's chat template.
    - `chat_r1`: the same with a system prompt that asks for the R1 format.
    - `chat_direct`: the same with a system prompt that asks for the answer without reasoning.

    Args:
      name: one of `TEMPLATES`. Variables for the chat template follow a question mark:
        `chat?enable_thinking=false`.
      tokenizer: the model's tokenizer; only its chat template is used. None suffices for a
        template that is no chat template.

    Raises:
      ValueError: the name is unknown, the chat template does not read a variable, or the tokenizer
        has no chat template that accepts these messages.
    """
    name, _, options = name.partition("?")
    raw = {"plain": PLAIN, "think": THINK, "cot": COT, "r1_zero": R1_ZERO}
    if name in raw and not options:
        return lambda question: raw[name].format(question=question)
    if name not in TEMPLATES:
        raise ValueError(f"template={name!r} is unknown; choose one of {', '.join(TEMPLATES)}")
    variables = _variables(name, options, tokenizer)
    if tokenizer is None:
        raise ValueError(f"template={name!r} needs a tokenizer with a chat template; give one")
    systems = {"chat_r1": R1_SYSTEM, "chat_direct": DIRECT_SYSTEM}
    system = [{"role": "system", "content": systems[name]}] if name in systems else []

    def chat(question: str) -> str:
        messages = [*system, {"role": "user", "content": question}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, **variables)

    chat("a question")  # Reports a missing template, or one that rejects the messages, now.
    return chat


def _variables(name: str, options: str, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """`a=1&b=true` -> {"a": 1, "b": True}; text that is not JSON stays text."""
    variables = {}
    for option in filter(None, options.split("&")):
        key, _, value = option.partition("=")
        if tokenizer is None or not name.startswith("chat") or not tokenizer.template_reads(key):
            raise ValueError(f"template={name}?{options}: nothing reads {key!r}; leave it out")
        try:
            variables[key] = json.loads(value)
        except ValueError:
            variables[key] = value
    return variables


def few_shot(template: PromptTemplate, examples: Sequence[tuple[str, str]]) -> PromptTemplate:
    """Returns a template that puts worked examples before the prompt (arXiv:2201.11903).

    Args:
      template: the template of the question and of the examples' questions.
      examples: pairs of a question and its response.

    Raises:
      ValueError: there are no examples.
    """
    if not examples:
        raise ValueError("few-shot prompting was asked for without examples: give at least one")
    shots = "".join(f"{template(question)}{response}\n" for question, response in examples)
    return lambda question: shots + template(question)
