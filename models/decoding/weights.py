"""The copy of a model's weights that a sampler reads, in the dtype and split that suit it.

A sampler reads all weights for every token. In the layout of training each device would gather
them, and cast them from float32, every time.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from models.decoder import Model
from models.sharding import decoding_shardings


class DecodingWeights:
    """Makes the copy once for each set of parameters, by one compiled program.

    Where the weights are on one device, or split over `tensor` alone, the copy is the parameters
    themselves.

    Attributes:
      seconds: how long the latest copy took; 0 if none was needed.
    """

    def __init__(self, model: Model):
        self._model = model
        self.seconds = 0.0
        self._source: Any = None
        self._copy: Any = None
        self._programs: dict[Mesh, Any] = {}

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

    def _made(self, params: Any) -> Any:
        self.seconds = 0.0
        mesh = _mesh_of(params)
        if mesh is None:
            return params
        wanted = decoding_shardings(self._model.abstract_params, self._model.logical_axes, mesh)
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True)
        if all(leaf.sharding.is_equivalent_to(want, leaf.ndim) for leaf, want in pairs):
            return params
        start = time.perf_counter()
        if mesh not in self._programs:
            self._programs[mesh] = reshard(self._model, mesh)
        copy = jax.block_until_ready(self._programs[mesh](params))
        self.seconds = time.perf_counter() - start
        return copy


def reshard(model: Model, mesh: Mesh) -> Any:
    """Returns the compiled program `params -> copy`; see the module's docstring.

    The values are those that the model would compute with: it casts every weight to the dtype of
    the computation before it uses it, but for those of a router.
    """
    shardings = decoding_shardings(model.abstract_params, model.logical_axes, mesh)
    dtype = jnp.dtype(model.config.dtype)

    def copied(params):
        def cast(path, x):
            is_router = any(getattr(key, "key", None) == "router" for key in path)
            return x if is_router else x.astype(dtype)

        return jax.tree_util.tree_map_with_path(cast, params)

    return jax.jit(copied, out_shardings=shardings)


def _mesh_of(params: Any) -> Mesh | None:
    """Returns the mesh that the parameters are split over; None if they are not on a mesh."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    return mesh if isinstance(mesh, Mesh) and mesh.size > 1 else None
