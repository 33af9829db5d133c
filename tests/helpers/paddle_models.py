"""The four families in PaddlePaddle, small, with PaddleViT's parameter names: they write real .pdparams files.

Written from the papers and from the names in https://github.com/BR-IDL/PaddleViT.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn


def conv_bn(in_channels, out_channels, kernel, **kwargs):
    conv = nn.Conv2D(in_channels, out_channels, kernel, bias_attr=False, **kwargs)
    return nn.Sequential(('conv', conv), ('bn', nn.BatchNorm2D(out_channels)))


class Parts(nn.Layer):
    """A layer whose sublayers are given by name; a subclass adds ``forward``."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Mlp(Parts):
    def __init__(self, dim, hidden):
        super().__init__(fc1=nn.Linear(dim, hidden), fc2=nn.Linear(hidden, dim))

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class ConvMLPBlock(Parts):
    def __init__(self, dim, hidden):
        super().__init__(
            norm1=nn.LayerNorm(dim),
            channel_mlp1=Mlp(dim, hidden),
            norm2=nn.LayerNorm(dim),
            connect=nn.Conv2D(dim, dim, 3, padding=1, groups=dim, bias_attr=False),
            connect_norm=nn.LayerNorm(dim),
            channel_mlp2=Mlp(dim, hidden),
        )

    def forward(self, x):  # (N, H, W, C)
        x = x + self.channel_mlp1(self.norm1(x))
        x = self.connect(self.connect_norm(x).transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1])
        return x + self.channel_mlp2(self.norm2(x))


class ConvMLP(nn.Layer):
    def __init__(self, channels, conv_blocks, dims, depths, mlp_ratios, classes):
        super().__init__()

        def conv(i, o, k, stride=1):
            return [nn.Conv2D(i, o, k, stride, k // 2, bias_attr=False), nn.BatchNorm2D(o), nn.ReLU()]

        half = channels // 2
        tokenizer = [*conv(3, half, 3, 2), *conv(half, half, 3), *conv(half, channels, 3), nn.MaxPool2D(3, 2, 1)]
        self.tokenizer = Parts(block=nn.Sequential(*tokenizer))
        blocks = [
            nn.Sequential(*conv(channels, channels, 1), *conv(channels, channels, 3), *conv(channels, channels, 1))
            for _ in range(conv_blocks)
        ]
        self.conv_stages = Parts(
            conv_blocks=nn.LayerList(blocks), downsample=nn.Conv2D(channels, dims[0], 3, 2, padding=1)
        )
        self.stages = nn.LayerList()
        for i, dim in enumerate(dims):
            stage = Parts(blocks=nn.LayerList([ConvMLPBlock(dim, dim * mlp_ratios[i]) for _ in range(depths[i])]))
            if i + 1 < len(dims):
                stage.downsample_mlp = Parts(downsample=nn.Conv2D(dim, dims[i + 1], 3, 2, padding=1))
            self.stages.append(stage)
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], classes)

    def forward(self, x):
        x = self.tokenizer.block(x)
        for block in self.conv_stages.conv_blocks:
            x = x + block(x)
        x = self.conv_stages.downsample(x)
        for stage in self.stages:
            x = x.transpose([0, 2, 3, 1])
            for block in stage.blocks:
                x = block(x)
            x = x.transpose([0, 3, 1, 2])
            if hasattr(stage, 'downsample_mlp'):
                x = stage.downsample_mlp.downsample(x)
        return self.head(self.norm(x.transpose([0, 2, 3, 1])).mean([1, 2]))


class Affine(nn.Layer):
    def __init__(self, dim):
        super().__init__()
        self.alpha = self.create_parameter([1, 1, dim])
        self.beta = self.create_parameter([1, 1, dim])

    def forward(self, x):
        return self.alpha * x + self.beta


class ResMLPBlock(Parts):
    def __init__(self, dim, tokens, hidden):
        super().__init__(
            norm1=Affine(dim), linear_tokens=nn.Linear(tokens, tokens), norm2=Affine(dim), mlp_channels=Mlp(dim, hidden)
        )
        self.ls1, self.ls2 = self.create_parameter([dim]), self.create_parameter([dim])

    def forward(self, x):
        x = x + self.ls1 * self.linear_tokens(self.norm1(x).transpose([0, 2, 1])).transpose([0, 2, 1])
        return x + self.ls2 * self.mlp_channels(self.norm2(x))


class SpatialGate(Parts):
    def __init__(self, dim, tokens):
        super().__init__(norm=nn.LayerNorm(dim), proj=nn.Linear(tokens, tokens))

    def forward(self, x):
        u, v = x.chunk(2, axis=-1)
        return u * self.proj(self.norm(v).transpose([0, 2, 1])).transpose([0, 2, 1])


class GMLPBlock(Parts):
    def __init__(self, dim, tokens, hidden):
        mlp = Parts(fc1=nn.Linear(dim, hidden), gate=SpatialGate(hidden // 2, tokens), fc2=nn.Linear(hidden // 2, dim))
        super().__init__(norm=nn.LayerNorm(dim, epsilon=1e-6), mlp_channels=mlp)

    def forward(self, x):
        mlp = self.mlp_channels
        return x + mlp.fc2(mlp.gate(F.gelu(mlp.fc1(self.norm(x)))))


class Isotropic(nn.Layer):
    def __init__(self, block, norm, img_size, patch_size, dim, depth, mlp_ratio, classes):
        super().__init__()
        tokens = (img_size // patch_size) ** 2
        self.patch_embed = Parts(patch_embed=nn.Conv2D(3, dim, patch_size, patch_size))
        self.mixer_layers = nn.LayerList([block(dim, tokens, dim * mlp_ratio) for _ in range(depth)])
        self.norm = norm
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch_embed.patch_embed(x).flatten(2).transpose([0, 2, 1])
        for block in self.mixer_layers:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class GlobalPerceptron(Parts):
    def __init__(self, channels):
        super().__init__(fc1=nn.Conv2D(channels, channels // 4, 1), fc2=nn.Conv2D(channels // 4, channels, 1))

    def forward(self, x):
        return F.sigmoid(self.fc2(F.relu(self.fc1(x.mean([2, 3], keepdim=True)))))


class RepMLPBlock(Parts):
    def __init__(self, channels, side, sets):
        self.side, self.sets, length = side, sets, side * side * sets
        super().__init__(
            gp=GlobalPerceptron(channels),
            fc3=nn.Conv2D(length, length, 1, groups=sets, bias_attr=False),
            fc3_bn=nn.BatchNorm2D(sets),
            repconv1=conv_bn(sets, sets, 1, groups=sets),
            repconv3=conv_bn(sets, sets, 3, padding=1, groups=sets),
        )

    def __setattr__(self, name, value):  # plain numbers are set before nn.Layer is ready
        object.__setattr__(self, name, value) if isinstance(value, int) else super().__setattr__(name, value)

    def forward(self, x):
        n, c, h, w = x.shape
        rows, columns = h // self.side, w // self.side
        tiles = x.reshape([n, c, rows, self.side, columns, self.side]).transpose([0, 2, 4, 1, 3, 5])
        tiles = tiles.reshape([-1, self.sets, self.side, self.side])
        y = self.fc3_bn(self.fc3(tiles.reshape([-1, self.sets * self.side**2, 1, 1])).reshape(tiles.shape))
        y = y + self.repconv1(tiles) + self.repconv3(tiles)
        y = y.reshape([n, rows, columns, c, self.side, self.side]).transpose([0, 3, 1, 4, 2, 5])
        return y.reshape([n, c, h, w]) * self.gp(x)


class FFNBlock(Parts):
    def __init__(self, channels):
        super().__init__(ffn_fc1=conv_bn(channels, channels * 4, 1), ffn_fc2=conv_bn(channels * 4, channels, 1))

    def forward(self, x):
        return self.ffn_fc2(F.gelu(self.ffn_fc1(x)))


class RepMLPUnit(Parts):
    def __init__(self, channels, side, sets):
        super().__init__(
            repmlp_block=RepMLPBlock(channels, side, sets),
            ffn_block=FFNBlock(channels),
            prebn1=nn.BatchNorm2D(channels),
            prebn2=nn.BatchNorm2D(channels),
        )

    def forward(self, x):
        x = x + self.repmlp_block(self.prebn1(x))
        return x + self.ffn_block(self.prebn2(x))


class RepMLP(nn.Layer):
    def __init__(self, channels, depths, share_sets, img_size, classes):
        super().__init__()
        self.conv_embedding = conv_bn(3, channels[0], 4, stride=4)
        sides = [img_size // 4 // 2**i for i in range(4)]
        self.stages = nn.LayerList(
            [
                nn.LayerList([RepMLPUnit(channels[i], sides[i], share_sets[i]) for _ in range(depths[i])])
                for i in range(4)
            ]
        )
        self.embeds = nn.LayerList([conv_bn(channels[i], channels[i + 1], 2, stride=2) for i in range(3)])
        self.head_norm = nn.BatchNorm2D(channels[-1])
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, x):
        for embed, stage in zip([self.conv_embedding, *self.embeds], self.stages):
            x = F.relu(embed(x))
            for unit in stage:
                x = unit(x)
        return self.head(self.head_norm(x).mean([2, 3]))


def build(name, arch, classes, img_size=64):
    """The model of a family, with every parameter and statistic drawn at random, in eval mode."""
    arch = dict(arch)
    paddle.seed(0)
    if name == 'convmlp':
        model = ConvMLP(**arch, classes=classes)
    elif name == 'repmlp':
        model = RepMLP(**arch, classes=classes)
    else:
        arch.pop('layer_scale', None)
        block, norm = dict(
            resmlp=(ResMLPBlock, Affine(arch['dim'])), gmlp=(GMLPBlock, nn.LayerNorm(arch['dim'], epsilon=1e-6))
        )[name]
        model = Isotropic(block, norm, img_size, **arch, classes=classes)
    for key, value in model.state_dict().items():
        if key.endswith('_variance') or (value.ndim == 1 and key.endswith('weight')):
            value.set_value(paddle.uniform(value.shape, min=0.5, max=1.5))
        elif value.ndim == 1:
            value.set_value(paddle.uniform(value.shape, min=-0.5, max=0.5))
    model.eval()
    return model
