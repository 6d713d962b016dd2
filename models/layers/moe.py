"""The mixture of experts of DeepSeek-V3 (arXiv:2412.19437, section 2.1.2).

It is exact: every token reaches all experts that the router chose for it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from models.config import Experts, ModelConfig
from models.layers.dense import MLP, normal
from models.sharding import axis_names, partition_spec


class MoE(nnx.Module):
    """Routed experts and a shared one: a few routed experts and the shared one process each token.

    Devices along the mesh axis `tensor` hold slices of the hidden units of every expert, like those
    of an MLP. Devices along `expert` hold some of the experts each. These devices have rows of
    their own, so each of them gets the tokens of all, computes what its experts say to them, and
    sends the sums back. There is no limit to the tokens of an expert, so none is dropped.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        experts, dtype = config.experts, config.param_dtype
        assert experts is not None  # `models.decoder.Block` chooses this module only then.
        E, D, F = experts.num_experts, config.embed_dim, experts.mlp_dim
        into = ("experts", "embed", "mlp")
        self.router = Router(config, rngs)
        self.gate = normal(rngs, (E, D, F), D, into, dtype)
        self.up = normal(rngs, (E, D, F), D, into, dtype)
        self.down = normal(rngs, (E, F, D), F, ("experts", "mlp", "embed"), dtype)
        if experts.num_shared:
            self.shared = MLP(config, rngs, experts.num_shared * F)
        self.config = experts

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """Returns the weighted sum of each token's experts, `[B, T, D]`."""
        router = self.router.kernel[...].astype(jnp.float32), self.router.bias[...]
        kernels = self.gate, self.up, self.down
        kernels = tuple(kernel[...].astype(x_BTD.dtype) for kernel in kernels)
        of_device = functools.partial(_routed, self.config)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1:
            out_BTD = of_device(Split(), x_BTD, router, kernels)
        else:
            rows = partition_spec(("batch", "length", None), x_BTD.shape, mesh)
            into = partition_spec(("experts", None, "mlp"), kernels[0].shape, mesh)
            back = partition_spec(("experts", "mlp", None), kernels[2].shape, mesh)
            of_tokens = axis_names(rows[0]) + axis_names(rows[1])
            split = Split(axis_names(into[0]), axis_names(into[2]), of_tokens)
            out_BTD = jax.shard_map(
                functools.partial(of_device, split),
                in_specs=(rows, (PartitionSpec(), PartitionSpec()), (into, into, back)),
                out_specs=rows,
            )(x_BTD, router, kernels)
        return out_BTD + self.shared(x_BTD) if self.config.num_shared else out_BTD


class Router(nnx.Module):
    """The parameters of `route`: a kernel and a bias for each expert.

    The bias corrects the choice of experts and has no gradient. Pretraining adjusts it to balance
    the load; here it stays as loaded. It is always float32, because small differences matter.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        assert config.experts is not None
        D, E = config.embed_dim, config.experts.num_experts
        self.kernel = normal(rngs, (D, E), D, ("embed", None), config.param_dtype)
        self.bias = nnx.Param(jnp.zeros(E, jnp.float32), logical_axes=(None,))


def route(
    config: Experts, x_UD: jax.Array, kernel_DE: jax.Array, bias_E: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Chooses the experts of each token and their weights (equations 12 to 16).

    A token's affinity to an expert is a float32 sigmoid. The affinities plus `bias_E` decide the
    choice: first of groups, by the sum of the two best affinities in each, then of experts within
    these groups. The weights come from the affinities without the bias.

    Args:
      x_UD: tokens.
      kernel_DE: float32.
      bias_E: float32.

    Returns:
      Indices of experts `[U, X]` (int32), X = `config.per_token`, and their weights (float32).
    """
    logits_UE = jnp.matmul(x_UD.astype(jnp.float32), kernel_DE, precision="highest")
    affinity_UE = jax.nn.sigmoid(logits_UE)
    biased_UE = jax.lax.stop_gradient(affinity_UE) + bias_E
    if config.groups_per_token < config.groups:
        grouped = biased_UE.reshape(-1, config.groups, config.num_experts // config.groups)
        group_scores = jax.lax.top_k(grouped, 2)[0].sum(-1)
        _, best = jax.lax.top_k(group_scores, config.groups_per_token)
        allowed = (best[..., None] == jnp.arange(config.groups)).any(-2)
        biased_UE = jnp.where(allowed[..., None], grouped, -jnp.inf).reshape(biased_UE.shape)
    _, chosen_UX = jax.lax.top_k(biased_UE, config.per_token)
    weights_UX = jnp.take_along_axis(affinity_UE, chosen_UX, -1)
    if config.normalize:
        weights_UX /= weights_UX.sum(-1, keepdims=True) + 1e-20
    return chosen_UX, weights_UX * config.scale


@dataclasses.dataclass(frozen=True)
class Split:
    """Mesh axes over which a mixture of experts is split.

    Attributes:
      experts: axes that split the experts.
      hidden: axes that split the hidden units of every expert.
      rows: axes that split the tokens of the batch.
    """

    experts: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


def _routed(config: Experts, split: Split, x_BTD, router, kernels):
    """Computes the device's experts for the tokens that they are for, and sums over devices."""
    gate, up, down = kernels
    x_UD = x_BTD.reshape(-1, x_BTD.shape[-1])
    chosen_UX, weights_UX = route(config, x_UD, *router)
    # Tokens are exchanged between devices that hold different experts and different rows.
    exchanged = tuple(axis for axis in split.experts if axis in split.rows)
    if exchanged:
        x_UD, weights_UX, chosen_UX = (
            jax.lax.all_gather(x, exchanged, tiled=True) for x in (x_UD, weights_UX, chosen_UX)
        )
    # Devices that hold other parts of the experts, for the same tokens.
    summed = (*split.hidden, *(axis for axis in split.experts if axis not in split.rows))
    if summed:
        # Makes the backward pass sum gradients over slices here, once for each token, instead of
        # once for each of the token's experts.
        x_UD, weights_UX = jax.lax.pcast((x_UD, weights_UX), summed, to="varying")
    here = gate.shape[0]
    first = jax.lax.axis_index(split.experts) * here if split.experts else 0
    expert = chosen_UX.ravel() - first
    # `rows` holds one row for each pair of token and chosen expert, sorted by expert. Pairs whose
    # expert is on another device come last, and belong to none.
    mine = (expert >= 0) & (expert < here)
    order = jnp.argsort(jnp.where(mine, expert, here))
    back = jnp.argsort(order)
    sizes_E = jnp.sum(expert[:, None] == jnp.arange(here), 0)
    rows = _to_experts(x_UD, order, back.reshape(chosen_UX.shape))
    keep = mine[order][:, None] if split.experts else None
    rows = _kept(keep, rows)
    hidden = jax.nn.silu(jax.lax.ragged_dot(rows, gate, sizes_E))
    hidden *= jax.lax.ragged_dot(rows, up, sizes_E)
    # The weights multiply before the last product, which is linear. So the gradient needs no copy
    # of its results.
    weights = _permuted(weights_UX.ravel(), order, back)
    hidden = _kept(keep, (hidden * weights[:, None]).astype(x_UD.dtype))
    rows = _kept(keep, jax.lax.ragged_dot(hidden, down, sizes_E))
    out_UXD = _permuted(rows, back, order).reshape(*chosen_UX.shape, -1)
    out_UD = out_UXD.sum(1)
    if summed:
        out_UD = jax.lax.psum(out_UD, summed)
    if exchanged:
        out_UD = jax.lax.psum_scatter(out_UD, exchanged, tiled=True)
    return out_UD.reshape(x_BTD.shape)


def _kept(keep, rows):
    """Sets rows outside the device's groups to 0: `ragged_dot` leaves them, and gradients, open."""
    return rows if keep is None else jnp.where(keep, rows, 0)


# The next two functions define their own gradients, which are gathers too. JAX would transpose a
# gather to a scatter, which is slow.
@jax.custom_vjp
def _permuted(x, index, inverse):
    """Returns `x[index]`; `index` is a permutation and `inverse` its inverse."""
    del inverse
    return x[index]


@jax.custom_vjp
def _to_experts(x_UD, order, back_UX):
    """Returns rows whose row i is the token of entry `order[i]` of the flat `[U, X]` choices."""
    return x_UD[order // back_UX.shape[1]]


_permuted.defvjp(
    lambda x, index, inverse: (x[index], inverse),
    lambda inverse, out: (out[inverse], None, None),
)
_to_experts.defvjp(
    lambda x_UD, order, back_UX: (_to_experts(x_UD, order, back_UX), back_UX),
    lambda back_UX, rows: (rows[back_UX].sum(1), None, None),
)
