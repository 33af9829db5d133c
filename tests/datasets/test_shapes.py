import contextlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mlp_backbones.datasets import CLASSES, TASKS, make_shapes
from mlp_backbones.datasets import shapes as module


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_the_seed_decides(tmp_path, task):
    first, same, other = (
        contents(make_shapes(tmp_path / name, task, 5, 5, seed, verbose=False))
        for name, seed in (('a', 0), ('b', 0), ('c', 1))
    )
    assert first == same and first.keys() == other.keys() and first != other


def test_more_images_keep_the_first(shapes, tmp_path):
    more = contents(make_shapes(tmp_path / 'more', 'segmentation', 8, 5, verbose=False))
    assert contents(shapes / 'ade').items() <= more.items()


def test_coco_format(shapes):
    for split, number in (('train2017', 6), ('val2017', 5)):
        coco = COCO(shapes / 'coco' / 'annotations' / f'instances_{split}.json')
        assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        assert len(coco.imgs) == number and len(coco.anns) >= 2 * number
        for image in coco.imgs.values():
            picture = Image.open(shapes / 'coco' / split / image['file_name'])
            assert picture.size == (image['width'], image['height']) and picture.mode == 'RGB'
        for annotation in coco.anns.values():
            mask = coco.annToMask(annotation)
            assert mask.sum() == pytest.approx(annotation['area'], rel=0.15)
            x, y, w, h = annotation['bbox']
            rows, columns = np.nonzero(mask)
            assert np.allclose([columns.min(), rows.min()], [x, y], atol=1.5)
            assert np.allclose([columns.max() + 1, rows.max() + 1], [x + w, y + h], atol=1.5)


def test_ade20k_format(shapes):
    seen = set()
    for split in ('training', 'validation'):
        images = sorted((shapes / 'ade' / 'images' / split).glob('*.jpg'))
        maps = sorted((shapes / 'ade' / 'annotations' / split).glob('*.png'))
        assert [i.stem for i in images] == [m.stem for m in maps]
        for image, labels in zip(images, maps):
            labels = Image.open(labels)
            assert labels.mode == 'L' and labels.size == Image.open(image).size
            seen |= set(np.unique(labels).tolist())
    assert seen == {1, 2, 3, 4}  # background and the classes; 0 would be "unlabelled"


def test_imagenet_format(shapes):
    for split in ('train', 'val'):
        assert sorted(p.name for p in (shapes / 'imagenet' / split).iterdir()) == sorted(CLASSES)
        assert all(list(p.glob('*.jpg')) for p in (shapes / 'imagenet' / split).iterdir())


def test_nothing_is_overwritten_or_half_written(shapes, tmp_path, monkeypatch):
    with pytest.raises(FileExistsError, match='coco exists already'):
        make_shapes(shapes / 'coco', 'detection', verbose=False)
    before = contents(shapes / 'coco')
    assert make_shapes(shapes / 'coco', 'detection', exist_ok=True) == shapes / 'coco'
    assert contents(shapes / 'coco') == before
    monkeypatch.setattr(json, 'dumps', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_shapes(tmp_path / 'new', 'detection', 1, 1, verbose=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('exist_ok', [True, False])
def test_another_process_was_faster(tmp_path, monkeypatch, exist_ok):
    draw = module.draw_scene

    def draw_late(*args):
        (tmp_path / 'set/train').mkdir(parents=True, exist_ok=True)
        return draw(*args)

    monkeypatch.setattr(module, 'draw_scene', draw_late)
    with contextlib.nullcontext() if exist_ok else pytest.raises(OSError):
        make_shapes(tmp_path / 'set', 'classification', 1, 1, exist_ok=exist_ok, verbose=False)
    assert sorted(tmp_path.rglob('*')) == [tmp_path / 'set', tmp_path / 'set/train']


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['x', '--task', 'pose'], 'detection'),
        (['x', '--num-train', '0'], 'at least 1'),
        (['x', '--seed', '-1'], 'seed must not be negative, got -1'),
        (['here'], 'exists already'),
    ],
)
def test_command(run_script, tmp_path, monkeypatch, args, words):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path)
    code, said = run_script('make_shapes.py', *args)
    assert code and words in said and 'Traceback' not in said
    assert [p.name for p in tmp_path.iterdir()] == ['here']
