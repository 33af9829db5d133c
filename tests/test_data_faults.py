"""Files that go bad under a run: what is passed over, what stops it, and that nothing else changes."""

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
from faulty_files import KINDS, cut, empty, missing, text
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import DataLoader

from mlp_backbones.datasets.faults import FaultList, FaultyFilesHook, Guard, guard
from mlp_backbones.datasets.files import DataError, cut_short, image_problem, labels_problem
from mlp_backbones.launch import UserError, _faulty_files

ROOT = Path(__file__).parents[1]
CONFIGS = {
    'coco': 'detection/retinanet_convmlp_s_fpn_shapes.py',
    'ade': 'segmentation/fpn_convmlp_s_shapes.py',
    'imagenet': 'classification/convmlp_s_shapes.py',
}


@pytest.fixture
def data(shapes, tmp_path):
    """A copy of the sets that may be spoilt."""
    return Path(shutil.copytree(shapes, tmp_path / 'data'))


class StubRunner:
    """As much of a runner as builds a dataloader; the dataloaders and their datasets are the real ones."""

    def __init__(self, log_dir):
        self.log_dir, self.hooks, self.rank, self.said = log_dir, [], 0, []
        self.logger = self
        self.build_dataloader = Runner.build_dataloader

    def build_train_loop(self, settings):
        return self.build_dataloader(settings, seed=0)

    def register_hook(self, hook):
        self.hooks.append(hook)

    def warning(self, message):
        self.said.append(message)


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


@pytest.mark.parametrize('workers', [0, 2])
def test_without_faults_nothing_changes(shapes, tmp_path, scope, workers):
    folder = shapes / 'imagenet/train'
    runner = StubRunner(tmp_path)
    guard(runner)
    answers = []
    for build in (StubRunner(tmp_path).build_train_loop, runner.build_train_loop):
        np.random.seed(0)
        torch.manual_seed(0)
        built = build(loader(folder, workers))
        answers.append(batches(built) + batches(built))
    assert len(answers[0]) == 6
    for (plain, names), (guarded, same) in zip(*answers):
        assert names == same and torch.equal(plain, guarded)
    assert not list(tmp_path.iterdir())


def repeated(inner):
    return dict(type='RepeatDataset', times=3, dataset=inner)


def concatenated(inner):
    return dict(type='ConcatDataset', datasets=[inner, inner])


def balanced(inner):
    return dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=inner)


@pytest.mark.parametrize(
    ('wrapper', 'workers'), [(None, 0), (None, 2), (repeated, 0), (concatenated, 0), (balanced, 0)]
)
def test_faults_are_passed_over_and_named_once(data, tmp_path, scope, workers, wrapper):
    files = sorted((data / 'imagenet/train').rglob('*.jpg'))[:4]
    runner = StubRunner(tmp_path)
    guard(runner, limit=4)
    built = runner.build_train_loop(loader(data / 'imagenet/train', workers, wrapper))
    expected = sorted(f'{f}: {kind(f)}' for f, kind in zip(files, KINDS))  # they go bad after the set was listed
    for _ in range(3):
        got = batches(built)
        assert len(got) == len(built) and all(len(x) == 2 for x, _ in got)
        assert not {p for _, names in got for p in names} & set(map(str, files))
    (hook,) = runner.hooks
    hook.after_train_iter(runner, 0)
    hook.after_train_iter(runner, 1)
    assert len(lines(runner)) == len(runner.said) == 4
    for line, said, want in zip(lines(runner), sorted(runner.said), expected):
        name, reason = want.split(': ')
        assert line.startswith(name + '\t') and reason in line
        assert said.startswith(name + ': ') and reason in said
    hook.after_train(runner)
    assert '4 files could not be read' in runner.said[-1]


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_limit(data, tmp_path, scope, workers):
    files = sorted((data / 'imagenet/train').rglob('*.jpg'))[:3]
    runner = StubRunner(tmp_path)
    guard(runner, limit=2)
    built = runner.build_train_loop(loader(data / 'imagenet/train', workers))
    for path in files:
        empty(path)
    with pytest.raises(DataError) as error:
        batches(built)
    assert str(error.value).startswith('3 files could not be read, and at most 2 may be passed over:\n')
    assert 'Traceback' not in str(error.value)
    assert all(f'\n  {path}: is empty (0 bytes)' in str(error.value) for path in files)


def test_the_default_limit(data, tmp_path, scope):
    limits = []
    for limit, wrapper in ((None, None), (None, repeated), (50, None), (0, None)):
        runner = StubRunner(tmp_path)
        guard(runner, limit)
        runner.build_train_loop(loader(data / 'imagenet/train', 0, wrapper))
        limits.append(runner.hooks[0].faults.limit)
    assert limits == [1, 1, 5, 0]  # of 6 images: a tenth rounded up; never all


def test_nothing_but_bad_files_ends(data, tmp_path, scope):
    runner = StubRunner(tmp_path)
    guard(runner, limit=1000)
    built = runner.build_train_loop(loader(data / 'imagenet/train', 0))
    for path in (data / 'imagenet/train').rglob('*.jpg'):
        text(path)
    with pytest.raises(DataError, match='6 files could not be read, and at most 5'):
        batches(built)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('test_mode', [False, True])
def test_evaluation_never_passes_over(data, tmp_path, scope, kind, test_mode):
    path = sorted((data / 'imagenet/val').rglob('*.jpg'))[1]
    runner = StubRunner(tmp_path)
    guard(runner, limit=100)
    runner.build_train_loop(loader(data / 'imagenet/train', 0))
    built = runner.build_dataloader(loader(data / 'imagenet/val', 0, test_mode=test_mode))
    reason = kind(path)
    with pytest.raises(DataError, match=rf'{path}: .*{reason}.*\. Evaluation passes over nothing') as error:
        batches(built)
    assert 'Traceback' not in str(error.value) and not lines(runner)


def test_the_first_fault_when_strict(data, tmp_path, scope):
    path = sorted((data / 'imagenet/train').rglob('*.jpg'))[1]
    runner = StubRunner(tmp_path)
    guard(runner, limit=0)
    built = runner.build_train_loop(loader(data / 'imagenet/train', 0))
    empty(path)
    with pytest.raises(DataError, match=rf'^{path}: is empty \(0 bytes\)\. tools/check_data.py'):
        batches(built)


def test_what_a_dataset_cannot_be_built_from(tmp_path, scope):
    runner = StubRunner(tmp_path)
    guard(runner, explain=lambda settings: f'{settings["dataset"]["data_root"]}: no good')
    with pytest.raises(DataError, match='nowhere: no good'):
        runner.build_train_loop(loader('nowhere'))
    runner = StubRunner(tmp_path)
    guard(runner, explain=lambda settings: '')
    with pytest.raises(DataError, match='the data cannot be loaded: '):
        runner.build_train_loop(loader('nowhere'))


def picture(size=(90, 60), mode='RGB', **settings):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, **settings)
    return stream.getvalue()


class TestFiles:
    def test_cut_short(self, tmp_path):
        """Also where a decoder reads on, as OpenCV before 4.12 does: it gives grey for what is not there."""
        for suffix, settings in (('jpg', dict(format='JPEG')), ('jpg', dict(format='JPEG', progressive=True))):
            path, content = tmp_path / f'a.{suffix}', picture(**settings)
            for end in range(0, len(content) - 2, 397):
                path.write_bytes(content[:end])
                assert image_problem(path) is not None, end
                if end > 4:
                    assert cut_short(path), end
            for more in (b'', b'\0', b'\0' * 1000, content):
                path.write_bytes(content + more)
                assert not cut_short(path) and image_problem(path) is None
        path, content = tmp_path / 'a.png', picture(format='PNG')
        for end in (*range(0, len(content), 3997), len(content) - 12, len(content) - 9):
            path.write_bytes(content[:end])
            assert image_problem(path) is not None
            assert cut_short(path) or end < 4
        assert not cut_short(tmp_path / 'missing.jpg')

    def test_a_lenient_decoder(self, tmp_path):
        path = tmp_path / 'a.jpg'
        path.write_bytes(picture(format='JPEG')[:-500])
        faults = FaultList(tmp_path / 'list.txt', 3)
        grey = Guard(lambda results: dict(results, img=np.full((60, 90, 3), 128, np.uint8)), faults)
        assert grey(dict(img_path=str(path))) is None
        assert faults.lines() == [f'{path}\tis cut short']

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
        assert image_problem(path, (90, 60)) is None and not cut_short(path)
        assert image_problem(path, (60, 90)) == 'is 90x60 pixels; the annotations say 60x90'

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
            ([0, 1, 2, 255], dict(num_classes=3), None),
            ([0, 1, 3, 255], dict(num_classes=3), 'has labels 3; with 3 classes they are 0 to 2, 255'),
            ([0, 1, 3, 255], dict(num_classes=3, reduce_zero_label=True), None),
            (
                [0, 4, 254],
                dict(num_classes=3, reduce_zero_label=True),
                'has labels 4, 254; with 3 classes they are 1 to 3, 0 and 255',
            ),
            ([0, 7], dict(num_classes=2, label_map={7: 1}), None),
            ([0, 7], dict(num_classes=2, label_map={7: 255}), None),
            ([0, 200], dict(num_classes=None), None),
        ],
    )
    def test_labels(self, tmp_path, values, settings, words):
        labels = np.resize(np.array(values, np.uint8), (6, 9))
        Image.fromarray(labels).save(tmp_path / 'a.png')
        assert labels_problem(tmp_path / 'a.png', (9, 6), **settings) == words
        assert labels_problem(tmp_path / 'a.png', (6, 9), **settings) == 'is 9x6 pixels; its image is 6x9'

    def test_labels_that_are_none(self, tmp_path):
        path = tmp_path / 'a.png'
        path.write_bytes(picture(format='PNG'))
        assert 'is no label map' in labels_problem(path, None, 3)
        Image.fromarray(np.full((6, 9), 300, np.uint16)).save(path)
        assert 'has labels 300' in labels_problem(path, (9, 6), 3)
        path.write_bytes(picture(mode='P', format='PNG'))  # a palette's indices are the labels
        assert labels_problem(path, None, None) is None

    def test_error_of_a_worker_is_its_message(self):
        inner = DataError('a.jpg: is empty\n  second line')
        text = f'Caught DataError in worker 0.\nTraceback ...\n{DataError.__module__}.DataError: {inner}\n'
        assert str(DataError(text)) == str(inner) == 'a.jpg: is empty\n  second line'

    def test_a_label_map_of_another_size(self, tmp_path):
        faults = FaultList(tmp_path / 'list.txt', 3)
        load = Guard(lambda results: dict(results, gt_seg_map=np.zeros((5, 9))), faults)
        assert load(dict(img=0, img_path='a.jpg', seg_map_path='a.png', ori_shape=(5, 9))) is not None
        assert load(dict(img=0, img_path='a.jpg', seg_map_path='a.png', ori_shape=(6, 9))) is None
        assert faults.lines() == ['a.png\tis 9x5 pixels; its image is 9x6']

    def test_what_is_no_fault_of_the_data(self, tmp_path):
        def no_package(results):
            raise ImportError('no turbojpeg')

        with pytest.raises(ImportError, match='turbojpeg'):
            Guard(no_package, FaultList(tmp_path / 'x', 5))(dict(img_path='a.jpg'))

    def test_a_guard_travels(self, tmp_path):
        copy = pickle.loads(pickle.dumps(Guard(dict, FaultList(tmp_path / 'x', 5))))
        assert copy(dict(img_path='a')) == dict(img_path='a') and copy.faults.limit == 5

    @pytest.mark.parametrize('limit', [-1, 1.5, '3', True])
    def test_limits_that_are_none(self, limit):
        with pytest.raises(UserError, match='max_faulty_files is a number of files'):
            _faulty_files(dict(max_faulty_files=limit))


def test_a_worker_of_the_loader_names_the_file(tmp_path):
    """The error crosses from a worker process as text."""

    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            FaultList(tmp_path / 'x', 0).add('a.jpg', 'is empty')

    with pytest.raises(DataError, match=r'^a.jpg: is empty\. tools/check_data.py'):
        list(DataLoader(One(), num_workers=1))


def test_hook_on_other_ranks_is_silent(tmp_path):
    runner = StubRunner(tmp_path)
    runner.rank = 1
    faults = FaultList(tmp_path / 'faulty_files.txt', 5)
    faults.add('a.jpg', 'is empty')
    FaultyFilesHook(faults).after_train_iter(runner, 0)
    assert not runner.said


def options(root, workers=2):
    loaders = [
        f'{s}_dataloader.{k}'
        for s in ('train', 'val', 'test')
        for k in (f'num_workers={workers}', 'persistent_workers=False')
    ]
    return [f'data_root={root}/', 'train_dataloader.batch_size=2', *loaders, 'default_hooks.logger.interval=1']


def tool(name, *args, cwd):
    command = [str(a) for a in (sys.executable, '-W', 'ignore', ROOT / 'tools' / name, *args)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


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
    code, said = tool('train.py', config, '--work-dir', 'w', *settings, f'max_faulty_files={len(bad)}', cwd=tmp_path)
    assert code == 0, said[-3000:]
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
    code, said = tool('test.py', config, checkpoint, '--work-dir', 't', *settings, cwd=tmp_path)
    assert code == 1 and f'error: {image}: ' in said and 'Evaluation passes over nothing' in said
    # What a worker of the dataloader prints when it is ended, rarely and after the message, is torch's.
    assert 'Traceback' not in said.split('error: ')[0], said[-3000:]


@pytest.mark.slow
def test_strict_data(data, tmp_path):
    (bad,) = list(spoil(data / 'imagenet'))[:1]
    config = ROOT / 'configs' / CONFIGS['imagenet']
    settings = ['--work-dir', 'w', '--cfg-options', *options(data / 'imagenet')]
    code, said = tool('train.py', config, '--strict-data', *settings, cwd=tmp_path)
    before, message = said.split('\nerror: ')
    assert code == 1 and 'Traceback' not in before and message.startswith(str(data / 'imagenet/train'))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo')
def test_two_processes_share_the_limit(data, tmp_path):
    root = data / 'coco'
    bad = spoil(root)
    settings = ['--cfg-options', *options(root, 1), 'train_cfg.max_epochs=3', 'max_faulty_files=3']
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
