"""The scan of a config's data, and what is refused before a start."""

import argparse
import copy
import json
import os
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from faulty_files import KINDS
from hostile_annotations import hostile_bytes, hostile_coco, hostile_list
from mmengine.fileio import list_from_file

from mlp_backbones import launch
from mlp_backbones.datasets import coco
from mlp_backbones.datasets.annotations import annotation_findings, check_list
from mlp_backbones.datasets.coco import category_names, check_coco, read_json
from mlp_backbones.datasets.files import DataError, cut_short, image_problem, labels_problem
from mlp_backbones.launch import UserError, prepare

CONFIGS = Path(__file__).parents[1] / 'configs'
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
        'check_data.py', CONFIG[name], '--workers', 0, *args, '--cfg-options', f'data_root={data / name}/'
    )


@pytest.mark.parametrize('name', CONFIG)
def test_good_data(run_script, shapes, name):
    code, said = check(run_script, name, shapes)
    assert code == 0, said
    assert '0 errors, 0 warnings; images looked at: train 6, val 5' in said and '100%' in said


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


def test_bad_label_maps(run_script, data, tmp_path):
    maps = sorted((data / 'ade').rglob('*.png'))
    labels = cv2.imread(str(maps[0]), cv2.IMREAD_UNCHANGED)
    labels[3, 4] = 5
    cv2.imwrite(str(maps[0]), labels)
    cv2.imwrite(str(maps[1]), labels[:50])
    reasons = ['has labels 5; with 4 classes they are 1 to 4, 0 and 255', 'is 96x50 pixels; its image is 96x96']
    reasons += [kind(path) for path, kind in zip(maps[2:], KINDS)]
    (data / 'ade/images/validation').joinpath(maps[-1].stem + '.jpg').unlink()
    out = tmp_path / 'list.txt'
    code, _ = check(run_script, 'ade', data, '--out', out)
    lines = [line.split('\t') for line in out.read_text().splitlines()]
    assert code == 1
    assert ['warning', 'val', str(maps[-1]), 'has no image, and is left out'] in lines
    errors = sorted(line for line in lines if line[0] == 'error')
    assert [line[2] for line in errors] == list(map(str, maps[:6]))
    assert all(reason in line[3] for reason, line in zip(reasons, errors))


def test_bad_class_folders(run_script, data):
    root = data / 'imagenet'
    for path in (root / 'train/square').iterdir():
        path.unlink()
    (root / 'val/star').mkdir()
    code, said = check(run_script, 'imagenet', data)
    assert code == 1
    assert f'train {root}/train/square: is a class without images' in said
    assert f'val   {root}/val: has 4 folders (circle, square, star, triangle); there are 3 classes' in said
    assert 'val: other classes than in train; only here: star' in said


def test_bad_annotations(run_script, data):
    path = data / 'coco/annotations/instances_train2017.json'
    truth = json.loads(path.read_text())
    truth['annotations'][2]['bbox'] = [1, 2, -3, 4]
    truth['annotations'][3]['bbox'] = [1, 2, 0.2, 4]
    truth['categories'].reverse()
    path.write_text(json.dumps(truth))
    code, said = check(run_script, 'coco', data)
    assert code == 1 and f'error   train {path}: boxes of negative width or height (1: 3)' in said
    assert f'warning train {path}: boxes of less than one pixel, which are left out (1: 4)' in said
    assert 'error   val   val: other classes than in train; in another order' in said
    path.write_text('{"images": [')
    code, said = check(run_script, 'coco', data)
    assert code == 1 and f'train {path}: {path} is not a COCO annotation file' in said


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['nothing.py'], 'there is no config nothing.py'),
        ([DETECTION, '--cfg-options', 'data_root=nowhere'], 'missing  nowhere'),
        ([DETECTION, '--workers', '-1'], '--workers must be 0 or more, got -1'),
        ([DETECTION, '--out', 'no/where.json'], 'there is no folder no'),
    ],
)
def test_bad_arguments(run_script, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    code, said = run_script('check_data.py', *args)
    assert code == 1 and f'error: {words}' in said.replace('\n  ', ' ') or words in said
    assert 'Traceback' not in said and not list(tmp_path.iterdir())


def change(part, number=1, **values):
    """A change of one entry of the good file; None takes a key away."""

    def apply(data):
        for key, value in values.items():
            data[part][number].pop(key) if value is None else data[part][number].update({key: value})

    return apply


def twice(part):
    return lambda data: data[part].append(dict(data[part][0]))


def rle(**values):
    return change('annotations', segmentation=dict(dict(size=[128, 160], counts=[20480]), **values))


MANY = [1, 1] * 3
KINDS_OF_TROUBLE = {
    'no images key': (lambda d: d.pop('images'), "there is no key 'images'"),
    'no images': (lambda d: d.update(images=[]), "'images' is empty"),
    'images of another type': (lambda d: d.update(images={}), "'images' is a dict, not a list"),
    'no annotations': (lambda d: d.update(annotations=[]), "'annotations' is empty"),
    'entry of another type': (lambda d: d['annotations'].append(7), "entries of 'annotations' that are no dictionary"),
    'other classes': (lambda d: [c.update(name=f'c{c["id"]}') for c in d['categories']], 'none of the 3 classes'),
    'category twice': (twice('categories'), 'category ids that are there twice (1: 1)'),
    'category name twice': (change('categories', name='circle'), 'category names that are there twice (1: circle)'),
    'category without id': (change('categories', id=None), 'categories whose id is missing'),
    'category without name': (change('categories', name=None), 'categories whose name is missing'),
    'image twice': (twice('images'), 'image ids that are there twice (1: 1)'),
    'image without id': (change('images', id=None), 'images whose id is missing'),
    'huge image id': (change('images', id=2**63), 'images whose id is missing or no 64-bit integer'),
    'image ids of two kinds': (change('images', id='2'), 'image ids of two kinds'),
    'image without name': (change('images', file_name=None), 'images whose file_name is missing or not usable (1: 2)'),
    'image name with NUL': (change('images', file_name='a\0'), 'images whose file_name is missing or not usable'),
    'image without width': (change('images', width=None), 'images whose width or height is missing or not positive'),
    'image of height 0': (change('images', height=0), 'images whose width or height is missing or not positive'),
    'annotation twice': (twice('annotations'), 'annotation ids that are there twice (1: 1)'),
    'huge id': (change('annotations', id=10**400), 'annotations whose id is missing or no 64-bit integer'),
    'unknown category': (change('annotations', category_id=99), 'a category that the file does not have (1: 2 of 99)'),
    'category of another type': (change('annotations', category_id=[1]), 'a category that the file does not have'),
    'unknown image': (change('annotations', image_id=99), 'an image that the file does not have (1: 2 of 99)'),
    'no box': (change('annotations', bbox=None), 'annotations whose bbox is missing or not four finite numbers (1: 2)'),
    'box of three': (change('annotations', bbox=[1, 2, 3]), 'bbox is missing or not four finite numbers'),
    'NaN in a box': (change('annotations', bbox=[1, 2, 3, float('nan')]), 'bbox is missing or not four finite'),
    'infinite box': (change('annotations', bbox=[1, 2, float('inf'), 3]), 'bbox is missing or not four finite'),
    'text in a box': (change('annotations', bbox=['1', 2, 3, 4]), 'bbox is missing or not four finite numbers'),
    'negative box': (change('annotations', bbox=[1, 2, -3, 4]), 'boxes of negative width or height (1: 2)'),
    'box outside': (change('annotations', bbox=[160, 2, 3, 4]), 'boxes wholly outside of their image (1: 2)'),
    'no area': (change('annotations', area=None), 'annotations whose area is missing or no finite number'),
    'no mask': (change('annotations', segmentation=None), 'annotations without a segmentation (1: 2)'),
    'short polygon': (change('annotations', segmentation=[[1, 2, 3, 4]]), 'polygons of fewer than 6 numbers'),
    'NaN in a polygon': (change('annotations', segmentation=[[*MANY, float('nan'), 1]]), 'not lists of finite numbers'),
    'RLE of wrong size': (rle(size=[160, 128]), 'RLE masks whose size is not that of their image (1: 2)'),
    'RLE too short': (rle(counts=[20479]), 'RLE masks that do not fill their image'),
    'RLE of negatives': (rle(counts=[20481, -1]), 'RLE masks that cannot be read'),
    'RLE text too long': (rle(counts='ooooooo5'), 'RLE masks that do not fill their image'),
    'RLE text without end': (rle(counts='oooo'), 'RLE masks that cannot be read'),
}
LEFT_OUT = {
    'small box': (change('annotations', bbox=[1, 2, 0.5, 4]), 'boxes of less than one pixel'),
    'box partly outside': (change('annotations', bbox=[100, 2, 90, 4]), 'boxes partly outside of their image (1: 2)'),
    'class not asked for': (lambda d: d['categories'].append(dict(id=9, name='star')), 'does not ask for (1: star)'),
    'class order': (lambda d: d['categories'].reverse(), 'another order than that of'),
    'class missing': (change('categories', 2, name='star'), 'there is no category for 1 of'),
    'one short polygon': (change('annotations', segmentation=[[1, 2], [*MANY]]), 'polygons of fewer than 6 numbers'),
}


@pytest.mark.parametrize('name', KINDS_OF_TROUBLE)
def test_errors_in_annotations(good, name):
    data = copy.deepcopy(good)
    spoil, words = KINDS_OF_TROUBLE[name]
    spoil(data)
    errors = [str(f) for f in check_coco(data, CLASSES, masks=True) if f.level == 'error']
    assert any(words in e for e in errors), errors


@pytest.mark.parametrize('name', LEFT_OUT)
def test_warnings_in_annotations(good, name):
    data = copy.deepcopy(good)
    spoil, words = LEFT_OUT[name]
    spoil(data)
    found = check_coco(data, CLASSES, masks=True)
    assert found and {f.level for f in found} == {'warning'} and any(words in str(f) for f in found)


def test_good_annotations(good):
    assert check_coco(good, CLASSES, masks=True, test=True) == check_coco(good) == []
    crowd = copy.deepcopy(good)
    for annotation in crowd['annotations']:
        annotation.update(iscrowd=1, segmentation=dict(size=[128, 160], counts=[480, 20000]))
    assert check_coco(crowd, CLASSES, masks=True, test=True) == []
    del crowd['annotations'][0]['iscrowd']
    assert check_coco(crowd, CLASSES, masks=True) == []
    assert 'iscrowd is not 0 or 1' in str(check_coco(crowd, CLASSES, masks=True, test=True)[0])
    # Without masks their annotations may be anything: nobody reads them.
    crowd['annotations'][1]['segmentation'] = 'x'
    assert {f.level for f in check_coco(crowd, CLASSES)} == {'warning'}


def test_run_lengths_equal_those_of_pycocotools():
    from pycocotools import mask

    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (128, 160), (600, 800)):
        for density in (0.0, 0.01, 0.5, 1.0):
            pixels = np.asfortranarray((rng.random(size) < density).astype(np.uint8))
            runs = coco._rle_counts(mask.encode(pixels)['counts'].decode())
            values = np.repeat(np.arange(len(runs)) % 2, runs)
            assert np.array_equal(values, pixels.ravel(order='F'))


def ready(config, work_dir, **options):
    args = argparse.Namespace(
        config=str(config), work_dir=str(work_dir), cfg_options=options, launcher='none', local_rank=0
    )
    return prepare(args, train=True)


class TestBeforeAStart:
    @pytest.mark.parametrize('name', ['no images', 'unknown category', 'text in a box', 'no area', 'no mask'])
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

    @pytest.mark.slow
    def test_a_large_file_is_checked_when_it_fails(self, data, tmp_path, monkeypatch):
        monkeypatch.setattr(launch, 'LARGE', 100)
        path = data / 'coco/annotations/instances_train2017.json'
        whole = path.read_text()
        truth = json.loads(whole)
        del truth['annotations'][4]['area']
        path.write_text(json.dumps(truth))
        cfg = ready(DETECTION, tmp_path / 'w', data_root=f'{data / "coco"}/')  # only the ends are read
        runner = launch.build_runner(cfg)
        with pytest.raises(DataError, match=rf'{path} cannot be used:\n.*area is missing or no finite number \(1: 5\)'):
            runner.build_train_loop(runner._train_loop)
        path.write_text(whole[:-1000])
        with pytest.raises(UserError, match='the file is cut short, or no JSON'):
            ready(DETECTION, tmp_path / 'w', data_root=f'{data / "coco"}/')

    def test_classes_of_its_own_in_the_order_of_the_file(self, data, tmp_path):
        for path in (data / 'coco/annotations').iterdir():
            truth = json.loads(path.read_text())
            truth['categories'].reverse()
            path.write_text(json.dumps(truth))
        config = CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py'
        cfg = ready(config, tmp_path / 'w', data_root=f'{data / "coco"}/', **{'model.backbone.init_cfg': None})
        assert cfg.train_dataloader.dataset.metainfo.classes == CLASSES[::-1]

    def test_lists(self, data, tmp_path):
        files = sorted((data / 'imagenet/train').rglob('*.jpg'))
        path = data / 'imagenet/list.txt'
        lines = [f'{f.relative_to(data / "imagenet/train")} {CLASSES.index(f.parent.name)}' for f in files]
        options = dict(data_root=f'{data / "imagenet"}/', **{'train_dataloader.dataset.ann_file': 'list.txt'})
        path.write_text('\n'.join(lines))
        ready(CONFIG['imagenet'], tmp_path / 'w', **options)
        for line, words in ((f'{lines[0]}9', 'not below the number of classes, 3'), ('x.jpg', 'a name, a blank and a')):
            path.write_text('\n'.join([*lines, line]))
            with pytest.raises(UserError, match=rf'list.txt cannot be used:\n.*{words}.*7: {line}'):
                ready(CONFIG['imagenet'], tmp_path / 'w', **options)


class TestHostileFiles:
    """``FUZZ_CASES=10000 tools/run_tests.sh tests/test_check_data.py -k Hostile`` tries more than the usual 200."""

    def test_coco(self, good, tmp_path):
        path = tmp_path / 'a.json'
        refused = 0
        for seed in range(CASES):
            path.write_bytes(hostile_coco(seed, good))
            node = dict(type='CocoDataset', ann_file=str(path), metainfo=dict(classes=CLASSES), test_mode=seed % 2 == 0)
            node['pipeline'] = [dict(type='LoadAnnotations', with_mask=True)]
            found = annotation_findings(node, 'mmdet')
            '\n'.join(map(str, found)).encode()
            refused += any(f.level == 'error' for f in found)
            try:
                category_names(read_json(path))
            except DataError as error:
                str(error).encode()
        assert 0.5 * CASES < refused < CASES

    @pytest.mark.slow
    def test_mmdet_takes_what_passes(self, good, shapes, tmp_path):
        """Loading and evaluation both work with every file that is not refused."""
        path = tmp_path / 'a.json'
        passed, cases = 0, max(CASES // 8, 25)
        for seed in range(cases):
            path.write_bytes(hostile_coco(seed, good))
            for test in (False, True):
                passed += self._used_by_mmdet(path, shapes / 'coco/val2017', test)
        assert passed > cases / 10

    @staticmethod
    def _used_by_mmdet(path, images, test):
        import torch
        from mmdet.datasets import CocoDataset
        from mmdet.evaluation import CocoMetric
        from mmengine.registry import init_default_scope

        init_default_scope('mmdet')
        settings = dict(ann_file=str(path), data_prefix=dict(img=str(images)), metainfo=dict(classes=CLASSES))
        settings['pipeline'] = [
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        ]
        node = dict(settings, type='CocoDataset', test_mode=test)
        if any(f.level == 'error' for f in annotation_findings(node, 'mmdet')):
            return False
        dataset = CocoDataset(test_mode=test, **settings)
        metric = CocoMetric(ann_file=str(path), metric=['bbox', 'segm'])
        metric.dataset_meta = dataset.metainfo
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            if os.path.exists(info['img_path']):
                loaded = dataset.pipeline(info)
                assert np.isfinite(loaded['gt_bboxes'].tensor.numpy()).all()
            if test:
                found = dict(bboxes=[[5.0, 5, 50, 50]], scores=[0.9], labels=[1], masks=[np.ones((128, 160), bool)])
                found = {k: torch.as_tensor(np.array(v)) for k, v in found.items()}
                metric.process({}, [dict(img_id=info['img_id'], ori_shape=(128, 160), pred_instances=found)])
        if test:
            metric.evaluate(len(dataset))
        return True

    def test_lists(self, tmp_path):
        path = tmp_path / 'list.txt'
        text = '\n'.join(f'folder {i}/a b{i}.jpg {i % 3}' for i in range(20))
        path.write_text(text)
        assert check_list(path, True, 3) == []
        refused = 0
        for seed in range(CASES):
            path.write_bytes(hostile_list(seed, text))
            errors = [f for f in check_list(path, True, 3) if f.level == 'error']
            refused += bool(errors)
            if not errors:  # as mmpretrain reads it
                rows = [line.strip().rsplit(' ', 1) for line in list_from_file(str(path))]
                assert {int(label) for _, label in rows} <= {0, 1, 2}
        assert 0 < refused < CASES

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
            labels_problem(path, (96, 96), 4, reduce_zero_label=True)
            refused += problem is not None
            if problem is None:
                assert cv2.imread(str(path)) is not None and not cut_short(path)
        assert 0 < refused < CASES * 3 // 4  # how many depends on OpenCV's version
