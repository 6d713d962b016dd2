"""Named prompt templates: from a question to the text that a model continues."""

from collections.abc import Callable

from models.tokenizer import Tokenizer

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
# The bare turns as a chat template, for tokenizers that are trained here.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}User: {{ message.content }}\n"
    "{% elif message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

TEMPLATES = ("plain", "r1_zero", "chat", "chat_r1")

PromptTemplate = Callable[[str], str]


def get_template(name: str, tokenizer: Tokenizer) -> PromptTemplate:
    """A function from a question to a prompt.

    `plain` is a bare user turn; `r1_zero` is for base models; `chat` and `chat_r1` use the
    tokenizer's chat template, the latter with a system prompt that asks for the R1 format.

    Raises:
      ValueError: an unknown name, or a chat template that the tokenizer lacks.
    """
    if name == "plain":
        return lambda question: PLAIN.format(question=question)
    if name == "r1_zero":
        return lambda question: R1_ZERO.format(question=question)
    if name not in TEMPLATES:
        raise ValueError(f"template={name!r} is unknown; choose one of {', '.join(TEMPLATES)}")
    system = [{"role": "system", "content": R1_SYSTEM}] if name == "chat_r1" else []

    def chat(question: str) -> str:
        messages = [*system, {"role": "user", "content": question}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True)

    chat("a question")  # a missing or refusing template is reported now
    return chat
