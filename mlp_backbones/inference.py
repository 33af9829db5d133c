"""Pictures in, predictions out: the hosts' inferencers over models that are given by name or by config.

Images are arrays of (H, W, 3), BGR, uint8, as cv2 reads them.
"""

import colorsys
import copy
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from .checkpoints import read_checkpoint
from .datasets.annotations import dataset_nodes
from .launch import UserError, find_config, load_model_config
from .zoo import build_model, fill_model, list_models, quiet_log

IMAGES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')
SMALL = 300  # pixels: a picture whose shorter side is less is enlarged, to twice that at least
NOT_IN_COCO = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # of the numbers 1 to 90, those that no category has


class Picture(NamedTuple):
    """An image file, or a frame of a video.

    Attributes:
        name (str): Its own among those of one run, without a suffix.
        file (str): Name of the file that it is from.
        image (np.ndarray | None): None where it could not be read.
        frame (int | None): Of a video, from 1.
    """

    name: str
    file: str
    image: Optional[np.ndarray]
    frame: Optional[int] = None


def list_pictures(source: Union[str, Path]) -> list[Path]:
    """The image and video files of a folder, sorted as people count (2 before 10), or the one file given.

    Raises:
        UserError: There is nothing, or nothing of these kinds.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f'there is no image, video or folder {source}')
    kinds = f'images ({" ".join(IMAGES)}) or videos ({" ".join(VIDEOS)})'
    if source.is_file():
        if source.suffix.lower() not in IMAGES + VIDEOS:
            raise UserError(f'{source} is neither an image nor a video by its name; there may be {kinds}')
        return [source]
    paths = [p for p in source.iterdir() if p.suffix.lower() in IMAGES + VIDEOS and p.is_file()]
    if not paths:
        folders = sorted(p.name for p in source.iterdir() if p.is_dir())
        raise UserError(
            f'the folder {source} has no {kinds}' + (f'; its folders are {", ".join(folders[:5])}' if folders else '')
        )
    return sorted(paths, key=lambda p: [int(t) if t.isdecimal() else t for t in re.split(r'(\d+)', p.name.lower())])


def count_pictures(paths: Sequence[Path]) -> int:
    """How many pictures ``read_pictures`` will give, by what videos say of themselves."""
    import cv2

    videos = [p for p in paths if p.suffix.lower() in VIDEOS]
    return (
        len(paths)
        - len(videos)
        + sum(max(int(cv2.VideoCapture(str(p)).get(cv2.CAP_PROP_FRAME_COUNT)), 1) for p in videos)
    )


def read_pictures(paths: Sequence[Path]) -> Iterator[Picture]:
    """Every image, and every frame of every video, one after the other."""
    import cv2

    stems = [p.stem for p in paths]
    for path in paths:
        name = path.stem if stems.count(path.stem) == 1 else path.name.replace('.', '_')
        if path.suffix.lower() in IMAGES:
            yield Picture(name, path.name, cv2.imread(str(path)))
            continue
        video, number = cv2.VideoCapture(str(path)), 0
        while (frame := video.read()[1]) is not None:
            number += 1
            yield Picture(f'{name}_{number:06d}', path.name, frame, number)
        if not number:
            yield Picture(name, path.name, None)


def _shape(picture: Picture) -> tuple[int, ...]:
    return () if picture.image is None else picture.image.shape


def batches(pictures: Iterator[Picture], size: int, mixed: bool) -> Iterator[list[Picture]]:
    """Pictures in groups of up to ``size``; unless ``mixed``, those of a group have one shape."""
    batch: list[Picture] = []
    for picture in pictures:
        if batch and (len(batch) == size or not mixed and _shape(picture) != _shape(batch[0])):
            yield batch
            batch = []
        batch.append(picture)
    if batch:
        yield batch


def find_weights(model: str, entry: Mapping[str, Any]) -> str:
    """The published weights of a model, as ``launch.find_config`` gave its entry.

    Raises:
        UserError: There are none, or no link leads to them straight.
    """
    if 'Weights' in entry:
        return entry['Weights']
    if entry:
        raise UserError(f'{entry["Name"]} has no direct link to weights. {entry["Get"]} Give the file: --weights PATH')
    from .zoo import get_entry

    names = [n for n in list_models() if Path(get_entry(n)['Config']).name == Path(model).name]
    raise UserError(
        f'{model} is a config, which has no weights: give them with --weights FILE_OR_URL'
        + (f', or name the published model instead: --model {names[0]}' if names else '')
    )


def device_of(name: Optional[str]) -> torch.device:
    """A device by its name; None is the GPU where there is one.

    Raises:
        UserError: There is no such device.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'the device {name!r} cannot be used: {str(error).splitlines()[0]}') from error


class Predictor:
    """A host's inferencer with one of our models in it.

    Use ``build``. The subclasses say how a prediction is drawn and written down.

    Args:
        cfg (mmengine.Config): The model's.
        model (torch.nn.Module): Filled, in eval mode.
        classes (list[str]): Names of its classes, in its order.
        palette (list[tuple[int, int, int]]): Their colours, RGB from 0 to 255.

    Attributes:
        inferencer (Any): mmpretrain's ImageClassificationInferencer, mmdet's DetInferencer or mmseg's MMSegInferencer.
        model (torch.nn.Module): In eval mode.
        classes (list[str]): Names of the model's classes, in its order.
        mixed (bool): Whether images of several sizes may be in one batch.
    """

    model: Any
    mixed = False

    def __init__(self, cfg, model: torch.nn.Module, classes: list[str], palette: list[tuple[int, int, int]]) -> None:
        self.cfg, self.model, self.classes, self.palette = cfg, model, classes, palette
        self.model.cfg = self.model._config = cfg
        self.model.dataset_meta = dict(classes=tuple(classes), palette=palette)
        # The hosts warn of registries that they do not need.
        with quiet_log('ERROR'), DefaultScope.overwrite_default_scope(cfg.default_scope):
            self.inferencer = self._inferencer()

    @staticmethod
    def build(
        name: str, weights: Optional[str] = None, device: Optional[str] = None, whole: bool = True
    ) -> 'Predictor':
        """The predictor of a model.

        Args:
            name (str): Of the zoo, or the path of a config.
            weights (str, optional): A file or URL, in any dialect, or 'none' for random ones. Defaults to those that
                the zoo names.
            device (str, optional): Defaults to the GPU where there is one.
            whole (bool): Refuse weights that do not fill the whole model. Defaults to True; else the backbone must be.

        Returns:
            Predictor: Of the model's framework.

        Raises:
            UserError: There is no such model, no weights, or no such device.
            CheckpointError: The weights do not fill the model.
        """
        target = device_of(device)
        path, entry = find_config(name)
        cfg = load_model_config(path)
        weights = weights or find_weights(name, entry)
        cfg.model.backbone.init_cfg = None
        content = {} if weights == 'none' else read_checkpoint(weights)
        model = build_model(cfg)
        if weights != 'none':
            fill_model(model, content, weights, strict=whole)
        model = model.to(target)
        classes, palette = _meta(cfg, model, content)
        return PREDICTORS[cfg.default_scope](cfg, model, classes, palette)

    def _inferencer(self):
        raise NotImplementedError

    def predict(self, images: Sequence[np.ndarray]) -> list:
        """Predict on a batch of images.

        Args:
            images (Sequence[np.ndarray]): (H, W, 3), BGR, uint8; of one size, unless ``mixed``.

        Returns:
            list: The host's data sample of each.
        """
        return list(self.inferencer.forward(self._data(images)))

    def _data(self, images: Sequence[np.ndarray]) -> dict[str, Any]:
        """A batch, out of the config's test pipeline."""
        (data,) = self.inferencer.preprocess(list(images), batch_size=len(images))
        return data

    def inputs(self, image: np.ndarray, size: Optional[tuple[int, int]] = None) -> torch.Tensor:
        """An image as the model gets it, (1, 3, H, W), normalised.

        Args:
            image (np.ndarray): (H, W, 3), BGR, uint8.
            size (tuple[int, int], optional): Height and width in pixels to resize it to. Defaults to what the config's
                test pipeline does.

        Returns:
            torch.Tensor: On the model's device.
        """
        import cv2

        if size is None:
            return self.model.data_preprocessor(self._data([image]))['inputs']
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        return self.model.data_preprocessor(dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)]))['inputs']

    def seen(self, inputs: torch.Tensor) -> np.ndarray:
        """The image that ``inputs`` came from, as (H, W, 3), RGB, uint8."""
        preprocessor = self.model.data_preprocessor
        settings = self.cfg.model.get('data_preprocessor') or self.cfg.get('data_preprocessor') or {}
        pixels = (inputs[:1] * preprocessor.std + preprocessor.mean)[0].permute(1, 2, 0)
        image = pixels.clamp(0, 255).round().byte().cpu().numpy()
        return image if settings.get('bgr_to_rgb') or settings.get('to_rgb') else image[..., ::-1]

    def draw(self, image: np.ndarray, sample, score: float = 0.3) -> np.ndarray:
        """A prediction drawn over its image, BGR, detections from ``score`` up.

        A small image is enlarged first, by a whole number, or its labels would cover it.

        Args:
            image (np.ndarray): (H, W, 3), BGR, uint8.
            sample (DataSample): What ``predict`` gave for it.
            score (float): Defaults to 0.3.

        Returns:
            np.ndarray: (H', W', 3), BGR, uint8.
        """
        import cv2

        side = min(image.shape[:2])
        if side < SMALL:
            zoom = -(-2 * SMALL // side)
            image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
            sample = self._enlarged(copy.deepcopy(sample), zoom)
        return self._draw(np.ascontiguousarray(image[..., ::-1]), sample, score)[..., ::-1]

    def _enlarged(self, sample, zoom: int):
        return sample

    def _draw(self, image: np.ndarray, sample, score: float) -> np.ndarray:
        """As ``draw``, in RGB."""
        (drawn,) = self.inferencer.visualize([image], [sample], return_vis=True, **self._options(score))
        return drawn

    def _options(self, score: float) -> dict[str, Any]:
        return {}

    def record(self, sample) -> Union[dict[str, Any], list[dict[str, Any]]]:
        """A prediction as it is written to JSON.

        Args:
            sample (DataSample): What ``predict`` gave.

        Returns:
            dict | list[dict]: What is said of an image, or a list of what is in it.
        """
        raise NotImplementedError


def _around(base: Any, cfg, model: torch.nn.Module):
    """A host's inferencer around a model that is filled already, with the class names that belong to it."""

    class Inferencer(base):
        def _init_model(self, *args, **kwargs):
            return model

    return Inferencer(cfg, device=str(next(model.parameters()).device))


class Classifier(Predictor):
    """Of mmpretrain's classifiers."""

    def _inferencer(self):
        steps = self.cfg.test_dataloader.dataset.pipeline
        self.mixed = any('Crop' in str(step['type']) for step in steps)  # which leaves one size
        apis = importlib.import_module('mmpretrain.apis')
        return apis.ImageClassificationInferencer(self.model, classes=self.classes)

    def _draw(self, image: np.ndarray, sample, score: float) -> np.ndarray:
        if self.inferencer.visualizer is None:
            self.inferencer.visualizer = importlib.import_module('mmpretrain.visualization').UniversalVisualizer()
        return self.inferencer.visualizer.visualize_cls(image, sample, classes=self.classes, draw_gt=False)

    def record(self, sample) -> dict[str, Any]:
        scores, labels = sample.pred_score.cpu().topk(min(5, len(self.classes)))
        best = [
            dict(label=i, name=self.classes[i], score=round(s, 6)) for i, s in zip(labels.tolist(), scores.tolist())
        ]
        return dict(**best[0], best=best)


class Detector(Predictor):
    """Of mmdet's detectors."""

    mixed = True  # padded

    def _inferencer(self):
        base: Any = importlib.import_module('mmdet.apis').DetInferencer
        # COCO's own numbers have gaps; those of other data are taken to start at 1.
        coco = importlib.import_module('mmdet.datasets').CocoDataset.METAINFO['classes']
        numbers = [n for n in range(1, 91) if n not in NOT_IN_COCO] if tuple(self.classes) == tuple(coco) else None
        self.numbers = numbers or list(range(1, len(self.classes) + 1))

        inferencer = _around(base, self.cfg, self.model)
        write = inferencer.visualizer.draw_texts
        # The labels of small boxes would be too small to read.
        inferencer.visualizer.draw_texts = lambda *args, font_sizes=0, **kwargs: write(
            *args, font_sizes=max(font_sizes, 12), **kwargs
        )
        return inferencer

    def _data(self, images: Sequence[np.ndarray]) -> dict[str, Any]:
        ((_, data),) = self.inferencer.preprocess(list(images), batch_size=len(images))
        return data

    def _options(self, score: float) -> dict[str, Any]:
        return dict(pred_score_thr=score)

    def _enlarged(self, sample, zoom: int):
        found = sample.pred_instances
        found.bboxes = found.bboxes * zoom
        if 'masks' in found:
            found.masks = found.masks.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        return sample

    def record(self, sample) -> list[dict[str, Any]]:
        found = self.inferencer.pred2dict(sample)
        results = []
        for i, (x1, y1, x2, y2) in enumerate(found['bboxes']):
            label = found['labels'][i]
            result = dict(
                category_id=self.numbers[label],
                category_name=self.classes[label],
                bbox=[round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                score=round(found['scores'][i], 6),
            )
            if 'masks' in found:
                result['segmentation'] = found['masks'][i]
            results.append(result)
        return results


class Segmentor(Predictor):
    """Of mmseg's segmentors."""

    def _inferencer(self):
        base: Any = importlib.import_module('mmseg.apis').MMSegInferencer

        return _around(base, self.cfg, self.model)

    def _options(self, score: float) -> dict[str, Any]:
        return dict(opacity=0.6)

    def _enlarged(self, sample, zoom: int):
        labels = sample.pred_sem_seg.data.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        sample.pred_sem_seg = PixelData(data=labels)
        return sample

    def index_map(self, sample) -> np.ndarray:
        """The class of every pixel, (H, W), uint8."""
        return sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)

    def record(self, sample) -> dict[str, Any]:
        labels, counts = np.unique(self.index_map(sample), return_counts=True)
        order = np.argsort(-counts)
        share = counts / counts.sum()
        return dict(
            areas=[
                dict(label=int(labels[i]), name=self.classes[labels[i]], share=round(float(share[i]), 6)) for i in order
            ]
        )


PREDICTORS = dict(mmpretrain=Classifier, mmdet=Detector, mmseg=Segmentor)


def _meta(cfg, model: torch.nn.Module, content: Any) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Names and colours (RGB) of a model's classes: of the checkpoint, else of the config's dataset, else numbers."""
    head = getattr(model, 'roi_head', model)
    number = next(h for n in ('bbox_head', 'decode_head', 'head') if (h := getattr(head, n, None))).num_classes
    meta = content.get('meta') if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    candidates = [meta.get('dataset_meta') or {}, meta]  # of mmengine, and of the hosts before it
    dataset = next(dataset_nodes(cfg.get('test_dataloader')), {})
    candidates += [dataset.get('metainfo') or {}, dataset]
    scope = cfg.default_scope
    importlib.import_module(f'{scope}.datasets')
    cls = importlib.import_module(f'{scope}.registry').DATASETS.get(dataset.get('type', ''))
    candidates.append(getattr(cls, 'METAINFO', {}))
    if scope == 'mmpretrain' and number == 1000:
        categories = importlib.import_module('mmpretrain.datasets.categories')
        candidates.append(dict(classes=categories.IMAGENET_CATEGORIES))

    def first(key: str) -> Optional[Sequence]:
        found = (c.get(key) or c.get(key.upper()) for c in candidates)
        found = (Path(v).read_text().splitlines() if isinstance(v, str) and Path(v).is_file() else v for v in found)
        return next((v for v in found if isinstance(v, Sequence) and len(v) == number and not isinstance(v, str)), None)

    classes = [str(c) for c in first('classes') or range(number)]
    hues = (i * 0.618034 % 1 for i in range(number))
    drawn = [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(h, 0.75, 0.95)) for h in hues]
    return classes, [tuple(c) for c in first('palette') or drawn]
