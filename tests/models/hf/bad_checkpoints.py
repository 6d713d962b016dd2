"""Checkpoint directories that are wrong in one way each, and what the error must say.

`python -m tests.bad_inputs` counts how many of them give one clear line.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from models.checkpoint import load_model
from models.decoder import LanguageModel
from models.hf.config import config_from_hf, config_to_hf
from models.hf.tensors import stored_tensors
from models.tokens.tokenizer_training import train_bpe

FIELDS: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 0,
}
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
DEEP = "[" * 100_000 + "]" * 100_000
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# What a case does to a good directory.
Damage = Callable[[Path], None]


def write_checkpoint(directory: Path, seed: int = 0, **changes: Any) -> dict[str, np.ndarray]:
    """A good checkpoint with random weights, and its tensors."""
    fields = FIELDS | changes
    directory.mkdir(parents=True, exist_ok=True)
    model = LanguageModel(config_from_hf(fields))
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.standard_normal(shape).astype(np.float32) / 4
        for name, shape, *_ in stored_tensors(model)
    }
    save_file(tensors, directory / "model.safetensors")
    published = config_to_hf(model.config) | fields
    (directory / "config.json").write_text(json.dumps(published))
    tokenizer = train_bpe(
        ["What is it? 12 + 3 is 15."] * 3, 300, special_tokens=["<s>"], eos_token="<eos>",
        bos_token="<s>", template=TEMPLATE,
    )  # fmt: skip
    tokenizer.save(directory)
    return tensors


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Changes the parsed JSON of a file."""

    def damage(directory: Path) -> None:
        path = directory / name
        value = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(change(value)))

    return damage


def setting(field: str, value: Any) -> Damage:
    return edit("config.json", lambda fields: fields | {field: value})


def text(name: str, content: str | bytes) -> Damage:
    content = content.encode() if isinstance(content, str) else content
    return lambda directory: (directory / name).write_bytes(content) and None


def weights(change: Callable[[dict[str, np.ndarray]], Any]) -> Damage:
    def damage(directory: Path) -> None:
        tensors = write_checkpoint(directory)
        save_file(change(tensors) or tensors, directory / "model.safetensors")

    return damage


def with_value(name: str, value: float) -> Damage:
    def change(tensors):
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = value

    return weights(change)


def index(weight_map: Any) -> Damage:
    """Weights in files that an index names."""

    def damage(directory: Path) -> None:
        (directory / "model.safetensors").rename(directory / "a.safetensors")
        value = weight_map(directory) if callable(weight_map) else weight_map
        path = directory / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": value}))

    return damage


def backend(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return edit("tokenizer.json", change)


def regex(pattern: str) -> Damage:
    split = {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False
    }  # fmt: skip
    return backend(lambda state: state | {"pre_tokenizer": split})


def template(source: Any) -> Damage:
    if isinstance(source, str):
        return text("chat_template.jinja", source)

    def damage(directory: Path) -> None:
        (directory / "chat_template.jinja").unlink()
        edit("tokenizer_config.json", lambda fields: fields | {"chat_template": source})(directory)

    return damage


NAN, INF = math.nan, math.inf
# Name -> (what is done to a good checkpoint, what the error must contain).
CHECKPOINTS: dict[str, tuple[Damage, str]] = {
    f"config: {field}={value!r:.40}": (setting(field, value), f"{field}={value!r:.20}")
    for field, values in {
        "model_type": ["gpt2", None, 5, ["llama"]],
        "vocab_size": [0, -1, "many", 1.5, True, 10**30, [320]],
        "hidden_size": [0, "16", 10**30],
        "intermediate_size": [0, {}, 2**40],
        "num_attention_heads": [0, 3.0, "2"],
        "num_key_value_heads": [0, [1]],
        "head_dim": [-8, "8"],
        "max_position_embeddings": [0, None, 10**30][:1],
        "num_hidden_layers": [0, -2, 3, 10**6, 10**9, 10**30, "2", [2], True],
        "rms_norm_eps": [[1e-5], "small", 0, -1e-5, NAN, INF, {}],
        "rope_theta": [0, -1, INF, NAN, "10000", [1]],
        "rope_scaling": ["linear", [1.0], 5],
        "tie_word_embeddings": ["yes", 1, [True]],
        "layer_types": [5, [[1]], ["sliding_attention"] * 2, {"a": 1}][:2],
        "eos_token_id": [{"id": 0}, [[1]], -5, "x", 10**30, 320, [0, 321], 1.5, True],
        "architectures": [5, [[1]], "LlamaForCausalLM"],
        "hidden_act": ["gelu", ["silu"]],
        "attention_bias": [True, "no"],
    }.items()
    for value in values
}
CHECKPOINTS |= {
    "config: sliding windows": (setting("layer_types", ["sliding_attention"] * 2), "sliding_att"),
    "config: a scaling without its kind": (setting("rope_scaling", {"rope_type": "x"}), "'x'"),
    **{
        f"config: rope_scaling.{field}={value!r}": (
            setting("rope_scaling", LLAMA3 | {field: value}),
            f"rope_scaling.{field}={value!r}",
        )
        for field, value in [
            ("factor", 0), ("factor", NAN), ("factor", "8"), ("high_freq_factor", 1.0),
            ("original_max_position_embeddings", 0.5), ("low_freq_factor", [1]),
        ]
    },
    "config: nested too deeply": (text("config.json", DEEP), "config.json"),
    "config: no object": (text("config.json", "[]"), "a list"),
    "config: cut off": (text("config.json", '{"model_type": "lla'), "config.json"),
    "config: not UTF-8": (text("config.json", b'{"\xff": 1}'), "config.json"),
    "config: too many digits": (text("config.json", '{"a": ' + "9" * 5000 + "}"), "config.json"),
    "config: missing": (lambda d: (d / "config.json").unlink(), "config.json"),
    "index: a list": (index(["a.safetensors"]), "weight_map=['a.safetensors']"),
    "index: a number": (index(lambda d: {"lm_head.weight": 5}), "5"),
    "index: empty": (index({}), "weight_map={}"),
    "index: outside": (index({"lm_head.weight": "../outside.safetensors"}), "../outside"),
    "index: absolute": (index({"lm_head.weight": "/etc/passwd"}), "/etc/passwd"),
    "index: a folder": (index({"lm_head.weight": "b/a.safetensors"}), "b/a.safetensors"),
    "index: the folder": (index({"lm_head.weight": "."}), "'.'"),
    "index: a missing file": (
        index({f"model.layers.{i}.x": "b.safetensors" for i in range(2)}), "b.safetensors"
    ),
    "index: nested too deeply": (
        lambda d: (index({})(d), text("model.safetensors.index.json", DEEP)(d)) and None,
        "model.safetensors.index.json",
    ),
    "weights: missing": (lambda d: (d / "model.safetensors").unlink(), "neither model.safetensors"),
    "weights: not a safetensors file": (text("model.safetensors", b"x" * 99), "model.safetensors"),
    "weights: cut off": (
        lambda d: text("model.safetensors", (d / "model.safetensors").read_bytes()[:-7])(d),
        "model.safetensors",
    ),
    "weights: a layer less": (
        weights(lambda t: {k: v for k, v in t.items() if ".1." not in k}), "num_hidden_layers=2"
    ),
    "weights: a tensor less": (
        weights(lambda t: {k: v for k, v in t.items() if k != "model.norm.weight"}),
        "model.norm.weight",
    ),
    "weights: another shape": (
        weights(lambda t: t | {"lm_head.weight": t["lm_head.weight"][:-1]}), "[319, 16]"
    ),
    "weights: integers": (
        weights(lambda t: t | {"model.norm.weight": np.ones(16, np.int32)}), "I32"
    ),
    **{
        f"weights: {value} in {name}": (with_value(name, value), name)
        for value in (NAN, INF, -INF)
        for name in ("lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight")
    },
    "tokenizer: missing": (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json"),
    "tokenizer: not JSON": (text("tokenizer.json", "{"), "tokenizer.json"),
    "tokenizer: no model": (backend(lambda s: s | {"model": {"type": "No"}}), "tokenizer.json"),
    "tokenizer: nested too deeply": (text("tokenizer.json", DEEP), "tokenizer.json"),
    "tokenizer: a pattern that is none": (regex("(a"), "tokenizer.json"),
    "tokenizer: a catastrophic pattern": (regex("(a+)+$"), "tokenizer.json"),
    "tokenizer: a catastrophic pattern of words": (regex(r"(\w+\s?)+$"), "tokenizer.json"),
    "tokenizer: a catastrophic pattern of a rare letter": (regex("(ж|жж)+!"), "tokenizer.json"),
    "tokenizer: chained replacements": (
        backend(lambda s: s | {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
        ] * 12}}),
        "tokenizer.json",
    ),
    "tokenizer: an id for a token that has another": (
        edit("tokenizer_config.json", lambda f: f | {"added_tokens_decoder": {"7": {
            "content": "<eos>", "special": True}}}),
        "the id 7",
    ),
    "tokenizer: an added token without a text": (
        edit("tokenizer_config.json", lambda f: f | {"added_tokens_decoder": {"300": {}}}),
        "added_tokens_decoder[300]",
    ),
    "tokenizer: added tokens that are a list": (
        edit("tokenizer_config.json", lambda f: f | {"added_tokens_decoder": [1]}), "[1]"
    ),
    "tokenizer: added tokens without ids": (
        edit("tokenizer_config.json", lambda f: f | {"added_tokens_decoder": {"a": {}}}),
        "added_tokens_decoder",
    ),
    "tokenizer: of a larger model": (
        lambda d: train_bpe([chr(c) * 9 for c in range(65, 400)], 600, eos_token="<eos>").save(d),
        "vocab_size",
    ),
    "generation: eos out of range": (
        text("generation_config.json", '{"eos_token_id": [0, 999]}'), "[0, 999]"
    ),
    "generation: not JSON": (text("generation_config.json", "eos"), "generation_config.json"),
    "template: a list without names": (template([{"template": "x"}]), "'name'"),
    "template: a number": (template(5), "chat_template is a int"),
    "template: not UTF-8": (
        text("chat_template.jinja", b"\xff{{ messages }}"), "chat_template.jinja"
    ),
}  # fmt: skip

# Name -> (template, what the error must contain); all are found when a chat is rendered.
TEMPLATES: dict[str, tuple[str, str]] = {
    "malformed": ("{% for %}", "line 1"),
    "nested loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "processor time",
    ),
    "a long loop": ("{% for i in range(10**9) %}{% endfor %}", "too big"),
    "3 GB of padding": ("{{ 'a'|center(3000000000) }}", "memory"),
    "40 MB of padding": ("{{ 'a'|center(40000000) }}", "40000000 characters"),
    "8 GB by repetition": ("{{ 'a' * (2**33) }}", "memory"),
    "doubling": (
        "{% set ns = namespace(x='aaaaaaaa') %}"
        "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "memory",
    ),
    "format widths": ("{{ '%3000000000d' % messages|length }}", "memory"),
    "division by zero": ("\n{{ 1 / 0 }}", "line 2: division by zero"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without end"),
    "branching recursion": (
        "{% macro f(n) %}{{ f(n + 1) ~ f(n + 1) if n < 60 }}{% endmacro %}{{ f(0) }}",
        "processor time",
    ),
    "out of the sandbox": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "an unknown field": ("{{ messages[0].a.b }}", "line 1"),
    "its own refusal": ("{{ raise_exception('no\nsystem') }}", "no system"),
    "an unknown filter": ("{{ messages|nope }}", "nope"),
    "a wrong type": ("{{ messages + 1 }}", "line 1"),
    "an import": ("{% include 'x' %}", "line 1"),
}


def outcome(directory: Path, damage: Damage) -> Exception | None:
    """What loading a damaged copy of a good checkpoint raises."""
    write_checkpoint(directory)
    damage(directory)
    try:
        load_model(directory)
    except Exception as error:
        return error
    return None


def rendering(directory: Path, source: str) -> Exception | None:
    """What rendering a chat by this template raises."""
    write_checkpoint(directory)
    template(source)(directory)
    tokenizer = load_model(directory).tokenizer
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "What is it?"}])
    except Exception as error:
        return error
    return None


def is_clear(error: Exception | None, place: Path, value: str) -> bool:
    """Whether an error is one line that names the place and the value."""
    message = str(error)
    right = isinstance(error, ValueError | OSError) and "\n" not in message
    return right and str(place) in message and value in message and len(message) < 1000
