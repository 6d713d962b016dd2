"""Models from and to GGUF files: what is written is read back, what does not fit is refused."""

import jax
import numpy as np
import pytest
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    GGMLQuantizationType,
    dequantize,
    get_tensor_name_map,
    quantize,
)

from models.decoder import LanguageModel
from models.gguf.config import config_from_gguf
from models.gguf.export import export_gguf
from models.gguf.header import Header
from models.gguf.load import load_config, load_params, load_tokenizer
from models.gguf.tensors import GgufTensor, count_layers, gguf_name, row_order
from models.hf.tensors import stored_tensors
from tests.models.gguf import gguf_files
from tests.models.gguf.gguf_files import BASE, CONFIGS

Q8_0 = GGMLQuantizationType.Q8_0
TOKENS = np.random.default_rng(0).integers(0, 400, (2, 24))


@pytest.fixture(scope="module")
def tokenizer():
    return gguf_files.make_tokenizer()


@pytest.fixture(scope="module")
def small(tokenizer, tmp_path_factory):
    """A Llama of two layers, written here as float32."""
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    return export_gguf(path, BASE, gguf_files.make_params(BASE), tokenizer, kind="f32")


@pytest.mark.parametrize("name", CONFIGS)
def test_what_was_exported_is_read_back(name, tokenizer, tmp_path):
    config, params = CONFIGS[name], gguf_files.make_params(CONFIGS[name])
    path = export_gguf(tmp_path / "m.gguf", config, params, tokenizer, kind="f32")
    assert load_config(path) == config
    again = load_params(path, config)
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.mark.parametrize(("kind", "rounded"), [
    ("f16", lambda x: x.astype(np.float16)),
    ("q8_0", lambda x: dequantize(quantize(x, Q8_0), Q8_0)),
])  # fmt: skip
def test_matrices_are_rounded_and_vectors_are_not(kind, rounded, tokenizer, tmp_path):
    config = CONFIGS["qwen2"]
    params = gguf_files.make_params(config)
    path = export_gguf(tmp_path / "m.gguf", config, params, tokenizer, kind=kind)
    again = load_params(path, config)
    for name, shape, rule, index in stored_tensors(LanguageModel(config)):
        before, after = params, again
        for key in rule.path:
            before, after = before[key], after[key]
        before, after = rule.to_hf(before[index]), rule.to_hf(np.asarray(after)[index])
        expected = before if len(shape) == 1 else rounded(before).astype(np.float32)
        np.testing.assert_array_equal(after, expected, err_msg=name)
    before, after = (gguf_files.logits(config, each, TOKENS) for each in (params, again))
    assert 0 < np.abs(before - after).max() < 0.5


def test_rows_that_are_no_whole_blocks_are_stored_in_16_bits(tokenizer, tmp_path):
    config = BASE.replace(mlp_dim=80)
    params = gguf_files.make_params(config)
    header = Header(export_gguf(tmp_path / "m.gguf", config, params, tokenizer, kind="q8_0"))
    assert header.tensors["blk.0.ffn_down.weight"].kind == GGMLQuantizationType.F16
    assert header.tensors["blk.0.ffn_up.weight"].kind == GGMLQuantizationType.Q8_0


def test_llama_pairs_neighbours_where_hugging_face_pairs_halves():
    """Rotating neighbours of the stored rows is rotating halves of ours."""
    heads, dim, rng = 4, 16, np.random.default_rng(0)
    angles = rng.standard_normal(dim // 2)
    cos, sin = np.cos(angles), np.sin(angles)
    ours = rng.standard_normal((heads, dim))
    first, second = ours[:, : dim // 2], ours[:, dim // 2 :]
    halves = np.concatenate([first * cos - second * sin, second * cos + first * sin], 1)
    order = row_order("model.layers.0.self_attn.q_proj.weight", BASE)
    stored = np.empty(heads * dim)
    stored[order] = ours.reshape(-1)
    even, odd = stored.reshape(heads, dim)[:, ::2], stored.reshape(heads, dim)[:, 1::2]
    neighbours = np.stack([even * cos - odd * sin, odd * cos + even * sin], -1).reshape(-1)
    np.testing.assert_allclose(neighbours[order], halves.reshape(-1))
    assert row_order("model.layers.0.self_attn.v_proj.weight", BASE) is None
    assert row_order("model.layers.0.self_attn.q_proj.weight", CONFIGS["qwen2"]) is None


QUANTIZED = ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


@pytest.mark.parametrize("name", [*QUANTIZED, "Q4_K", "Q6_K", "IQ4_NL"])
def test_any_slice_of_a_quantized_tensor_is_that_of_the_whole(name, tmp_path):
    kind, rng = GGMLQuantizationType[name], np.random.default_rng(1)
    shape = (2500, 256)  # More rows than are dequantized at a time.
    if name in QUANTIZED:
        stored = quantize(rng.standard_normal(shape).astype(np.float32), kind)
    else:  # The library reads these but does not write them; 16-bit scales stay small.
        block, size = GGML_QUANT_SIZES[kind]
        stored = rng.integers(0, 60, (shape[0], shape[1] // block * size), np.uint8)
    path = gguf_files.write(tmp_path / "t.gguf", {}, {"t": (stored, kind)})
    whole = dequantize(stored, kind)
    order = rng.permutation(shape[0])
    header = Header(path)
    plain = GgufTensor(path, "t", header.tensors["t"])
    permuted = GgufTensor(path, "t", header.tensors["t"], order)
    for index in [
        (slice(None), slice(None)), (slice(3, 2400), slice(7, 99)), (slice(2499, 2500), slice(64)),
        (slice(5, 5), slice(None)),
    ]:  # fmt: skip
        np.testing.assert_array_equal(plain[index], whole[index])
        np.testing.assert_array_equal(permuted[index], whole[order][index])


def test_names_are_those_of_the_library():
    for name, config in CONFIGS.items():
        theirs = get_tensor_name_map(MODEL_ARCH[config.family.upper()], config.num_layers)
        for hf_name, *_ in stored_tensors(LanguageModel(config)):
            expected = theirs.get_name(hf_name, try_suffixes=(".weight", ".bias"))
            assert gguf_name(hf_name) == expected, name
    with pytest.raises(ValueError, match="score"):
        gguf_name("score.weight")
    assert count_layers(["blk.0.x.weight", "blk.11.x.weight", "output.weight"]) == 12


@pytest.mark.parametrize(("field", "value", "fault"), [
    ("general.architecture", "gemma", "'gemma' is not supported"),
    ("llama.block_count", 3, "tensors of 2 layers"),
    ("llama.block_count", 10**9, "tensors of 2 layers"),
    ("llama.embedding_length", 32, "embedding_length is 32"),
    ("llama.vocab_size", 7, "has 420 rows"),
    ("llama.attention.head_count", 0, "at least 1"),
    ("llama.attention.head_count", [4, 4], "whole number"),
    ("llama.attention.head_count_kv", 3, "not a multiple"),
    ("llama.attention.key_length", 15, "is not supported"),
    ("llama.attention.layer_norm_rms_epsilon", float("nan"), "positive finite"),
    ("llama.rope.freq_base", -1.0, "positive finite"),
    ("llama.rope.dimension_count", 8, "dimension of the heads"),
    ("llama.expert_count", 8, "llama.expert_count=8 is not supported"),
    ("llama.rope.scaling.type", "yarn", "rope.scaling.type='yarn' is not supported"),
    ("llama.attention.sliding_window", 64, "sliding_window=64 is not supported"),
    ("llama.context_length", None, "no field llama.context_length"),
    ("llama.feed_forward_length", None, "no field llama.feed_forward_length"),
])  # fmt: skip
def test_fields_that_do_not_fit_are_named(field, value, fault, small, tmp_path):
    path = gguf_files.rewrite(small, tmp_path / "m.gguf", {field: value})
    with pytest.raises(ValueError) as error:
        config_from_gguf(Header(path))
    assert str(path) in str(error.value) and fault in str(error.value)


def test_fields_that_change_nothing_are_let_through(small, tmp_path):
    extra = {"llama.rope.scaling.type": "none", "llama.expert_count": 0}
    path = gguf_files.rewrite(small, tmp_path / "m.gguf", extra)
    assert load_config(path) == BASE


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def with_tensor(name, array):
    return lambda tensors: tensors | {name: (array, None)}


@pytest.mark.parametrize(("change", "fault"), [
    (without("blk.1.attn_q.weight"), "lacks tensors (1, such as blk.1.attn_q.weight)"),
    (with_tensor("blk.0.attn_q.bias", np.zeros(64, np.float32)), "unexpected tensors (1, such as"),
    (with_tensor("blk.0.ffn_up.weight", np.zeros((96, 32), np.float32)), "has shape [96, 32]"),
    (with_tensor("blk.1.ffn_norm.weight", np.full(64, np.nan, np.float32)), "not finite"),
    (with_tensor("output.weight", np.full((420, 64), np.inf, np.float16)), "not finite"),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_named(change, fault, small, tmp_path):
    path = gguf_files.rewrite(small, tmp_path / "m.gguf", tensors=change)
    with pytest.raises(ValueError) as error:
        load_params(path, load_config(path))
    assert str(path) in str(error.value) and fault in str(error.value)


def test_scalings_of_unknown_origin_are_refused(small, tmp_path):
    factors = np.array([1, 1, 2, 3, 5, 8, 8, 8], np.float32)
    change = with_tensor("rope_freqs.weight", factors)
    path = gguf_files.rewrite(small, tmp_path / "m.gguf", tensors=change)
    with pytest.raises(ValueError, match="not the scaling of Llama 3.1"):
        load_config(path)
    change = with_tensor("rope_freqs.weight", np.ones(8, np.float32))
    path = gguf_files.rewrite(small, tmp_path / "n.gguf", tensors=change)
    assert load_config(path).rope_scaling is None


def test_tokenizer_and_template_are_read_back(small, tokenizer):
    again = load_tokenizer(small)
    assert again.template == tokenizer.template
    assert set(again.stop_ids) >= set(tokenizer.stop_ids)
    assert again.special_tokens == tokenizer.special_tokens
    for line in gguf_files.TEXTS:
        assert again.encode(line) == tokenizer.encode(line)


def test_a_file_that_was_replaced_is_read_anew(small, tokenizer, tmp_path):
    path = tmp_path / "m.gguf"
    export_gguf(path, BASE, gguf_files.make_params(BASE), tokenizer)
    assert load_config(path) == BASE
    other = CONFIGS["llama_tied"]
    export_gguf(path, other, gguf_files.make_params(other), tokenizer, overwrite=True)
    assert load_config(path) == other


def test_export_refuses_what_llama_cpp_cannot_run(tokenizer, tmp_path):
    params, path = gguf_files.make_params(BASE), tmp_path / "m.gguf"
    for config, kind, fault in [
        (BASE, "q5", "kind='q5'"),
        (BASE.replace(qk_norm=True), "f16", "qk_norm belongs to qwen3"),
        (BASE.replace(vocab_size=300), "f16", "tokenizer has"),
    ]:
        with pytest.raises(ValueError, match=fault):
            export_gguf(path, config, params, tokenizer, kind=kind)
    for value, kind in ((np.nan, "f32"), (1e9, "f16"), (1e9, "q8_0")):
        params["layers"]["mlp"]["up"]["kernel"][1, 2, 3] = value
        with pytest.raises(ValueError, match="blk.1.ffn_up.weight"):
            export_gguf(path, BASE, params, tokenizer, kind=kind)
    assert not list(tmp_path.iterdir())  # Nothing half-written stays.
    path.write_text("something else")
    with pytest.raises(FileExistsError, match="exists"):
        export_gguf(path, BASE, params, tokenizer)
    assert path.read_text() == "something else"
