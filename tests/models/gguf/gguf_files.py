"""Tiny models and GGUF files for tests."""

import jax
import numpy as np
from gguf import GGUFReader, GGUFWriter

from models.config import ModelConfig, RopeScaling
from models.decoder import LanguageModel
from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe

TEXTS = [
    "The quick brown fox doesn't jump over 13 lazy dogs; it's 4,096 times faster.",
    "Größe, naïve café — “quoted” text…  two  spaces\tand\ttabs\n\nNew paragraph 7 + 5 = 12.",
    "def f(x):\n    return x**2  # comment\n\n\nprint(f(10))\r\n",
    "数学の問題を解く。Решите уравнение x² = 9 и ½ + ⅓. 😀👍🏽 ١٢٣ १२३",
] * 3
# Without what llama.cpp splits otherwise than `train_bpe`: line breaks that a token joins.
CORPUS = [line for text in TEXTS for line in text.splitlines() if line]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BASE = ModelConfig(
    family="llama",
    vocab_size=420,
    embed_dim=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=96,
    rope_theta=5e5,
    norm_eps=1e-5,
    max_length=512,
)
CONFIGS = {
    "llama": BASE,
    "llama_tied": BASE.replace(tie_embeddings=True, num_kv_heads=4),
    "llama_wide_heads": BASE.replace(head_dim=32),
    "llama_scaled": BASE.replace(head_dim=64, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192)),
    "llama_scaled_otherwise": BASE.replace(rope_scaling=RopeScaling(4.0, 2.0, 3.0, 64)),
    "qwen2": BASE.replace(family="qwen2", qkv_bias=True, norm_eps=1e-6),
    "qwen2_tied": BASE.replace(family="qwen2", qkv_bias=True, tie_embeddings=True),
    "qwen3": BASE.replace(family="qwen3", qk_norm=True, head_dim=32),
    "qwen3_published_heads": BASE.replace(family="qwen3", qk_norm=True, head_dim=128),
}


def make_tokenizer(**changes) -> Tokenizer:
    settings = dict(
        special_tokens=("<|im_start|>",),
        text_tokens=("<think>", "</think>"),
        eos_token="<|im_end|>",
        bos_token="<s>",
        pad_token="<|endoftext|>",
        template=TEMPLATE,
    )
    return train_bpe(CORPUS, 400, **(settings | changes))


def make_params(config: ModelConfig, seed: int = 0):
    """Every weight drawn at random, norms and biases too, as NumPy arrays."""
    shapes = LanguageModel(config).abstract_params
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    drawn = [(0.3 * rng.standard_normal(x.shape)).astype(x.dtype) for x in leaves]
    return jax.tree.unflatten(tree, drawn)


def logits(config: ModelConfig, params, tokens) -> np.ndarray:
    model = LanguageModel(config)
    tokens = np.asarray(tokens)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(
        model.logits(params, model.hidden(params, tokens, positions, np.ones_like(tokens)))
    )


def write(path, fields, tensors, architecture="llama"):
    """A file of gguf's own writer.

    Args:
      fields: name -> value, bool, int, float, text or list.
      tensors: name -> `(array, type)`; with a type the array is what it was quantized to.
    """
    writer = GGUFWriter(path, architecture)
    for name, value in fields.items():
        kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
        getattr(writer, f"add_{kinds[type(value)]}")(name, value)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rewrite(path, out, changes=(), tensors=lambda each: each):
    """A copy of a file by gguf's own reader and writer, with fields or tensors changed.

    Args:
      changes: field -> its other value, or None to leave it out; fields may be new.
      tensors: name -> `(array, type)`, to the same.
    """
    reader = GGUFReader(path)
    fields = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    } | dict(changes)
    architecture = fields.pop("general.architecture")
    fields = {name: value for name, value in fields.items() if value is not None}
    stored = {each.name: (np.array(each.data), each.tensor_type) for each in reader.tensors}
    return write(out, fields, tensors(stored), architecture)
