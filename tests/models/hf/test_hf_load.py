"""Loading of checkpoints that transformers wrote, against the logits that it computed."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub import errors
from safetensors.numpy import load_file, save_file

from models import checkpoint_source
from models.checkpoint import load_model
from models.config import FAMILIES, RopeScaling, YarnScaling
from models.decoder import LanguageModel
from models.hf.load import load_config, load_dtype, load_params
from models.hf.tensor_files import bits_are_finite
from models.hf.tensors import tensor_rules
from models.layers.rope import rope_frequencies
from models.named_configs import NAMED_CONFIGS

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINTS = sorted(path.parent.name for path in GOLDEN.glob("*/expected.npz"))


def logits(config, params, tokens):
    model = LanguageModel(config)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = model.hidden(params, tokens, positions, jnp.ones_like(positions))
    return np.asarray(model.logits(params, hidden))


def copy_of(name, tmp_path):
    return shutil.copytree(GOLDEN / name, tmp_path / name)


def test_the_golden_checkpoints_cover_what_they_should():
    configs = [load_config(GOLDEN / name) for name in CHECKPOINTS]
    covered = {(c.family, c.tie_embeddings) for c in configs}
    assert covered == {(f, tied) for f in FAMILIES for tied in (True, False)}
    assert any(c.num_heads == c.num_kv_heads for c in configs)
    assert any(c.num_heads > c.num_kv_heads > 1 for c in configs)
    assert any(c.head_dim * c.num_heads != c.embed_dim for c in configs)
    assert len(list(GOLDEN.glob("*/model.safetensors.index.json"))) == 3
    scalings = [c.rope_scaling for c in configs if c.rope_scaling]
    assert {type(scaling) for scaling in scalings} == {RopeScaling, YarnScaling}
    # The length of the rows.
    assert all(scaling.original_max_length < 80 for scaling in scalings)
    latents = [c.latent.q_rank for c in configs if c.latent]
    assert None in latents and max(rank or 0 for rank in latents) > 0
    experts = [c.experts for c in configs if c.experts]
    assert {e.normalize for e in experts} == {True, False}
    assert all(1 < e.groups_per_token < e.groups for e in experts)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_equal_those_of_transformers(name):
    config = load_config(GOLDEN / name)
    expected = np.load(GOLDEN / name / "expected.npz")
    actual = logits(config, load_params(GOLDEN / name, config), expected["tokens"])
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected["logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-1b", "qwen3-8b"])
def test_rope_frequencies_are_those_of_transformers_to_the_last_bit(name):
    """One ulp, times a position of 10,000, is already seen in the logits."""
    expected = np.load(GOLDEN / "rope_frequencies.npz")[name]
    actual = np.asarray(jax.jit(lambda: rope_frequencies(NAMED_CONFIGS[name]))())
    np.testing.assert_array_max_ulp(actual, expected, maxulp=1)
    assert (actual != expected).sum() <= 1  # NumPy's power and torch's part ways once in 64.


def test_weights_come_in_the_dtype_of_the_config():
    name = "llama_mha_tied_bf16"
    stored = load_file(GOLDEN / name / "model.safetensors")["model.embed_tokens.weight"]
    for dtype in ("float32", "bfloat16"):
        params = load_params(GOLDEN / name, load_config(GOLDEN / name, param_dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
        np.testing.assert_array_equal(params["embedding"], stored.astype(dtype))


@pytest.mark.parametrize(
    "name", ["llama-3.2-1b", "llama-3.1-8b", "qwen2.5-7b", "qwen3-32b", "deepseek-v3"]
)
def test_the_table_names_every_parameter(name):
    config = NAMED_CONFIGS[name]
    rules = {rule.path: rule for rule in tensor_rules(config)}
    leaves, _ = jax.tree.flatten_with_path(LanguageModel(config).abstract_params)
    assert {tuple(key.key for key in path) for path, _ in leaves} == set(rules)


def test_a_block_reads_only_its_part_of_the_file():
    """Slices of any axis, against slices of the whole array; and no read beyond what is needed."""

    class Recorder:
        def __init__(self, array):
            self.array, self.read = array, 0

        def __getitem__(self, index):
            self.read += self.array[index].size
            return self.array[index]

    [rule] = [
        r for r in tensor_rules(NAMED_CONFIGS["qwen3-8b"]) if r.path[-3:-1] == ("attention", "q")
    ]
    kernel_DNH = np.random.default_rng(0).standard_normal((8, 4, 6))
    stored = rule.to_hf(kernel_DNH)
    np.testing.assert_array_equal(stored, kernel_DNH.reshape(8, 24).T)
    cuts = (
        [slice(None), slice(2, 6), slice(0, 4)],
        [slice(None), slice(1, 3)],
        [slice(None), slice(3, 6)],
    )
    for d in cuts[0]:
        for n in cuts[1]:
            for h in cuts[2]:
                recorder = Recorder(stored)
                block = rule.read(recorder, kernel_DNH.shape, (d, n, h))
                np.testing.assert_array_equal(block, kernel_DNH[d, n, h])
                assert recorder.read == kernel_DNH[d, n].size


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    directory = copy_of("qwen2_untied", tmp_path)
    config = load_config(directory)
    tensors = load_file(directory / "model.safetensors")

    def rewrite(**changes):
        kept = {k: v for k, v in (tensors | changes).items() if v is not None}
        save_file(kept, directory / "model.safetensors")

    rewrite(**{"model.layers.1.self_attn.k_proj.bias": None})
    with pytest.raises(ValueError, match="lacks tensor model.layers.1.self_attn.k_proj.bias;"):
        load_params(directory, config)
    rewrite(**{"score.weight": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="has unexpected tensor score.weight;"):
        load_params(directory, config)
    rewrite(**{"model.norm.weight": np.zeros(5, np.float32)})
    with pytest.raises(ValueError, match=r"model.norm.weight has shape \[5\], .* implies \[32\]"):
        load_params(directory, config)
    rewrite(**{"model.norm.weight": np.zeros(32, np.float64)})
    with pytest.raises(ValueError, match="model.norm.weight is stored as F64; only F32, BF16"):
        load_params(directory, config)
    with pytest.raises(ValueError, match=r"lacks tensors model.layers.3.* and 8 more;"):
        load_params(directory, config.replace(num_layers=4))


def test_what_old_checkpoints_add_is_ignored(tmp_path):
    directory = copy_of("qwen3_tied", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(6, np.float32)
    save_file(tensors, directory / "model.safetensors")
    load_params(directory, load_config(directory))
    with pytest.raises(ValueError, match="lm_head"):
        load_params(GOLDEN / "qwen3_tied", load_config(directory, tie_embeddings=False))


def test_layers_behind_the_last_one_are_ignored_for_deepseek_alone(tmp_path):
    """They predict further tokens, and are no part of the decoder."""
    for name in ("deepseek_v3_no_q_rank_tied_bf16", "qwen3_tied"):
        directory = copy_of(name, tmp_path)
        tensors = load_file(directory / "model.safetensors")
        tensors["model.layers.3.eh_proj.weight"] = np.zeros((32, 64), np.float32)
        save_file(tensors, directory / "model.safetensors")
        if name == "qwen3_tied":
            with pytest.raises(ValueError, match="has unexpected tensor model.layers.3.eh_proj"):
                load_params(directory, load_config(directory))
        else:
            load_params(directory, load_config(directory))


def test_what_corrects_the_choice_of_experts_is_never_rounded():
    """Differences between experts that matter are lost in bfloat16."""
    name = "deepseek_v3_yarn_sharded"
    params = load_params(GOLDEN / name, load_config(GOLDEN / name, param_dtype="bfloat16"))
    bias = params["layers"]["mlp"]["router"].pop("bias")
    assert bias.dtype == jnp.float32 and (bias != bias.astype(jnp.bfloat16)).any()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


def test_broken_directories_are_explained(tmp_path):
    directory = copy_of("qwen2_tied_sharded", tmp_path)
    config = load_config(directory)
    shard = directory / "model-00002-of-00004.safetensors"
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 100)
    with pytest.raises(ValueError, match="model-00002-of-00004.safetensors is not a whole"):
        load_params(directory, config)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="lacks model-00002-of-00004.safetensors, which"):
        load_params(directory, config)
    (directory / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match="has neither model.safetensors nor"):
        load_params(directory, config)
    (directory / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match="convert its pytorch_model.bin"):
        load_params(directory, config)


def test_load_model_brings_the_tokenizer_and_checks_that_it_fits(tmp_path):
    directory = copy_of("llama_mha_tied_bf16", tmp_path)
    with pytest.raises(FileNotFoundError, match="has no tokenizer.json"):
        load_model(directory)
    shutil.copytree(GOLDEN / "tokenizer_chatml", directory, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="the tokenizer has 335 tokens but the model's .* is 96"):
        load_model(directory)
    fields = json.loads((directory / "config.json").read_text()) | {"vocab_size": 400}
    (directory / "config.json").write_text(json.dumps(fields))
    tensors = load_file(directory / "model.safetensors")
    tensors["model.embed_tokens.weight"] = np.zeros((400, 32), np.float32)
    save_file(tensors, directory / "model.safetensors")
    model, params, tokenizer = load_model(directory, dtype="bfloat16")
    assert model.config.dtype == "bfloat16" and params["embedding"].shape == (400, 32)
    assert tokenizer.stop_ids == (332, 330)


def test_sources(tmp_path, monkeypatch):
    assert checkpoint_source.resolve(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="'/no/such' does not exist$"):
        checkpoint_source.resolve("/no/such")
    with pytest.raises(FileNotFoundError, match="is written hf://Qwen/Qwen2.5-0.5B$"):
        checkpoint_source.resolve("Qwen/Qwen2.5-0.5B")
    with pytest.raises(FileNotFoundError, match=r"write hf://org/name\[@revision\]"):
        checkpoint_source.resolve("hf://Qwen2.5-0.5B")

    asked = {}

    def download(repository, **options):
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(checkpoint_source.huggingface_hub, "snapshot_download", download)
    assert checkpoint_source.resolve("hf://Qwen/Qwen2.5-0.5B@main") == tmp_path
    assert (asked["repository"], asked["revision"]) == ("Qwen/Qwen2.5-0.5B", "main")
    assert checkpoint_source.resolve("hf://Qwen/Qwen2.5-0.5B") == tmp_path
    assert asked["revision"] is None


def test_hub_without_network_names_the_remedy(tmp_path, monkeypatch):
    """The library's own offline switch, so that no request leaves this machine."""
    monkeypatch.setattr(checkpoint_source.huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(checkpoint_source.huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConnectionError, match="`hf download Qwen/Qwen2.5-0.5B --local-dir DIR`"
    ) as e:
        load_config("hf://Qwen/Qwen2.5-0.5B")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (errors.GatedRepoError, PermissionError, "accept its licence at .*meta/llama and run"),
        (
            errors.RepositoryNotFoundError,
            FileNotFoundError,
            "does not exist on the Hub, or is priv",
        ),
        (errors.RevisionNotFoundError, FileNotFoundError, "has no revision 'v9'"),
    ],
)
def test_refusals_of_the_hub_are_told_apart(monkeypatch, error, raised, message):
    def refuse(*args, **options):
        raise error.__new__(error)

    monkeypatch.setattr(checkpoint_source.huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(raised, match=message):
        checkpoint_source.resolve("hf://meta/llama@v9")


def with_a_head(tmp_path, name, change):
    """A checkpoint whose config ties the head, and whose file holds one nevertheless."""
    directory = copy_of(name, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    head = np.array(tensors["model.embed_tokens.weight"], np.float32)
    save_file(tensors | {"lm_head.weight": change(head)}, directory / "model.safetensors")
    return directory, change(head)


@pytest.mark.parametrize("name", ["llama_mha_tied_bf16", "qwen3_tied"])
def test_a_head_that_differs_from_the_embedding_is_loaded_untied(name, tmp_path):
    def one_value(head):
        head = head.copy()
        head[-1, -1] += 1.0  # Of the last row: all have to be compared.
        return head

    for i, change in enumerate((one_value, lambda head: head[::-1].copy())):
        directory, head = with_a_head(tmp_path / str(i), name, change)
        with pytest.warns(UserWarning, match="tie_word_embeddings, but lm_head.weight differs"):
            config = load_config(directory)
        assert not config.tie_embeddings
        params = load_params(directory, config)
        np.testing.assert_array_equal(params["lm_head"]["kernel"], head.T)
        # Who insists on the tie is told, rather than given other logits.
        with pytest.raises(ValueError, match="but the config ties them"):
            load_params(directory, load_config(directory, tie_embeddings=True))


def test_an_equal_head_stays_tied(tmp_path, recwarn):
    directory, _ = with_a_head(tmp_path, "llama_mha_tied_bf16", lambda head: head)
    assert load_config(directory).tie_embeddings and not recwarn.list


def test_the_dtype_that_a_checkpoint_is_stored_in():
    assert load_dtype(GOLDEN / "llama_mha_tied_bf16") == "bfloat16"
    assert load_dtype(GOLDEN / "qwen3_untied_sharded_bf16") == "bfloat16"
    assert load_dtype(GOLDEN / "qwen2_untied") == "float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_values_that_are_not_finite_are_found_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore"):
        for size in (1, 7, 3 * 2**18 + 5):
            values = rng.standard_normal(size).astype(dtype)
            largest = values.copy()
            largest[-1] = jnp.finfo(dtype).max
            for good in (values, -largest, largest[::2]):
                assert bits_are_finite(good)
            for bad in (np.nan, np.inf, -np.inf):
                for place in (0, size // 2, -1):
                    broken = values.copy()
                    broken[place] = bad
                    assert not bits_are_finite(broken)


def test_weights_beyond_the_dtype_of_the_run_are_refused(tmp_path):
    directory = copy_of("qwen2_untied", tmp_path)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"][0] = 1e5
    save_file(tensors, directory / "model.safetensors")
    load_params(directory, load_config(directory))
    with pytest.raises(ValueError, match="model.norm.weight hold values that are not finite in fl"):
        load_params(directory, load_config(directory, param_dtype="float16"))


def test_a_tensor_in_two_files_is_refused(tmp_path):
    directory = copy_of("qwen2_tied_sharded", tmp_path)
    first, second, *_ = sorted(directory.glob("*.safetensors"))
    tensors = load_file(first)
    name = next(iter(tensors))
    save_file(load_file(second) | {name: tensors[name] + 1}, second)
    with pytest.raises(ValueError, match=f"the tensor {name} is in {first.name} and in"):
        load_params(directory, load_config(directory))
