"""Files that go bad under a run: what is passed over, what stops it, and that nothing else changes."""

import argparse
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.faulty_files import KINDS, cut, empty, missing, text
from helpers.processes import tool
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import BaseLoop, Runner
from PIL import Image
from torch.utils.data import DataLoader

from mlp_backbones.datasets.faults import FaultList, GuardedPipeline, labeled_heads, local_files
from mlp_backbones.datasets.validation.files import image_problem, quick_problem
from mlp_backbones.datasets.validation.scan import sample_problems
from mlp_backbones.engine.hooks import FaultyFilesHook
from mlp_backbones.utils.errors import DataError, UserError

CONFIGS = {
    'coco': 'detection/retinanet_convmlp_s_fpn_shapes.py',
    'ade': 'segmentation/fpn_convmlp_s_shapes.py',
    'imagenet': 'classification/convmlp_s_shapes.py',
}
LIMIT = 'default_hooks.faulty_files.max_faulty_files'


@pytest.fixture
def data(shapes, tmp_path):
    """A copy of the sets that may be spoilt."""
    return Path(shutil.copytree(shapes, tmp_path / 'data'))


class Loop(BaseLoop):
    """A loop that only holds its dataloader."""

    def run(self):
        raise NotImplementedError


class StubRunner:
    """As much of a runner as the hook sees; the dataloaders and their datasets are the real ones."""

    def __init__(self, log_dir, limit=None, **cfg):
        self.log_dir, self.cfg, self.rank, self.said = log_dir, cfg, 0, []
        self.logger = self
        self.hook = FaultyFilesHook(limit)

    def loader(self, settings, split='train'):
        """Build a dataloader and let the hook guard it."""
        loader = Runner.build_dataloader(settings, seed=0)
        for name in ('train', 'val', 'test'):
            setattr(self, f'_{name}_loop', Loop(self, loader) if name == split else None)
        self.hook.before_run(self)
        return loader

    def warning(self, message):
        self.said.append(message)

    def info(self, message):
        pass


@pytest.fixture
def scope():
    pytest.importorskip('mmpretrain')
    before = DefaultScope._instance_dict.copy()
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def dataset(folder, wrapper=None, **settings):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
    # Unserialized, for mmengine's serialisation collects garbage each time, which takes a while beside torch.
    inner = dict(type='CustomDataset', data_root=str(folder), pipeline=pipeline, serialize_data=False, **settings)
    return wrapper(inner) if wrapper else inner


def loader(folder, workers=2, wrapper=None, **settings):
    return dict(
        batch_size=2,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dataset(folder, wrapper, **settings),
    )


def batches(built):
    return [(b['inputs'], [s.img_path for s in b['data_samples']]) for b in built]


def lines(runner):
    path = Path(runner.log_dir, 'faulty_files.txt')
    return sorted(path.read_text().splitlines()) if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_without_faults_nothing_changes(shapes, tmp_path, scope, workers):
    settings = loader(shapes / 'imagenet/train', workers)
    found = []
    for build in (lambda settings: Runner.build_dataloader(settings, seed=0), StubRunner(tmp_path).loader):
        np.random.seed(0)
        torch.manual_seed(0)
        built = build(settings)
        found.append(batches(built) + batches(built))
    assert len(found[0]) == 6
    for (plain, names), (guarded, same) in zip(*found):
        assert names == same
        assert torch.equal(plain, guarded)
    assert not list(tmp_path.iterdir())


def repeated(inner):
    return dict(type='RepeatDataset', times=3, dataset=inner)


def concatenated(inner):
    return dict(type='ConcatDataset', datasets=[inner, inner])


def balanced(inner):
    return dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=inner)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('wrapper', 'workers'), [(None, 0), (None, 2), (repeated, 0), (concatenated, 0), (balanced, 0)]
)
def test_faults_are_passed_over_and_named_once(data, tmp_path, scope, workers, wrapper):
    files = sorted((data / 'imagenet/train').rglob('*.jpg'))[:4]
    runner = StubRunner(tmp_path, limit=4)
    built = runner.loader(loader(data / 'imagenet/train', workers, wrapper))
    reasons = {str(file): kind(file) for file, kind in zip(files, KINDS)}  # they go bad after the set was listed
    for _ in range(3):
        got = batches(built)
        assert len(got) == len(built) and all(len(x) == 2 for x, _ in got)
        assert not {p for _, names in got for p in names} & set(reasons)
    runner.hook.after_train_iter(runner, 0)
    runner.hook.after_train_iter(runner, 1)
    noted = dict(line.split('\t') for line in lines(runner))
    assert noted.keys() == reasons.keys()
    assert all(reasons[file] in reason for file, reason in noted.items())
    told = [f'{file}: {reason}; passed over, another image is taken' for file, reason in noted.items()]
    assert sorted(runner.said) == sorted(told)
    runner.hook.after_train(runner)
    assert runner.said[4:] == [f'4 files could not be read and were passed over, see {tmp_path / "faulty_files.txt"}']


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_limit(data, tmp_path, scope, workers):
    files = sorted((data / 'imagenet/train').rglob('*.jpg'))[:3]
    built = StubRunner(tmp_path, limit=2).loader(loader(data / 'imagenet/train', workers))
    for path in files:
        empty(path)
    with pytest.raises(DataError) as error:
        batches(built)
    assert str(error.value).startswith('3 files could not be read, and at most 2 may be passed over:\n')
    assert 'Traceback' not in str(error.value)
    assert all(f'\n  {path}: is empty (0 bytes)' in str(error.value) for path in files)


@pytest.mark.parametrize(
    ('limit', 'wrapper', 'expected'), [(None, None, 1), (None, repeated, 1), (50, None, 5), (0, None, 0)]
)
def test_the_limit_of_a_run(data, tmp_path, scope, limit, wrapper, expected):
    """Of 6 images: a tenth rounded up, and never all."""
    runner = StubRunner(tmp_path, limit)
    runner.loader(loader(data / 'imagenet/train', 0, wrapper))
    assert runner.hook.faults.limit == expected


def test_nothing_but_bad_files_ends(data, tmp_path, scope):
    built = StubRunner(tmp_path, limit=1000).loader(loader(data / 'imagenet/train', 0))
    for path in (data / 'imagenet/train').rglob('*.jpg'):
        text(path)
    with pytest.raises(DataError, match='6 files could not be read, and at most 5'):
        batches(built)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('test_mode', [False, True])
def test_evaluation_never_passes_over(data, tmp_path, scope, kind, test_mode):
    path = sorted((data / 'imagenet/val').rglob('*.jpg'))[1]
    runner = StubRunner(tmp_path, limit=100)
    built = runner.loader(loader(data / 'imagenet/val', 0, test_mode=test_mode), 'val')
    reason = kind(path)
    with pytest.raises(DataError, match=rf'{path}: .*{reason}.*\. Evaluation passes over nothing') as error:
        batches(built)
    assert 'Traceback' not in str(error.value) and not lines(runner)


def test_the_first_fault_when_strict(data, tmp_path, scope):
    path = sorted((data / 'imagenet/train').rglob('*.jpg'))[1]
    built = StubRunner(tmp_path, limit=0).loader(loader(data / 'imagenet/train', 0))
    empty(path)
    with pytest.raises(DataError, match=rf'^{path}: is empty \(0 bytes\)\. tools/check_data.py'):
        batches(built)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_class_of_the_config_without_a_category(shapes, tmp_path, split):
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    settings = loader(shapes / 'coco', 0)
    settings['dataset'].update(
        type='CocoDataset',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017'),
        metainfo=dict(classes=('circle', 'sqare', 'triangle')),
        pipeline=[],
    )
    with pytest.raises(DataError, match='train2017.json has categories for only 2 of the 3 classes circle, sqare, tri'):
        StubRunner(tmp_path).loader(settings, split)


@pytest.mark.parametrize('limit', [-1, 1.5, '3', True])
def test_impossible_limits(limit):
    with pytest.raises(UserError, match='max_faulty_files must be an integer of 0 or more, or None, got'):
        FaultyFilesHook(limit)


def picture(size=(90, 60), mode='RGB', **settings):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, **settings)
    return stream.getvalue()


def label_problems(folder, size, **settings):
    """What a scan for a head of three classes says of the label map a.png of an image of (width, height)."""
    transforms = pytest.importorskip('mmseg.datasets.transforms')
    (folder / 'a.jpg').write_bytes(picture(size, format='JPEG'))
    info = dict(img_path=str(folder / 'a.jpg'), seg_map_path=str(folder / 'a.png'), seg_fields=[])
    info |= dict(label_map=None, reduce_zero_label=False) | settings
    loads = [LoadImageFromFile(), transforms.LoadAnnotations()]
    pipeline = argparse.Namespace(transforms=loads)
    dataset = argparse.Namespace(pipeline=pipeline, get_data_info=lambda index: dict(info))
    return sample_problems(dataset, [('head', 3, 255)], 0)


class TestFiles:
    def test_cut_short(self, tmp_path):
        """Also where a decoder reads on, as OpenCV before 4.12 does: it gives grey for what is not there."""
        for suffix, settings in (('jpg', dict(format='JPEG')), ('jpg', dict(format='JPEG', progressive=True))):
            path, content = tmp_path / f'a.{suffix}', picture(**settings)
            for end in range(0, len(content) - 2, 397):
                path.write_bytes(content[:end])
                assert image_problem(path) is not None, end
                if end > 4:
                    assert quick_problem(path, decoded=True) is not None, end
            for more in (b'', b'\0', b'\0' * 1000, content):
                path.write_bytes(content + more)
                assert quick_problem(path, decoded=True) is None and image_problem(path) is None
        path, content = tmp_path / 'a.png', picture(format='PNG')
        for end in range(0, len(content), 3997):
            path.write_bytes(content[:end])
            assert image_problem(path) is not None
            assert end < 4 or quick_problem(path, decoded=True) is not None
        assert quick_problem(tmp_path / 'missing.jpg', decoded=True) is None  # of a server

    def test_a_lenient_decoder(self, tmp_path):
        path = tmp_path / 'a.jpg'
        path.write_bytes(picture(format='JPEG')[:-500])
        faults = FaultList(tmp_path / 'list.txt', 3)
        grey = GuardedPipeline([lambda results: dict(results, img=np.full((60, 90, 3), 128, np.uint8))], faults)
        assert grey(dict(img_path=str(path))) is None
        ((name, reason),) = faults.read().items()
        assert name == str(path) and reason.startswith('cannot be decoded: image file is truncated')

    @pytest.mark.parametrize(
        'settings',
        [
            dict(mode='CMYK', format='JPEG'),
            dict(mode='L', format='JPEG'),
            dict(mode='P', format='PNG'),
            dict(mode='LA', format='PNG'),
            dict(format='BMP'),
            dict(format='WEBP'),
            dict(format='TIFF'),
        ],
    )
    def test_good_files_of_many_kinds(self, tmp_path, settings):
        path = tmp_path / 'a.jpg'  # the name does not decide
        path.write_bytes(picture(**settings))
        assert image_problem(path, (90, 60)) is None and quick_problem(path, decoded=True) is None
        assert image_problem(path, (60, 90)) == 'is 90x60 pixels; the annotations say 60x90'

    def test_larger_than_pillow_opens(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
        path = tmp_path / 'a.png'
        path.write_bytes(picture(format='PNG'))
        with pytest.raises(Image.DecompressionBombError):
            Image.open(path)
        assert image_problem(path) is None
        path.write_bytes(path.read_bytes()[:50])
        assert image_problem(path) == 'OpenCV cannot decode it'

    def test_turned_by_exif(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / 'a.jpg'
        path.write_bytes(picture(format='JPEG', exif=exif))
        assert cv2.imread(str(path)).shape[:2] == (90, 60)  # as the frameworks load it
        assert image_problem(path, (60, 90)) is None and '60x90' in image_problem(path, (90, 60))

    @pytest.mark.parametrize(
        ('values', 'settings', 'words'),
        [
            ([0, 1, 2, 255], dict(), None),
            ([0, 1, 3, 255], dict(), 'has labels 3, as loaded; head.num_classes leaves 0 to 2, and 255 is ignored'),
            ([0, 1, 3, 255], dict(reduce_zero_label=True), None),
            ([0, 4, 254], dict(reduce_zero_label=True), 'has labels 3, 253, as loaded; head.num_classes leaves 0 to 2'),
            ([0, 7], dict(label_map={7: 1}), None),
            ([0, 7], dict(label_map={7: 255}), None),
        ],
    )
    def test_labels(self, tmp_path, values, settings, words):
        Image.fromarray(np.resize(np.array(values, np.uint8), (6, 9))).save(tmp_path / 'a.png')
        found = label_problems(tmp_path, (9, 6), **settings)
        assert found == [] if words is None else found[0][1].startswith(words)
        assert label_problems(tmp_path, (6, 9), **settings) == [
            (str(tmp_path / 'a.png'), 'is 9x6 pixels; its image is 6x9')
        ]

    def test_labels_that_are_none(self, tmp_path):
        path = tmp_path / 'a.png'
        path.write_bytes(picture(format='PNG'))
        assert label_problems(tmp_path, (90, 60))[0][1].startswith(
            'is not a label map: it has (60, 90, 3) pixels of uint8'
        )
        Image.fromarray(np.full((6, 9), 300, np.uint16)).save(path)  # of which mmseg keeps eight bits
        assert label_problems(tmp_path, (9, 6))[0][1].endswith('pixels of uint16 up to 300')
        Image.fromarray(np.full((6, 9), 2, np.uint8)).convert('P').save(path)  # a palette's indices are the labels
        assert label_problems(tmp_path, (9, 6)) == []

    def test_what_is_no_fault_of_the_data(self, tmp_path):
        def no_package(results):
            raise ImportError('no turbojpeg')

        with pytest.raises(ImportError, match='turbojpeg'):
            GuardedPipeline([no_package], FaultList(tmp_path / 'x', 5))(dict(img_path='a.jpg'))

    @pytest.mark.parametrize('error', [AssertionError('reduce_zero_label'), KeyError('x'), OSError('x')])
    def test_an_error_with_good_files_is_no_fault(self, tmp_path, error):
        """A setting that does not fit fails on every image: it must not be blamed on the files."""

        def transform(results):
            raise error

        (tmp_path / 'a.jpg').write_bytes(picture(format='JPEG'))
        faults = FaultList(tmp_path / 'list.txt', 5)
        with pytest.raises(type(error)) as raised:
            GuardedPipeline([transform], faults)(dict(img_path=str(tmp_path / 'a.jpg')))
        assert raised.value is error and not faults.read()
        (tmp_path / 'a.jpg').write_bytes(b'')
        assert GuardedPipeline([transform], faults)(dict(img_path=str(tmp_path / 'a.jpg'))) is None
        assert faults.read() == {f'{tmp_path}/a.jpg': 'is empty (0 bytes)'}

    def test_a_guard_travels(self, tmp_path):
        copy = pickle.loads(pickle.dumps(GuardedPipeline([dict], FaultList(tmp_path / 'x', 5))))
        assert copy(dict(img_path='a')) == dict(img_path='a') and copy.faults.limit == 5


def segmentation(root, **settings):
    """The dataloader of a set whose background is a class: 0, beside 1, 2 and 3."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    data = dict(type='BaseSegDataset', data_root=str(root), serialize_data=False, pipeline=load, **settings)
    data['data_prefix'] = dict(img_path='images/training', seg_map_path='annotations/training')
    sampler = dict(type='DefaultSampler', shuffle=False)
    return dict(batch_size=1, num_workers=0, sampler=sampler, collate_fn=dict(type='pseudo_collate'), dataset=data)


class TestLabels:
    @pytest.fixture
    def runner(self, tmp_path):
        pytest.importorskip('mmseg')
        init_default_scope('mmseg')
        head = dict(type='FPNHead', num_classes=4)
        return StubRunner(tmp_path, default_scope='mmseg', model=dict(decode_head=head, backbone=dict(num_classes=2)))

    def test_that_the_head_has(self, data, runner):
        built = runner.loader(segmentation(data / 'ade', reduce_zero_label=True))
        labels = {int(v) for batch in built for s in batch['data_samples'] for v in s.gt_sem_seg.data.unique()}
        assert labels == {0, 1, 2, 3}

    def test_that_the_head_has_not(self, data, runner):
        path = sorted((data / 'ade/annotations/training').iterdir())[0]
        labels = np.zeros((96, 96), np.uint8)
        labels[3, 4:6] = 4, 255
        Image.fromarray(labels).save(path)
        built = runner.loader(segmentation(data / 'ade', reduce_zero_label=False))
        with pytest.raises(DataError) as error:
            next(iter(built))
        assert str(error.value).startswith(
            f'{path}: has labels 4, as loaded; model.decode_head.num_classes leaves 0 to 3, and 255 is ignored. '
        )

    def test_that_are_colors(self, data, runner):
        path = sorted((data / 'ade/annotations/training').iterdir())[0]
        Image.new('RGB', (96, 96)).save(path)
        with pytest.raises(DataError, match=r'is not a label map: it is of shape \(96, 96, 3\), as loaded'):
            next(iter(runner.loader(segmentation(data / 'ade', reduce_zero_label=True))))

    def test_of_another_size_than_the_image(self, data, runner):
        path = sorted((data / 'ade/annotations/training').iterdir())[0]
        Image.fromarray(np.zeros((50, 96), np.uint8)).save(path)
        list(runner.loader(segmentation(data / 'ade', reduce_zero_label=True)))
        assert lines(runner) == [f'{path}\tis 96x50 pixels; its image is 96x96']

    def test_of_a_head_that_ignores_another(self, data, runner):
        path = sorted((data / 'ade/annotations/training').iterdir())[0]
        Image.fromarray(np.full((96, 96), 200, np.uint8)).save(path)
        runner.cfg['model']['decode_head']['ignore_index'] = 200
        built = runner.loader(segmentation(data / 'ade', reduce_zero_label=False))
        assert int(next(iter(built))['data_samples'][0].gt_sem_seg.data.max()) == 200

    def test_of_one_class_with_a_sigmoid(self, runner):
        runner.cfg['model']['decode_head']['num_classes'] = 1
        assert labeled_heads(runner.cfg) == [('model.decode_head', 2, 255)]

    def test_a_contradiction_of_settings_is_raised_as_such(self, data, runner, tmp_path):
        settings = segmentation(data / 'ade', reduce_zero_label=False)
        settings['dataset']['pipeline'][1]['reduce_zero_label'] = True
        built = runner.loader(settings)
        with pytest.raises(AssertionError, match='Initialize dataset with `reduce_zero_label` as False'):
            next(iter(built))
        assert not lines(runner)


class TestEvaluationIsLookedAtBeforehand:
    @pytest.mark.parametrize('split', ['val', 'test'])
    def test_images(self, data, tmp_path, scope, split):
        files = sorted((data / 'imagenet/val').rglob('*.jpg'))
        (tmp_path / 'list.txt').write_text('\n'.join(f'{f.relative_to(data / "imagenet/val")} 0' for f in files))
        settings = loader(data / 'imagenet/val', 0, ann_file=str(tmp_path / 'list.txt'), data_prefix='')
        StubRunner(tmp_path).loader(settings, split)
        reasons = [kind(file) for file, kind in zip(files, KINDS)]
        with pytest.raises(DataError) as error:
            StubRunner(tmp_path).loader(settings, split)
        said = str(error.value).splitlines()
        assert [line.split(': ')[0] for line in said] == list(map(str, files[:4]))
        assert all(reason in line for reason, line in zip(reasons, said))
        assert said[3].endswith('. Evaluation passes over nothing. tools/check_data.py CONFIG finds all such files.')

    def test_label_maps_and_servers(self, data, tmp_path):
        pytest.importorskip('mmseg')
        init_default_scope('mmseg')
        cut(sorted((data / 'ade/annotations/training').iterdir())[2])
        with pytest.raises(DataError, match='annotations/training/00000003.png: .*truncated'):
            StubRunner(tmp_path).loader(segmentation(data / 'ade'), 'val')
        # Where another backend reads the files, their names say nothing about the disk.
        leaf = type('Leaf', (), dict(pipeline=type('P', (), dict(transforms=[LoadFromServer()]))))
        assert local_files([leaf]) == []

    def test_bands_that_only_the_loader_can_read(self, tmp_path, scope):
        tifffile = pytest.importorskip('tifffile')
        for name in ('a', 'b'):
            (tmp_path / name).mkdir()
            tifffile.imwrite(tmp_path / name / f'{name}.tif', np.zeros((40, 50, 12), np.uint16), planarconfig='contig')
        settings = loader(tmp_path, 0)
        settings['dataset']['pipeline'][0]['imdecode_backend'] = 'tifffile'
        settings['dataset']['extensions'] = ('.tif',)
        StubRunner(tmp_path).loader(settings, 'val')
        del settings['dataset']['pipeline'][0]['imdecode_backend']
        with pytest.raises(DataError, match='a.tif: '):
            StubRunner(tmp_path).loader(settings, 'val')


class LoadFromServer:
    backend_args = dict(backend='petrel')
    imdecode_backend = 'cv2'


def test_a_worker_of_the_loader_names_the_file(tmp_path):
    """The error crosses from a worker process as text."""

    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise DataError('a.jpg: is empty\n  second line')

    with pytest.raises(DataError, match=r'^a.jpg: is empty\n  second line$'):
        list(DataLoader(One(), num_workers=1))


def test_hook_on_other_ranks_is_silent(tmp_path):
    runner = StubRunner(tmp_path)
    runner.rank = 1
    runner.hook.faults = FaultList(tmp_path / 'faulty_files.txt', 5)
    runner.hook.faults.add('a.jpg', 'is empty')
    runner.hook.after_train_iter(runner, 0)
    assert not runner.said


def options(root, workers=2):
    loaders = [
        f'{s}_dataloader.{k}'
        for s in ('train', 'val', 'test')
        for k in (f'num_workers={workers}', 'persistent_workers=False')
    ]
    return [f'data_root={root}/', 'train_dataloader.batch_size=2', *loaders, 'default_hooks.logger.interval=1']


def spoil(root):
    """Six images: a file of each kind goes bad, and for segmentation a label map too."""
    files = sorted(p for p in root.rglob('*.jpg') if 'train' in str(p.parent))
    bad = dict(zip(files, (empty, text, cut)))
    if root.name == 'coco':  # where a list names what should be there
        bad[files[3]] = missing
    if root.name == 'ade':
        bad[root / 'annotations/training/00000005.png'] = missing
    return {path: kind(path) for path, kind in bad.items()}


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_training_passes_over_bad_files(name, data, tmp_path):
    root = data / name
    bad = spoil(root)
    loop = ['train_cfg.max_iters=9', 'train_cfg.val_interval=9'] if name == 'ade' else ['train_cfg.max_epochs=3']
    settings = ['--cfg-options', *options(root), *loop]
    config = ROOT / 'configs' / CONFIGS[name]
    _, said = tool('train.py', config, '--work-dir', 'w', *settings, f'{LIMIT}={len(bad)}', cwd=tmp_path)
    (path,) = (tmp_path / 'w').glob('*/faulty_files.txt')
    noted = dict(line.split('\t') for line in path.read_text().splitlines())
    assert set(noted) <= set(map(str, bad)) and len(noted) >= len(bad) - 1  # one of few may not have been drawn
    for file, reason in noted.items():
        assert bad[Path(file)] in reason
        assert said.count(f'WARNING - {file}: ') == 1
    assert f'{len(noted)} files could not be read and were passed over' in said
    checkpoint = (tmp_path / 'w/last_checkpoint').read_text()

    image = sorted(p for p in root.rglob('*.jpg') if 'val' in str(p.parent))[2]
    cut(image)
    code, said = tool('test.py', config, checkpoint, '--work-dir', 't', *settings, cwd=tmp_path, check=False)
    assert code == 1 and f'error: {image}: ' in said and 'Evaluation passes over nothing' in said
    # What a worker of the dataloader prints when it is ended, rarely and after the message, is torch's.
    assert 'Traceback' not in said.split('error: ')[0], said[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['coco', 'ade'])
def test_a_bad_validation_image_is_found_before_training(name, data, tmp_path):
    root = data / name
    image = sorted(p for p in root.rglob('*.jpg') if 'val' in str(p.parent))[-1]
    cut(image)
    settings = ['--work-dir', 'w', '--cfg-options', *options(root)]
    code, said = tool('train.py', ROOT / 'configs' / CONFIGS[name], *settings, cwd=tmp_path, check=False)
    assert code == 1 and f'error: {image}: ' in said and 'truncated' in said
    assert '(train)' not in said and 'Traceback' not in said
    assert not list((tmp_path / 'w').rglob('*.pth'))


@pytest.mark.slow
def test_strict_data(data, tmp_path):
    (bad,) = list(spoil(data / 'imagenet'))[:1]
    config = ROOT / 'configs' / CONFIGS['imagenet']
    settings = ['--work-dir', 'w', '--cfg-options', *options(data / 'imagenet')]
    code, said = tool('train.py', config, '--strict-data', *settings, cwd=tmp_path, check=False)
    before, message = said.split('\nerror: ')
    assert code == 1 and 'Traceback' not in before and message.startswith(str(data / 'imagenet/train'))


@pytest.mark.slow
def test_two_processes_share_the_limit(data, tmp_path):
    root = data / 'coco'
    bad = spoil(root)
    settings = ['--cfg-options', *options(root, 1), 'train_cfg.max_epochs=3', f'{LIMIT}=3']
    command = [ROOT / 'tools/dist_train.sh', ROOT / 'configs' / CONFIGS['coco'], 2, '--work-dir', 'w', *settings]
    done = subprocess.run(
        list(map(str, command)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHON': sys.executable},
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert 'error: 4 files could not be read, and at most 3 may be passed over' in said, said[-3000:]
    message = said.split('error: 4 files')[1]
    assert all(str(path) in message for path in bad)
