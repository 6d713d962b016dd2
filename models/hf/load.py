"""Reads a Hugging Face checkpoint straight into sharded arrays."""

import contextlib
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from safetensors import SafetensorError, safe_open

from models.checkpoint_source import read_json, resolve
from models.config import ModelConfig
from models.decoder import LanguageModel, Model
from models.hf import float8
from models.hf.config import (
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    config_from_hf,
)
from models.hf.families import get_family
from models.hf.tensors import TensorRule, head_of, leaf, stored_tensors, tensor_rules
from models.manifest import MANIFEST_FILE, Damaged, check_manifest, has_manifest
from models.scalar_head import ScalarModel
from models.sharding import tree_shardings
from models.tokens.tokenizer import Tokenizer

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPES = ("F32", "BF16", "F16")

# What checkpoints hold beyond the weights: rotary frequencies, saved by old versions of
# transformers, a copy of the tied embedding under the head's name, and, as layers behind the last
# one, DeepSeek-V3's for the prediction of further tokens.
_ROTARY = re.compile(r".*rotary_emb\.inv_freq")
_LAYER = re.compile(r"model\.layers\.(\d+)\..*")
_HEAD = "lm_head.weight"


class LoadedModel(NamedTuple):
    model: Model
    params: Any
    tokenizer: Tokenizer


def load_model(source: str | os.PathLike, mesh: Mesh | None = None, **changes: Any) -> LoadedModel:
    """Config, weights and tokenizer of a directory or `hf://org/name`.

    Args:
      source: see `models.checkpoint_source.resolve`.
      mesh: where the weights go; None is the first device.
      **changes: fields of `ModelConfig` to set otherwise, e.g. `dtype="bfloat16"`.

    Raises:
      OSError, ValueError: one line that says what is missing or does not fit.
    """
    directory = resolve(source)
    config = load_config(directory, **changes)
    tokenizer = Tokenizer.from_directory(directory)
    tokenizer.check_fits(config.vocab_size)
    return LoadedModel(LanguageModel(config), load_params(directory, config, mesh), tokenizer)


def load_scalar_model(
    source: str | os.PathLike, mesh: Mesh | None = None, **changes: Any
) -> LoadedModel:
    """`load_model` for a verifier or reward model: a `ScalarModel`.

    It is stored as a `...ForTokenClassification` (with a bias) or `...ForSequenceClassification`
    (without) of one label.

    Raises:
      OSError, ValueError: as `load_model`; and a checkpoint without a scalar head.
    """
    directory = resolve(source)
    fields = read_json(directory / "config.json")
    architecture = str((fields.get("architectures") or [None])[0])
    heads = [h for h in (TOKEN_CLASSIFICATION, SEQUENCE_CLASSIFICATION) if architecture.endswith(h)]
    labels = len(fields.get("id2label") or (0, 1))  # transformers leaves out the default, 2.
    if not heads or labels != 1:
        what = f"{labels} labels" if heads else f"architecture {architecture}"
        raise ValueError(
            f"{directory} is no model with a scalar head ({what}): give one that was trained as a "
            f"verifier or reward model, a {TOKEN_CLASSIFICATION} or {SEQUENCE_CLASSIFICATION} of 1 "
            "label"
        )
    try:
        config = config_from_hf(fields, heads[0], **changes)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    tokenizer = Tokenizer.from_directory(directory)
    tokenizer.check_fits(config.vocab_size)
    model = ScalarModel(config, bias=heads[0] == TOKEN_CLASSIFICATION)
    return LoadedModel(model, _load(directory, model, mesh), tokenizer)


def load_config(source: str | os.PathLike, **changes: Any) -> ModelConfig:
    """The `ModelConfig` of a checkpoint, with fields changed; see `config_from_hf`."""
    directory = resolve(source)
    try:
        return config_from_hf(read_json(directory / "config.json"), **changes)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None


def load_params(source: str | os.PathLike, config: ModelConfig, mesh: Mesh | None = None) -> Any:
    """The parameters of a checkpoint, in `config.param_dtype`, sharded over `mesh`.

    Every name, shape and dtype is checked before anything is read. Then one shard at a time is
    read, cast and put on its devices, so that a host holds no more than its largest shard.

    Args:
      source: a directory or `hf://org/name`.
      config: what the checkpoint must hold.
      mesh: where the weights go, laid out by `models.sharding`; None is the first device.

    Raises:
      OSError, ValueError: the file, tensor or field that is missing or does not fit.
    """
    return _load(resolve(source), LanguageModel(config), mesh)


def _load(directory: Path, model: Model, mesh: Mesh | None) -> Any:
    if mesh is None:
        one = SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: one, model.abstract_params)
    else:
        shardings = tree_shardings(model.abstract_params, model.logical_axes, mesh)
    _check_undamaged(directory)
    with contextlib.ExitStack() as stack:
        tensors = _open_tensors(directory, stack)
        _check_tensors(directory, model, tensors)
        params: dict = {}
        for rule in tensor_rules(model.config, head_of(model)):
            node = params
            for key in rule.path[:-1]:
                node = node.setdefault(key, {})
            node[rule.path[-1]] = _load_array(
                rule, tensors, leaf(model.abstract_params, rule.path), leaf(shardings, rule.path)
            )
    return params


def _check_undamaged(directory: Path) -> None:
    """Compares an export of this project with its checksums; other checkpoints have none."""
    if has_manifest(directory):
        try:
            check_manifest(directory)
        except Damaged as error:
            raise Damaged(
                f"{error}; export it again, or, if you changed the file yourself, remove"
                f" {directory / MANIFEST_FILE}"
            ) from None


def _open_tensors(directory: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Name -> lazily read tensor, of all files of the checkpoint; nothing is read yet."""
    if (directory / WEIGHTS_FILE).exists():
        files = [WEIGHTS_FILE]
    elif (directory / INDEX_FILE).exists():
        files = sorted(set(read_json(directory / INDEX_FILE).get("weight_map", {}).values()))
    else:
        remedy = ""
        if any(directory.glob("pytorch_model*.bin")):
            remedy = "; convert its pytorch_model.bin with transformers' `save_pretrained`"
        raise FileNotFoundError(f"{directory} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{remedy}")
    tensors, files_of = {}, {}
    for name in files:
        if not (directory / name).exists():
            raise FileNotFoundError(f"{directory} lacks {name}, which {INDEX_FILE} names")
        try:
            handle = stack.enter_context(safe_open(directory / name, framework="numpy"))
        except SafetensorError as error:
            raise ValueError(
                f"{directory / name} is not a whole safetensors file ({error}); fetch it again"
            ) from None
        tensors |= {key: handle.get_slice(key) for key in handle.keys()}
        files_of |= dict.fromkeys(handle.keys(), directory / name)
    header_of = functools.cache(float8.read_header)
    for key in [key for key, tensor in tensors.items() if tensor.get_dtype() == float8.DTYPE]:
        # Of another file, perhaps.
        if (scales := tensors.pop(key + float8.SUFFIX, None)) is not None:
            file = files_of[key]
            tensors[key] = float8.ScaledTensor(file, header_of(file), key, scales)
    return tensors


def _check_tensors(directory: Path, model: Model, tensors: Mapping[str, Any]) -> None:
    expected = {name: shape for name, shape, *_ in stored_tensors(model)}
    extra = {name for name in tensors if not _ROTARY.fullmatch(name)} - set(expected)
    if model.config.tie_embeddings:
        extra.discard(_HEAD)
    if get_family(model.config.family).further_layers:
        found = {name: _LAYER.fullmatch(name) for name in extra}
        behind = model.config.num_layers
        extra -= {name for name, layer in found.items() if layer and int(layer[1]) >= behind}
    for problem, names in (("lacks", set(expected) - set(tensors)), ("has unexpected", extra)):
        if names:
            raise ValueError(
                f"{directory} {problem} {_listed(sorted(names))}; its weights are not those of "
                "the model that config.json describes"
            )
    for name, shape in expected.items():
        if (found := tuple(tensors[name].get_shape())) != shape:
            raise ValueError(
                f"{directory}: {name} has shape {list(found)}, but config.json implies "
                f"{list(shape)}"
            )
        if (dtype := tensors[name].get_dtype()) not in _DTYPES:
            raise ValueError(
                f"{directory}: {name} is stored as {dtype}; only {', '.join(_DTYPES)} can be read"
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"tensor{'s' * (len(names) > 1)} {shown}{more}"


def _load_array(
    rule: TensorRule,
    tensors: Mapping[str, Any],
    abstract: jax.ShapeDtypeStruct,
    sharding: jax.sharding.Sharding,
) -> jax.Array:
    # `jax.make_array_from_callback` would hold all shards of this host before it moves one, and
    # read a shard anew for each of its replicas.
    devices_of: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(abstract.shape).items():
        bounds = tuple(s.indices(n)[:2] for s, n in zip(index, abstract.shape, strict=True))
        devices_of.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, devices in devices_of.items():
        shard = _read_shard(rule, tensors, abstract, [slice(*b) for b in bounds])
        arrays += [jax.device_put(shard, device) for device in devices]
    return jax.make_array_from_single_device_arrays(abstract.shape, sharding, arrays)


def _read_shard(
    rule: TensorRule,
    tensors: Mapping[str, Any],
    abstract: jax.ShapeDtypeStruct,
    index: Sequence[slice],
) -> np.ndarray:
    lead, rest = index[: rule.stacked], index[rule.stacked :]
    shape = abstract.shape[rule.stacked :]
    shard = np.empty([part.stop - part.start for part in index], abstract.dtype)
    first = [part.start for part in lead]
    for row in np.ndindex(*shard.shape[: rule.stacked]):
        name = rule.name([start + number for start, number in zip(first, row, strict=True)])
        shard[row] = rule.read(tensors[name], shape, rest)
    return shard
