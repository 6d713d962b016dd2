"""Tokenizers against what transformers gives, and what training and templates promise."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_training import train_bpe

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ["tokenizer_chatml", "tokenizer_header"]
CORPUS = [
    "What is 12 + 345? It is 357.",
    "Let me think: 7 * 8 = 56, so it is 56.",
    "Größe 你好 🙂",
] * 3


def golden(name):
    tokenizer = Tokenizer.from_directory(GOLDEN / name)
    return tokenizer, json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained():
    return train_bpe(
        CORPUS,
        320,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        text_tokens=["<think>", "</think>", "<｜of▁sentence｜>"],
        bos_token="<s>",
    )


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_texts_equal_those_of_transformers(name):
    tokenizer, expected = golden(name)
    for case in expected["texts"]:
        ids = tokenizer.encode(case["text"])
        assert ids == case["ids"]
        assert tokenizer.encode_prompts([case["text"]]) == [case["ids_with_special"]]
        assert tokenizer.decode(ids) == case["text"]
        skipped = tokenizer.decode(case["ids_with_special"], skip_special_tokens=True)
        assert skipped == case["decoded_without_special"]
    texts = [case["text"] for case in expected["texts"]]
    assert tokenizer.encode_batch(texts) == [case["ids"] for case in expected["texts"]]
    prompts = [case["ids_with_special"] for case in expected["texts"]]
    assert tokenizer.encode_prompts(texts) == prompts


@pytest.mark.parametrize("name", NAMES)
def test_chats_equal_those_of_transformers(name):
    tokenizer, expected = golden(name)
    for case in expected["chats"]:
        text = tokenizer.apply_chat_template(case["messages"], **case["variables"])
        assert text == case["rendered"]
        assert tokenizer.encode(text) == case["ids"]


def test_special_ids():
    chatml, expected = golden("tokenizer_chatml")
    ids = expected["transformers_tokens"]
    assert (chatml.eos_id, chatml.pad_id) == (ids["eos"], ids["pad"])
    assert chatml.stop_ids == (chatml.eos_id, chatml.token_id("<|endoftext|>"))
    with pytest.raises(ValueError, match="declares no bos_token; set it in tokenizer_config.json"):
        _ = chatml.bos_id

    header, expected = golden("tokenizer_header")
    ids = expected["transformers_tokens"]
    assert (header.bos_id, header.eos_id) == (ids["bos"], ids["eos"])
    assert header.stop_ids == (header.token_id("<|eot_id|>"), header.token_id("<|end_of_text|>"))
    assert ids["pad"] is None and header.pad_id == header.eos_id
    with pytest.raises(ValueError, match="has no token '<think>'"):
        header.token_id("<think>")


def test_stop_ids_of_config_json_where_there_is_no_generation_config(tmp_path):
    directory = shutil.copytree(GOLDEN / "tokenizer_chatml", tmp_path / "t")
    (directory / "generation_config.json").unlink()
    (directory / "config.json").write_text('{"eos_token_id": 7}')
    assert Tokenizer.from_directory(directory).stop_ids == (332, 7)
    (directory / "tokenizer_config.json").write_text("{}")
    assert Tokenizer.from_directory(directory).stop_ids == (7,)
    (directory / "config.json").unlink()
    with pytest.raises(ValueError, match="declares no eos_token"):
        _ = Tokenizer.from_directory(directory).stop_ids


@pytest.mark.parametrize(
    "fields",
    [
        {"tokenizer_config.json": {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}}},
        {"tokenizer_config.json": {}, "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
        {"tokenizer_config.json": {"eos_token": "<|im_end|>", "add_bos_token": True}},
    ],
)
def test_spellings_of_special_tokens(fields, tmp_path):
    shutil.copy(GOLDEN / "tokenizer_chatml" / "tokenizer.json", tmp_path)
    for name, value in fields.items():
        (tmp_path / name).write_text(json.dumps(value))
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.special_tokens == {"eos_token": "<|im_end|>"}


def test_where_templates_are_found(tmp_path):
    shutil.copy(GOLDEN / "tokenizer_chatml" / "tokenizer.json", tmp_path)

    def rendered(template, jinja=None):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        if jinja is not None:
            (tmp_path / "chat_template.jinja").write_text(jinja)
        return Tokenizer.from_directory(tmp_path).apply_chat_template([])

    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    assert rendered("config") == "config"
    assert rendered(named) == "b"
    assert rendered("config", jinja="file") == "file"


def test_templates_run_in_a_sandbox_with_the_usual_helpers():
    def render(template, messages=(), **variables):
        tokenizer = Tokenizer(tokenizers.Tokenizer(models.BPE()), {"bos_token": "<s>"}, template)
        return tokenizer.apply_chat_template(messages, **variables)

    assert render("{% if true %}\n  x\n{% endif %}\ny") == "  x\ny"  # trim_blocks, lstrip_blocks
    assert render("{{ bos_token }}{{ eos_token }}") == "<s>"
    assert render("{{ tools is none }} {{ x }}", x=3) == "True 3"
    assert render("{{ {'a': '<é>'} | tojson }}") == '{"a": "<é>"}'
    assert render("{{ {'a': 1} | tojson(indent=1) }}") == '{\n "a": 1\n}'
    until_two = "{% for n in messages %}{% if n > 1 %}{% break %}{% endif %}{{ n }}{% endfor %}"
    assert render(until_two, [1, 2, 3]) == "1"
    assert render("{% generation %}a{{ 1 + 1 }}{% endgeneration %}b") == "a2b"
    assert len(render("{{ strftime_now('%Y') }}")) == 4
    for hostile in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ strftime_now.__globals__['datetime'] }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
    ):
        with pytest.raises(ValueError, match="chat template, line 1: "):
            render(hostile)


def test_faults_of_templates_are_one_line():
    tokenizer, _ = golden("tokenizer_header")
    with pytest.raises(ValueError, match="chat_template.jinja, line 13: unknown role tool$"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])
    with pytest.raises(ValueError, match="^chat template, line 2: "):
        Tokenizer(tokenizers.Tokenizer(models.BPE()), {}, "a\n{% if %}").apply_chat_template([])
    with pytest.raises(ValueError, match="the tokenizer has no chat template; use the instruct"):
        Tokenizer(tokenizers.Tokenizer(models.BPE()), {}).apply_chat_template([])


def test_broken_directories_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no tokenizer.json; transformers writes it"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer: "):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_token_bytes_spell_every_golden_text(name):
    tokenizer, expected = golden(name)
    for case in expected["texts"]:
        assert b"".join(map(tokenizer.token_bytes, case["ids"])) == case["text"].encode()
    assert tokenizer.token_bytes(tokenizer.vocab_size) == b""


def test_token_bytes_of_every_single_byte(trained):
    single = [trained.token_bytes(i) for i in range(trained.vocab_size)]
    assert {token for token in single if len(token) == 1} == {bytes([b]) for b in range(256)}
    assert trained.token_bytes(trained.token_id("<think>")) == b"<think>"
    assert trained.token_bytes(trained.eos_id) == b"<|endoftext|>"
    # As in DeepSeek's tokenizers; its characters are text, not the spelling of bytes.
    marker = "<｜of▁sentence｜>"
    assert trained.token_bytes(trained.token_id(marker)) == marker.encode()


def test_token_bytes_of_sentencepiece_like_tokenizers():
    vocab = {"<unk>": 0, "▁the": 1, "re": 2, "<0xE4>": 3, "▁": 4}
    backend = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer = Tokenizer(backend, {})
    assert [tokenizer.token_bytes(i) for i in (1, 2, 3, 4)] == [b" the", b"re", b"\xe4", b" "]


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_survives_a_trained_tokenizer(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert b"".join(map(trained.token_bytes, ids)) == text.encode()


def test_training_keeps_its_promises(trained):
    assert trained.vocab_size <= 320
    # Digits stand alone, at most with the space before them.
    tokens = [trained.decode([i]) for i in range(trained.vocab_size)]
    with_digits = {token for token in tokens if any(map(str.isdigit, token))}
    assert with_digits >= set("0123456789")
    assert all(len(token.removeprefix(" ")) == 1 for token in with_digits)
    think = trained.encode("<think>so</think><|im_end|>")
    assert think[0] == trained.token_id("<think>")
    assert trained.decode(think, skip_special_tokens=True) == "<think>so</think>"
    assert trained.stop_ids == (trained.eos_id,)
    assert trained.token_id("<s>") == trained.bos_id
    assert len(trained.encode("Let me think")) < len("Let me think")


def test_training_does_not_depend_on_the_order_of_texts(trained):
    shuffled = list(CORPUS)
    random.Random(0).shuffle(shuffled)
    again = train_bpe(
        iter(shuffled),
        320,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        text_tokens=["<think>", "</think>", "<｜of▁sentence｜>"],
        bos_token="<s>",
    )
    for text in CORPUS:
        assert again.encode(text) == trained.encode(text)


def test_training_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="vocab_size=257 is too small; 256 bytes and 2 listed"):
        train_bpe(CORPUS, 257, special_tokens=["<|im_start|>"])
    with pytest.raises(ValueError, match="there are no texts"):
        train_bpe([], 300)


def test_saving_and_loading(trained, tmp_path):
    trained.save(tmp_path / "new")
    again = Tokenizer.from_directory(tmp_path / "new")
    assert [again.encode(text) for text in CORPUS] == [trained.encode(text) for text in CORPUS]
    assert again.special_tokens == trained.special_tokens and again.template is None

    chatml, expected = golden("tokenizer_chatml")
    chatml.save(tmp_path / "chatml")
    again = Tokenizer.from_directory(tmp_path / "chatml")
    case = expected["chats"][-1]
    assert again.apply_chat_template(case["messages"], **case["variables"]) == case["rendered"]


def test_tokenizers_load_without_jax():
    """Data workers tokenize; they should not pay for JAX."""
    code = (
        "import sys, models.tokens.tokenizer;"
        " sys.exit('jax' in sys.modules or 'torch' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
