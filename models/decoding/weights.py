"""The copy of a model's weights that a sampler reads, in the dtype and split that suit it.

A sampler reads all weights for every token. In the layout of training each device would gather
them, and cast them from float32, every time.

The copy may hold the kernels of the layers' projections in int8, with a factor for each output:
half the memory and traffic of bfloat16. Samples are then from a distribution that differs a little
from the trainer's, which RL has to correct. Embeddings, head, norms and biases stay exact. (The
library qwix, at version 0.1.8, refuses to reshape a weight that it has quantized, and the decoder
multiplies by a kernel `[D, N, H]` as by a matrix. With a factor for each output, what is left to do
is the few lines of `quantized`.)
"""

import time
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models.decoder import Model
from models.layers.int8 import rounded
from models.sharding import decoding_shardings

ModelOf = TypeVar("ModelOf", bound=Model)


class DecodingWeights:
    """Makes the copy once for each set of parameters, by one compiled program.

    Where the weights are on one device, or split over `tensor` alone, an exact copy is the
    parameters themselves.

    Attributes:
      seconds: how long the latest copy took; 0 if none was needed.
    """

    def __init__(self, model: Model, int8: bool = False):
        self._model, self._int8 = model, int8
        self.seconds = 0.0
        self._source: Any = None
        self._copy: Any = None
        self._programs: dict[Mesh | None, Any] = {}

    def __call__(self, params: Any) -> Any:
        """Returns the copy of `params`, which is kept until `params` is another object."""
        if self._source is not params:
            self.release()
            self._copy = self._made(params)
            self._source = params
        return self._copy

    def release(self) -> None:
        """Drops the copy, so that others can use its memory."""
        self._source = self._copy = None

    def _is_laid_out(self, params: Any, mesh: Mesh) -> bool:
        wanted = decoding_shardings(self._model.abstract_params, self._model.logical_axes, mesh)
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True)
        return all(leaf.sharding.is_equivalent_to(want, leaf.ndim) for leaf, want in pairs)

    def _made(self, params: Any) -> Any:
        self.seconds = 0.0
        mesh = _mesh_of(params)
        if not self._int8 and (mesh is None or self._is_laid_out(params, mesh)):
            return params
        start = time.perf_counter()
        if mesh not in self._programs:
            self._programs[mesh] = reshard(self._model, mesh, self._int8)
        copy = jax.block_until_ready(self._programs[mesh](params))
        self.seconds = time.perf_counter() - start
        return copy


def decoding_model(model: ModelOf, int8: bool = False, int8_cache: bool = False) -> ModelOf:
    """Returns the model that samples with the copy of a model's weights.

    Args:
      model: the model that is trained.
      int8: whether the copy holds int8 kernels.
      int8_cache: whether the KV cache holds int8 keys and values.

    Raises:
      ValueError: int8 kernels are asked for, and the model has a mixture of experts, whose kernels
        are most of its weights and are not quantized.
    """
    if not (int8 or int8_cache):
        return model
    if int8 and model.config.experts is not None:
        raise ValueError("int8 weights: a model with a mixture of experts cannot have them")
    return type(model)(model.config.replace(int8_kernels=int8, int8_cache=int8_cache))


def reshard(model: Model, mesh: Mesh | None, int8: bool = False) -> Any:
    """Returns the compiled program `params -> copy`; see the module's docstring.

    An exact copy has the values that the model would compute with: it casts every weight to the
    dtype of the computation before it uses it, but for those of a router.

    Args:
      model: the model of the parameters.
      mesh: the devices; None for one device.
      int8: whether the copy holds int8 kernels.
    """
    decoding = decoding_model(model, int8)
    dtype = jnp.dtype(model.config.dtype)

    def copied(params, wanted):
        if not isinstance(params, dict):
            return params.astype(dtype)
        if "scale" in wanted and "kernel" in wanted:
            kernel, factors = quantized(params["kernel"], wanted["scale"].ndim)
            rest = {name: x.astype(dtype) for name, x in params.items() if name != "kernel"}
            return rest | {"kernel": kernel, "scale": factors}
        return {
            name: x if name == "router" else copied(x, wanted[name]) for name, x in params.items()
        }

    shardings = None
    if mesh is not None:
        shardings = decoding_shardings(decoding.abstract_params, decoding.logical_axes, mesh)
    return jax.jit(lambda params: copied(params, decoding.abstract_params), out_shardings=shardings)


def quantized(kernel: jax.Array, scale_ndim: int) -> tuple[jax.Array, jax.Array]:
    """Returns a kernel in int8 and the factor of each output.

    Args:
      kernel: `[L, *inputs, *outputs]`, stacked over layers.
      scale_ndim: dimensions of the factors, `[L, *outputs]`.
    """
    return rounded(kernel, tuple(range(1, 1 + kernel.ndim - scale_ndim)))


def _mesh_of(params: Any) -> Mesh | None:
    """Returns the mesh that the parameters are split over; None if they are not on a mesh."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None
