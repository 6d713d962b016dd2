"""The programs that a job runs, lowered for a machine that is not at hand.

They are made by the functions that the job itself calls, with abstract arrays for arguments.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from launch.jobs.adapters import adapter_optimizer
from launch.jobs.training.reinforcement import policy_step
from launch.parts import runtime
from launch.schema import as_dict
from launch.schema.rl import RlConfig
from launch.schema.supervised import SftConfig
from models.config import ModelConfig
from models.decoder import LanguageModel
from models.decoding.requests import bucket
from models.decoding.sampler import Sampler
from models.decoding.weights import decoding_model, reshard
from models.layers.kv_cache import KVCache, column_blocks
from models.lora import LoraConfig, LoraModel
from models.sharding import (
    batch_sharding,
    batch_shards,
    decoding_mesh,
    decoding_shardings,
    tree_shardings,
)
from rl.learner import make_trainer_logprobs
from train.objectives import sft
from train.optimizer import Optimizer, make_optimizer
from train.state import TrainState, abstract_state
from train.step import TrainStep, make_train_step

Config = RlConfig | SftConfig


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a job.

    Attributes:
      name: what the program does.
      lower: lowers it, to be compiled.
      runs: how often an iteration runs it.
      loops: turns of the loops whose number depends on the data, the outermost first.
      arguments: bytes of the program's arguments on a device, by kind.
      held: bytes that a device holds besides, by kind.
      temporaries: bytes of parts of the temporaries whose size is known, by kind.
    """

    name: str
    lower: Callable[[], Any]
    runs: float
    loops: tuple[float, ...]
    arguments: Mapping[str, int]
    held: Mapping[str, int]
    temporaries: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Job:
    """A job of `run_sft` or `run_rl` on a mesh, without any weights.

    Attributes:
      config: the job's config.
      model: the model that is trained, with its adapters if it has any.
      optimizer: the optimizer.
      step: the train step.
      state: the abstract state.
      batch: the abstract arrays of a batch, by name.
    """

    config: Config
    model: LanguageModel
    optimizer: Optimizer
    step: TrainStep
    state: TrainState
    batch: Mapping[str, Any]

    @classmethod
    def of(cls, config: Config, model_config: ModelConfig, devices: Any) -> "Job":
        """Puts a job together for some devices, which need not exist.

        Raises:
          ValueError: the mesh does not fit the devices, or the rows do not divide.
        """
        mesh = runtime.build_mesh(config, devices)
        model_config = model_config.replace(dtype="bfloat16", remat=config.remat)
        model = LanguageModel(model_config)
        if config.lora.rank:
            model = LoraModel(model_config, LoraConfig(**as_dict(config.lora)))
        # The number of steps is arbitrary: it does not change the size of the program.
        num_steps = 1000 + config.optimizer.warmup_steps + (config.optimizer.decay_steps or 0)
        settings = adapter_optimizer(config.optimizer, config.lora).settings()
        optimizer = make_optimizer(settings, model.abstract_params, num_steps)
        dtypes: dict[str, str] = dict.fromkeys(("tokens", "positions", "segment_ids"), "int32")
        dtypes["loss_weights"] = "float32"
        if isinstance(config, SftConfig):
            step = make_train_step(
                sft.make_loss(model), optimizer, mesh, accumulate=config.microbatches
            )
        else:
            variant, step = policy_step(model, optimizer, mesh, config)
            names = ["advantages", "behaviour_logprobs"]
            names += ["old_logprobs"] * config.recompute_old
            names += ["reference_logprobs"] * (variant.loss.beta > 0)
            dtypes |= dict.fromkeys(names, "float32")
            if config.share_prompts:
                dtypes["prefix_ids"] = "int32"
        step.check_rows(config.rows, config.row_length)
        shape, sharding = (config.rows, config.row_length), batch_sharding(mesh)
        batch = {
            name: jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=sharding)
            for name, dtype in dtypes.items()
        }
        return cls(config, model, optimizer, step, abstract_state(model, optimizer, mesh), batch)

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.step.mesh

    @property
    def is_rl(self) -> bool:
        """Whether the job is RL, which samples."""
        return isinstance(self.config, RlConfig)

    @property
    def has_reference(self) -> bool:
        """Whether there is a reference policy, whose weights a device holds too."""
        return "reference_logprobs" in self.batch

    def programs(self, response_tokens: int) -> Iterator[Program]:
        """Yields the programs of an iteration.

        Args:
          response_tokens: how long a response is expected to be, for the number of decode steps.
        """
        config, mesh = self.config, self.mesh
        weights = {"weights": bytes_per_device(self.state.params)}
        optimizer = {"optimizer state": bytes_per_device(self.state.opt_state)}
        trained = self.optimizer.split(self.state.params)[0]
        # The reference shares what training does not change.
        reference = {"reference policy": bytes_per_device(trained)} if self.has_reference else {}
        updates = 1
        if isinstance(config, RlConfig):
            updates = config.minibatches * config.epochs
        # Gradients add up in float32 over microbatches.
        gradients = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), trained
        )
        yield Program(
            "train step",
            lambda: self.step.lower(self.state, self.batch),
            updates,
            loops=(),
            arguments={**weights, **optimizer, "batch": bytes_per_device(self.batch)},
            held=reference,
            temporaries={"gradients": bytes_per_device(gradients)},
        )
        if not isinstance(config, RlConfig):
            return
        passes = config.minibatches * (config.recompute_old + self.has_reference)
        if passes:
            yield Program(
                "log-probabilities", self._lower_logprobs, passes, (), weights,
                {**optimizer, **reference}, {},
            )  # fmt: skip
        base = self.model.base
        whole = _abstract_params(base, mesh)
        yield Program(
            "weights for sampling", lambda: _set(mesh, self._reshard.lower, whole), 1, (),
            weights, {**optimizer, **reference}, {},
        )  # fmt: skip
        slots = max(1, config.sampler_rows // config.group)
        # On average, half of a response's tokens are there to be attended to.
        with jax.set_mesh(mesh):
            size, _ = column_blocks(config.max_new_tokens)
        blocks = response_tokens / 2 / size + 0.5
        yield Program(
            "sampler",
            lambda: self._lower_sampler(slots),
            1,
            loops=(-(-config.prompts // slots), response_tokens, blocks),
            arguments={"weights for sampling": bytes_per_device(self._sampler_weights())},
            held={**weights, **optimizer, **reference},
            temporaries={"key-value cache": self._cache_bytes(slots)},
        )

    @property
    def _int8(self) -> bool:
        return isinstance(self.config, RlConfig) and self.config.sampler_weights == "int8"

    @property
    def _sampling_model(self) -> Any:
        assert isinstance(self.config, RlConfig)
        int8_cache = self.config.sampler_cache == "int8"
        return decoding_model(self.model.base, self._int8, int8_cache)

    @property
    def _reshard(self) -> Any:
        return reshard(self.model.base, self.mesh, self._int8)

    def _sampler_weights(self) -> Any:
        base = self._sampling_model
        shardings = decoding_shardings(base.abstract_params, base.logical_axes, self.mesh)
        shapes = jax.eval_shape(self._reshard, self.model.base.abstract_params)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            shardings,
        )

    def _cache_bytes(self, slots: int) -> int:
        """Returns the bytes of the sampler's cache on one device."""
        config = self.config
        assert isinstance(config, RlConfig)
        width = bucket(config.max_prompt_tokens, 16)
        cache = jax.eval_shape(
            lambda: KVCache.zeros(
                self._sampling_model.config, slots, config.group, width, config.max_new_tokens
            )
        )
        heads = cache.prefix_k.shape[2]
        parts = 1
        rows = batch_shards(decoding_mesh(self.mesh))
        for size, shards in ((slots, rows), (heads, self.mesh.shape["tensor"])):
            parts *= shards if size % shards == 0 else 1
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache)) // parts

    def _lower_logprobs(self) -> Any:
        config = self.config
        assert isinstance(config, RlConfig)
        blocks = config.microbatches
        shape = (blocks, config.rows // blocks, config.row_length)
        whole = NamedSharding(self.mesh, PartitionSpec())
        rows = {
            name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=whole)
            for name in ("tokens", "positions", "segment_ids", "prefix_ids")
            if name in self.batch
        }
        function = make_trainer_logprobs(self.model, config.temperature)
        return _set(self.mesh, function.lower, self.state.params, rows)

    def _lower_sampler(self, slots: int) -> Any:
        config = self.config
        assert isinstance(config, RlConfig)
        sampler = Sampler(
            self._sampling_model, slots=slots, group=config.group,
            max_new_tokens=config.max_new_tokens, stop_ids=[0],
        )  # fmt: skip
        queue, width = max(slots, bucket(config.prompts)), bucket(config.max_prompt_tokens, 16)
        return _set(self.mesh, sampler.lower, self._sampler_weights(), queue, width)


def _abstract_params(model: LanguageModel, mesh: Mesh) -> Any:
    shardings = tree_shardings(model.abstract_params, model.logical_axes, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        model.abstract_params,
        shardings,
    )


def _set(mesh: Mesh, function: Callable[..., Any], *arguments: Any) -> Any:
    with jax.set_mesh(mesh):
        return function(*arguments)


def bytes_per_device(tree: Any) -> int:
    """Returns the bytes that one device holds of a tree of abstract arrays."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
