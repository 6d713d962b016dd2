"""Export: the same tensors that transformers wrote, and all or nothing."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from models.checkpoint import load_model
from models.hf import export
from models.hf.export import export_model
from models.hf.load import load_config, load_params
from models.tokens.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINTS = sorted(path.parent.name for path in GOLDEN.glob("*/expected.npz"))


def stored(directory):
    return {k: v for f in directory.glob("*.safetensors") for k, v in load_file(f).items()}


def loaded(name):
    config = load_config(GOLDEN / name)
    return config, load_params(GOLDEN / name, config)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("max_shard_bytes", [10**9, 25_000])
def test_export_writes_the_tensors_that_transformers_wrote(name, max_shard_bytes, tmp_path):
    config, params = loaded(name)
    expected = stored(GOLDEN / name)
    # What corrects the choice of experts stays in float32.
    kept = {key for key in expected if key.endswith("e_score_correction_bias")}
    [dtype] = {tensor.dtype.name for key, tensor in expected.items() if key not in kept}
    export_model(tmp_path / "out", config, params, dtype=dtype, max_shard_bytes=max_shard_bytes)
    actual = stored(tmp_path / "out")
    assert actual.keys() == expected.keys()
    for key, tensor in expected.items():
        assert actual[key].dtype == tensor.dtype
        np.testing.assert_array_equal(actual[key], tensor, err_msg=key)
    assert load_config(tmp_path / "out") == config


def test_files_are_split_by_size_and_indexed(tmp_path):
    config, params = loaded("qwen2_untied")
    directory = export_model(tmp_path / "out", config, params, max_shard_bytes=25_000)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    files = {path.name: load_file(path) for path in directory.glob("*.safetensors")}
    assert {k: file for file, tensors in files.items() for k in tensors} == index["weight_map"]
    sizes = {name: sum(t.nbytes for t in tensors.values()) for name, tensors in files.items()}
    assert len(sizes) > 2 and max(sizes.values()) <= 25_000
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert sorted(sizes) == [
        f"model-{i:05d}-of-{len(sizes):05d}.safetensors" for i in range(1, len(sizes) + 1)
    ]


def test_tokenizer_template_and_stop_ids_travel_along(tmp_path):
    config, params = loaded("llama_mha_tied_bf16")
    params["embedding"] = np.pad(np.asarray(params["embedding"]), ((0, 304), (0, 0)))
    config = config.replace(vocab_size=400)
    tokenizer = Tokenizer.from_directory(GOLDEN / "tokenizer_header")
    export_model(tmp_path / "out", config, jax.tree.map(np.asarray, params), tokenizer)
    _, again, back = load_model(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert back.stop_ids == tokenizer.stop_ids and len(back.stop_ids) == 2
    assert back.template == tokenizer.template
    for name in ("config.json", "generation_config.json"):
        fields = json.loads((tmp_path / "out" / name).read_text())
        assert fields["eos_token_id"] == [*tokenizer.stop_ids]
        assert fields["bos_token_id"] == tokenizer.bos_id
        assert "pad_token_id" not in fields
    with pytest.raises(ValueError, match="the tokenizer has 335 tokens but"):
        export_model(tmp_path / "small", config.replace(vocab_size=96), params, tokenizer)


def test_nothing_is_replaced_unasked(tmp_path):
    config, params = loaded("qwen3_tied")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(FileExistsError, match="out exists; remove it, choose another, or pass"):
        export_model(tmp_path / "out", config, params)
    assert (tmp_path / "out" / "precious").exists()
    export_model(tmp_path / "out", config, params, overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "MANIFEST.sha256",
        "config.json",
        "model.safetensors",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_removed(tmp_path):
    config, params = loaded("qwen3_tied")
    for name in (".out.part", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    export_model(tmp_path / "out", config, params)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_export_leaves_everything_as_it_was(tmp_path, monkeypatch, exists):
    config, params = loaded("qwen3_tied")
    if exists:
        shutil.copytree(GOLDEN / "qwen3_tied", tmp_path / "out")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    files = []

    def full_disk(tensors, path, **options):
        files.append(path)
        if len(files) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(export, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export_model(tmp_path / "out", config, params, max_shard_bytes=25_000, overwrite=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"] * exists


def test_a_trained_dtype_is_the_default(tmp_path):
    config = load_config(GOLDEN / "qwen2_untied", param_dtype="bfloat16")
    export_model(tmp_path / "out", config, load_params(GOLDEN / "qwen2_untied", config))
    assert {t.dtype.name for t in stored(tmp_path / "out").values()} == {"bfloat16"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_generation_config_survives(tmp_path):
    tokenizer_files = shutil.copytree(GOLDEN / "tokenizer_chatml", tmp_path / "tokenizer")
    asked = {"temperature": 0.6, "top_p": 0.95, "do_sample": True, "eos_token_id": [330]}
    (tokenizer_files / "generation_config.json").write_text(json.dumps(asked))
    tokenizer = Tokenizer.from_directory(tokenizer_files)
    config, params = loaded("llama_mha_tied_bf16")
    params["embedding"] = np.zeros((400, config.embed_dim), np.float32)
    config = config.replace(vocab_size=400)
    for name in ("once", "twice"):
        directory = export_model(tmp_path / name, config, params, tokenizer)
        written = json.loads((directory / "generation_config.json").read_text())
        assert written == asked | tokenizer.special_ids()
        tokenizer = Tokenizer.from_directory(directory)
    assert 330 in tokenizer.stop_ids
