"""Named prompt templates: from a question to the text that a model continues."""

from collections.abc import Callable, Sequence

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
# Opens the chain, for base models that do not always.
THINK = PLAIN + " <think>\n"
# Puts the first words into the model's mouth (arXiv:2205.11916).
COT = PLAIN + " Let's think step by step.\n"
# Asks for the answer alone, which an instruction does for models that follow one.
DIRECT_SYSTEM = "Give the final answer only, without any reasoning."
# The bare turns as a chat template, for tokenizers that are trained here.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

TEMPLATES = ("plain", "think", "cot", "r1_zero", "chat", "chat_r1", "chat_direct")

PromptTemplate = Callable[[str], str]


def get_template(name: str, tokenizer: Tokenizer) -> PromptTemplate:
    """A function from a question to a prompt.

    `plain` is a bare user turn, `think` one whose answer starts inside the chain, `cot` one whose
    answer starts with "Let's think step by step";
    `r1_zero` is for base models; `chat`, `chat_r1` and `chat_direct` use the tokenizer's chat
    template, the last two with a system prompt that asks for the R1 format, or for no reasoning.

    Raises:
      ValueError: an unknown name, or a chat template that the tokenizer lacks.
    """
    raw = {"plain": PLAIN, "think": THINK, "cot": COT, "r1_zero": R1_ZERO}
    if name in raw:
        return lambda question: raw[name].format(question=question)
    if name not in TEMPLATES:
        raise ValueError(f"template={name!r} is unknown; choose one of {', '.join(TEMPLATES)}")
    systems = {"chat_r1": R1_SYSTEM, "chat_direct": DIRECT_SYSTEM}
    system = [{"role": "system", "content": systems[name]}] if name in systems else []

    def chat(question: str) -> str:
        messages = [*system, {"role": "user", "content": question}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True)

    chat("a question")  # a missing or refusing template is reported now
    return chat


def few_shot(template: PromptTemplate, examples: Sequence[tuple[str, str]]) -> PromptTemplate:
    """`template` behind worked examples, (question, response), as in arXiv:2201.11903.

    Raises:
      ValueError: no examples.
    """
    if not examples:
        raise ValueError("few-shot prompting was asked for without examples: give at least one")
    shots = "".join(f"{template(question)}{response}\n" for question, response in examples)
    return lambda question: shots + template(question)
