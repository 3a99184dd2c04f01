"""Every piece that can be sized, of random kinds and sizes, for ``tests.sizer.random_networks``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOLS = {
    1: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    2: (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    3: (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
}


# Pieces: each takes maps (N, C, *sides), tokens (N, T, E) or vectors (N, F), and says so by the key of its table ----


class Convolution(nn.Module):
    """A convolution of random kernel, padding, groups; with them a normalisation and an activation."""

    def __init__(self, shape: Shape, draw: Random, groups: int = 1) -> None:
        super().__init__()
        kernel = draw.choice((1, 3)) if min(shape[1:]) >= 3 else 1
        out = draw.choice((4, 6, 8)) if groups == 1 else groups * draw.choice((1, 2))
        padding, stride = draw.choice((0, kernel // 2)), draw.choice((1, 1, 2))
        mode = draw.choice(("zeros", "zeros", "circular")) if padding else "zeros"
        self.conv = CONV[len(shape) - 1](
            shape[0], out, kernel, stride, padding, groups=groups, bias=draw.random() < 0.6, padding_mode=mode
        )
        self.norm = norm(out, len(shape) - 1, draw, math.prod(self.conv(torch.zeros(1, *shape)).shape[2:]))
        self.act = activation(out, draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


def grouped(shape: Shape, draw: Random) -> nn.Module:
    return Convolution(shape, draw, draw.choice([g for g in (2, 3, 4, shape[0]) if shape[0] % g == 0] or [1]))


def depthwise(shape: Shape, draw: Random) -> nn.Module:
    return Convolution(shape, draw, shape[0])


def transposed(shape: Shape, draw: Random) -> nn.Module:
    groups = draw.choice([g for g in (1, 2, shape[0]) if shape[0] % g == 0])
    out = groups * draw.choice((1, 2)) if groups > 1 else draw.choice((4, 6))
    layer = TRANSPOSED[len(shape) - 1](shape[0], out, 2, 1, groups=groups, bias=draw.random() < 0.6)
    return nn.Sequential(layer, norm(out, len(shape) - 1, draw), activation(out, draw))


def activation(units: int, draw: Random) -> nn.Module:
    kinds = (nn.ReLU, nn.Sigmoid, nn.SELU, nn.Softplus, nn.GELU, nn.Hardswish, nn.Tanh, nn.LeakyReLU, nn.SiLU)
    return draw.choice((*(kind() for kind in kinds), nn.PReLU(units), nn.Identity()))


def norm(units: int, sides: int, draw: Random, pixels: int = 1) -> nn.Module:
    """A normalisation of (N, units, ...) with ``sides`` more dimensions of ``pixels``, or none."""
    batch = BATCH_NORM[sides]
    kinds: list[Callable[[], nn.Module]] = [nn.Identity, lambda: batch(units), lambda: batch(units, affine=False)]
    groups = [g for g in (2, 3, units) if units % g == 0]
    if sides:
        kinds.append(lambda: nn.GroupNorm(draw.choice(groups), units, affine=draw.random() < 0.7))
    if pixels > 1:
        kinds.append(lambda: INSTANCE_NORM[sides](units, affine=True))
        kinds.append(lambda: INSTANCE_NORM[sides](units, track_running_stats=True))
    return draw.choice(kinds)()


def one_norm(shape: Shape, draw: Random) -> nn.Module:
    return norm(shape[0], len(shape) - 1, draw, math.prod(shape[1:]))


def one_activation(shape: Shape, draw: Random) -> nn.Module:
    return activation(shape[0], draw)


def dropout(shape: Shape, draw: Random) -> nn.Module:
    return draw.choice((nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout))(0.3)


def pool(shape: Shape, draw: Random) -> nn.Module:
    kind = draw.choice(POOLS[len(shape) - 1])
    if min(shape[1:]) < 2:
        return nn.Identity()
    return kind(draw.choice((1, 2))) if "Adaptive" in kind.__name__ else kind(2, ceil_mode=draw.random() < 0.5)


def interpolate(shape: Shape, draw: Random) -> nn.Module:
    if math.prod(shape[1:]) > 40:
        return nn.Identity()
    smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape) - 1]
    return nn.Upsample(scale_factor=2, mode=draw.choice(("nearest", smooth)))


class Residual(nn.Module):
    """x + f(x), f keeping the shape; sometimes scaled by a parameter for each unit."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        sides = len(shape) - 1
        hidden = draw.choice((4, 6))
        if sides:
            first, second = CONV[sides](shape[0], hidden, 3, padding=1), CONV[sides](hidden, shape[0], 1)
        else:
            first, second = nn.Linear(shape[0], hidden), nn.Linear(hidden, shape[0])
        self.inside = nn.Sequential(
            norm(shape[0], sides, draw, math.prod(shape[1:])),
            first,
            activation(hidden, draw),
            second,
            norm(shape[0], sides, draw),
        )
        self.scale = nn.Parameter(torch.ones(shape[0], *[1] * sides)) if draw.random() < 0.3 else None

    def forward(self, x: Tensor) -> Tensor:
        change = self.inside(x)
        return x + (change if self.scale is None else change * self.scale)


class Branches(nn.Module):
    """Several layers of one input and the input itself, one after the other, then a normalisation over all of them."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        sides = len(shape) - 1
        widths = [draw.choice((3, 4, 5)) for _ in range(draw.choice((1, 2)))]
        layer: Any = CONV[sides] if sides else nn.Linear
        extra = (1,) if sides else ()
        self.layers = nn.ModuleList(layer(shape[0], width, *extra) for width in widths)
        self.keep = draw.random() < 0.6 or len(widths) == 1
        total = sum(widths) + shape[0] * self.keep
        self.norm, self.act = norm(total, sides, draw, math.prod(shape[1:])), activation(total, draw)
        self.mix = layer(total, draw.choice((4, 6)), *extra) if total > 9 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        parts = [layer(x) for layer in self.layers] + [x] * self.keep
        return self.mix(self.act(self.norm(torch.cat(parts, 1))))


class Halves(nn.Module):
    """One layer whose output is cut, and the pieces multiplied, added or joined in another order."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        sides = len(shape) - 1
        half = draw.choice((3, 4))
        self.kind = draw.choice(("glu", "chunk", "split", "uneven", "swapped", "slices"))
        out = 2 * half + (1 if self.kind == "uneven" else 0)
        self.half = half
        self.layer = CONV[sides](shape[0], out, 1) if sides else nn.Linear(shape[0], out)
        self.norm = norm(out, sides, draw)
        self.other = CONV[sides](half + 1, half, 1) if sides else nn.Linear(half + 1, half)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.layer(x))
        if self.kind == "glu":
            return F.glu(h, 1)
        if self.kind == "uneven":
            first, second = h.split([self.half, self.half + 1], 1)
            return torch.cat([torch.tanh(first), self.other(second)], 1)
        if self.kind == "swapped":
            first, second = h.chunk(2, 1)
            return torch.cat([torch.sigmoid(second), first], 1)
        if self.kind == "slices":
            middle = h.shape[1] // 2
            return torch.tanh(h[:, :middle]) * h[:, middle:]
        first, second = h.chunk(2, 1) if self.kind == "chunk" else h.split(h.shape[1] // 2, 1)
        return first + F.softplus(second)


class SqueezeExcitation(nn.Module):
    """Units times a number in (0, 1) for each, which comes from the mean over their pixels."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(shape[0], 3), nn.Linear(3, shape[0])
        self.gate = draw.choice((nn.Sigmoid(), nn.Hardsigmoid()))

    def forward(self, x: Tensor) -> Tensor:
        factor = self.gate(self.up(F.relu(self.down(x.flatten(2).mean(2)))))
        return x * factor.view(*factor.shape, *[1] * (x.dim() - 2))


class Shuffle(nn.Module):
    """Channels in another order, by view and transpose or by the ready-made module."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        out = 6
        self.conv = CONV[len(shape) - 1](shape[0], out, 1)
        self.groups = draw.choice((2, 3))
        self.ready = nn.ChannelShuffle(self.groups) if draw.random() < 0.5 else None
        self.after = CONV[len(shape) - 1](out, out, 1, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        if self.ready is not None:
            return self.after(self.ready(h))
        cut = h.view(h.shape[0], self.groups, -1, *h.shape[2:])
        return self.after(cut.transpose(1, 2).flatten(1, 2))


def pixel_shuffle(shape: Shape, draw: Random) -> nn.Module:
    if len(shape) != 3 or math.prod(shape[1:]) > 40:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(shape[0], 12, 1), activation(12, draw), nn.PixelShuffle(2))


class Shared(nn.Module):
    """One module that runs twice, and another whose weight is the first one's."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        sides = len(shape) - 1
        layer: Any = CONV[sides] if sides else nn.Linear
        extra = (1,) if sides else ()
        self.layer = layer(shape[0], shape[0], *extra)
        self.tied = layer(shape[0], shape[0], *extra)
        self.tied.weight = self.layer.weight
        self.act = activation(shape[0], draw)

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.act(self.layer(torch.tanh(self.layer(x)))))


class Product(nn.Module):
    """``x @ weight`` with a parameter, and a shift added by hand: of tokens or vectors."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        out = draw.choice((4, 6))
        self.weight = nn.Parameter(torch.empty(shape[-1], out))
        self.shift = nn.Parameter(torch.empty(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight + self.shift)


class AsTokens(nn.Module):
    """Maps to tokens, through linear layers, and back to maps."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape[0]) if draw.random() < 0.3 else nn.Identity()
        self.first, self.second = nn.Linear(shape[0], 5), nn.Linear(5, draw.choice((4, 6)))
        self.permuted = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        if self.permuted:
            return self.second(F.gelu(self.first(self.norm(x.movedim(1, -1))))).movedim(-1, 1)
        tokens = x.flatten(2).transpose(1, 2)
        h = self.second(F.silu(self.first(self.norm(tokens))))
        return h.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


class Attention(nn.Module):
    """A transformer block: fused attention that cuts its heads by their size, then a feed-forward part."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        values, self.heads, self.size = shape[-1], draw.choice((2, 3)), draw.choice((2, 4))
        self.before, self.between = nn.LayerNorm(values), nn.LayerNorm(values)
        self.qkv = nn.Linear(values, 3 * self.heads * self.size)
        self.proj = nn.Linear(self.heads * self.size, values)
        self.up, self.down = nn.Linear(values, 6), nn.Linear(6, values)
        self.fused = draw.random() < 0.5
        self.by_count = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        h = self.qkv(self.before(x))
        cut = (3, self.heads, self.size) if self.by_count else (3, -1, self.size)
        q, k, v = h.view(n, tokens, *cut).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            seen = F.scaled_dot_product_attention(q, k, v)
        else:
            seen = (q @ k.transpose(-2, -1) / self.size**0.5).softmax(-1) @ v
        x = x + self.proj(seen.transpose(1, 2).reshape(n, tokens, -1))
        return x + self.down(F.gelu(self.up(self.between(x))))


class TokenLinear(nn.Module):
    """A linear layer on every token, sometimes normalised or added to its input; or one across the tokens."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        self.across = draw.random() < 0.3
        width = shape[0] if self.across else shape[1]
        self.norm = nn.LayerNorm(width) if draw.random() < 0.3 else nn.Identity()
        self.layer = nn.Linear(width, draw.choice((4, 6)), bias=draw.random() < 0.7)
        self.act = draw.choice((nn.ReLU(), nn.Sigmoid(), nn.GELU()))

    def forward(self, x: Tensor) -> Tensor:
        if self.across:
            return self.act(self.layer(self.norm(x.transpose(1, 2)))).transpose(1, 2)
        return self.act(self.layer(self.norm(x)))


class Dense(nn.Module):
    """A linear layer of vectors with normalisation and activation, in either order."""

    def __init__(self, shape: Shape, draw: Random) -> None:
        super().__init__()
        out = draw.choice((4, 5, 6))
        self.layer = nn.Linear(shape[0], out, bias=draw.random() < 0.7)
        parts = [norm(out, 0, draw), activation(out, draw)]
        draw.shuffle(parts)
        self.rest = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.layer(x))


# Ways from one kind of tensor to another ---------------------------------------------------------------------------


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def to_tokens(shape: Shape, draw: Random) -> nn.Module:
    return Call(lambda x: x.flatten(2).transpose(1, 2))


def to_vector(shape: Shape, draw: Random) -> nn.Module:
    if draw.random() < 0.5:
        return nn.Flatten()
    return Call(lambda x: x.flatten(2).amax(2) if x.dim() > 3 else x.mean(-1))


def tokens_to_vector(shape: Shape, draw: Random) -> nn.Module:
    return draw.choice((nn.Flatten(), Call(lambda x: x.mean(1)), Call(lambda x: x.transpose(1, 2).reshape(len(x), -1))))


def tokens_to_map(shape: Shape, draw: Random) -> nn.Module:
    return Call(lambda x: x.transpose(1, 2))


def vector_to_map(shape: Shape, draw: Random) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 16), activation(16, draw), Call(lambda x: x.view(x.shape[0], -1, 2, 2)))


MAPS: Mapping[str, Any] = {
    "convolution": Convolution, "grouped": grouped, "depthwise": depthwise, "transposed": transposed,
    "norm": one_norm, "activation": one_activation, "pool": pool, "interpolate": interpolate, "residual": Residual,
    "branches": Branches, "halves": Halves, "squeeze": SqueezeExcitation, "shuffle": Shuffle, "pixels": pixel_shuffle,
    "shared": Shared, "as_tokens": AsTokens, "to_tokens": to_tokens, "to_vector": to_vector, "dropout": dropout,
}  # fmt: skip
TOKENS: Mapping[str, Any] = {
    "linear": TokenLinear, "attention": Attention, "product": Product, "to_vector": tokens_to_vector,
    "to_map": tokens_to_map,
}  # fmt: skip
VECTORS: Mapping[str, Any] = {
    "dense": Dense, "residual": Residual, "branches": Branches, "halves": Halves, "shared": Shared, "product": Product,
    "norm": one_norm, "activation": one_activation, "to_map": vector_to_map, "dropout": dropout,
}  # fmt: skip


def disturb(module: nn.Module) -> None:
    """Makes every bias, shift, slope and running statistic random and not zero."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        data = tensor.detach()
        if "running_var" in name:
            data.copy_(0.5 + torch.rand_like(data))
        elif data.dim() < 2 or name.endswith("scale"):
            data.copy_((0.3 + torch.rand_like(data)) * (1 - 2 * torch.randint(0, 2, data.shape)))
        else:
            fan = data[0].numel() if data.dim() > 1 else 1
            data.copy_(torch.randn_like(data) / fan**0.5)
