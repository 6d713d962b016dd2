"""Makes the train step of every objective: loss, gradient, accumulation and update in one jit."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.decoding.compilations import count_programs
from models.sharding import batch_sharding, constrain, length_shards
from train.optimizer import Optimizer
from train.state import TrainState

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]
# (params, batch) -> (sum(loss_weights * token_loss), metrics). The constants of a step, if any, are
# a third argument.
LossFn = Callable[..., tuple[jax.Array, Metrics]]


def make_train_step(
    loss_fn: LossFn,
    optimizer: Optimizer,
    mesh: Mesh,
    *,
    accumulate: int = 1,
    normalize_weights: bool = True,
    finalize: Callable[[Metrics], Metrics] = lambda metrics: metrics,
    constants: Any = None,
) -> "TrainStep":
    """Makes `(state, batch) -> (state, metrics)`, compiled for `mesh`, its state donated.

    Args:
      loss_fn: `(params, batch) -> (loss, metrics)`. The loss is `sum(loss_weights * token_loss)`.
        Metrics are scalars. Over microbatches, those named `*_max` are maxima, the others sums.
      optimizer: see `make_optimizer`.
      mesh: the devices.
      accumulate: number of microbatches in a batch. Microbatch i takes rows i, i + accumulate,
        i + 2 accumulate, ... Loss, gradient and metrics are exact sums over microbatches. A
        microbatch without loss weights is skipped at almost no cost.
      normalize_weights: divide `loss_weights` by their sum over the whole batch first, which
        makes the loss a mean over tokens. Other arrays named `*_weights`, those of a second term
        of the loss, are divided by the same sum. If False, the weights must already hold the
        aggregation.
      finalize: traceable; turns the metrics of the whole batch into those to report, such as
        sums into means.
      constants: a pytree of arrays that the loss reads and no update changes, such as a teacher's
        parameters, already laid out on `mesh`. The loss gets them as its third argument; in a
        closure they would be copied into the program.

    Returns:
      The step. Its metrics are those of `loss_fn`, `loss`, those of `Optimizer.update`, and
      `skipped`: 1 if loss or gradient was not finite, and parameters and optimizer state therefore
      stayed as they were.
    """
    return TrainStep(loss_fn, optimizer, mesh, accumulate, normalize_weights, finalize, constants)


class TrainStep:
    """A compiled train step; see `make_train_step`."""

    def __init__(
        self,
        loss_fn: LossFn,
        optimizer: Optimizer,
        mesh: Mesh,
        accumulate: int,
        normalize_weights: bool,
        finalize: Callable[[Metrics], Metrics],
        constants: Any,
    ):
        if accumulate < 1:
            raise ValueError(f"accumulate={accumulate}: it must be at least 1")
        self.mesh = mesh
        self._loss_fn, self._optimizer = loss_fn, optimizer
        self._accumulate, self._normalize = accumulate, normalize_weights
        self._finalize = finalize
        # More arguments of the loss.
        self._constants = () if constants is None else (constants,)
        self._batch_sharding = batch_sharding(mesh)
        axes = self._batch_sharding.spec[0]
        self._batch_shards = int(np.prod([mesh.shape[axis] for axis in axes]))
        self._jitted = None

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Takes an update; do not use `state` again, since its buffers are reused."""
        with jax.set_mesh(self.mesh):
            return (self._jitted or self._jit(state))(state, batch, self._constants)

    def lower(self, state: TrainState, batch: Batch) -> Any:
        """Lowers the step for abstract arguments, to compile without arrays or to count FLOPs."""
        with jax.set_mesh(self.mesh):
            return self._jit(state).lower(state, batch, self._constants)

    @property
    def num_compiles(self) -> int:
        """Programs compiled so far; there should be one for each shape of batch."""
        return count_programs(self._jitted) if self._jitted else 0

    def check_rows(self, rows: int, length: int | None = None) -> None:
        """Raises `ValueError` if a batch does not divide over the devices.

        Args:
          rows: of the batch.
          length: of a row, in tokens; None does not check it.
        """
        columns = length_shards(self.mesh)
        if length is not None and length % columns:
            raise ValueError(
                f"a row of {length} tokens does not divide over {columns} devices (the mesh axis"
                f" context); use a multiple of {columns} tokens"
            )
        if rows % (self._batch_shards * self._accumulate):
            raise ValueError(
                f"a batch of {rows} rows does not divide into {self._accumulate} microbatches on"
                f" {self._batch_shards} data shards; use a multiple of"
                f" {self._batch_shards * self._accumulate} rows"
            )

    def put(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """Moves a batch to the devices; each gets only its own rows.

        Every process must pass the same whole batch.

        Raises:
          ValueError: rows or their length do not divide evenly.
        """
        length = batch["tokens"].shape[1] if "tokens" in batch else None
        self.check_rows(next(iter(batch.values())).shape[0], length)
        if jax.process_count() == 1:
            return jax.device_put(dict(batch), self._batch_sharding)
        return {
            name: jax.make_array_from_callback(x.shape, self._batch_sharding, x.__getitem__)
            for name, x in batch.items()
        }

    def _jit(self, state):
        # The state's shardings are pinned: another choice of the compiler would cause a recompile.
        shardings = jax.tree.map(lambda x: x.sharding, state)
        replicated = NamedSharding(self.mesh, PartitionSpec())
        self._jitted = jax.jit(self._step, donate_argnums=0, out_shardings=(shardings, replicated))
        return self._jitted

    def _step(self, state, batch, constants):
        batch = dict(batch)
        if self._normalize:
            total = jnp.maximum(jnp.sum(batch["loss_weights"].astype(jnp.float32)), 1e-9)
            for name, x in batch.items():
                if name.endswith("_weights"):
                    batch[name] = x.astype(jnp.float32) / total
        trainable, frozen = self._optimizer.split(state.params)
        loss, metrics, grads = self._gradient(trainable, frozen, batch, constants)
        metrics = {"loss": loss, **self._finalize(metrics)}

        params, opt_state, update_metrics = self._optimizer.update(
            grads, state.opt_state, trainable, state.step
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(update_metrics["grad_norm"])
        update_metrics["skipped"] = 1.0 - finite
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, opt_state),
            (trainable, state.opt_state),
        )
        if clash := metrics.keys() & update_metrics.keys():
            raise ValueError(f"the objective's metric {min(clash)!r} is also one of the step's")
        state = TrainState(state.step + 1, self._optimizer.merge(params, frozen), opt_state)
        return state, metrics | update_metrics

    def _gradient(self, trainable, frozen, batch, constants):
        """Returns loss, metrics and gradient of the trainable parameters over all microbatches."""

        def loss_of(trainable, microbatch):
            params = self._optimizer.merge(trainable, frozen)
            return self._loss_fn(params, microbatch, *constants)

        def gradient_of(microbatch):
            (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(
                trainable, microbatch
            )
            return loss, {k: x.astype(jnp.float32) for k, x in metrics.items()}, grads

        if self._accumulate == 1:
            return gradient_of(batch)

        # Microbatches are strided, so that every device keeps its own rows.
        def strided(x):
            x = x.reshape(-1, self._accumulate, *x.shape[1:]).swapaxes(0, 1)
            return constrain(x, None, "batch", *[None] * (x.ndim - 2))

        def add(total, microbatch):
            loss, metrics, grads = gradient_of(microbatch)
            return (
                total[0] + loss,
                {name: _combine(name)(total[1][name], x) for name, x in metrics.items()},
                jax.tree.map(lambda a, b: a + b.astype(a.dtype), total[2], grads),
            )

        def add_if_trained(total, microbatch):
            trained = jnp.any(microbatch["loss_weights"] != 0)
            return jax.lax.cond(trained, add, lambda total, _: total, total, microbatch), None

        microbatches = jax.tree.map(strided, batch)
        first = jax.tree.map(lambda x: x[0], microbatches)
        loss, metrics, grads = jax.eval_shape(gradient_of, first)
        zero = (
            jnp.zeros_like(loss),
            {
                name: jnp.full_like(x, -jnp.inf if _combine(name) is jnp.maximum else 0)
                for name, x in metrics.items()
            },
            jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), grads),
        )
        (loss, metrics, grads), _ = jax.lax.scan(add_if_trained, zero, microbatches)
        return loss, metrics, jax.tree.map(lambda g, p: g.astype(p.dtype), grads, trainable)


def _combine(metric_name):
    return jnp.maximum if metric_name.endswith("_max") else jnp.add
