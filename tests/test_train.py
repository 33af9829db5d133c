"""Real training and evaluation with the frameworks' own runners, in miniature."""

import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
DETECTION = 'detection/retinanet_convmlp_s_fpn_shapes.py'
MASK = 'detection/maskrcnn_convmlp_s_fpn_shapes.py'
SEGMENTATION = 'segmentation/fpn_convmlp_s_shapes.py'
CLASSIFICATION = 'classification/convmlp_s_shapes.py'
DATA = {'detection': 'coco', 'segmentation': 'ade', 'classification': 'imagenet'}
METRIC = {DETECTION: 'coco/bbox_mAP', MASK: 'coco/segm_mAP', SEGMENTATION: 'mIoU', CLASSIFICATION: 'accuracy/top1'}
# Three iterations leave every score low; without any detection COCO's metrics would be left out.
ANY_SCORE = {DETECTION: ['model.test_cfg.score_thr=0.0'], MASK: ['model.test_cfg.rcnn.score_thr=0.0']}
pytestmark = pytest.mark.slow


def options(config, shapes, batch=2):
    """One epoch of three iterations, or three iterations, then one evaluation."""
    task = config.split('/')[0]
    loop = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'default_hooks.checkpoint.interval=3']
    if task != 'segmentation':
        loop = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
    loaders = [
        f'{s}_dataloader.{k}' for s in ('train', 'val', 'test') for k in ('num_workers=0', 'persistent_workers=False')
    ]
    return [
        f'data_root={shapes / DATA[task]}/',
        f'train_dataloader.batch_size={batch}',
        *loaders,
        *loop,
        'default_hooks.logger.interval=1',
        'randomness.seed=0',
        *ANY_SCORE.get(config, []),
    ]


def run(*command, cwd, check=True, **env):
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, env={**os.environ, **env})
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def history(work_dir):
    """(training records, evaluation records) of the newest run in ``work_dir``."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda p: p.stat().st_mtime)
    records = [json.loads(line) for line in newest.read_text().splitlines()]
    return [r for r in records if 'loss' in r], [r for r in records if 'loss' not in r]


@pytest.mark.parametrize('config', METRIC)
def test_train_resume_and_test(config, shapes, tmp_path):
    name = ROOT / 'configs' / config
    settings = ['--cfg-options', *options(config, shapes)]
    run(sys.executable, ROOT / 'tools/train.py', name, '--work-dir', 'work', *settings, cwd=tmp_path)
    training, evaluation = history(tmp_path / 'work')
    assert [r['step'] for r in training][-1] == 3
    assert all(r['loss'] == pytest.approx(r['loss']) and 0 < r['loss'] < 1e3 for r in training)
    assert METRIC[config] in evaluation[-1]
    last = Path((tmp_path / 'work/last_checkpoint').read_text())
    assert last.is_file()

    again = run(
        sys.executable, ROOT / 'tools/train.py', name, '--work-dir', 'work', '--resume', *settings, cwd=tmp_path
    )
    assert f'Load checkpoint from {last}' in again.stdout + again.stderr

    out = 'masks' if config == SEGMENTATION else 'predictions.pkl'
    run(
        *(sys.executable, ROOT / 'tools/test.py', name, last, '--work-dir', 'test', '--out', out),
        *('--show-dir', 'pictures', *settings),
        cwd=tmp_path,
    )
    if config == SEGMENTATION:
        assert len(list((tmp_path / out).glob('*.png'))) == 5
    else:
        assert len(pickle.loads((tmp_path / out).read_bytes())) == 5
    assert len([p for p in (tmp_path / 'pictures').rglob('*') if p.suffix in ('.png', '.jpg')]) == 5
    if config == DETECTION:
        coco = shapes / 'coco'
        run(
            *(sys.executable, ROOT / 'tools/draw_detections.py', out, coco / 'annotations/instances_val2017.json'),
            *(coco / 'val2017', 'picture.png', '--num', 4, '--score', 0),
            cwd=tmp_path,
        )
        assert (tmp_path / 'picture.png').stat().st_size > 10_000


OTHERS = {
    f'{task}/{name}': metric
    for family, neck in (('resmlp_p8', 'sfp'), ('gmlp_p8', 'sfp'), ('repmlp_t224', 'fpn'))
    for task, name, metric in (
        ('detection', f'retinanet_{family}_{neck}_shapes.py', METRIC[DETECTION]),
        ('detection', f'maskrcnn_{family}_{neck}_shapes.py', METRIC[MASK]),
        ('segmentation', f'{neck}_{family}_shapes.py', METRIC[SEGMENTATION]),
        ('classification', f'{family}_shapes.py', METRIC[CLASSIFICATION]),
    )
}


@pytest.mark.parametrize('config', OTHERS)
def test_the_other_families_train_and_evaluate(config, shapes, tmp_path):
    settings = options(config, shapes)
    if config.startswith('detection'):
        settings += ANY_SCORE[MASK if 'maskrcnn' in config else DETECTION]
    name = ROOT / 'configs' / config
    run(sys.executable, ROOT / 'tools/train.py', name, '--work-dir', 'w', '--cfg-options', *settings, cwd=tmp_path)
    training, evaluation = history(tmp_path / 'w')
    assert [r['step'] for r in training][-1] == 3
    assert all(0 < r['loss'] < 1e3 for r in training)
    assert OTHERS[config] in evaluation[-1]


@pytest.mark.parametrize('name', ['retinanet', 'maskrcnn'])
def test_coco_config_on_another_folder(name, shapes, tmp_path):
    config = ROOT / f'configs/detection/{name}_convmlp_s_fpn_1x_coco.py'
    settings = [f'data_root={shapes / "coco"}', 'model.backbone.init_cfg=None', 'train_cfg.max_epochs=1']
    settings += ['default_hooks.logger.interval=1', *ANY_SCORE[DETECTION if name == 'retinanet' else MASK]]
    settings += [f'{s}_dataloader.dataset.pipeline.{i}.scale=(160,128)' for s, i in (('train', 2), ('val', 1))]
    done = run(
        sys.executable, ROOT / 'tools/train.py', config, '--work-dir', 'w', '--cfg-options', *settings, cwd=tmp_path
    )
    assert 'has classes of its own, circle, square, triangle' in done.stdout
    training, evaluation = history(tmp_path / 'w')
    assert len(training) == 3 and 'coco/bbox_mAP' in evaluation[-1]


@pytest.mark.parametrize('config', METRIC)
def test_the_hosts_own_train_script(config, shapes, tmp_path):
    host = {'detection': 'mmdet', 'segmentation': 'mmseg', 'classification': 'mmpretrain'}[config.split('/')[0]]
    script = Path(importlib.util.find_spec(host).origin).parent / '.mim/tools/train.py'
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/shapes').symlink_to(shapes)
    settings = [o for o in options(config, shapes) if not o.startswith('data_root')]
    name = ROOT / 'configs' / config
    run(sys.executable, script, name, '--work-dir', 'w', '--cfg-options', *settings, cwd=tmp_path)
    training, evaluation = history(tmp_path / 'w')
    assert training and METRIC[config] in evaluation[-1]


HOOK = """
from pathlib import Path
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class MeanLoss(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, 'mean')
        if is_main_process():
            with Path(runner.work_dir, 'losses.txt').open('a') as file:
                print(loss.item(), file=file)
"""
FIXED = """
_base_ = {base!r}
custom_imports = dict(imports=['mean_loss'])
model = dict(backbone=dict(norm_eval=True, drop_path_rate=0.0), train_cfg=None)
train_dataloader = dict(
    sampler=dict(shuffle=False), dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4))
custom_hooks = [dict(type='MeanLoss')]
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason='compares processes on a CPU')
def test_two_processes_equal_one(shapes, tmp_path):
    """The same global batches give the same losses; no augmentation, no dropping, BatchNorm in eval mode."""
    (tmp_path / 'mean_loss.py').write_text(HOOK)
    (tmp_path / 'fixed.py').write_text(FIXED.format(base=str(ROOT / 'configs' / CLASSIFICATION)))
    losses, accuracies = [], []
    for processes, batch in ((1, 4), (2, 2)):
        settings = ['--cfg-options', *options(CLASSIFICATION, shapes, batch), 'train_cfg.max_epochs=5']
        work = tmp_path / f'work dir {processes}'
        run(
            *(ROOT / 'tools/dist_train.sh', 'fixed.py', processes, '--work-dir', work, *settings),
            cwd=tmp_path,
            PYTHON=sys.executable,
            PYTHONPATH=str(tmp_path),
        )
        losses.append([float(line) for line in (work / 'losses.txt').read_text().split()])
        accuracies.append(history(work)[1][-1]['accuracy/top1'])
    assert len(losses[0]) == 10 and losses[0][-1] < 0.9 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert accuracies[0] == accuracies[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo')
@pytest.mark.parametrize('config', [DETECTION, SEGMENTATION])
def test_two_processes_train_and_test(config, shapes, tmp_path):
    name = ROOT / 'configs' / config
    settings = ['--cfg-options', *options(config, shapes)]
    done = run(ROOT / 'tools/dist_train.sh', name, 2, '--work-dir', 'w', *settings, cwd=tmp_path, PYTHON=sys.executable)
    assert 'gloo instead of NCCL' in done.stdout
    assert ('BN instead of SyncBN' in done.stdout) is (config == SEGMENTATION)
    last = (tmp_path / 'w/last_checkpoint').read_text()
    command = [ROOT / 'tools/dist_test.sh', name, last, 2, '--work-dir', 't', *settings]
    done = run(*command, cwd=tmp_path, PYTHON=sys.executable)
    assert re.search(METRIC[config] + r': +[-0-9.]+', done.stdout + done.stderr)
