"""Tokenizers from and to GGUF files: the same ids for every way of splitting text."""

import random

import numpy as np
import pytest
import tokenizers
from gguf import TokenType
from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers

from models.gguf.header import Header
from models.gguf.vocabulary import SPLITTINGS, fields_of_tokenizer, tokenizer_from_gguf
from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe
from tests.models.gguf import gguf_files

P = "tokenizer.ggml."
# As the published tokenizers of these families split text.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def by_regex(regex):
    split = pre_tokenizers.Split(tokenizers.Regex(regex), "isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, byte_level])


def train(splitting, normalizer=None, ignore_merges=False, vocab_size=420):
    """A tokenizer of the kind, with special tokens as instruct models have them."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer, backend.decoder = splitting, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    special = ["<|begin|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<｜User｜>"]
    backend.train_from_iterator(
        gguf_files.TEXTS,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    backend.add_tokens([tokenizers.AddedToken("<think>", normalized=False)])
    config = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    stop_ids = [backend.token_to_id("<|endoftext|>"), backend.token_to_id("<｜User｜>")]
    return Tokenizer(backend, config, gguf_files.TEMPLATE, stop_ids)


def digits_apart():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


KINDS = {
    "llama-bpe": lambda: train(by_regex(LLAMA3), ignore_merges=True),
    "qwen2": lambda: train(by_regex(QWEN2), normalizers.NFC()),
    "smollm": lambda: train(digits_apart()),
    "gpt-2": lambda: train(pre_tokenizers.ByteLevel(add_prefix_space=False)),
}


def samples(count=400):
    """Texts of what splitting is about: white space, digits, apostrophes, scripts, tokens."""
    pieces = [
        " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "a", "Fox", "DON'T", "'s", "’s",
        "7", "42", "123456", "½", "²", "١٢", "é", "e\u0301", "数学", "😀", "👍🏽", "...",
        "(x)", "_", "$", "<think>", "<|im_start|>", "<|im_end|>", "<｜User｜>", "<|", "\x00",
        "\u200b", "ǅ", "ﬁ",
    ]  # fmt: skip
    rng = random.Random(0)
    drawn = ["".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(count)]
    return [*gguf_files.TEXTS, *drawn]


def through_a_file(tokenizer, path, vocab_size=440, **changes):
    fields = fields_of_tokenizer(tokenizer, vocab_size) | changes
    fields = {name: value for name, value in fields.items() if value is not None}
    return tokenizer_from_gguf(Header(gguf_files.write(path, fields, {})))


@pytest.mark.parametrize("name", KINDS)
def test_a_tokenizer_of_each_kind_is_the_same_behind_a_file(name, tmp_path):
    before = KINDS[name]()
    assert fields_of_tokenizer(before, 440)[f"{P}pre"] == name
    after = through_a_file(before, tmp_path / "t.gguf")
    for line in samples():
        ids = before.encode(line)
        assert after.encode(line) == ids, repr(line)
        assert after.encode_prompts([line]) == [ids]
        assert after.decode(ids) == before.decode(ids)
    assert after.special_tokens == before.special_tokens
    assert set(after.stop_ids) == set(before.stop_ids)
    assert after.vocab_size == before.vocab_size  # Unused ids are no tokens.
    for number in range(before.vocab_size):
        assert after.token_bytes(number) == before.token_bytes(number)
    chat = [{"role": "user", "content": "7 + 5?"}]
    assert after.apply_chat_template(chat) == before.apply_chat_template(chat)
    # Special tokens are skipped, others that were added are text.
    ids = before.encode("<|im_start|>a<think>")
    assert after.decode(ids, skip_special_tokens=True) == "a<think>"


def test_the_splittings_tell_the_kinds_apart():
    """No two of them agree on these texts, so that a wrong one would be seen."""
    kinds = {name: SPLITTINGS[name].make() for name in KINDS}
    pieces = {
        name: [[piece for piece, _ in kind.pre_tokenize_str(line)] for line in samples()]
        for name, kind in kinds.items()
    }
    assert all(pieces[a] != pieces[b] for a in pieces for b in pieces if a < b)
    assert kinds["llama-bpe"].pre_tokenize_str("x 12345")[-2:] == [
        ("123", (2, 5)), ("45", (5, 7))
    ]  # fmt: skip


def test_the_tokenizers_trained_here_are_written_as_gpt_2(tmp_path):
    before = gguf_files.make_tokenizer()
    after = through_a_file(before, tmp_path / "t.gguf")
    digits = [line for line in samples(3000) if not set(line) & set("١٢")]
    assert all(after.encode(line) == before.encode(line) for line in digits)
    # Where a token joins line breaks, GPT-2's splitting would not be the same.
    joined = train_bpe(["a\n\n7\n\n8\n\nb"] * 50, 300)
    assert joined.backend.token_to_id("ĊĊ") is not None
    with pytest.raises(ValueError, match="no name for how it splits text"):
        fields_of_tokenizer(joined, 300)


def test_bos_and_eos_are_added_as_the_file_says(tmp_path):
    tokenizer = KINDS["qwen2"]()
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    flags = {f"{P}add_bos_token": True, f"{P}add_eos_token": True}
    both = through_a_file(tokenizer, tmp_path / "both.gguf", **flags)
    framed = both.backend.encode("a", add_special_tokens=True).ids
    assert framed == [bos, *tokenizer.encode("a"), eos]
    assert both.encode_prompts(["a"]) == [[bos, *tokenizer.encode("a")]]
    assert both.encode("a") == tokenizer.encode("a")
    fields = fields_of_tokenizer(both, 440)
    assert fields[f"{P}add_bos_token"] and fields[f"{P}add_eos_token"]
    # Llama 3 has a BOS where the file does not say; the others have none.
    silent = {f"{P}add_bos_token": None, f"{P}add_eos_token": None}
    llama = through_a_file(KINDS["llama-bpe"](), tmp_path / "llama.gguf", **silent)
    assert llama.encode_prompts(["a"])[0][0] == llama.bos_id
    qwen = through_a_file(tokenizer, tmp_path / "qwen.gguf", **silent)
    assert qwen.encode_prompts(["a"]) == [qwen.encode("a")]


def test_a_token_in_plain_text_is_read_as_its_bytes(tmp_path):
    before = KINDS["gpt-2"]()
    fields = fields_of_tokenizer(before, 440)
    number = before.encode("é")[0]
    tokens = [*fields[f"{P}tokens"]]
    unused = fields[f"{P}token_type"].index(TokenType.UNUSED)
    tokens[unused], types = "数学の", [*fields[f"{P}token_type"]]
    types[unused] = int(TokenType.NORMAL)
    changes = {f"{P}tokens": tokens, f"{P}token_type": types}
    after = through_a_file(before, tmp_path / "t.gguf", **changes)
    assert after.token_bytes(unused) == "数学の".encode()
    assert after.token_bytes(number) == before.token_bytes(number)


@pytest.mark.parametrize(("field", "value", "fault"), [
    ("model", "llama", "model='llama' is not supported"),
    ("model", None, "no field tokenizer.ggml.model"),
    ("pre", "tekken", "pre='tekken' is not supported"),
    ("pre", None, "no field tokenizer.ggml.pre"),
    ("tokens", None, "no field tokenizer.ggml.tokens"),
    ("tokens", 5, "not a list of texts"),
    ("tokens", ["a"] * 440, "'a' twice, as"),
    ("token_type", None, "not a list of 440"),
    ("token_type", [1] * 439, "not a list of 440"),
    ("token_type", [0] * 440, "holds 0"),
    ("merges", None, "no field tokenizer.ggml.merges"),
    ("merges", ["a b c"], "'a b c', which does not join"),
    ("merges", ["ab"], "'ab', which does not join"),
    ("bos_token_id", 440, "there are 440 tokens"),
    ("eot_token_id", 2**31, "there are 440 tokens"),
    ("eos_token_id", "x", "not a whole number"),
    ("add_bos_token", 1, "not true or false"),
])  # fmt: skip
def test_malformed_fields_are_named(field, value, fault, tmp_path):
    with pytest.raises(ValueError) as error:
        through_a_file(KINDS["gpt-2"](), tmp_path / "t.gguf", **{P + field: value})
    assert "t.gguf" in str(error.value) and fault in str(error.value)


def test_a_bos_that_is_to_be_added_must_be_there(tmp_path):
    changes = {f"{P}add_bos_token": True, f"{P}bos_token_id": None}
    with pytest.raises(ValueError, match="there is no tokenizer.ggml.bos_token_id"):
        through_a_file(KINDS["gpt-2"](), tmp_path / "t.gguf", **changes)


def test_export_refuses_what_llama_cpp_has_no_words_for():
    lowercase = train(by_regex(QWEN2), normalizers.Lowercase())
    with pytest.raises(ValueError, match="no Lowercase"):
        fields_of_tokenizer(lowercase, 440)
    stripping = KINDS["gpt-2"]()
    stripping.backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    with pytest.raises(ValueError, match="'<mask>' takes the white space"):
        fields_of_tokenizer(stripping, 440)
    other = train(pre_tokenizers.Whitespace())
    with pytest.raises(ValueError, match="no name for how it splits text"):
        fields_of_tokenizer(other, 440)
    many = KINDS["gpt-2"]()
    many = Tokenizer(many.backend, {"eos_token": "<|im_end|>"}, None, [300, 301, 302])
    with pytest.raises(ValueError, match="3 ids besides"):
        fields_of_tokenizer(many, 440)


def test_the_post_processor_of_llama_3_is_kept(tmp_path):
    before = KINDS["llama-bpe"]()
    before.backend.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", before.bos_id)]
    )
    after = through_a_file(before, tmp_path / "t.gguf")
    line = "Fox 123456"
    framed = before.encode_prompts([line])
    assert framed[0][0] == before.bos_id
    assert after.encode_prompts([line]) == framed
    assert np.array_equal(after.encode(line), before.encode(line))
