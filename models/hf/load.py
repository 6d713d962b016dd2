"""Reads a Hugging Face checkpoint straight into sharded arrays."""

import contextlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from models.checkpoint_source import read_json, resolve
from models.config import ModelConfig
from models.decoder import LanguageModel, Model
from models.hf.config import (
    CAUSAL_LM,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    config_from_hf,
)
from models.hf.families import get_family
from models.hf.tensor_files import (
    bits_are_finite,
    differs,
    has_weights,
    open_tensors,
    stored_dtype,
    tensor_names,
)
from models.hf.tensors import TensorRule, head_of, leaf, stored_tensors, tensor_rules
from models.host.storage import is_remote
from models.manifest import MANIFEST_FILE, Damaged, check_manifest, has_manifest
from models.scalar_head import ScalarModel
from models.sharding import tree_shardings
from models.tokens.tokenizer import Tokenizer

_DTYPES = ("F32", "BF16", "F16")

# Checkpoints may hold tensors that the decoder does not need: rotary frequencies from old versions
# of transformers, a copy of the tied embedding under the head's name, and layers after the last
# one, with which DeepSeek-V3 predicts further tokens.
_ROTARY = re.compile(r".*rotary_emb\.inv_freq")
_LAYER = re.compile(r"model\.layers\.(\d+)\..*")
_NUMBERS = re.compile(r"model\.layers\.(\d{1,9})\.(?:mlp\.experts\.(\d{1,9})\.)?")
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


LoadedT = TypeVar("LoadedT", bound=Model)


class LoadedModel(NamedTuple, Generic[LoadedT]):
    """A model with its parameters and its tokenizer."""

    model: LoadedT
    params: Any
    tokenizer: Tokenizer


def load_scalar_model(
    source: str | os.PathLike, mesh: Mesh | None = None, **changes: Any
) -> LoadedModel[ScalarModel]:
    """Loads the `ScalarModel` of a verifier or reward model, with its weights and its tokenizer.

    The checkpoint must be a `...ForTokenClassification` (with a bias) or a
    `...ForSequenceClassification` (without) with one label.

    Raises:
      OSError, ValueError: if a part is missing or does not fit, or the checkpoint has no scalar
        head; the message is one line.
    """
    directory = resolve(source)
    fields = read_json(directory / "config.json")
    architectures = fields.get("architectures") or [None]
    architecture = str(architectures[0] if isinstance(architectures, list) else architectures)
    heads = [h for h in (TOKEN_CLASSIFICATION, SEQUENCE_CLASSIFICATION) if architecture.endswith(h)]
    labels = fields.get("id2label") or (0, 1)
    # transformers leaves `id2label` out for its default of 2 labels.
    labels = len(labels) if isinstance(labels, Sized) else 0
    if not heads or labels != 1:
        what = f"{labels} labels" if heads else f"architecture {architecture}"
        raise ValueError(
            f"{directory} is not a model with a scalar head ({what}): give one that was trained as"
            f" a verifier or reward model, a {TOKEN_CLASSIFICATION} or {SEQUENCE_CLASSIFICATION} of"
            " 1 label"
        )
    config = _config(directory, fields, heads[0], changes)
    tokenizer = load_tokenizer(directory, config)
    model = ScalarModel(config, bias=heads[0] == TOKEN_CLASSIFICATION)
    return LoadedModel(model, _load(directory, model, mesh), tokenizer)


def load_tokenizer(source: str | os.PathLike, config: ModelConfig) -> Tokenizer:
    """Loads the tokenizer of a checkpoint; raises `ValueError` if it does not fit the model."""
    directory = resolve(source)
    tokenizer = Tokenizer.from_directory(directory)
    try:
        tokenizer.check_fits(config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    return tokenizer


def load_config(source: str | os.PathLike, **changes: Any) -> ModelConfig:
    """Loads the `ModelConfig` of a checkpoint; `changes` override fields.

    If `config.json` ties the head to the embedding but the weights hold a head with other values,
    the result has `tie_embeddings=False`, as in transformers 5, and the function warns.

    Raises:
      OSError, ValueError: if a field is malformed or claims more layers than the weights have.
    """
    directory = resolve(source)
    config = _config(directory, read_json(directory / "config.json"), CAUSAL_LM, changes)
    if config.tie_embeddings and "tie_embeddings" not in changes:
        with contextlib.ExitStack() as stack:
            tensors = open_tensors(directory, stack) if has_weights(directory) else {}
            if differs(tensors, _HEAD, _EMBEDDING):
                warnings.warn(
                    f"{directory}: config.json says tie_word_embeddings, but {_HEAD} differs from"
                    f" {_EMBEDDING}; the two are loaded untied",
                    stacklevel=2,
                )
                config = config.replace(tie_embeddings=False)
    return config


def load_dtype(source: str | os.PathLike) -> str:
    """Returns the most common dtype of a checkpoint's weights, as `export_model` takes it."""
    with contextlib.ExitStack() as stack:
        return stored_dtype(open_tensors(resolve(source), stack))


def _config(
    directory: Path, fields: Mapping[str, Any], head: str, changes: Mapping[str, Any]
) -> ModelConfig:
    try:
        config = config_from_hf(fields, head, **changes)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    if has_weights(directory):
        _check_layers(directory, config)
    return config


def _check_layers(directory: Path, config: ModelConfig) -> None:
    """Refuses a `config.json` that claims more layers or experts than the weights hold."""
    numbers = [_NUMBERS.match(name) for name in tensor_names(directory)]
    found = [(int(n[1]), int(n[2] or 0)) for n in numbers if n]
    layers, experts = (1 + max((pair[i] for pair in found), default=-1) for i in (0, 1))
    sizes = [("num_hidden_layers", config.num_layers, layers, "layers")]
    if config.experts is not None:
        sizes += [("n_routed_experts", config.experts.num_experts, experts, "experts a layer")]
    for field, said, held, what in sizes:
        if said > held:
            raise ValueError(
                f"{directory}: config.json: {field}={said}, but the weights hold {held} {what}"
            )


def load_params(source: str | os.PathLike, config: ModelConfig, mesh: Mesh | None = None) -> Any:
    """Loads the parameters of a checkpoint in `config.param_dtype`, sharded over `mesh`.

    The function checks every name, shape and dtype before it reads any weights. It then reads one
    shard at a time, checks that its values are finite, casts it and puts it on its devices, so that
    a host never holds more than its largest shard.

    Args:
      source: a directory or `hf://org/name`.
      config: the config that the checkpoint must match.
      mesh: the devices for the weights, laid out by `models.sharding`; None means the first device.

    Raises:
      OSError, ValueError: if a file, tensor or field is missing or does not fit; the message names
        it.
    """
    return _load(resolve(source), LanguageModel(config), mesh)


def _load(directory: Path, model: Model, mesh: Mesh | None) -> Any:
    _check_undamaged(directory)
    with contextlib.ExitStack() as stack:
        tensors = open_tensors(directory, stack)
        _check_tensors(directory, model, tensors)
        try:
            return place_tensors(model, tensors, mesh)
        except ValueError as error:
            raise ValueError(f"{directory}: {error}") from None


def place_tensors(model: Model, tensors: Mapping[str, Any], mesh: Mesh | None = None) -> Any:
    """Builds the parameters of a model from stored tensors, which it reads one shard at a time.

    Args:
      model: the model that gets the parameters.
      tensors: name in a Hugging Face checkpoint -> tensor that is read when it is sliced. All names
        must be there, with the right shapes.
      mesh: the devices for the weights, laid out by `models.sharding`; None means the first device.
    """
    if mesh is None:
        one = SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: one, model.abstract_params)
    else:
        shardings = tree_shardings(model.abstract_params, model.logical_axes, mesh)
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
    """Compares an export of this project with its checksums; other checkpoints have none.

    Of one in a remote store only the small files are compared: each process of a job would fetch
    all weights once more.
    """
    if has_manifest(directory):
        try:
            check_manifest(directory, only_small=is_remote(directory))
        except Damaged as error:
            raise Damaged(
                f"{error}; export it again, or, if you changed the file yourself, remove"
                f" {directory / MANIFEST_FILE}"
            ) from None


def _check_tensors(directory: Path, model: Model, tensors: Mapping[str, Any]) -> None:
    expected = {name: shape for name, shape, *_ in stored_tensors(model)}
    extra = {name for name in tensors if not _ROTARY.fullmatch(name)} - set(expected)
    if model.config.tie_embeddings and _HEAD in extra:
        extra.discard(_HEAD)
        if not isinstance(model, ScalarModel) and differs(tensors, _HEAD, _EMBEDDING):
            raise ValueError(
                f"{directory}: {_HEAD} differs from {_EMBEDDING}, but the config ties them; load it"
                " with tie_embeddings=False"
            )
    if get_family(model.config.family).further_layers:
        found = {name: _LAYER.fullmatch(name) for name in extra}
        behind = model.config.num_layers
        extra -= {name for name, layer in found.items() if layer and int(layer[1]) >= behind}
    for problem, names in (("lacks", set(expected) - set(tensors)), ("has unexpected", extra)):
        if names:
            raise ValueError(
                f"{directory} {problem} {_listed(sorted(names))}; its weights do not belong to "
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
    # would read a shard again for each of its replicas.
    devices_of: dict[tuple, list[Any]] = {}  # Bounds of a shard -> the devices that hold it.
    for device, index in sharding.addressable_devices_indices_map(abstract.shape).items():
        assert index is not None  # JAX knows an index for every addressable device.
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
        with np.errstate(over="ignore"):  # The check below refuses values that overflow.
            shard[row] = rule.read(tensors[name], shape, rest)
        if not bits_are_finite(shard[row]):
            raise ValueError(
                f"the weights {name} hold values that are not finite in {abstract.dtype}; the"
                " checkpoint is damaged, or its training diverged"
            )
    return shard
