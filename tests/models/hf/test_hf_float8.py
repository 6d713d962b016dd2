"""Checkpoints in 8-bit floats with scales by block, against scales repeated by hand."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from models.hf import float8, remote_file
from models.hf.load import load_config, load_params

GOLDEN = Path(__file__).parents[1] / "golden" / "deepseek_v3_no_q_rank_tied_bf16"
# As published with DeepSeek-V3.
QUANTIZATION = {
    "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
    "weight_block_size": [128, 128],
}  # fmt: skip


def test_slices_are_those_of_the_whole_product(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 20, (300, 200)).astype(ml_dtypes.float8_e4m3fn)
    scales = rng.uniform(0.1, 2, (3, 2)).astype(np.float32)
    # Something before it, so that its offset in the file is not zero.
    save_file({"a": np.ones(5), "w": weight, "w_scale_inv": scales}, tmp_path / "x.safetensors")
    whole = weight.astype(np.float32) * np.kron(scales, np.ones((128, 128)))[:300, :200]
    with safe_open(tmp_path / "x.safetensors", framework="numpy") as file:
        assert file.get_slice("w").get_dtype() == float8.DTYPE
        path = tmp_path / "x.safetensors"
        scales_of = file.get_slice("w_scale_inv")
        tensor = float8.ScaledTensor(path, remote_file.read_header(path), "w", scales_of)
        assert tuple(tensor.get_shape()) == (300, 200)
        for rows in (slice(None), slice(0, 128), slice(100, 290), slice(299, 300)):
            for columns in (slice(None), slice(127, 129), slice(128, 200)):
                np.testing.assert_allclose(tensor[rows, columns], whole[rows, columns], rtol=1e-6)


def quantized_copy(tmp_path):
    """The golden checkpoint with its matrices in 8 bits, and in float32 what they then are."""
    directory = shutil.copytree(GOLDEN, tmp_path / "float8")
    exact = shutil.copytree(GOLDEN, tmp_path / "float32")
    tensors = load_file(GOLDEN / "model.safetensors")
    stored, products = dict(tensors), dict(tensors)
    for name, weight in tensors.items():
        if "_proj" in name:
            scale = np.abs(weight).max().astype(np.float32).reshape(1, 1) / 448
            stored[name] = (weight.astype(np.float32) / scale).astype(ml_dtypes.float8_e4m3fn)
            stored[name + float8.SUFFIX] = scale
            products[name] = stored[name].astype(np.float32) * scale
    save_file(stored, directory / "model.safetensors")
    save_file(products, exact / "model.safetensors")
    fields = json.loads((directory / "config.json").read_text())
    fields["quantization_config"] = QUANTIZATION
    (directory / "config.json").write_text(json.dumps(fields))
    return directory, exact, stored


def test_a_quantized_checkpoint_loads_as_its_products(tmp_path):
    directory, exact, _ = quantized_copy(tmp_path)
    config = load_config(directory)
    assert config == load_config(exact)
    params, expected = load_params(directory, config), load_params(exact, config)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_missing_and_misshapen_scales_are_named(tmp_path):
    directory, _, tensors = quantized_copy(tmp_path)
    config, file = load_config(directory), directory / "model.safetensors"
    name = "model.layers.1.self_attn.o_proj.weight"
    scale = tensors.pop(name + float8.SUFFIX)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=f"{name} is stored as F8_E4M3; only F32"):
        load_params(directory, config)
    save_file(tensors | {name + float8.SUFFIX: np.tile(scale, (2, 1))}, file)
    with pytest.raises(ValueError, match=r"_scale_inv has shape \[2, 1\], but .* makes \[1, 1\]"):
        load_params(directory, config)
