"""Makes the golden files of `tests/models/golden` with transformers and torch, or checks them.

    python tests/parity/make_golden.py           # writes them anew
    python tests/parity/make_golden.py --check   # makes them afresh elsewhere and compares

Weights are drawn with NumPy, whose stream is fixed for all versions, so that the checkpoints come
out bit for bit the same; logits may differ by rounding, ids not at all.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

GOLDEN = Path(__file__).parents[1] / "models" / "golden"
LOGIT_TOLERANCE = 2e-5
_CORRECTION = "e_score_correction_bias"

_SIZES = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3)
_ROPE = {"rope_type": "default", "rope_theta": 1e6}
# Of the eight frequencies of a 16-wide head, the first is kept, the second blended, the others
# divided by the factor; and rows are longer than the original context.
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# Of its four frequencies the first is kept, the last divided; the softmax has another scale.
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 4.0,
    "beta_slow": 0.5,
    "mscale": 0.7,
    "mscale_all_dim": 1.0,
}
_LATENT = dict(
    num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=16, qk_nope_head_dim=12,
    qk_rope_head_dim=8, v_head_dim=10,
)  # fmt: skip
_EXPERTS = dict(
    n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=12, n_group=4, topk_group=2,
    routed_scaling_factor=1.8,
)  # fmt: skip

# name -> (config, dtype of the file, max shard size)
CHECKPOINTS = {
    "llama_rope_scaling": (
        transformers.LlamaConfig(
            **_SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5,
            rope_parameters=_LLAMA3_ROPE, max_position_embeddings=256, tie_word_embeddings=False,
        ),
        "float32",
        "1GB",
    ),
    "llama_mha_tied_bf16": (
        transformers.LlamaConfig(
            **_SIZES, num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-5,
            rope_parameters=_ROPE, max_position_embeddings=128, tie_word_embeddings=True,
        ),
        "bfloat16",
        "1GB",
    ),
    "qwen2_tied_sharded": (
        transformers.Qwen2Config(
            **_SIZES, num_attention_heads=4, num_key_value_heads=2, rope_parameters=_ROPE,
            max_position_embeddings=128, tie_word_embeddings=True,
        ),
        "float32",
        "30KB",
    ),
    "qwen2_untied": (
        transformers.Qwen2Config(
            **_SIZES, num_attention_heads=4, num_key_value_heads=1, rope_parameters=_ROPE,
            max_position_embeddings=128, tie_word_embeddings=False,
        ),
        "float32",
        "1GB",
    ),
    "qwen3_tied": (
        transformers.Qwen3Config(
            **_SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
            rope_parameters=_ROPE, max_position_embeddings=128, tie_word_embeddings=True,
        ),
        "float32",
        "1GB",
    ),
    "qwen3_untied_sharded_bf16": (
        transformers.Qwen3Config(
            **_SIZES, num_attention_heads=6, num_key_value_heads=2, head_dim=16,
            rope_parameters=_ROPE, max_position_embeddings=128, tie_word_embeddings=False,
        ),
        "bfloat16",
        "20KB",
    ),
    "deepseek_v3_yarn_sharded": (
        transformers.DeepseekV3Config(
            **_SIZES, **_LATENT, **_EXPERTS, q_lora_rank=20, first_k_dense_replace=1,
            n_shared_experts=2, rope_parameters=_YARN, max_position_embeddings=256,
        ),
        "float32",
        "60KB",
    ),
    "deepseek_v3_no_q_rank_tied_bf16": (
        transformers.DeepseekV3Config(
            **_SIZES, **_LATENT, **_EXPERTS, q_lora_rank=None, first_k_dense_replace=0,
            n_shared_experts=1, norm_topk_prob=False, rope_parameters=_ROPE, rms_norm_eps=1e-5,
            max_position_embeddings=128, tie_word_embeddings=True,
        ),
        "bfloat16",
        "1GB",
    ),
}  # fmt: skip

# Rotary settings of published sizes.
ROPES = {
    "llama-3.1-8b": transformers.LlamaConfig(
        head_dim=128,
        rope_parameters=_LLAMA3_ROPE
        | {"rope_theta": 5e5, "factor": 8.0, "original_max_position_embeddings": 8192},
    ),
    "llama-3.2-1b": transformers.LlamaConfig(
        head_dim=64,
        rope_parameters=_LLAMA3_ROPE
        | {"rope_theta": 5e5, "factor": 32.0, "original_max_position_embeddings": 8192},
    ),
    "qwen3-8b": transformers.Qwen3Config(head_dim=128, rope_parameters=_ROPE),
}


def make_checkpoint(name: str, directory: Path) -> None:
    config, dtype, max_shard_size = CHECKPOINTS[name]
    rng = np.random.default_rng(list(name.encode()))
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomize(model, rng)
    biases = {n: b.clone() for n, b in model.named_buffers() if n.endswith(_CORRECTION)}
    model.to(getattr(torch, dtype))
    for name, bias in biases.items():  # Published in float32, whatever the weights are in.
        model.get_submodule(name.rpartition(".")[0]).e_score_correction_bias = bias
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    tokens = rng.integers(0, config.vocab_size, (2, 80))
    np.savez_compressed(directory / "expected.npz", tokens=tokens, logits=logits(directory, tokens))


def randomize(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Weights of a size at which every part of the model matters to the logits, biases included."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            draw = rng.standard_normal(parameter.shape, np.float32)
            if name.endswith("norm.weight") or "layernorm" in name:
                draw = 1 + 0.3 * draw
            elif parameter.ndim >= 2:
                draw *= 0.3 if "embed" in name else 1.5 * parameter.shape[-1] ** -0.5
            parameter.copy_(torch.from_numpy(draw))
        for name, buffer in sorted(model.named_buffers()):
            if name.endswith(_CORRECTION):
                buffer.copy_(torch.from_numpy(rng.uniform(-0.2, 0.2, buffer.shape)))


def logits(directory: Path, tokens: np.ndarray, positions: np.ndarray | None = None) -> np.ndarray:
    """Float32 logits `[B, T, V]` by transformers' plainest attention."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    position_ids = None if positions is None else torch.from_numpy(positions)
    with torch.no_grad():
        return model(torch.from_numpy(tokens), position_ids=position_ids).logits.numpy()


CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is 12 + 345? It's 357!",
    "Let me think step by step: first, 7 * 8 = 56; then 56 - 9 = 47.\n\nSo the answer is 47.",
    "Wie viel ist drei plus vier? Drei plus vier ist sieben. Größe, Übung, naïve café.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3",
    "你好，世界。今天天气怎么样？",
]
TEXTS = CORPUS + [
    "",
    " leading and trailing  ",
    "emoji 🙂🙃 and \u0000 control",
    "<|im_start|>user\nhi<|im_end|><|eot_id|>",
    "<think> 1 + 1 = 2 </think> don't DON'T we'll",
    "1234567890 3.14159 1e-4 x²",
    "\n\n\n\t tabs",
]
CONVERSATIONS = [
    [{"role": "user", "content": "What is 2 + 2?"}],
    [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "  What is 3 * 4?\n"},
        {"role": "assistant", "content": "<think>3 * 4 = 12</think>\nThe answer is 12."},
        {"role": "user", "content": 'And "5" < 6? 你好'},
    ],
    [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hi!"}],
]

CHATML_TEMPLATE = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a careful solver.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reply = message.content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}{{ reply + '<|im_end|>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

HEADER_TEMPLATE = """\
{{ bos_token }}
{%- if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}
{% if messages[0]['role'] == 'system' %}
    {% set system_message = messages[0]['content'] | trim %}
    {% set messages = messages[1:] %}
{% else %}
    {% set system_message = "" %}
{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Today: ' + date_string + '\\n' + system_message + '<|eot_id|>' }}
{% for message in messages %}
    {% if message['role'] not in ['user', 'assistant'] %}
        {{- raise_exception('unknown role ' ~ message['role']) }}
    {% endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{% endfor %}
{% if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{% endif %}
"""


def _split(digits: str) -> pre_tokenizers.PreTokenizer:
    """Contractions, words, digits, punctuation, line ends and spaces, then bytes."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, byte_level])


def _train(pre_tokenizer, special: list[str], text: list[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens(special)
    backend.add_tokens([AddedToken(token, normalized=False) for token in text])
    return backend


def make_chatml_tokenizer(directory: Path) -> None:
    """Of the Qwen2.5 kind: single digits, ChatML, no beginning-of-sequence token."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_train(_split(r"\p{N}"), special, ["<think>", "</think>"]),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML_TEMPLATE,
    )
    _save(tokenizer, directory, eos=["<|im_end|>", "<|endoftext|>"])


def make_header_tokenizer(directory: Path) -> None:
    """Of the Llama 3 kind: up to three digits, headers, bos by the post-processor, no pad."""
    bos, eot = "<|begin_of_text|>", "<|eot_id|>"
    special = [bos, "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", eot]
    backend = _train(_split(r"\p{N}{1,3}"), special, [])
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
            ),
        ]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eot, chat_template=HEADER_TEMPLATE
    )
    _save(tokenizer, directory, eos=["<|end_of_text|>", eot])


def _save(tokenizer, directory: Path, eos: list[str]) -> None:
    tokenizer.save_pretrained(directory)
    ids = tokenizer.convert_tokens_to_ids(eos)
    transformers.GenerationConfig(eos_token_id=ids).save_pretrained(directory)
    expected = json.dumps(tokenizer_outputs(directory), ensure_ascii=False)
    # A text or chat per line.
    expected = expected.replace('{"text"', '\n{"text"').replace('{"messages"', '\n{"messages"')
    (directory / "expected.json").write_text(expected + "\n", encoding="utf-8")


def tokenizer_outputs(directory: Path) -> dict:
    """What transformers makes of `TEXTS` and `CONVERSATIONS` with the tokenizer in a directory."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    texts = [
        {
            "text": text,
            "ids": tokenizer.encode(text, add_special_tokens=False),
            "ids_with_special": tokenizer.encode(text),
            "decoded_without_special": tokenizer.decode(
                tokenizer.encode(text), skip_special_tokens=True
            ),
        }
        for text in TEXTS
    ]
    chats = [
        {
            "messages": messages,
            "variables": variables,
            "rendered": tokenizer.apply_chat_template(messages, tokenize=False, **variables),
            "ids": tokenizer.apply_chat_template(messages, return_dict=False, **variables),
        }
        for messages in CONVERSATIONS
        for variables in (
            {"add_generation_prompt": False},
            {"add_generation_prompt": True},
            {"add_generation_prompt": True, "enable_thinking": False, "date_string": "1 May 2025"},
        )
    ]
    return {
        "transformers_tokens": {
            name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
        },
        "texts": texts,
        "chats": chats,
    }


def make_all(root: Path) -> None:
    for name in CHECKPOINTS:
        make_checkpoint(name, root / name)
    frequencies = {name: LlamaRotaryEmbedding(c).inv_freq.numpy() for name, c in ROPES.items()}
    np.savez(root / "rope_frequencies.npz", **frequencies)
    make_chatml_tokenizer(root / "tokenizer_chatml")
    make_header_tokenizer(root / "tokenizer_header")


def differences(golden: Path, fresh: Path) -> list[str]:
    """In words, how two sets of golden files differ beyond rounding and library versions."""
    found = []
    for name in CHECKPOINTS:
        old, new = (
            {k: v for f in (root / name).glob("*.safetensors") for k, v in load_file(f).items()}
            for root in (golden, fresh)
        )
        if old.keys() != new.keys() or any(not torch.equal(old[k], new[k]) for k in old):
            found.append(f"{name}: weights differ")
        old, new = (np.load(root / name / "expected.npz") for root in (golden, fresh))
        if (old["tokens"] != new["tokens"]).any():
            found.append(f"{name}: tokens differ")
        if (gap := np.abs(old["logits"] - new["logits"]).max()) > LOGIT_TOLERANCE:
            found.append(f"{name}: logits differ by {gap:.2e}")
    old, new = (np.load(root / "rope_frequencies.npz") for root in (golden, fresh))
    if any((old[name] != new[name]).any() for name in ROPES):
        found.append("rope_frequencies.npz differs")
    for name in ("tokenizer_chatml", "tokenizer_header"):
        old, new = (json.loads((r / name / "expected.json").read_text()) for r in (golden, fresh))
        if old != new:
            found.append(f"{name}: expected.json differs")
        # The committed tokenizer itself, whatever a fresh one is trained to.
        if old != tokenizer_outputs(golden / name):
            found.append(f"{name}: transformers no longer gives what expected.json says")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args().check:
        make_all(GOLDEN)
        return 0
    with tempfile.TemporaryDirectory() as fresh:
        make_all(Path(fresh))
        found = differences(GOLDEN, Path(fresh))
    print("\n".join(found) or f"golden files agree with transformers {transformers.__version__}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
