"""Run an exported model: numpy, OpenCV and ONNX Runtime or OpenVINO are all it needs.

This file stands alone and may be copied out of the package::

    python -m mlp_backbones.deploy.runtime model.onnx images/ --out predictions

>>> from mlp_backbones.deploy.runtime import Runtime
>>> model = Runtime('retinanet.onnx')                          # doctest: +SKIP
>>> model(cv2.imread('photo.jpg'))['boxes']                    # doctest: +SKIP
"""

import argparse
import colorsys
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

KEY = 'mlp_backbones'  # where a file keeps its metadata
IMAGES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
CV2 = dict(
    nearest=cv2.INTER_NEAREST, bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC, area=cv2.INTER_AREA,
    lanczos=cv2.INTER_LANCZOS4,
)  # fmt: skip
FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}  # how images of so many channels are read; others unchanged
# Pixels: an image whose shorter side is below SMALL is enlarged before it is drawn on, to twice that at least, but its
# longer side not beyond LARGE.
SMALL, LARGE = 300, 4000
JPEG = 65500  # pixels, the longest side that the format holds
PILLOW = {  # filter -> its support in pixels and its weight at a distance
    'bilinear': (1.0, lambda x: np.maximum(1 - x, 0)),
    'bicubic': (
        2.0,
        lambda x: np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2) * (x < 2),
    ),
}


class RuntimeProblem(ValueError):
    """A file, an engine or an image that cannot be used; the message says what can be."""


def _onnxruntime(path: str, threads: int | None) -> tuple[str | None, list[str], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    providers = [name for name in onnxruntime.get_available_providers() if not name.startswith('Azure')]  # of servers
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    names = [output.name for output in session.get_outputs()]
    return text, names, lambda batch: session.run(None, {'image': batch})


def _openvino(path: str, threads: int | None, precision: str | None = None) -> tuple[str | None, list[str], Any]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    place = next((p for p in ([KEY], ['framework', KEY]) if model.has_rt_info(p)), None)  # the second one of ONNX
    text = model.get_rt_info(place).astype(str) if place else None
    settings: dict[str, Any] = {'INFERENCE_NUM_THREADS': threads} if threads else {}
    settings['INFERENCE_PRECISION_HINT'] = dict(float32='f32', bfloat16='bf16')[precision or 'float32']
    compiled = core.compile_model(model, 'CPU', settings)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(batch: np.ndarray) -> list[np.ndarray]:
        results = compiled({'image': batch})
        return [results[i] for i in range(len(names))]

    return text, names, run


ENGINES = dict(onnxruntime=_onnxruntime, openvino=_openvino)


class Model:
    """What is written and drawn of the results of a model; a subclass returns the results of an image when called.

    Attributes:
        about (dict): ``task``, ``classes``, ``palette`` and, of a detector, ``category_ids``.
        mixed (bool): Whether ``predict`` takes images of several sizes at once.
    """

    about: dict[str, Any]
    mixed = True

    @property
    def detects(self) -> bool:
        return self.about['task'] in ('detection', 'instance segmentation')

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def predict(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return the results of each image of a batch."""
        return [self(image) for image in images]

    def record(self, results: Mapping[str, np.ndarray]) -> Any:
        """Return results as they are written to JSON: detections in COCO's results format, five classes, or areas."""
        classes = self.about['classes']
        if 'boxes' in results:
            ids = self.about.get('category_ids') or range(1, len(classes) + 1)
            records = []
            for number, (x1, y1, x2, y2) in enumerate(results['boxes'].tolist()):
                label = int(results['labels'][number])
                record = dict(
                    category_id=ids[label],
                    category_name=classes[label],
                    bbox=[round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                    score=round(float(results['scores'][number]), 6),
                )
                if 'masks' in results:
                    record['segmentation'] = encode_mask(results['masks'][number])
                records.append(record)
            return records
        if 'label_map' in results:
            labels, counts = np.unique(results['label_map'], return_counts=True)
            order = np.argsort(-counts)
            total = results['label_map'].size
            areas = [(int(labels[i]), round(float(counts[i] / total), 6)) for i in order]
            return dict(areas=[dict(label=label, name=classes[label], share=share) for label, share in areas])
        scores = results['probabilities']
        best = [dict(label=int(i), name=classes[i], score=round(float(scores[i]), 6)) for i in np.argsort(-scores)[:5]]
        return dict(**best[0], best=best)

    def draw(self, image: np.ndarray, results: Mapping[str, np.ndarray], score: float = 0.3) -> np.ndarray:
        """Draw results over their image, which is enlarged by a whole number where it is small.

        Args:
            image (np.ndarray): (H, W, channels), uint8, BGR.
            results (Mapping[str, np.ndarray]): What the model returned for it.
            score (float): Detections from this score up are drawn. Defaults to 0.3.

        Returns:
            np.ndarray: (H', W', 3), uint8, BGR.
        """
        zoom = -(-2 * SMALL // min(image.shape[:2])) if min(image.shape[:2]) < SMALL else 1
        zoom = max(1, min(zoom, LARGE // max(image.shape[:2])))
        image = _enlarge(image[..., :3] if image.shape[2] > 2 else np.repeat(image[..., :1], 3, 2), zoom)
        width = max(2, round(min(image.shape[:2]) / 300))  # of lines
        classes = self.about['classes']
        if 'label_map' in results:
            palette = np.array([self._color(i) for i in range(256)], np.uint8)
            labels = _enlarge(results['label_map'], zoom)
            image = cv2.addWeighted(image, 0.4, palette[labels], 0.6, 0)
            for line, label in enumerate(np.unique(labels).tolist()):
                _write(image, classes[label], 0, 9 * line * width, self._color(label), width)
            return image
        if 'probabilities' in results:
            best = self.record(results)
            _write(image, f'{best["name"]} {best["score"]:.2f}', 0, 0, (255, 255, 255), width)
            return image
        shown = np.flatnonzero(results['scores'] >= score)[::-1]  # the best last, over the others
        colors = {number: self._color(int(results['labels'][number])) for number in shown}
        for number in shown if 'masks' in results else ():
            mask = _enlarge(results['masks'][number], zoom)
            image[mask] = (0.5 * image[mask] + 0.5 * np.array(colors[number])).astype(np.uint8)
        for number in shown:
            x1, y1, x2, y2 = (int(round(zoom * v)) for v in results['boxes'][number].tolist())
            cv2.rectangle(image, (x1, y1), (x2, y2), colors[number], width)
            text = f'{classes[results["labels"][number]]} {results["scores"][number]:.2f}'
            _write(image, text, x1, y1, colors[number], width)
        return image

    def _color(self, label: int) -> tuple[int, ...]:
        """BGR."""
        palette = self.about['palette']
        if label < len(palette):
            return tuple(palette[label][::-1])
        return tuple(round(255 * v) for v in colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.75, 0.95))[::-1]


class Runtime(Model):
    """A model in a file that ``tools/export.py`` wrote.

    Args:
        path (str | Path): ``.onnx``, or OpenVINO's ``.xml``.
        engine (str, optional): 'onnxruntime' or 'openvino'. Defaults to ONNX Runtime for ``.onnx`` where it is
            installed, else OpenVINO.
        threads (int, optional): Of the engine. Defaults to its own choice.
        precision (str, optional): 'float32', or 'bfloat16' for OpenVINO on a CPU that has it. Defaults to that of the
            file.

    Attributes:
        about (dict): What the file says about itself: ``task``, ``classes``, ``palette``, ``resize`` and more.

    Raises:
        RuntimeProblem: The file is not one of ours, or the engine is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        engine: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise RuntimeProblem(f'the model {path} does not exist')
        if path.suffix not in ('.onnx', '.xml'):
            raise RuntimeProblem(f'the model must be a .onnx or .xml file, got {path}')
        if engine is not None and engine not in ENGINES:
            raise RuntimeProblem(f'the engine must be {" or ".join(ENGINES)}, got {engine!r}')
        if precision and engine == 'onnxruntime':
            raise RuntimeProblem('precision is an option of openvino')
        if precision not in (None, 'float32', 'bfloat16'):
            raise RuntimeProblem(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
        engines = [engine] if engine else ['openvino'] if path.suffix == '.xml' or precision else list(ENGINES)
        for self.engine in engines:
            try:
                extra = (precision,) if self.engine == 'openvino' else ()
                text, self.names, self._run = ENGINES[self.engine](str(path), threads, *extra)
                break
            except ImportError:
                continue
            except Exception as error:
                raise RuntimeProblem(f'{self.engine} cannot read {path}: {str(error).splitlines()[0]}') from error
        else:
            raise RuntimeProblem(f'{path} needs {" or ".join(engines)}: pip install {engines[0]}')
        if not text:
            raise RuntimeProblem(f'{path} was not written by tools/export.py: it has no description')
        self.about = json.loads(text)
        if self.about.get('raw'):
            raise RuntimeProblem(f'{path} has raw outputs: export it without --raw')

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Predict on one image of any size.

        Args:
            image (np.ndarray): (H, W, channels), uint8, BGR, as ``cv2.imread`` returns it.

        Returns:
            dict[str, np.ndarray]: ``probabilities`` (classes,); or ``label_map`` (H, W), and ``scores`` where the file
            has them; or ``boxes`` (K, 4) as x1, y1, x2, y2 in pixels of the image, ``scores`` (K,), ``labels`` (K,),
            best first, and ``masks`` (K, H, W), bool.

        Raises:
            RuntimeProblem: An image of another kind, too small, or not of the one size that the file takes.
        """
        channels = self.about['channels']
        if (
            not isinstance(image, np.ndarray)
            or image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != channels
        ):
            got = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
            raise RuntimeProblem(f'an image must be uint8 of shape (height, width, {channels}), got {got}')
        resized = self.resize(image)
        fixed, divisor = self.about['fixed_size'], self.about['pad_divisor']
        if fixed and resized.shape[:2] != tuple(fixed):
            raise RuntimeProblem(
                f'the model takes {"x".join(map(str, fixed))} pixels only, and of an image of '
                f'{image.shape[0]}x{image.shape[1]} {resized.shape[0]}x{resized.shape[1]} are left'
            )
        if any(-(-side // divisor) * divisor < least for side, least in zip(resized.shape, self.about['min_size'])):
            raise RuntimeProblem(
                f'an image of {image.shape[0]}x{image.shape[1]} is too small: at least '
                f'{"x".join(map(str, self.about["min_size"]))} pixels must be left of it, {resized.shape[:2]} are'
            )
        outputs = self._run(np.ascontiguousarray(resized.transpose(2, 0, 1)[None]))
        results = {name: output[0] for name, output in zip(self.names, outputs)}
        if 'boxes' in results:
            return self._detections(results, image.shape[:2], resized.shape[:2])
        if 'label_map' in results:
            height, width = image.shape[:2]
            results['label_map'] = cv2.resize(results['label_map'], (width, height), interpolation=cv2.INTER_NEAREST)
        return results

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Return an image (H, W, channels) resized and cropped as the model's test pipeline does."""
        for step in self.about['resize']:
            height, width = image.shape[:2]
            if step['step'] == 'center_crop':
                top, left = (max(0, round((a - b) / 2)) for a, b in ((height, step['height']), (width, step['width'])))
                image = image[top : top + step['height'], left : left + step['width']]
                continue
            if step['step'] == 'resize_edge':
                size, edge = step['size'], step['edge']
                if edge == 'width' or (edge == 'short' and width < height) or (edge == 'long' and width > height):
                    new = size, int(size * height / width)
                else:
                    new = int(size * width / height), size
            elif step['keep_ratio']:
                limits = sorted((step['width'], step['height']))
                scale = min(limits[1] / max(height, width), limits[0] / min(height, width))
                new = int(width * scale + 0.5), int(height * scale + 0.5)
            else:
                new = step['width'], step['height']
            if new == (width, height):
                continue
            if step['backend'] == 'pillow' and step['interpolation'] in PILLOW:
                image = _resize_as_pillow(image, *new, step['interpolation'])
            else:
                image = cv2.resize(image, new, interpolation=CV2[step['interpolation']])
        return image

    def _detections(self, results: dict, original: tuple[int, int], resized: tuple[int, int]) -> dict[str, np.ndarray]:
        found = results['labels'] >= 0
        results = {name: value[found] for name, value in results.items()}
        scale = np.array([resized[1] / original[1], resized[0] / original[0]] * 2, np.float32)
        results['boxes'] = results['boxes'] / scale
        if 'masks' in results:
            masks = np.zeros((len(results['boxes']), *original), bool)
            for number, (mask, box) in enumerate(zip(results['masks'], results['boxes'])):
                masks[number] = _paste(mask, box, *original) >= self.about['mask_threshold']
            results['masks'] = masks
        return results


def _enlarge(array: np.ndarray, zoom: int) -> np.ndarray:
    """(H, W, ...) -> (zoom * H, zoom * W, ...), a copy."""
    return array.repeat(zoom, 0).repeat(zoom, 1)


def _write(image: np.ndarray, text: str, x: int, y: int, color: tuple[int, ...], width: int) -> None:
    """Write on a ground of a color, in place; (x, y) is the upper left corner, ``width`` that of the lines."""
    size = 0.25 * width
    (right, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, width // 2)
    cv2.rectangle(image, (x, y), (x + right, y + height + base), color, -1)
    ink = (0, 0, 0) if sum(color) > 384 else (255, 255, 255)
    cv2.putText(image, text, (x, y + height), cv2.FONT_HERSHEY_SIMPLEX, size, ink, width // 2, cv2.LINE_AA)


def _resize_as_pillow(image: np.ndarray, width: int, height: int, interpolation: str) -> np.ndarray:
    """Resize (H, W, C), uint8, with antialiasing: to the last bit what Pillow computes, columns before rows."""
    support, weight = PILLOW[interpolation]

    def matrix(before: int, after: int) -> np.ndarray:
        scale = before / after
        reach = support * max(scale, 1)
        centers = (np.arange(after) + 0.5) * scale
        first = np.maximum((centers - reach + 0.5).astype(int), 0)
        last = np.minimum((centers + reach + 0.5).astype(int), before)
        places = np.arange(before)[None]
        weights = weight(np.abs((places - centers[:, None] + 0.5) / max(scale, 1)))
        weights = weights * ((places >= first[:, None]) & (places < last[:, None]))
        weights /= weights.sum(1, keepdims=True)
        return np.trunc(weights * (1 << 22) + np.copysign(0.5, weights))  # fixed point; sums are exact in float64

    def apply(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.clip(np.floor((weights @ rows + (1 << 21)) / (1 << 22)), 0, 255)

    rows, columns, channels = image.shape
    made = image.astype(np.float64)
    if width != columns:
        made = apply(made.transpose(1, 0, 2).reshape(columns, -1), matrix(columns, width))
        made = made.reshape(width, rows, channels).transpose(1, 0, 2)
    if height != rows:
        made = apply(made.reshape(rows, -1), matrix(rows, height)).reshape(height, width, channels)
    return np.ascontiguousarray(made.astype(np.uint8))


def _paste(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities over a box, (M, M), as probabilities over the image, (height, width): bilinear, 0 outside."""
    x1, y1, x2, y2 = box.astype(np.float64)
    places = []
    for start, end, length in ((y1, y2, height), (x1, x2, width)):
        pixels = np.arange(length, dtype=np.float64) + 0.5
        places.append((pixels - start) / max(end - start, 1e-6) * mask.shape[0] - 0.5)
    padded = np.pad(mask.astype(np.float32), 1)
    grid = [np.clip(place + 1, 0, mask.shape[0] + 1) for place in places]
    below = [np.minimum(np.floor(g).astype(int), mask.shape[0]) for g in grid]
    y, x = (g - b for g, b in zip(grid, below))
    rows = padded[below[0]] * (1 - y)[:, None] + padded[below[0] + 1] * y[:, None]
    return (rows[:, below[1]] * (1 - x) + rows[:, below[1] + 1] * x).astype(np.float32)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W), bool, as COCO's compressed run lengths."""
    flat = mask.ravel(order='F')
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    counts = np.diff(ends, prepend=0).tolist()
    if flat[0]:
        counts.insert(0, 0)  # the first run is of zeros
    text = ''
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            part = value & 0x1F
            value >>= 5
            more = value != -1 if part & 0x10 else value != 0
            text += chr((part | (0x20 if more else 0)) + 48)
    return dict(size=list(mask.shape), counts=text)


def _images(source: Path) -> list[Path]:
    if not source.exists():
        raise RuntimeProblem(f'{source} does not exist')
    found = [source] if source.is_file() else [p for p in source.iterdir() if p.suffix.lower() in IMAGES]
    if not found:
        raise RuntimeProblem(f'{source} has no images ({", ".join(IMAGES)})')
    return natural(found)


def natural(paths: Iterable[Path]) -> list[Path]:
    """Return files in natural order of their names: 2 before 10."""
    return sorted(paths, key=lambda p: [int(t) if t.isdecimal() else t for t in re.split(r'(\d+)', p.name.lower())])


def numbers_of(paths: Sequence[Path]) -> dict[str, int]:
    """Return the numbers that image files are named by: in COCO, 000000000139.jpg is image 139.

    Returns:
        dict[str, int]: File name -> number; empty where a file is not named by one, or two by the same.
    """
    if not all(path.stem.isdecimal() and path.suffix.lower() in IMAGES for path in paths):
        return {}
    numbers = {path.name: int(path.stem) for path in paths}
    return numbers if len(set(numbers.values())) == len(paths) else {}


def picture_name(name: str, image: np.ndarray) -> str:
    """Return the name of the file that a picture is written to."""
    return f'{name}.{"jpg" if max(image.shape[:2]) <= JPEG else "png"}'


def main(arguments: list[str] | None = None) -> int:
    """Predict on images and write what is found; returns the exit status."""
    parser = argparse.ArgumentParser(description='Predict on images with an exported model.')
    parser.add_argument('model', help='a .onnx or .xml file that tools/export.py wrote')
    parser.add_argument('source', metavar='IMAGE_OR_FOLDER')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--engine', choices=ENGINES, help='default: onnxruntime where it is installed')
    parser.add_argument('--precision', choices=['float32', 'bfloat16'], help="of OpenVINO (default: the file's own)")
    parser.add_argument('--score', type=float, default=0.3, help='draw detections from this score up (default: 0.3)')
    parser.add_argument('--force', action='store_true', help='replace existing predictions')
    args = parser.parse_args(arguments)
    try:
        predict(args.model, args.source, args.out, args.engine, args.score, args.force, args.precision)
    except RuntimeProblem as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def predict(
    model: str | os.PathLike,
    source: str | os.PathLike,
    out: str | os.PathLike,
    engine: str | None = None,
    score: float = 0.3,
    force: bool = False,
    precision: str | None = None,
) -> None:
    """Predict on an image or a folder of them and write what ``tools/infer.py`` writes.

    Args:
        model (str | Path): The exported file.
        source (str | Path): An image, or a folder.
        out (str | Path): Folder to write to.
        engine (str, optional): See ``Runtime``.
        score (float): Detections from this score up are drawn. Defaults to 0.3.
        force (bool): Replace existing predictions. Defaults to False.
        precision (str, optional): See ``Runtime``.

    Raises:
        RuntimeProblem: A path does not exist, the model cannot be used, predictions exist, or images cannot be read.
    """
    out = Path(out)
    target = out / 'predictions.json'
    if target.exists() and not force:
        raise RuntimeProblem(f'{target} already exists; --force replaces it')
    files, runtime = _images(Path(source)), Runtime(model, engine, precision=precision)
    flags, numbers = FLAGS.get(runtime.about['channels'], cv2.IMREAD_UNCHANGED), numbers_of(files)
    records, broken = [], []
    unique = len({file.stem for file in files}) == len(files)
    (out / 'pictures').mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files, 1):
        try:
            image = cv2.imread(str(file), flags)
            if image is None:
                raise RuntimeProblem('OpenCV cannot decode it')
            image = image.reshape(*image.shape[:2], -1)
            results = runtime(image)
        except (RuntimeProblem, cv2.error) as error:
            broken.append(f'{file.name} ({error})')
            continue
        name = file.stem if unique else file.name
        picture = runtime.draw(image, results, score)
        cv2.imwrite(str(out / 'pictures' / picture_name(name, picture)), picture)
        record, image_id = runtime.record(results), numbers.get(file.name, number - len(broken))
        about: dict[str, Any] = dict(file_name=file.name)
        if 'label_map' in results:
            (out / 'maps').mkdir(exist_ok=True)
            cv2.imwrite(str(out / 'maps' / f'{name}.png'), results['label_map'])
            about['map'] = f'maps/{name}.png'
        records += (
            [dict(image_id=image_id, **about, **r) for r in record]
            if isinstance(record, list)
            else [{**about, **record}]
        )
        print(f'\r{number}/{len(files)}', end='', file=sys.stderr, flush=True)
    partial = target.with_suffix('.partial')
    partial.write_text(json.dumps(records, indent=1))
    os.replace(partial, target)
    print(f'\n{len(files) - len(broken)} images; written: {target}', file=sys.stderr)
    if broken:
        raise RuntimeProblem(f'{len(broken)} of {len(files)} files could not be used: {", ".join(broken)}')


if __name__ == '__main__':
    sys.exit(main())
