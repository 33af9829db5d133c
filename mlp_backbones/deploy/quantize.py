"""Post-training quantization of exported models to int8, with NNCF, under the control of a config's evaluator."""

import copy
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from ..utils.errors import UserError
from .evaluate import Evaluation, open_runtime
from .layers import around_the_model, int8_layers, layers_report, products_of_batches
from .runtime import KEY, Runtime

# What the drop is judged by, and how much of it one point is.
JUDGED = {'accuracy/top1': 100, 'bbox_mAP': 1, 'segm_mAP': 1, 'mIoU': 100}
RANKED = 32  # images that the operations are ranked by, before they return to float
ENGINES = {'.xml': 'openvino', '.onnx': 'onnxruntime'}  # that run the files of a suffix
ROUNDS = 30  # of both files in turn, when they are timed


def judged(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return those metrics by which a drop is judged, from 0 to 1; empty without any."""
    found = {}
    for name, value in metrics.items():
        for ending, whole in JUDGED.items():
            if name == ending or name.endswith(f'/{ending}'):
                found[name] = float(value) / whole
    return found


def drop_of(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return by how much the metric that lost most is lower, from 0 to 1; negative where all rose."""
    return max(before[name] - after[name] for name in before)


def load(path: Path, suffix: str) -> Any:
    """Read a file for NNCF: OpenVINO's model for '.xml', ONNX's for '.onnx'."""
    if suffix == '.xml':
        import openvino

        return openvino.Core().read_model(path)
    import onnx

    return onnx.load(path)


def float_operations(model: Any) -> tuple[list[str], list[str]]:
    """Return the names of the operations before the first layer and behind the last, and of layers without int8."""
    from nncf.common.factory import build_graph

    return around_the_model(build_graph(model)), products_of_batches(model) if hasattr(model, 'graph') else []


def save(model: Any, description: str, path: Path) -> None:
    """Write what NNCF returned, with the description of the file that it was made of."""
    if path.suffix == '.xml':
        import openvino

        model.set_rt_info(description, KEY)
        openvino.save_model(model, path, compress_to_fp16=False)
        return
    import onnx

    if KEY not in {item.key for item in model.metadata_props}:
        model.metadata_props.add(key=KEY, value=description)
    onnx.save(model, path)


def agreement(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Return how much the results of two models for one image agree, from 0 to 1."""
    if 'probabilities' in expected:
        return 1 - float(np.abs(found['probabilities'] - expected['probabilities']).sum()) / 2
    if 'label_map' in expected:
        return float((found['label_map'] == expected['label_map']).mean())
    if not len(expected['boxes']) or not len(found['boxes']):
        return float(len(expected['boxes']) == len(found['boxes']))
    near = box_iou(torch.from_numpy(expected['boxes']), torch.from_numpy(found['boxes'])).numpy()
    near = near * (expected['labels'][:, None] == found['labels'])
    near = near * (1 - np.abs(expected['scores'][:, None] - found['scores']))
    return float(np.average(near.max(1), weights=expected['scores']))


def running(runtime: Runtime, model: Any) -> Runtime:
    """Return a runtime that runs a model in memory, which was made of the file of another one."""
    made = copy.copy(runtime)
    if hasattr(model, 'graph'):
        import onnxruntime

        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
        made._run = lambda batch: session.run(runtime.names, {'image': batch})
    else:
        made._run = lambda batch: list(model({'image': batch}).values())
    return made


class Quantizer:
    """Makes an int8 model of an exported file, and goes back to float where too much accuracy is lost.

    Args:
        path (Path): A ``.onnx`` or ``.xml`` file that ``tools/export.py`` wrote.
        suffix (str): '.xml' or '.onnx', of the file to be written.
        images (Sequence[np.ndarray]): To calibrate on, (H, W, C), uint8, as they are read.
        evaluation (Evaluation): What judges both models.
        max_drop (float): Of every judged metric, from 0 to 1.

    Attributes:
        before (dict[str, float]): The judged metrics of the file.
        around (list[str]): Names of the operations before the first layer and behind the last.
        floats (list[str]): Names of all operations that are in float whatever happens.
    """

    def __init__(
        self, path: Path, suffix: str, images: Sequence[np.ndarray], evaluation: Evaluation, max_drop: float
    ) -> None:
        self.path, self.evaluation, self.max_drop = path, evaluation, max_drop
        self.runtime = open_runtime(path, ENGINES[suffix])
        self.model = load(path, suffix)
        if any(int8_layers(self.model).values()):
            raise UserError(f'{path} is in int8 already')
        self.around, others = float_operations(self.model)
        self.floats = [*self.around, *others]
        self.images = [batch_of(self.runtime, image) for image in images]
        metrics = evaluation.score(self.runtime)
        self.before = judged(metrics)
        if not self.before:
            raise UserError(
                f'the evaluator of {evaluation.cfg.filename} gives {", ".join(metrics) or "no metric"}, and a drop is '
                f'judged by {", ".join(JUDGED)}'
            )

    def plain(self, smooth: bool) -> Any:
        """Return the model with all of its layers in int8.

        Args:
            smooth (bool): Move outliers of activations into the weights first (SmoothQuant, arXiv 2211.10438).
        """
        import nncf

        return nncf.quantize(self.model, self._calibration(), **settings(len(self.images), self.floats, smooth))

    def controlled(self) -> Any:
        """Return a model with those layers in float that NNCF found to lose most.

        Without SmoothQuant: NNCF returns the original weights to float, but not what it multiplied their inputs by.
        """
        import nncf

        kwargs = settings(len(self.images), self.floats)
        return nncf.quantize_with_accuracy_control(
            self.model,
            self._calibration(),
            nncf.Dataset(range(len(self.evaluation))),
            self._validator(),
            max_drop=self.max_drop,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_quantization_parameters=kwargs.pop('advanced_parameters'),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=RANKED),
            **kwargs,
        )

    def _calibration(self) -> Any:
        import nncf

        return nncf.Dataset(self.images, lambda batch: {'image': batch})

    def _validator(self) -> Callable[[Any, Iterable[int]], tuple[float, list[float]]]:
        """Return what NNCF asks for the accuracy of a model: on all images, or, to rank the layers, on some of them.

        On all it is 1 less the drop, since NNCF divides by the first value; on some, how much the results agree with
        those of the file, which tells layers apart whose metrics are equal.
        """
        expected: dict[int, dict[str, np.ndarray]] = {}

        def validate(model: Any, items: Iterable[int]) -> tuple[float, list[float]]:
            indices, runtime = list(items), running(self.runtime, model)
            if len(indices) == len(self.evaluation) > 1:
                return 1 - drop_of(self.before, judged(self.evaluation.score(runtime))), [0.0] * len(indices)
            images = {index: self.evaluation.image(index) for index in indices}
            expected.update((i, self.runtime(image)) for i, image in images.items() if i not in expected)
            agreements = [agreement(runtime(image), expected[i]) for i, image in images.items()]
            return statistics.mean(agreements), agreements

        return validate


def settings(images: int, floats: Sequence[str] = (), smooth: bool = False) -> dict[str, Any]:
    """Return the settings of NNCF, which were chosen by measurement, see docs/deploy.md.

    Activations are asymmetric, and weights have a scale for each channel: NNCF's settings for transformers. Those
    of depthwise convolutions get one scale too: NNCF would move their scales in front of the permutation, where
    they are no longer of channels, but of rows, and the file would take images of one height only.

    Args:
        images (int): That it is calibrated on.
        floats (Sequence[str]): Names of the operations that stay in float.
        smooth (bool): Move outliers of activations into the weights first. Defaults to False.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, QuantizationParameters

    alpha = 0.95 if smooth else -1
    return dict(
        subset_size=images,
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=list(floats), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=alpha, matmul=alpha),
            activations_quantization_params=QuantizationParameters(per_channel=False),
        ),
    )


def batch_of(runtime: Runtime, image: np.ndarray) -> np.ndarray:
    """Return an image as a file takes it, (1, C, H, W), uint8."""
    return np.ascontiguousarray(runtime.resize(image).transpose(2, 0, 1)[None])


def milliseconds(runtimes: Sequence[Runtime], images: Sequence[np.ndarray]) -> list[float]:
    """Return the median time of each model for one image, without resizing, measured in turn."""
    batches = [batch_of(runtimes[0], image) for image in images]
    times: list[list[float]] = [[] for _ in runtimes]
    for number in range(ROUNDS + 3):  # the first ones warm up
        for runtime, taken in zip(runtimes, times):
            start = time.perf_counter()
            runtime._run(batches[number % len(batches)])
            taken.append(1000 * (time.perf_counter() - start))
    return [statistics.median(taken[3:]) for taken in times]


def quantize(quantizer: Quantizer, out: Path) -> dict[str, Any]:
    """Write a quantized model and return what is to be said about it.

    Args:
        quantizer (Quantizer): Of the file.
        out (Path): Of its suffix; '.xml' comes with a '.bin'.

    Returns:
        dict[str, Any]: The report.

    Raises:
        UserError: More than ``max_drop`` is lost whatever is in float.
    """
    evaluation, before = quantizer.evaluation, quantizer.before
    drops: list[float] = []
    fell_back = False
    for smooth in (False, True):
        runtime, after, all_layers = _written(quantizer, quantizer.plain(smooth), out)
        drops.append(drop_of(before, after))
        print(f'int8{" with SmoothQuant" if smooth else ""}: {drops[-1]:.4f} is lost', flush=True)
        if drops[-1] <= quantizer.max_drop:
            break
    layers = all_layers
    if min(drops) > quantizer.max_drop:
        print('ranking the layers, to return those to float that lose most', flush=True)
        fell_back, smooth = True, False
        runtime, after, layers = _written(quantizer, quantizer.controlled(), out)
    if drop_of(before, after) > quantizer.max_drop or not any(layers.values()):
        raise UserError(
            f'{min(drops):.4f} is lost in int8, more than --max-drop {quantizer.max_drop}, and '
            f'{drop_of(before, after):.4f} with {sum(layers.values())} of {len(layers)} layers in int8: '
            'nothing is written'
        )
    images = [evaluation.image(index) for index in range(min(8, len(evaluation)))]
    times = milliseconds([quantizer.runtime, runtime], images)
    return dict(
        images=dict(calibration=len(quantizer.images), validation=len(evaluation)),
        metrics=dict(before=before, after=after),
        drop=drop_of(before, after),
        max_drop=quantizer.max_drop,
        smooth=smooth,
        fell_back=fell_back,
        milliseconds=dict(before=times[0], after=times[1]),
        mebibytes=dict(before=_mebibytes(quantizer.path), after=_mebibytes(out)),
        layers=layers_report(layers, all_layers),
        around=dict(names=quantizer.around, reason='before the first layer, or behind the last'),
    )


def _written(quantizer: Quantizer, model: Any, out: Path) -> tuple[Runtime, dict[str, float], dict[str, bool]]:
    """Write a model; return the file's runtime, its judged metrics, and which of its layers are in int8."""
    save(model, json.dumps(quantizer.runtime.about), out)
    runtime = open_runtime(out, ENGINES[out.suffix])
    return runtime, judged(quantizer.evaluation.score(runtime)), int8_layers(load(out, out.suffix))


def _mebibytes(path: Path) -> float:
    files = [path, path.with_suffix('.bin')] if path.suffix == '.xml' else [path]
    return sum(file.stat().st_size for file in files) / 2**20
