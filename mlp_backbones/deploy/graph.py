"""Whole models as files: from an image as OpenCV reads it to what a user wants to see."""

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers.windows import pad_to_multiple
from ..utils.errors import UserError
from .heads import Classifier, Detector, Segmentor, nms_operator
from .runtime import KEY


class Preprocess(nn.Module):
    """What a framework's data preprocessor does with a batch: channel order, mean and deviation, padding with zeros.

    Args:
        settings (Mapping): ``mean``, ``std``, ``bgr_to_rgb`` and ``pad_divisor``, as in ``describe``.

    Shape:
        - Input: (N, C, H, W), uint8.
        - Output: the images (N, C, H', W'), float32, and (2,), int64: H and W.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(settings['mean'], dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(settings['std'], dtype=torch.float32).view(-1, 1, 1))
        self.swap, self.divisor = settings['bgr_to_rgb'], settings['pad_divisor']

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = (image.flip(1) if self.swap else image).float()
        x = (x - self.mean) / self.std
        height, width = image.shape[2:]
        x = pad_to_multiple(x, (self.divisor, self.divisor))
        return x, torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in (height, width)])


class LabelMap(nn.Module):
    """From a segmentor's scores to the label of each pixel.

    Args:
        model: Of mmseg.
        with_scores (bool): Return the scores at the image's size too. Defaults to False.

    Shape:
        - Input: scores (N, classes, h, w), and (height, width) of the padded images and of the images.
        - Output: labels (N, height, width), uint8, and the scores (N, classes, height, width).
    """

    def __init__(self, model: Any, with_scores: bool = False) -> None:
        super().__init__()
        head = model.decode_head
        self.align_corners, self.threshold = head.align_corners, head.threshold if head.out_channels == 1 else None
        self.names = ('label_map', 'scores') if with_scores else ('label_map',)

    def forward(self, scores: Tensor, padded: Sequence[int], size: Sequence[int]) -> tuple[Tensor, ...]:
        scores = F.interpolate(scores, padded, mode='bilinear', align_corners=self.align_corners)
        # Slices would be traced for images that need padding only.
        rows, columns = (torch.arange(n, device=scores.device) for n in size)
        scores = scores.index_select(2, rows).index_select(3, columns)
        labels = scores.argmax(1) if self.threshold is None else (scores.sigmoid() > self.threshold)[:, 0]
        return (labels.to(torch.uint8), scores)[: len(self.names)]


def core_of(model: Any) -> Any:
    """Return the part of a framework's model behind the preprocessing, as a function of tensors.

    Raises:
        ValueError: It has a head that cannot be exported.
    """
    make_sizes_symbolic(model)
    if hasattr(model, 'decode_head'):
        return Segmentor(model)
    if hasattr(model, 'head'):
        return Classifier(model)
    return Detector(model)


def make_sizes_symbolic(model: nn.Module) -> None:
    """Replace mmseg's Upsample, which turns sizes into constants, by torch's own, which does the same."""
    child: Any
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == 'Upsample' and type(child).__module__.startswith('mmseg') and not child.size:
                setattr(parent, name, nn.Upsample(None, child.scale_factor, child.mode, child.align_corners))


def traced_size(steps: Sequence[int]) -> list[int]:
    """Return the size at which a model of which height and width are dynamic is traced, from the steps of its sizes.

    There are several rows in the coarsest map, for a size of 1 would become a constant, and a little more than whole
    steps: what is a whole number of tiles or strides at any depth would not be padded in the file.
    """
    return [math.ceil(288 / step) * step + 2 for step in steps]


def trace(module: nn.Module, image: Tensor, dynamic: Sequence[int]) -> Any:
    """Return the ``torch.export`` program of a module for images, with its dynamic dimensions.

    Of the guards that the tracer notes for sizes, those that hold for ``traced_size`` only are about memory formats and
    padding by nothing: the program computes the same without. It takes any size therefore.
    """
    shapes = dict.fromkeys(dynamic, torch.export.Dim.AUTO)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.export.export(module.eval(), (image,), dynamic_shapes=(shapes,), strict=False)
    program._guards_code = []
    for name, sizes in program.range_constraints.items():
        program.range_constraints[name] = type(sizes)(1, sizes.upper)
    return program


def _onnx_nms() -> Any:
    """``heads.nms`` in ONNX's operators."""
    import onnx
    from onnxscript import opset18

    op: Any = opset18

    def translate(boxes, scores, iou_threshold: float, score_threshold: float):
        most = op.Constant(value_ints=[1 << 30])
        index = op.NonMaxSuppression(
            boxes, scores, most,
            op.Constant(value_floats=[iou_threshold]), op.Constant(value_floats=[score_threshold]),
        )  # fmt: skip
        nothing = op.ConstantOfShape(
            op.Shape(scores), value=onnx.helper.make_tensor('no', onnx.TensorProto.BOOL, [1], [0])
        )
        yes = op.ConstantOfShape(
            op.Shape(index, start=0, end=1), value=onnx.helper.make_tensor('yes', onnx.TensorProto.BOOL, [1], [1])
        )
        return op.ScatterND(nothing, index, yes)

    return translate


def to_onnx(program: Any, inputs: list[str], outputs: list[str] | None, opset: int | None = None) -> Any:
    """Return the ONNX model of a ``torch.export`` program, with named inputs and outputs.

    Raises:
        UserError: torch writes another operator set than ``opset``.
    """
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    table: Any = {torch.ops.mlp_backbones.nms.default: _onnx_nms()} if hasattr(torch.ops.mlp_backbones, 'nms') else None
    with contextlib.redirect_stdout(io.StringIO()):
        made: Any = torch.onnx.export(
            program, dynamo=True, input_names=inputs, output_names=outputs, opset_version=opset, verbose=False,
            custom_translation_table=table,
        )  # fmt: skip
    if opset not in (None, written := made.model.opset_imports['']):
        raise UserError(f'torch {torch.__version__} writes operator set {written}, not {opset}')
    return made.model_proto


def whole_onnx(model: Any, settings: Mapping[str, Any], with_scores: bool = False, opset: int | None = None) -> Any:
    """Return the ONNX model of a framework's whole model: ``image`` in, what its task is for out.

    Args:
        model (nn.Module): Of mmpretrain, mmdet or mmseg, in the form to be exported.
        settings (Mapping): What ``describe`` returned.
        with_scores (bool): A segmentor's scores at the image's size, as a second output. Defaults to False.
        opset (int, optional): ONNX's operator set. Defaults to torch's own.

    Returns:
        onnx.ModelProto: With ``settings`` as JSON in its metadata.
    """
    whole = Whole(model, settings, with_scores)
    if isinstance(whole.core, Detector):
        whole.core.suppress = nms_operator()
    made = to_onnx(whole_program(whole, settings), ['image'], list(whole.names), opset)
    for value in (*made.graph.input, *made.graph.output):
        dims = value.type.tensor_type.shape.dim
        names = ('batch', '', 'height', 'width') if len(dims) == 4 else ('batch', 'height', 'width')
        for dim, name in zip(dims, names):
            if dim.HasField('dim_param') and name:
                dim.dim_param = name
    _without_expansion(made.graph)
    made.metadata_props.add(key=KEY, value=json.dumps(settings))
    return made


def _without_expansion(graph: Any) -> None:
    """Let products take weights as they are instead of a copy for each image, as the products of ONNX can.

    Token mixing is traced with copies; int8 needs weights that are constants.
    """
    weights = {item.name for item in graph.initializer}
    expanded = {n.output[0]: n for n in graph.node if n.op_type == 'Expand' and n.input[0] in weights}
    for node in graph.node:
        if node.op_type == 'MatMul' and node.input[0] in expanded:
            node.input[0] = expanded[node.input[0]].input[0]
    used = {name for node in graph.node for name in node.input}
    for node in expanded.values():
        if node.output[0] not in used:
            graph.node.remove(node)


class Whole(nn.Module):
    """A framework's model between the image and what its task is for.

    Args:
        model (nn.Module): Of mmpretrain, mmdet or mmseg.
        settings (Mapping): What ``describe`` returned.
        with_scores (bool): A segmentor's scores too. Defaults to False.

    Attributes:
        names (tuple[str, ...]): Of the outputs.

    Shape:
        - Input: (N, C, H, W), uint8, channels as OpenCV reads them.
        - Output: a tuple of tensors.
    """

    def __init__(self, model: Any, settings: Mapping[str, Any], with_scores: bool = False) -> None:
        super().__init__()
        self.before, self.core = Preprocess(settings), core_of(model)
        self.after = LabelMap(model, with_scores) if isinstance(self.core, Segmentor) else None
        self.names: tuple[str, ...] = (self.after or self.core).names

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, size = self.before(image)
        outputs = self.core(x, size)
        return self.after(outputs[0], x.shape[2:], image.shape[2:]) if self.after else outputs


def whole_program(whole: Whole, settings: Mapping[str, Any]) -> Any:
    """Return the ``torch.export`` program of a whole model.

    Args:
        whole (Whole): The model.
        settings (Mapping): What ``describe`` returned.

    Returns:
        torch.export.ExportedProgram: From ``image`` to the outputs that ``whole.names`` names.
    """
    sides = settings['fixed_size'] or traced_size(settings['step'])
    image = torch.zeros(2, settings['channels'], *sides, dtype=torch.uint8)
    return trace(whole, image, (0,) if settings['fixed_size'] else (0, 2, 3))


def outputs_of(model: Any, settings: Mapping[str, Any], image: Tensor, with_scores: bool = False) -> dict[str, Tensor]:
    """Return what a file should give for ``image`` (N, C, H, W), uint8, computed by torch: name -> tensor."""
    whole = Whole(model, settings, with_scores).eval()
    with torch.no_grad():
        return dict(zip(whole.names, whole(image)))


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest difference of what a file and torch compute, relative to the largest value of each output.

    Detections whose scores are equal up to rounding may come in any order, and are left out. Of label maps it is the
    share of pixels, in which the best two classes may be equal up to rounding too.
    """
    worst, alone = 0.0, None
    if 'boxes' in expected:
        scores = F.pad(expected['scores'], (1, 1), value=2.0)
        gaps = (scores[:, 1:] - scores[:, :-1]).abs() > 1e-5
        alone = gaps[:, 1:] & gaps[:, :-1]
    for name, value in expected.items():
        other = found[name]
        if name == 'label_map':
            worst = max(worst, (other != value).float().mean().item())
            continue
        if alone is not None and name != 'scores':
            value, other = value[alone], other[alone]
        if value.numel():
            worst = max(worst, ((other - value).abs().max() / value.abs().max().clamp(min=1e-6)).item())
    return worst
