"""The simple feature pyramid of ViTDet (arXiv 2203.16527): every scale from the one map of a plain backbone.

Original code: https://github.com/facebookresearch/detectron2, projects/ViTDet.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from ...checkpoints import CheckpointError
from ...registry import register_model
from ...utils.checks import check_flags, check_int, short_repr
from ...utils.errors import InvalidValue
from ..layers.conv_norm import FoldableSequential, conv_norm, norm_after
from ..layers.folding import Deployable


@register_model
class SimpleFeaturePyramid(BaseModule, Deployable):
    """Maps of several strides from the last map of a backbone that has one stride only, such as ResMLP or gMLP.

    Finer maps come from transposed convolutions, coarser ones from max pooling of the backbone's map; each is then
    projected by a 1x1 and a 3x3 convolution. Strides beyond twice the backbone's are subsampled from the map before.

    Args:
        in_channels (int | Sequence[int]): Channels of the backbone's map.
        out_channels (int): Channels of every output. Defaults to 256.
        in_stride (int): Stride of the backbone's map, in pixels. Defaults to 16.
        out_strides (Sequence[int]): Strides of the outputs, ascending, each ``in_stride`` times a power of two.
            Defaults to (4, 8, 16, 32), those of Semantic FPN; Mask R-CNN takes (4, 8, 16, 32, 64), RetinaNet
            (8, 16, 32, 64, 128).
        norm_cfg (Mapping): The normalization after each convolution. Defaults to ``dict(type='BN')``.
        deploy (bool): Build the folded form, for inference, see ``switch_to_deploy``. Defaults to False.
        init_cfg (dict | list[dict], optional): mmengine's initialization config.

    Shape:
        - Input: a sequence whose last item is (N, in_channels, H, W).
        - Output: a tuple of maps (N, out_channels, H * in_stride / stride, W * in_stride / stride), rounded up.

    Raises:
        TypeError, ValueError: An argument or an input that is not as described above.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        in_stride: int = 16,
        out_strides: Sequence[int] = (4, 8, 16, 32),
        norm_cfg: Mapping = dict(type='BN'),
        deploy: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        name = type(self).__name__
        check_flags(name, deploy=deploy)
        super().__init__(init_cfg)
        if isinstance(in_channels, Sequence) and not isinstance(in_channels, (str, bytes)):
            if len(in_channels) != 1:
                raise InvalidValue(f'{name} takes one map, got in_channels={short_repr(in_channels)}')
            in_channels = in_channels[0]
        in_channels = check_int(name, 'in_channels', in_channels)
        out_channels = check_int(name, 'out_channels', out_channels)
        in_stride = check_int(name, 'in_stride', in_stride)
        if not isinstance(out_strides, Sequence):
            raise InvalidValue(f'{name}: out_strides must be positive ints, got {short_repr(out_strides)}')
        out_strides = tuple(check_int(name, 'out_strides', stride) for stride in out_strides)
        steps = [math.log2(stride / in_stride) for stride in out_strides]
        if not steps or any(s != int(s) for s in steps) or list(out_strides) != sorted(set(out_strides)):
            raise InvalidValue(
                f'{name}: out_strides must ascend, each in_stride={in_stride} times a power of two, got {out_strides}'
            )
        if steps[0] > 1:
            raise InvalidValue(
                f'{name}: at least one of out_strides must be up to {2 * in_stride}, twice in_stride, got {out_strides}'
            )
        if in_channels % 2 ** max(0, -int(steps[0])):
            raise InvalidValue(
                f'{name} halves the channels with each doubling of the size: in_channels={in_channels} does not allow '
                f'stride {out_strides[0]} from {in_stride}'
            )
        self.in_channels = in_channels
        self.out_channels = (out_channels,) * len(out_strides)
        self.out_strides = out_strides
        self.scales = nn.ModuleList(
            _scale(in_channels, out_channels, int(step), norm_cfg, deploy) for step in steps if step <= 1
        )
        # Of each coarser map, by how much its stride exceeds that of the map before.
        self.subsampling = [b // a for a, b in itertools.pairwise(out_strides[len(self.scales) - 1 :])]
        self.deploy = bool(deploy)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        first = list(self.scales[0].children())
        last = len(first) - 1  # a norm, after a convolution without bias
        here = isinstance(first[last], nn.Identity)
        mark = f'{last}.weight' if here else f'{last - 1}.bias'  # that only the other form has
        if f'{prefix}scales.0.{mark}' in state_dict:
            theirs, ours = ('training', 'deploy') if here else ('deploy', 'training')
            raise CheckpointError(
                f'the checkpoint is of SimpleFeaturePyramid in {theirs} form, this neck is in {ours} form: build it '
                f'with deploy={not here}'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        x = inputs[-1]
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise InvalidValue(
                f'SimpleFeaturePyramid takes a map of shape (N, {self.in_channels}, H, W), got {tuple(x.shape)}'
            )
        outs = [scale(x) for scale in self.scales]
        for stride in self.subsampling:
            outs.append(nn.functional.max_pool2d(outs[-1], 1, stride=stride))
        return tuple(outs)


def _scale(in_channels: int, out_channels: int, step: int, norm_cfg: Mapping, deploy: bool) -> FoldableSequential:
    """Return the layers to one output, whose stride is ``2**step`` times that of the input; ``step`` is up to 1."""
    layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if step == 1 else []
    channels = in_channels
    for i in range(-step):
        if i:
            layers += [norm_after(norm_cfg, channels, deploy), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    layers += conv_norm(channels, out_channels, 1, norm_cfg, deploy)
    layers += conv_norm(out_channels, out_channels, 3, norm_cfg, deploy, padding=1)
    return FoldableSequential(*layers)
