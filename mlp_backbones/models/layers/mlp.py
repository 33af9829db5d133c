"""Channel MLP, patch embedding and stochastic depth."""

from torch import Tensor, nn
from torchvision.ops import StochasticDepth


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, over the last dimension: (..., C) -> (..., C).

    Args:
        channels (int): Channels in and out.
        hidden_channels (int): Channels between the two layers.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class PatchEmbed(nn.Module):
    """Non-overlapping patches, embedded: (N, in_channels, H, W) -> (N, C, H/patch, W/patch)."""

    def __init__(self, in_channels: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


def build_drop_path(rate: float) -> nn.Module:
    """Stochastic depth per sample, or window (arXiv 1603.09382), or the identity at rate 0."""
    return StochasticDepth(rate, 'row') if rate > 0 else nn.Identity()
