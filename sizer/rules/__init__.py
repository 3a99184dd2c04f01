"""What each kind of operation does to dimensions: one rule a kind, in one table at the end.

A rule is given the follower and a node of the graph, and gives the dimensions of the operation's output (of each of its
outputs, where it has several). It says on the way which dimensions are the same and which must stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from sizer.follower import Follower, place, producers_of, shape, tensors
from sizer.rules import elementwise, layers, shapes

__all__ = ["POOLS", "RULES", "UNARY", "unruled"]


def unruled(follower: Follower, node: Node) -> Any:
    """What no rule knows is harmless where no width is free, or where the result only decides between branches."""
    dims = [dim for value in tensors((node.args, node.kwargs)) for dim in shape(value)]
    known = producers_of(follower, dims)
    if known and not follower.decides_only(node) and not follower.ignored(node):
        raise ValueError(
            "there is no rule for this operation, so widths cannot be followed through it; keep the widths that it "
            f"sees with ignore={known}"
        )
    return follower.freeze(node, f"an operation without a rule in {place(node)}")


def opaque(follower: Follower, node: Node) -> Any:
    """A module that was left out of the graph."""
    return follower.freeze(node, f"{place(node)} is ignored, as asked")


def _each(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


Rule = Callable[[Follower, Node], Any]
_POOLED = [f"{kind}_pool{n}d" for kind in ("max", "avg", "lp", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]
_POINTWISE: dict[str, Rule] = _each(
    """abs acos alias alpha_dropout asin atan bernoulli bitwise_not ceil celu clamp clamp_max clamp_min clone contiguous
    cos cosh detach dropout elu erf exp expm1 feature_alpha_dropout feature_dropout fill floor gelu hardshrink
    hardsigmoid hardswish hardtanh isfinite isinf isnan leaky_relu lift_fresh_copy log log10 log1p log2 log_sigmoid
    logical_not logit mish nan_to_num native_dropout neg pow reciprocal relu relu6 round rrelu rsqrt selu sigmoid sign
    silu sin sinh softplus softshrink softsign sqrt square tan tanh tanhshrink threshold to type_as _to_copy zero""",
    elementwise.unary,
)
UNARY = frozenset(_POINTWISE)
POOLS = frozenset([*_POOLED, "max_pool2d_with_indices"])

RULES: dict[str, Rule] = {
    "linear": layers.linear,
    **_each("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d", layers.convolution),
    **_each("matmul mm bmm", layers.product),
    "scaled_dot_product_attention": layers.attention,
    "einsum": layers.einsum,
    "embedding": layers.embedding,
    **_each("batch_norm instance_norm", layers.batch_norm),
    "group_norm": layers.group_norm,
    **_each("layer_norm rms_norm", layers.layer_norm),
    "prelu": layers.prelu,
    **_POINTWISE,
    **_each(
        """add sub rsub mul div maximum minimum gt lt ge le eq ne where masked_fill logical_and logical_or logical_xor
        bitwise_and bitwise_or fmod remainder atan2 lerp copy addcmul addcdiv floor_divide""",
        elementwise.elementwise,
    ),
    **_each(
        "sum mean amax amin prod norm linalg_vector_norm var std logsumexp argmax argmin any all",
        elementwise.reduction,
    ),
    **_each("max min median var_mean", elementwise.reduction_pair),
    **_each("softmax log_softmax _softmax _log_softmax softmin", elementwise.softmax),
    **_each("cumsum cumprod argsort triu tril", elementwise.along),
    **_each("view reshape _unsafe_view flatten unflatten unsqueeze squeeze view_as reshape_as ravel", shapes.view),
    **_each("permute transpose t numpy_T mT movedim swapaxes", shapes.permute),
    **_each("cat concat concatenate", shapes.cat),
    "stack": shapes.stack,
    **_each("split split_with_sizes chunk tensor_split unsafe_chunk unsafe_split", shapes.split),
    "glu": shapes.glu,
    "unbind": shapes.unbind,
    "select": shapes.select,
    **_each("slice narrow", shapes.narrow),
    **_each("expand expand_as broadcast_to", shapes.expand),
    **_each("repeat tile", shapes.repeat),
    **_each(
        """pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d""",
        shapes.pad,
    ),
    **dict.fromkeys(POOLS, shapes.resample),
    **_each(
        """upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
        upsample_bicubic2d upsample_trilinear3d grid_sampler""",
        shapes.resample,
    ),
    **_each("roll flip", shapes.roll),
    "index": shapes.index,
    "pixel_shuffle": shapes.pixel_shuffle,
    **_each("pixel_unshuffle im2col", shapes.to_channels),
    "channel_shuffle": shapes.channel_shuffle,
    **_each(
        """arange zeros ones full empty eye rand randn linspace scalar_tensor tensor new_zeros new_ones new_full
        new_empty tril_indices triu_indices""",
        shapes.made,
    ),
    **_each("zeros_like ones_like full_like empty_like rand_like randn_like", shapes.made_like),
    "getitem": shapes.getitem,
    "opaque": opaque,
}
