"""A Llama student and two of Qwen, of one teacher: their exports answer in transformers as here."""

import json

import jax
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402

from configs import distill, tiny_distill  # noqa: E402
from launch import run_distill  # noqa: E402
from models.checkpoint import load_model  # noqa: E402
from models.config import ModelConfig  # noqa: E402
from models.decoder import LanguageModel  # noqa: E402
from models.decoding.sampling import SamplingParams  # noqa: E402
from models.hf.export import export_model  # noqa: E402
from models.tokens.tokenizer_training import train_bpe  # noqa: E402
from reasoning.generation.jax_generator import JaxGenerator  # noqa: E402
from reasoning.prompts import get_template  # noqa: E402

# The turns of Llama 3 and of Qwen.
HEADERS = (
    "{% for m in messages %}<|start|>{{ m.role }}\n\n{{ m.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STUDENTS = {
    "llama": (dict(qk_norm=False), HEADERS, "<|start|>", "<|eot|>", 300),
    "qwen2": (dict(qkv_bias=True, tie_embeddings=True), CHATML, "<|im_start|>", "<|im_end|>", 320),
    "qwen3": (dict(qk_norm=True, tie_embeddings=True), CHATML, "<|im_start|>", "<|im_end|>", 340),
}
QUESTIONS = [f"What is {a} plus {b}?" for a in range(6) for b in range(6)]


def chats():
    """A teacher's responses in the R1 format."""
    for question in QUESTIONS:
        a, b = int(question.split()[2]), int(question.split()[4][:-1])
        answer = f"<think>\n{a} plus {b} gives {a + b}\n</think><answer> {a + b}</answer>"
        yield {"messages": [{"role": "user", "content": question},
                            {"role": "assistant", "content": answer}]}  # fmt: skip


@pytest.fixture(scope="module", params=STUDENTS)
def student(request, tmp_path_factory):
    """The directory of a trained student's export."""
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    switches, template, opening, closing, vocab = STUDENTS[family]
    texts = [m["content"] for chat in chats() for m in chat["messages"]]
    tokenizer = train_bpe(
        texts, vocab, special_tokens=[opening], text_tokens=["<think>", "</think>"],
        eos_token=closing, pad_token="<|pad|>", template=template,
    )  # fmt: skip
    model = ModelConfig(
        family=family, vocab_size=tokenizer.vocab_size + 4, embed_dim=32, num_layers=2, num_heads=4,
        num_kv_heads=2, head_dim=8, mlp_dim=64, max_length=256, **switches,
    )  # fmt: skip
    params = jax.jit(LanguageModel(model).init)(jax.random.key(0))
    export_model(folder / "student", model, params, tokenizer)
    (folder / "data.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats()))
    config = distill.get_config()
    config.teacher, config.student = "", str(folder / "student")
    config.task, config.remat = "", "none"
    config.data.responses = str(folder / "data.jsonl")
    config.sequence = tiny_distill.get_config().sequence
    config.sequence.epochs = 60
    run_distill.run(config, folder / "run")
    return folder / "run" / "seed_0" / "sequence" / "hf"


def test_transformers_answers_as_we_do(student):
    model, params, tokenizer = load_model(student)
    template = get_template("chat", tokenizer)
    ours = JaxGenerator(model, params, tokenizer, rows=8).generate(
        [template(question) for question in QUESTIONS[:8]],
        max_new_tokens=40,
        sampling=SamplingParams(temperature=0.0),
    )
    # They have learnt the format at least.
    texts = [group[0].text for group in ours]
    assert sum(text.startswith("<think>") and "</answer>" in text for text in texts) >= 6, texts

    # Not AutoTokenizer, which splits text as Qwen's own does for whatever is of family qwen2.
    their_tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(student)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(student)
    for question, group in zip(QUESTIONS, ours):
        ids = their_tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_dict=False,
        )
        out = theirs.generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False)
        generated = out[0].tolist()[len(ids) :]
        assert generated == group[0].token_ids
        if generated[-1] == their_tokenizer.eos_token_id:
            generated = generated[:-1]
        assert their_tokenizer.decode(generated) == group[0].text
