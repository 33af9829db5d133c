"""Real runs of the frameworks in miniature: configs, options, and what a run logged."""

import argparse
import json
import os
import subprocess

from mlp_backbones.engine.launch import prepare

DETECTION = 'detection/retinanet_convmlp_s_fpn_shapes.py'
MASK = 'detection/maskrcnn_convmlp_s_fpn_shapes.py'
SEGMENTATION = 'segmentation/fpn_convmlp_s_shapes.py'
CLASSIFICATION = 'classification/convmlp_s_shapes.py'
DATA = {'detection': 'coco', 'segmentation': 'ade', 'classification': 'imagenet'}
METRIC = {DETECTION: 'coco/bbox_mAP', MASK: 'coco/segm_mAP', SEGMENTATION: 'mIoU', CLASSIFICATION: 'accuracy/top1'}
# Three iterations leave every score low; without any detection COCO's metrics would be left out.
ANY_SCORE = {DETECTION: ['model.test_cfg.score_thr=0.0'], MASK: ['model.test_cfg.rcnn.score_thr=0.0']}
BACKBONE = """dict(
    _delete_=True,
    type='mlp_backbones.ConvMLP',
    arch=dict(channels=8, conv_blocks=1, dims=(8, 16, 16), depths=(1, 1, 1), mlp_ratios=(1, 1, 1)),
    out_indices={out_indices},
    drop_path_rate=0.3,
)"""
# Augmentation, drop path, mixup, a moving average and a learning rate that changes every iteration: all must continue.
BY_EPOCH = """
_base_ = '{configs}/classification/convmlp_s_shapes.py'
model = dict(
    backbone={backbone}, head=dict(in_channels=16), train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)])
)
train_dataloader = dict(batch_size=4, num_workers=2, persistent_workers=True)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=6, val_interval=6)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1), logger=dict(interval=1))
randomness = dict(seed=3)
"""
BY_ITERATION = """
_base_ = '{configs}/segmentation/fpn_convmlp_s_shapes.py'
model = dict(backbone={backbone}, neck=dict(in_channels=[8, 8, 16, 16]))
train_dataloader = dict(batch_size=2, num_workers=2, persistent_workers=True)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_iters=36, val_interval=36)
default_hooks = dict(checkpoint=dict(interval=6, max_keep_ckpts=1), logger=dict(interval=1))
randomness = dict(seed=3)
"""
# A small model, sharded; three iterations an epoch of one process.
FSDP = """
_base_ = '{configs}/classification/resmlp_big_24_imagenet_fsdp.py'
arch = dict(patch_size=8, dim=64, depth=2, mlp_ratio=4, layer_scale=0.1)
model = dict(
    backbone=dict(_delete_=True, type='mlp_backbones.ResMLP', arch=arch, img_size=64, final_norm=True),
    head=dict(num_classes=3, in_channels=64),
    train_cfg=None,
)
strategy = dict(model_wrapper=dict(auto_wrap_policy=dict(min_num_params=30000)))
data_root = '{data}'
data_preprocessor = dict(num_classes=3)
dataset = dict(_delete_=True, type='CustomDataset', data_root=data_root)
dataset['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(data_prefix='train', **dataset), batch_sampler=dict(drop_last=False), **loader)
val_dataloader = dict(dataset=dict(data_prefix='val', **dataset), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1.0)
default_hooks = dict(logger=dict(interval=1))
"""


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


def ready(config, work_dir, train=True, launcher='none', **options):
    """Return a config as tools/train.py or tools/test.py prepares it; ``options`` are those of ``--cfg-options``."""
    args = argparse.Namespace(
        config=str(config), work_dir=str(work_dir), cfg_options=options, launcher=launcher, local_rank=0
    )
    return prepare(args, train=train)
