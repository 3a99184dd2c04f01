"""A small vision transformer (Dosovitskiy et al.: An image is worth 16x16 words, 2021) for images of CIFAR's size.

Patches of 4 x 4, tokens of 128, six blocks; the mean over all tokens in the place of a class token, as in Beyer et al.:
Better plain ViT baselines for ImageNet-1k (2022). 810,890 parameters at the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sizer.networks.vgg11 import image_channels

PATCH, EMBEDDING, HEAD, BLOCKS = 4, 128, 32, 6

DEFAULT = (4, 256) * BLOCKS


def layers(depth: int) -> tuple[str, ...]:
    """Each block's heads and hidden units, whatever the depth.

    ``blocks.N.attn.qkv`` has 3 * 32 rows a head; its width is the number of heads. The tokens' 128 values are no
    width: LayerNorm depends on how many there are.
    """
    return tuple(f"blocks.{block}.{inner}" for block in range(BLOCKS) for inner in ("attn.qkv", "mlp.fc1"))


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Patches, learned positions, blocks that normalise first, LayerNorm, the mean over tokens, the Linear ``out``.

    Images of any size will do: zeros surround one whose sides are no multiple of a patch. Weights are Xavier uniform,
    positions normal with standard deviation .02.

    Raises:
        InputError: The input is no image.
    """
    network = _ViT(image_channels("vit", input_shape), input_shape[1:], outputs, widths)
    network.apply(_xavier)
    return network


class _Attention(nn.Module):
    """Self-attention of (N, tokens, embedding) with heads of 32; as many as ``qkv`` gives."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(EMBEDDING, 3 * heads * HEAD)
        self.proj = nn.Linear(heads * HEAD, EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4).unbind()
        seen = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return result


class _Block(nn.Module):
    def __init__(self, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(EMBEDDING)
        self.attn = _Attention(heads)
        self.norm2 = nn.LayerNorm(EMBEDDING)
        fc1, fc2 = nn.Linear(EMBEDDING, hidden), nn.Linear(hidden, EMBEDDING)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, gelu=nn.GELU(), fc2=fc2))

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = x + self.attn(self.norm1(x))
        result: Tensor = seen + self.mlp(self.norm2(seen))
        return result


class _ViT(nn.Module):
    def __init__(self, channels: int, sides: Sequence[int], outputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        height, width = (-(-side // PATCH) for side in sides)
        above, left = ((-side % PATCH + 1) // 2 for side in sides)
        self.patches = nn.Conv2d(channels, EMBEDDING, PATCH, stride=PATCH, padding=(above, left))
        self.positions = nn.Parameter(0.02 * torch.randn(height * width, EMBEDDING))
        self.blocks = nn.Sequential(*map(_Block, widths[::2], widths[1::2]))
        self.norm = nn.LayerNorm(EMBEDDING)
        self.out = nn.Linear(EMBEDDING, outputs)

    def forward(self, input: Tensor) -> Tensor:
        tokens = self.patches(input).flatten(2).transpose(1, 2) + self.positions
        result: Tensor = self.out(torch.mean(self.norm(self.blocks(tokens)), 1))
        return result


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
