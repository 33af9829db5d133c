"""Real training and evaluation with the frameworks' own runners, in miniature."""

import importlib.util
import pickle
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from helpers.processes import tool
from helpers.training import (
    ANY_SCORE,
    CLASSIFICATION,
    DETECTION,
    MASK,
    METRIC,
    SEGMENTATION,
    history,
    options,
    run,
)

from mlp_backbones.engine.config import load_config

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('config', METRIC)
def test_train_resume_and_test(config, shapes, tmp_path):
    name = ROOT / 'configs' / config
    settings = ['--cfg-options', *options(config, shapes)]
    tool('train.py', name, '--work-dir', 'work', *settings, cwd=tmp_path)
    training, evaluation = history(tmp_path / 'work')
    assert [r['step'] for r in training][-1] == 3
    assert all(r['loss'] == pytest.approx(r['loss']) and 0 < r['loss'] < 1e3 for r in training)
    assert METRIC[config] in evaluation[-1]
    last = Path((tmp_path / 'work/last_checkpoint').read_text())
    assert last.is_file()

    _, said = tool('train.py', name, '--work-dir', 'work', '--resume', *settings, cwd=tmp_path)
    assert f'Load checkpoint from {last}' in said

    out = 'masks' if config == SEGMENTATION else 'predictions.pkl'
    tool(
        *('test.py', name, last, '--work-dir', 'test', '--out', out, '--show-dir', 'pictures', *settings),
        cwd=tmp_path,
    )
    if config == SEGMENTATION:
        assert len(list((tmp_path / out).glob('*.png'))) == 5
    else:
        assert len(pickle.loads((tmp_path / out).read_bytes())) == 5
    assert len([p for p in (tmp_path / 'pictures').rglob('*') if p.suffix in ('.png', '.jpg')]) == 5
    if config == DETECTION:
        coco = shapes / 'coco'
        tool(
            *('draw_detections.py', out, coco / 'annotations/instances_val2017.json', coco / 'val2017', 'picture.png'),
            *('--num', 4, '--score', 0),
            cwd=tmp_path,
        )
        assert (tmp_path / 'picture.png').stat().st_size > 10_000


def checkpoint_of(config, path):
    """A file with weights for a config: random, which is enough to compare how they are used."""
    from mlp_backbones.apis.zoo import build_model
    from mlp_backbones.engine.config import load_config

    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(load_config(str(ROOT / 'configs' / config))).state_dict()), path)
    return path


FLIPPED = {
    'detection': 'detection/retinanet_gmlp_p8_sfp_shapes.py',
    'segmentation': 'segmentation/sfp_gmlp_p8_shapes.py',
    'classification': 'classification/gmlp_p8_shapes.py',
}


@pytest.mark.parametrize('task', FLIPPED)
def test_test_time_augmentation(task, shapes, tmp_path):
    """Both views reach the model, and their mean is what is evaluated: an image and its mirror predict the same."""
    config = FLIPPED[task]
    checkpoint = checkpoint_of(config, tmp_path / 'a.pth')
    settings = ['--cfg-options', *options(config, shapes), *(ANY_SCORE[DETECTION] if task == 'detection' else [])]
    outs = {}
    for name, views in (('plain', []), ('tta', ['--tta'])):
        out = name if task == 'segmentation' else f'{name}.pkl'
        command = [ROOT / 'configs' / config, checkpoint, '--work-dir', 'w', '--out', out, *views]
        _, said = tool('test.py', *command, *settings, cwd=tmp_path)
        metric = METRIC[{'detection': DETECTION, 'segmentation': SEGMENTATION, 'classification': CLASSIFICATION}[task]]
        assert re.search(metric + r': +[-0-9.]+', said)
        outs[name] = tmp_path / out
    if task == 'segmentation':
        plain, tta = (sorted(outs[name].glob('*.png')) for name in ('plain', 'tta'))
        assert [p.name for p in plain] == [p.name for p in tta] and len(tta) == 5
        return
    plain, tta = (pickle.loads(outs[name].read_bytes()) for name in ('plain', 'tta'))
    assert len(plain) == len(tta) == 5
    if task == 'classification':
        assert [s['img_path'] for s in plain] == [s['img_path'] for s in tta]
        assert all(torch.isclose(s['pred_score'].sum(), torch.tensor(1.0)) for s in tta)
        assert not any(torch.equal(a['pred_score'], b['pred_score']) for a, b in zip(plain, tta))
    else:
        assert all(len(s['pred_instances']['scores']) for s in tta)


def test_label_maps_are_written_by_every_evaluator_of_a_list():
    save = runpy.run_path(str(ROOT / 'tools/test.py'))['save_predictions']
    cfg = load_config(str(ROOT / 'configs' / FLIPPED['segmentation']))
    cfg.test_evaluator = [cfg.test_evaluator]
    save(cfg, 'maps', None)
    assert (cfg.test_evaluator[0].output_dir, cfg.test_evaluator[0].keep_results) == ('maps', True)


def test_masks_are_not_merged(shapes, tmp_path):
    config = 'detection/maskrcnn_gmlp_p8_sfp_shapes.py'
    command = [ROOT / 'configs' / config, checkpoint_of(config, tmp_path / 'a.pth'), '--tta', '--work-dir', 'w']
    settings = ['--cfg-options', *options(config, shapes)]
    code, said = tool('test.py', *command, *settings, cwd=tmp_path, check=False)
    assert code == 1 and 'Traceback' not in said
    assert "predicts masks, and mmdet's DetTTAModel merges boxes only: test without --tta" in said


def test_a_background_that_is_a_class(shapes, tmp_path):
    """As docs/training.md has it, on label maps whose 0 is learned."""
    (tmp_path / 'c.py').write_text(
        f"_base_ = '{ROOT}/configs/{SEGMENTATION}'\n"
        "names = dict(classes=('a', 'b', 'c', 'd', 'e'), palette=[[i, i, i] for i in range(5)])\n"
        'mine = dict(reduce_zero_label=False, metainfo=names)\n'
        'train_dataloader = dict(dataset=mine)\nval_dataloader = dict(dataset=mine)\n'
        'test_dataloader = val_dataloader\nmodel = dict(decode_head=dict(num_classes=5))\n'
    )
    settings = ['--work-dir', 'w', '--cfg-options', *options(SEGMENTATION, shapes)]
    tool('train.py', 'c.py', *settings, cwd=tmp_path)
    training, evaluation = history(tmp_path / 'w')
    assert len(training) == 3 and 'mIoU' in evaluation[-1]
    assert not list((tmp_path / 'w').rglob('faulty_files.txt'))
    # One label more than the head has ends it, with the file.
    code, said = tool(
        *('train.py', 'c.py', *settings, 'model.decode_head.num_classes=4'),
        *(f'{split}_dataloader.dataset.metainfo.classes=(a,b,c,d)' for split in ('train', 'val', 'test')),
        *(
            f'{split}_dataloader.dataset.metainfo.palette=[[0,0,0],[1,1,1],[2,2,2],[3,3,3]]'
            for split in ('train', 'val')
        ),
        cwd=tmp_path,
        check=False,
    )
    assert code == 1 and 'Traceback' not in said
    assert re.search(r'error: \S+/annotations/training/\d+\.png: has labels 4, as loaded; model.decode_head', said)


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
    tool('train.py', name, '--work-dir', 'w', '--cfg-options', *settings, cwd=tmp_path)
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
    if name == 'maskrcnn':  # fewer proposals than for real images
        settings += ['model.test_cfg.rpn.max_per_img=50', 'model.train_cfg.rpn_proposal.max_per_img=50']
        settings += ['model.train_cfg.rcnn.sampler.num=32', 'model.test_cfg.rcnn.max_per_img=20']
    _, said = tool('train.py', config, '--work-dir', 'w', '--cfg-options', *settings, cwd=tmp_path)
    assert 'has classes of its own, circle, square, triangle' in said
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
    tool(script, name, '--work-dir', 'w', '--cfg-options', *settings, cwd=tmp_path)
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
