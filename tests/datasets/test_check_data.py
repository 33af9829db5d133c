"""The scan of a config's data, and what is refused before a start."""

import copy
import json
import os
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import CONFIGS
from helpers.faulty_files import KINDS
from helpers.hostile_annotations import hostile_bytes, hostile_coco
from helpers.training import ready
from mmengine.config import Config

from mlp_backbones.datasets.validation.coco import annotation_findings, category_ids, check_coco, read_json
from mlp_backbones.datasets.validation.files import image_problem, quick_problem
from mlp_backbones.datasets.validation.scan import read_sources
from mlp_backbones.engine import preflight
from mlp_backbones.utils.errors import DataError, UserError

DETECTION = CONFIGS / 'detection/maskrcnn_convmlp_s_fpn_shapes.py'
CONFIG = {
    'coco': DETECTION,
    'ade': CONFIGS / 'segmentation/fpn_convmlp_s_shapes.py',
    'imagenet': CONFIGS / 'classification/convmlp_s_shapes.py',
}
CLASSES = ('circle', 'square', 'triangle')
CASES = int(os.environ.get('FUZZ_CASES', 200))


@pytest.fixture
def data(shapes, tmp_path):
    return Path(shutil.copytree(shapes, tmp_path / 'data'))


@pytest.fixture(scope='module')
def good(shapes):
    return json.loads((shapes / 'coco/annotations/instances_val2017.json').read_text())


def check(run_script, name, data, *args):
    return run_script(
        'check_data.py', CONFIG[name], '--workers', 0, '--cfg-options', f'data_root={data / name}/', *args
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIG)
def test_good_data(run_script, shapes, name):
    code, said = check(run_script, name, shapes)
    assert code == 0, said
    assert '0 errors, 0 warnings; images looked at: train 6, val 5' in said and '100%' in said


@pytest.mark.slow
def test_bad_images(run_script, data, tmp_path):
    files = sorted((data / 'coco').rglob('*.jpg'))
    bad = {path: kind(path) for path, kind in zip(files[::2], KINDS)}
    cv2.imwrite(str(files[1]), np.zeros((50, 70, 3), np.uint8))
    bad[files[1]] = 'is 70x50 pixels; the annotations say 160x128'
    out = tmp_path / 'list.json'
    args = ['--workers', 2, '--out', out]  # the last --workers counts
    code, said = check(run_script, 'coco', data, *args)
    assert code == 1 and 'error: 5 problems' in said
    listed = json.loads(out.read_text())
    assert {p['file'] for p in listed} == set(map(str, bad)) and {p['level'] for p in listed} == {'error'}
    for path, reason in bad.items():
        split = path.parent.name.removesuffix('2017')
        (problem,) = (p for p in listed if p['file'] == str(path))
        assert reason in problem['problem'] and problem['split'] == split
        assert f'error   {split:6}{path}: {problem["problem"]}\n' in said


@pytest.mark.slow
def test_bad_label_maps(run_script, data, tmp_path):
    maps = sorted((data / 'ade').rglob('*.png'))
    labels = cv2.imread(str(maps[0]), cv2.IMREAD_UNCHANGED)
    labels[3, 4] = 5
    cv2.imwrite(str(maps[0]), labels)
    cv2.imwrite(str(maps[1]), labels[:50])
    reasons = [
        'has labels 4, as loaded; model.decode_head.num_classes leaves 0 to 3',
        'is 96x50 pixels; its image is 96x96',
    ]
    reasons += [kind(path) for path, kind in zip(maps[2:], KINDS)]
    out = tmp_path / 'list.txt'
    code, _ = check(run_script, 'ade', data, '--out', out)
    lines = [line.split('\t') for line in out.read_text().splitlines()]
    assert code == 1
    errors = sorted(line for line in lines if line[0] == 'error')
    assert [line[2] for line in errors] == list(map(str, maps[:6]))
    assert all(reason in line[3] for reason, line in zip(reasons, errors))


@pytest.mark.slow
def test_bad_class_folders(run_script, data):
    root = data / 'imagenet'
    for path in (root / 'train/square').iterdir():
        path.unlink()
    (root / 'val/star').mkdir()
    code, said = check(run_script, 'imagenet', data)
    assert code == 1
    assert f'train {root}/train/square: is a class without images' in said
    assert (
        f'val   {root}/val: mmpretrain cannot build the dataset: AssertionError: The number of subfolders (4)' in said
    )
    shutil.rmtree(root / 'val/star')
    (root / 'list.txt').write_text('circle/00000001.jpg 0\nsquare/00000002.jpg 7\n')
    code, said = check(run_script, 'imagenet', data, 'val_dataloader.dataset.ann_file=list.txt')
    assert code == 1
    assert f'val   {root}/list.txt: has 8 classes; the head of the model has 3' in said


def test_a_class_without_images_by_its_own_name(data):
    """Where labels follow the given names, not the alphabet."""
    root = data / 'imagenet/train'
    for path in (root / 'circle').iterdir():
        path.unlink()
    names = ('triangle', 'square', 'circle')
    node = dict(type='mlp_backbones.CustomDataset', data_root=str(root), data_prefix='', classes=names, pipeline=[])
    cfg = Config(dict(default_scope='mmpretrain', model=dict(head=dict(num_classes=3))))
    (source,) = read_sources(cfg, [('train', node)])
    assert source.classes == list(names)
    assert source.problems == [('error', 'train', f'{root}/circle', 'is a class without images')]


def test_several_labels_for_one_image(data):
    root = data / 'imagenet/train'
    names = sorted(str(path.relative_to(root)) for path in root.rglob('*.jpg'))[:3]
    labels = [dict(img_path=name, gt_label=label) for name, label in zip(names, ([0, 2], [1], []))]
    (root / 'labels.json').write_text(json.dumps(dict(metainfo=dict(classes=['a', 'b']), data_list=labels)))
    node = dict(type='MultiLabelDataset', data_root=str(root), ann_file='labels.json', pipeline=[])
    cfg = Config(dict(default_scope='mmpretrain', model=dict(head=dict(num_classes=2))))
    (source,) = read_sources(cfg, [('train', node)])
    ((_, _, _, problem),) = source.problems
    assert problem == 'has 3 classes; the head of the model has 2'


@pytest.mark.slow
def test_bad_annotations(run_script, data):
    path = data / 'coco/annotations/instances_train2017.json'
    truth = json.loads(path.read_text())
    truth['annotations'][2]['bbox'] = [1, 2, -3, 4]
    truth['annotations'][3]['bbox'] = [1, 2, 0.2, 4]
    truth['categories'].reverse()
    path.write_text(json.dumps(truth))
    other = data / 'coco/annotations/instances_val2017.json'
    code, said = check(run_script, 'coco', data)
    assert code == 1 and f'error   train {path}: annotations without a bbox of four finite numbers' in said
    assert f'warning train {path}: boxes of less than one pixel, which are left out (1: 4)' in said
    assert f'error   val   {other}: other classes than in train: in another order' in said
    path.write_text('{"images": [')
    code, said = check(run_script, 'coco', data)
    assert code == 1 and f'train {path}: {path} is not a COCO annotation file' in said


@pytest.mark.slow
def test_a_background_that_is_a_class(run_script, data, tmp_path):
    """The setting stands in the dataset alone; where a pipeline contradicts it, that is said, not blamed on files."""
    config = tmp_path / 'c.py'
    names = "dict(classes=('back', 'a', 'b', 'c', 'd'), palette=[[i, i, i] for i in range(5)])"
    config.write_text(
        f"_base_ = '{CONFIGS}/segmentation/fpn_convmlp_s_512x512_40k_ade20k.py'\n"
        f"mine = dict(type='BaseSegDataset', metainfo={names}, reduce_zero_label=False)\n"
        'train_dataloader = dict(dataset=mine)\nval_dataloader = dict(dataset=mine)\n'
        'test_dataloader = val_dataloader\nmodel = dict(decode_head=dict(num_classes=5))\n'
    )
    arguments = [config, '--workers', 0, '--cfg-options', f'data_root={data / "ade"}/']
    code, said = run_script('check_data.py', *arguments)
    assert code == 0, said
    wrong = 'train_dataloader.dataset.pipeline.1.reduce_zero_label=True'
    code, said = run_script('check_data.py', *arguments, wrong)
    first = sorted((data / 'ade/images/training').iterdir())[0]
    assert code == 1 and '1 errors, 0 warnings; images looked at: train 6, val 5' in said
    assert f'train {first}: the pipeline fails at LoadAnnotations: AssertionError: Initialize dataset with' in said


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['nothing.py'], 'the config nothing.py does not exist'),
        ([DETECTION, '--cfg-options', 'data_root=nowhere'], 'missing  nowhere'),
        ([DETECTION, '--workers', '-1'], '--workers must be 0 or more, got -1'),
        ([DETECTION, '--out', 'no/where.json'], 'the folder no does not exist'),
    ],
)
def test_bad_arguments(run_script, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    code, said = run_script('check_data.py', *args)
    assert code == 1 and '\nerror: ' in said and words in said
    assert 'Traceback' not in said and not list(tmp_path.iterdir())


def change(part, number=1, **values):
    """A change of one entry of the good file; None takes a key away."""

    def apply(data):
        for key, value in values.items():
            data[part][number].pop(key) if value is None else data[part][number].update({key: value})

    return apply


def twice(part):
    return lambda data: data[part].append(dict(data[part][0]))


def other_names(data):
    for category in data['categories']:
        category['name'] = f'c{category["id"]}'


BOX = 'annotations without a bbox of four finite numbers, the last two not negative (1: 2)'
KINDS_OF_TROUBLE = {
    'no images key': (lambda d: d.pop('images'), "the list 'images' is missing"),
    'no images': (lambda d: d.update(images=[]), "'images' is empty"),
    'images of another type': (lambda d: d.update(images={}), "the list 'images' is missing"),
    'no annotations': (lambda d: d.update(annotations=[]), "'annotations' is empty"),
    'entry of another type': (lambda d: d['annotations'].append(7), 'annotations without an integer id (1: number '),
    'other classes': (
        other_names,
        'no category has the name circle, square, triangle of a class of the dataset; the fil',
    ),
    'category twice': (twice('categories'), 'categories whose id occurs twice (1: 1)'),
    'category name twice': (change('categories', name='circle'), 'category names that occur twice (1: circle)'),
    'category without id': (change('categories', id=None), 'categories without an integer id (1: number 1)'),
    'category without name': (change('categories', name=None), 'categories without a name (1: 2)'),
    'image twice': (twice('images'), 'images whose id occurs twice (1: 1)'),
    'image without id': (change('images', id=None), 'images without an integer or string as id (1: number 1)'),
    'image without name': (change('images', file_name=None), 'images without a file_name (1: 2)'),
    'image without width': (change('images', width=None), 'images without a positive width (1: 2)'),
    'image of height 0': (change('images', height=0), 'images without a positive height (1: 2)'),
    'annotation twice': (twice('annotations'), 'annotations whose id occurs twice (1: 1)'),
    'unknown category': (change('annotations', category_id=99), 'a category that the file does not have (1: 2)'),
    'category of another type': (change('annotations', category_id=[1]), 'annotations without an integer category_id'),
    'unknown image': (change('annotations', image_id=99), 'an image that the file does not have (1: 2)'),
    'no box': (change('annotations', bbox=None), BOX),
    'box of three': (change('annotations', bbox=[1, 2, 3]), BOX),
    'NaN in a box': (change('annotations', bbox=[1, 2, 3, float('nan')]), BOX),
    'infinite box': (change('annotations', bbox=[1, 2, float('inf'), 3]), BOX),
    'text in a box': (change('annotations', bbox=['1', 2, 3, 4]), BOX),
    'negative box': (change('annotations', bbox=[1, 2, -3, 4]), BOX),
    'box outside': (change('annotations', bbox=[160, 2, 3, 4]), 'boxes wholly outside of their image (1: 2)'),
    'no area': (change('annotations', area=None), 'annotations without a finite area (1: 2)'),
}
LEFT_OUT = {
    'small box': (change('annotations', bbox=[1, 2, 0.5, 4]), 'boxes of less than one pixel'),
    'class not asked for': (lambda d: d['categories'].append(dict(id=9, name='star')), 'does not ask for (1: star)'),
    'class order': (lambda d: d['categories'].reverse(), 'another order than that of'),
    'class missing': (change('categories', 2, name='star'), 'no category exists for 1 of'),
}


@pytest.mark.parametrize('name', KINDS_OF_TROUBLE)
def test_errors_in_annotations(good, name):
    data = copy.deepcopy(good)
    spoil, words = KINDS_OF_TROUBLE[name]
    spoil(data)
    errors = [str(f) for f in check_coco(data, CLASSES) if f.level == 'error']
    assert any(words in e for e in errors), errors


@pytest.mark.parametrize('name', LEFT_OUT)
def test_warnings_in_annotations(good, name):
    data = copy.deepcopy(good)
    spoil, words = LEFT_OUT[name]
    spoil(data)
    found = check_coco(data, CLASSES)
    assert found and {f.level for f in found} == {'warning'} and any(words in str(f) for f in found)


def test_what_only_an_evaluation_needs(good, tmp_path):
    """pycocotools reads iscrowd, and takes the id 0 for no match."""
    data = copy.deepcopy(good)
    first = data['annotations'][0]['id']
    data['annotations'][0].pop('iscrowd')
    data['annotations'][1]['iscrowd'] = None
    data['annotations'][2]['id'] = 0
    assert check_coco(data, CLASSES) == []
    error, warning = check_coco(data, CLASSES, test=True, judged=True)
    assert (error.level, len(error.places), error.places[0]) == ('error', 2, first)
    assert 'without an iscrowd of 0 or 1' in error.text
    assert (warning.level, warning.places) == ('warning', [0])
    assert check_coco(data, CLASSES, test=True) == [warning]  # as draw_detections.py asks
    (tmp_path / 'a.json').write_text(json.dumps(data))
    node = dict(type='CocoDataset', ann_file=str(tmp_path / 'a.json'), metainfo=dict(classes=CLASSES), test_mode=True)
    for metric, findings in ((dict(type='CocoMetric', ann_file='a.json'), [error, warning]), ({}, [warning])):
        assert annotation_findings(node, Config(dict(default_scope='mmdet', val_evaluator=metric))) == findings


def test_good_annotations(good):
    assert check_coco(good, CLASSES) == check_coco(good) == []
    empty = dict(good, annotations=[])
    assert check_coco(empty, CLASSES, test=True) == []
    # A box that mmdet clips, and a mask, which pycocotools reads.
    clipped = dict(good['annotations'][0], bbox=[100, 2, 90, 4], segmentation='x')
    assert check_coco({**good, 'annotations': [clipped]}, CLASSES) == []


class TestBeforeAStart:
    @pytest.mark.slow
    @pytest.mark.parametrize('name', ['no images', 'unknown category', 'text in a box', 'no area'])
    def test_refused(self, data, tmp_path, name):
        path = data / 'coco/annotations/instances_train2017.json'
        truth = json.loads(path.read_text())
        spoil, words = KINDS_OF_TROUBLE[name]
        spoil(truth)
        path.write_text(json.dumps(truth))
        with pytest.raises(UserError) as error:
            ready(DETECTION, tmp_path / 'w', data_root=f'{data / "coco"}/')
        assert str(error.value).startswith(f'train_dataloader: {path} cannot be used:\n')
        assert words in str(error.value) and 'check_annotations=False' in str(error.value)
        assert not (tmp_path / 'w').exists()
        ready(DETECTION, tmp_path / 'w', data_root=f'{data / "coco"}/', check_annotations=False)

    @pytest.mark.parametrize('split', ['train', 'val'])
    def test_a_class_of_the_config_that_no_annotation_has(self, data, tmp_path, split):
        options = {f'{split}_dataloader.dataset.metainfo.classes': ('circle', 'sqare', 'triangle')}
        words = 'no category has the name sqare of a class of the dataset; the file has circle, square, triangle'
        with pytest.raises(
            UserError, match=rf'{split}_dataloader: .*instances_{split}2017.json cannot be used:\n  {words}'
        ):
            ready(DETECTION, tmp_path / 'w', data_root=f'{data / "coco"}/', **options)

    def test_a_large_file_is_left_to_check_data(self, data, tmp_path, monkeypatch):
        monkeypatch.setattr(preflight, 'LARGE', 100)
        path = data / 'coco/annotations/instances_train2017.json'
        path.write_text(path.read_text().replace('"area"', '"size"'))
        ready(DETECTION, tmp_path / 'w', data_root=f'{data / "coco"}/')

    def test_classes_of_its_own_in_the_order_of_the_file(self, data, tmp_path):
        for path in (data / 'coco/annotations').iterdir():
            truth = json.loads(path.read_text())
            truth['categories'].reverse()
            path.write_text(json.dumps(truth))
        config = CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py'
        cfg = ready(config, tmp_path / 'w', data_root=f'{data / "coco"}/', **{'model.backbone.init_cfg': None})
        assert cfg.train_dataloader.dataset.metainfo.classes == CLASSES[::-1]


class TestHostileFiles:
    """``FUZZ_CASES=10000 tools/run_tests.sh tests/datasets/test_check_data.py -k Hostile`` tries more than 200."""

    @pytest.mark.slow
    def test_coco(self, good, tmp_path):
        path = tmp_path / 'a.json'
        refused = 0
        for seed in range(CASES):
            path.write_bytes(hostile_coco(seed, good))
            node = dict(type='CocoDataset', ann_file=str(path), metainfo=dict(classes=CLASSES), test_mode=seed % 2 == 0)
            found = annotation_findings(node, Config(dict(default_scope='mmdet')))
            '\n'.join(map(str, found)).encode()
            refused += any(f.level == 'error' for f in found)
            try:
                category_ids(read_json(path))
            except DataError as error:
                str(error).encode()
        assert 0.5 * CASES < refused < CASES

    @pytest.mark.parametrize('kind', ['jpg', 'png'])
    def test_images(self, shapes, tmp_path, kind):
        good = sorted((shapes / 'ade').rglob(f'*.{kind}'))[0].read_bytes()
        path = tmp_path / f'a.{kind}'
        refused = 0
        for seed in range(CASES // 2):
            content = bytearray(good)
            hostile_bytes(random.Random(seed), content)
            path.write_bytes(content)
            problem = image_problem(path)
            refused += problem is not None
            if problem is None:
                assert cv2.imread(str(path)) is not None and quick_problem(path) is None
        assert 0 < refused < CASES * 3 // 4  # how many depends on OpenCV's version
