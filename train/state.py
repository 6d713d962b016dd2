"""Creates the state of a training run in its final sharding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.sharding import tree_shardings
from train.optimizer import Optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that an update changes.

    Attributes:
      step: int32 scalar, the number of updates so far, skipped ones included.
      params: nested dicts of arrays.
      opt_state: optimizer state of the trainable parameters.
    """

    step: Any
    params: Any
    opt_state: Any


def abstract_state(model: Any, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """Returns a state of shapes, dtypes and shardings, to compile a step or restore a checkpoint.

    Args:
      model: has `abstract_params`, `logical_axes` and `init`, such as `LanguageModel`.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    shardings = tree_shardings(model.abstract_params, model.logical_axes, mesh)
    by_path = dict(jax.tree_util.tree_leaves_with_path(shardings))
    shapes = dict(jax.tree_util.tree_leaves_with_path(model.abstract_params))

    def like_its_param(path, leaf):
        # Moments have the path and the shape of their parameter, and get its sharding. Factored
        # moments, counts and the like are small and are replicated.
        path = tuple(key for key in path if isinstance(key, jax.tree_util.DictKey))
        same = path in shapes and shapes[path].shape == leaf.shape
        return by_path[path] if same else replicated

    opt_state = jax.eval_shape(optimizer.init, model.abstract_params)
    opt_shardings = jax.tree_util.tree_map_with_path(like_its_param, opt_state)
    return TrainState(
        step=_sharded(jax.ShapeDtypeStruct((), jnp.int32), replicated),
        params=jax.tree.map(_sharded, model.abstract_params, shardings),
        opt_state=jax.tree.map(_sharded, opt_state, opt_shardings),
    )


def create_state(model: Any, optimizer: Optimizer, mesh: Mesh, key: jax.Array) -> TrainState:
    """Creates a state with random parameters; no device ever holds more than its shards.

    The same key gives the same values on every mesh.
    """
    abstract = abstract_state(model, optimizer, mesh)

    def init(key):
        params = model.init(key)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    # `init` runs once: on CPU, optimising its random number generator takes longer than using it.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(init, out_shardings=shardings, compiler_options=options)(key)


def state_from_params(model: Any, params: Any, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """Creates a state from existing parameters; train steps reuse their buffers."""
    abstract = abstract_state(model, optimizer, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    return TrainState(
        step=jax.device_put(jnp.zeros((), jnp.int32), shardings.step),
        params=jax.device_put(params, shardings.params),
        opt_state=opt_state,
    )


def _sharded(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
