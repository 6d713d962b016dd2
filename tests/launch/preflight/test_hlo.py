# ruff: noqa: E501 (the lines of a program are long)
"""Counting in the text of compiled programs, against what the arrays' shapes say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.preflight import cost, hlo


def compiled(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = jax.jit(function).lower(*arguments).compile().as_text()
    assert text is not None
    return hlo.parse(text)


def test_a_product_in_nested_loops_counts_as_often_as_it_runs():
    def function(x, weights):
        def outer(x, _):
            def inner(x, w):
                return jnp.tanh(x @ w), None

            return jax.lax.scan(inner, x, weights)[0], None

        return jax.lax.scan(outer, x, None, length=5)[0]

    found = cost.count(compiled(function, (48, 96), (7, 96, 96)))
    assert found.flops == 5 * 7 * 2 * 48 * 96 * 96
    # Each turn reads one of the weights, and not the stack of all seven.
    least = 5 * 7 * 96 * 96 * 4
    assert least < found.bytes < 8 * least


def test_a_loop_whose_turns_depend_on_the_data():
    def function(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: x @ w, x)

    module = compiled(function, (32, 32), (32, 32))
    once = 2 * 32**3
    assert cost.count(module).flops == once
    found = cost.count(module, loops=[11])
    assert (found.flops, found.unknown_loops) == (11 * once, [11])


def test_the_dearer_branch_counts():
    def function(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x + 1)

    assert cost.count(compiled(function, (64, 64), (64, 64))).flops == 2 * 64**3


def test_batched_products_and_gradients():
    def function(x, w):
        return jax.grad(lambda x, w: jnp.sum(jnp.tanh(jnp.einsum("bij,bjk->bik", x, w))), (0, 1))(
            x, w
        )

    found = cost.count(compiled(function, (4, 16, 24), (4, 24, 40)))
    assert found.flops == 3 * 2 * 4 * 16 * 24 * 40


@pytest.mark.parametrize(
    ("window", "lengths", "pairs"),
    [
        # A batch of 6 as the compiler for TPUs writes it: each place meets one of the kernel.
        ("size=6 stride=5 pad=0_0 lhs_dilate=6", (6, 6, 6), 6),
        # A convolution of 3 places, with and without its border.
        ("size=3", (10, 3, 8), 24),
        ("size=3 pad=1_1", (10, 3, 10), 28),
        ("size=3 pad=0_0 rhs_dilate=2", (10, 3, 6), 18),
    ],
)
def test_places_that_meet(window, lengths, pairs):
    assert cost._window_pairs(window, 0, *lengths) == pairs


TPU = """
HloModule jit_f, is_scheduled=true, num_partitions=4

%condition (p.1: (s32[], bf16[8,256,512])) -> pred[] {
  %bound = s32[]{:T(128)} constant(12)
  %p.1 = (s32[]{:T(128)}, bf16[8,256,512]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %bound), direction=LT
}

%body (p.2: (s32[], bf16[8,256,512])) -> (s32[], bf16[8,256,512]) {
  %one = s32[]{:T(128)} constant(2)
  %p.2 = (s32[]{:T(128)}, bf16[8,256,512]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %copied = s32[]{:T(128)S(6)} copy(%i.2)
  %next = s32[]{:T(128)} add(%copied, %one)
  %w = bf16[8,256,512]{2,1,0:T(8,128)(2,1)} get-tuple-element(%p.2), index=1
  %gathered = bf16[8,1024,512]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%w), replica_groups=[1,4]<=[4], dimensions={1}
  ROOT %t = (s32[]{:T(128)}, bf16[8,256,512]{2,1,0:T(8,128)(2,1)}) tuple(%next, %w)
}

ENTRY %main (w.1: bf16[8,256,512], q.1: bf16[2,4,1024,128], k.1: bf16[2,4,1024,128], v.1: bf16[2,4,1024,64]) -> bf16[2,4,1024,64] {
  %zero = s32[]{:T(128)} constant(0)
  %w.1 = bf16[8,256,512]{2,1,0:T(8,128)(2,1)} parameter(0)
  %q.1 = bf16[2,4,1024,128]{3,2,1,0} parameter(1)
  %k.1 = bf16[2,4,1024,128]{3,2,1,0} parameter(2)
  %v.1 = bf16[2,4,1024,64]{3,2,1,0} parameter(3)
  %start = (s32[]{:T(128)}, /*index=1*/bf16[8,256,512]{2,1,0:T(8,128)(2,1)}) tuple(%zero, %w.1)
  %loop = (s32[]{:T(128)}, bf16[8,256,512]{2,1,0:T(8,128)(2,1)}) while(%start), condition=%condition, body=%body
  ROOT %splash_mha_fwd_segmented_residuals.3 = bf16[2,4,1024,64]{3,2,1,0} custom-call(%q.1, %k.1, %v.1), custom_call_target="tpu_custom_call", backend_config={"grid": {
"a": [1]
}}, metadata={op_name="jit(f)/splash_attention"}
}
"""


def test_the_text_of_a_program_for_tpus():
    """Its loops do not say how often they run; memory on the chip is no traffic."""
    found = cost.count(hlo.parse(TPU), devices=4)
    (gather,) = found.collectives
    assert (gather.kind, gather.group, gather.times) == ("all-gather", 4, 6.0)
    assert gather.bytes == 8 * 1024 * 512 * 2
    assert gather.moved == 6 * 0.75 * gather.bytes
    assert gather.depth == 0
    assert found.flops == 2 * 2 * 4 * (1024 * 1025 / 2) * (128 + 64)
    assert dict(found.kernels) == {"splash_mha_fwd_segmented_residuals": 1}
    read = 6 * 8 * 256 * 512 * 2
    attention = 2 * 4 * 1024 * (128 + 128 + 64 + 64) * 2
    assert found.bytes == pytest.approx(read + attention, rel=1e-3)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[4,2]<=[2,2,2]T(2,1,0)", 2),
        ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([4,2]T(1,0)) {'axis_0'}", 2),
        ("mesh['a'=2,'b'=8], device_ids=([16]) {'a','b':(2)4}", 8),
        ("{}", 64),
    ],
)
def test_sizes_of_groups(groups, size):
    line = (
        f"  %g = f32[8]{{0}} all-gather(%x), channel_id=4, replica_groups={groups}, metadata={{}}"
    )
    assert cost._group(hlo._instruction(line), 64) == size


def test_a_text_without_a_program():
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.parse("HloModule empty")


def test_a_mesh_of_devices_sends_what_shapes_say():
    """An all-reduce moves twice the share of the others, an all-gather once."""
    for kind, factor in (("all-reduce", 2), ("all-gather", 1), ("reduce-scatter", 1)):
        assert cost.Collective(kind, 800, 8, 3).moved == 3 * factor * 700
    assert np.isclose(cost.Collective("collective-permute", 800, 8, 1).moved, 800)
