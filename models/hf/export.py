"""Writes a model as a Hugging Face checkpoint that `transformers` loads."""

import functools
import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save, save_file

from models.config import ModelConfig
from models.decoder import LanguageModel, Model
from models.hf.config import config_to_hf
from models.hf.tensor_files import INDEX_FILE, WEIGHTS_FILE
from models.hf.tensors import TensorRule, head_of, leaf, stored_tensors
from models.host.storage import as_path, is_remote, make_folder, remove_tree
from models.manifest import MANIFEST_FILE, write_manifest
from models.scalar_head import ScalarModel
from models.tokens.tokenizer import Tokenizer
from models.tokens.tokenizer_files import GENERATION_FILE


def export_model(
    directory: str | os.PathLike,
    config: ModelConfig,
    params: Any,
    tokenizer: Tokenizer | None = None,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = 5 * 10**9,
    overwrite: bool = False,
    scalar_head: ScalarModel | None = None,
) -> Path:
    """Writes config, weights, tokenizer, chat template and stop ids, all or nothing.

    Every process of a multi-host run must call this; process 0 writes. The host holds one weights
    file in memory at a time. A manifest of checksums (`models.manifest`) is written too;
    `models.hf.load` compares the files with it.

    For `model_type: qwen2`, AutoTokenizer of transformers 5 ignores how `tokenizer.json` splits
    text and applies Qwen2's rules instead. A tokenizer trained here loads unchanged there through
    `PreTrainedTokenizerFast`, or with any other family.

    Args:
      directory: the directory to create. A rename at the end makes it appear or replaces it. In a
        remote store, which has no rename, the manifest comes last, and is the first to be removed.
      config: the config of the model.
      params: the parameters, as NumPy arrays or as JAX arrays with any sharding.
      tokenizer: saved with the weights, together with its `generation_config.json`, whose
        `eos_token_id` then lists the tokenizer's stop ids.
      dtype: dtype of the weights in the file; None means `config.param_dtype`.
      max_shard_bytes: largest size of one weights file (a single tensor may exceed it).
      overwrite: whether to replace an existing directory.
      scalar_head: the `ScalarModel` if `params` belong to one; it is written as a classifier with
        one label, see `models.hf.load.load_scalar_model`.

    Returns:
      The directory.

    Raises:
      FileExistsError: if the directory exists and `overwrite` is not set.
      ValueError: if no Hugging Face architecture fits `config`, or the tokenizer has more tokens
        than the model's vocabulary.
    """
    directory = as_path(directory)
    if directory.exists() and not overwrite:
        raise FileExistsError(
            f"{directory} exists; remove it, choose another, or pass overwrite=True"
        )
    config = config.replace(param_dtype=dtype or config.param_dtype)
    model = LanguageModel(config)
    if scalar_head is not None:
        model = ScalarModel(config, scalar_head.bias)
    fields = config_to_hf(config, head_of(model))
    if tokenizer is not None:
        tokenizer.check_fits(config.vocab_size)
        fields |= tokenizer.special_ids()
    shards = _plan(model, max_shard_bytes)

    writer = jax.process_index() == 0
    scratch, old = (directory.with_name(f".{directory.name}.{x}") for x in ("part", "old"))
    if is_remote(directory):
        scratch = old = directory
    if writer:
        if is_remote(directory):
            (directory / MANIFEST_FILE).unlink(missing_ok=True)
        for left in {scratch, old}:  # Left by a process that was killed during an export.
            remove_tree(left)
        make_folder(scratch)
    try:
        # Gathering is a collective operation, so every process takes part.
        for name, tensors in shards.items():
            arrays = {
                key: gather(params, rule, index, stored) for key, rule, index, stored in tensors
            }
            if writer:
                _save(arrays, scratch / name)
        if writer:
            _write_json(scratch / "config.json", fields)
            if len(shards) > 1:
                _write_json(scratch / INDEX_FILE, _index(model, shards))
            if tokenizer is not None:
                tokenizer.save(scratch)
                generation = tokenizer.generation | tokenizer.special_ids()
                _write_json(scratch / GENERATION_FILE, generation)
            write_manifest(scratch)
            if scratch != directory:
                if directory.exists():
                    directory.rename(old)
                scratch.rename(directory)
                remove_tree(old)
    finally:
        if writer and scratch != directory:
            remove_tree(scratch)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"export {directory}")
    return directory


def _plan(
    model: Model, max_shard_bytes: int
) -> dict[str, list[tuple[str, TensorRule, tuple[int, ...], np.dtype]]]:
    """Returns, for each file name, the `(tensor name, rule, index, dtype)` of its tensors."""
    files: list[list] = [[]]
    used = 0
    for name, shape, rule, index in stored_tensors(model):
        dtype = leaf(model.abstract_params, rule.path).dtype
        size = math.prod(shape) * dtype.itemsize
        if files[-1] and used + size > max_shard_bytes:
            files.append([])
            used = 0
        files[-1].append((name, rule, index, dtype))
        used += size
    if len(files) == 1:
        return {WEIGHTS_FILE: files[0]}
    total = f"{len(files):05d}"
    return {f"model-{i:05d}-of-{total}.safetensors": f for i, f in enumerate(files, 1)}


def _index(model: Model, shards: dict[str, list]) -> dict[str, Any]:
    total = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(model.abstract_params))
    weight_map = {name: file for file, tensors in shards.items() for name, *_ in tensors}
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def gather(params: Any, rule: TensorRule, index: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns one stored tensor as a whole on this host."""
    array = leaf(params, rule.path)
    if isinstance(array, np.ndarray):
        return rule.to_hf(array[index].astype(dtype))
    whole = array.sharding
    if isinstance(whole, NamedSharding):
        whole = NamedSharding(whole.mesh, PartitionSpec())
    one = _one_slice(dtype, whole)(array, index)
    return rule.to_hf(np.asarray(one.addressable_data(0)))


@functools.cache
def _one_slice(dtype: np.dtype, sharding: jax.sharding.Sharding):
    def pick(array, index):
        for number in index:
            array = jax.lax.dynamic_index_in_dim(array, number, 0, keepdims=False)
        return array.astype(dtype)

    return jax.jit(pick, out_shardings=sharding)


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    metadata = {"format": "pt"}
    if is_remote(path):
        path.write_bytes(save(arrays, metadata))
    else:
        save_file(arrays, path, metadata=metadata)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
