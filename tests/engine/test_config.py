"""Configs read and changed by options."""

import importlib
import sys

import pytest
import torch
from helpers import CONFIGS
from mmengine.registry import DefaultScope

from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.errors import InvalidValue, UserError

RETINANET = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py')
SHAPES = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_shapes.py')


@pytest.mark.parametrize('name', ['segmentation/fpn_convmlp_s_512x512_40k_ade20k', 'classification/convmlp_s_imagenet'])
def test_data_root_of_the_other_tasks(shapes, name):
    root = str(shapes / ('ade' if 'ade' in name else 'imagenet'))
    cfg = load_config(str(CONFIGS / f'{name}.py'), dict(data_root=root))
    assert {cfg[f'{s}_dataloader'].dataset.data_root for s in ('train', 'val', 'test')} == {root}


def test_data_root_in_an_inheriting_config(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = '{RETINANET}'\ndata_root = '/mine/'\n")
    cfg = load_config(str(child))
    assert cfg.train_dataloader.dataset.data_root == '/mine/'
    assert cfg.val_evaluator.ann_file == '/mine/annotations/instances_val2017.json'
    # A dataset that was given a root of its own keeps it.
    child.write_text(f"_base_ = '{RETINANET}'\ntrain_dataloader = dict(dataset=dict(data_root='/other/'))\n")
    cfg = load_config(str(child), dict(data_root='/mine/'))
    assert cfg.train_dataloader.dataset.data_root == '/other/'
    assert cfg.val_dataloader.dataset.data_root == '/mine/'


def test_data_root_within_the_one_of_the_base(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(
        f"_base_ = '{RETINANET}'\ndata_root = 'data/coco/mine/'\n"
        "val_evaluator = dict(ann_file=data_root + 'val.json')\n"
    )
    cfg = load_config(str(child))
    assert (cfg.val_evaluator.ann_file, cfg.val_dataloader.dataset.data_root) == (
        'data/coco/mine/val.json',
        'data/coco/mine/',
    )
    cfg = load_config(str(child), dict(data_root='data/'))
    assert cfg.val_evaluator.ann_file == 'data/val.json'
    cfg = load_config(RETINANET, dict(data_root='data/coco/mine/'))
    assert cfg.val_evaluator.ann_file == 'data/coco/mine/annotations/instances_val2017.json'


@pytest.mark.parametrize('task', ['segmentation', 'classification'])
def test_data_root_that_a_config_computes(tmp_path, task):
    """The values count, not how they are written."""
    name = {'segmentation': 'fpn_convmlp_s_512x512_40k_ade20k', 'classification': 'convmlp_s_imagenet'}[task]
    base = tmp_path / 'base.py'
    base.write_text(
        f"_base_ = '{CONFIGS / task / name}.py'\n"
        "ROOT = '/sets/'\ndata_root = ROOT + 'first/'\n"
        'train_dataloader = dict(dataset=dict(data_root=data_root))\n'
    )
    child = tmp_path / 'child.py'
    child.write_text("_base_ = 'base.py'\nROOT = '/sets/'\ndata_root = ROOT + 'second/'\n")
    for options, root in (({}, '/sets/second/'), (dict(data_root='/third/'), '/third/')):
        cfg = load_config(str(child), options)
        assert [cfg[f'{s}_dataloader'].dataset.data_root for s in ('train', 'val', 'test')] == [root] * 3


@pytest.mark.parametrize(
    ('name', 'sizes'),
    [
        ('detection/retinanet_convmlp_s_fpn_1x_coco.py', [(800, 1000), (400, 500), (1200, 1500)]),
        ('segmentation/fpn_convmlp_s_512x512_40k_ade20k.py', [(256 * i // 2, 256 * i // 2) for i in range(2, 8)]),
        (SHAPES, [(128, 160)]),
        ('segmentation/sfp_gmlp_p8_shapes.py', [(96, 96)]),
    ],
)
def test_views_of_test_time_augmentation(shapes, name, sizes):
    """Each size, and each mirrored; what the model predicts is told apart by the flip."""
    cfg = load_config(str(CONFIGS / name), dict(data_root=f'{shapes / ("coco" if "detection" in name else "ade")}/'))
    node = dict(cfg.test_dataloader.dataset, pipeline=cfg.tta_pipeline, serialize_data=False)
    if 'detection' in name:
        node['metainfo'] = dict(classes=('circle', 'square', 'triangle'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        views = importlib.import_module(f'{cfg.default_scope}.registry').DATASETS.build(node)[0]
    assert [tuple(view.shape[1:]) for view in views['inputs'][::2]] == sizes
    assert [sample.flip for sample in views['data_samples']] == [False, True] * len(sizes)
    assert all(torch.equal(a, b.flip(-1)) for a, b in zip(views['inputs'][::2], views['inputs'][1::2]))


def test_config_that_is_not_there():
    with pytest.raises(UserError, match='^the config .*/retinanet_convmlp_x_fpn_1x_coco.py does not exist$'):
        load_config(RETINANET.replace('_s_', '_x_'))


def test_config_with_an_error(tmp_path):
    (tmp_path / 'c.py').write_text('model = dict(')
    with pytest.raises(UserError, match='c.py is not a valid config: SyntaxError'):
        load_config(str(tmp_path / 'c.py'))


def test_base_file():
    with pytest.raises(UserError, match='no `model`'):
        load_config(str(CONFIGS / 'detection/_base_/datasets/coco_detection.py'))


@pytest.mark.parametrize('key', ['lr', 'optimizer.lr', 'optim_wraper.optimizer.lr'])
def test_options_that_nothing_reads(key):
    match = f'--cfg-options {key}: .* does not have this setting; did you mean .*optim_wrapper.optimizer.lr'
    with pytest.raises(UserError, match=match):
        load_config(RETINANET, {key: 1e-3})
    # What a config need not have is fine.
    cfg = load_config(RETINANET, {'randomness.seed': 1, 'default_hooks.logger.interval': 5})
    assert cfg.randomness.seed == 1


@pytest.mark.parametrize(
    ('key', 'part', 'close'),
    [
        ('optim_wrapper.optimiser.lr', 'optimiser', 'optimizer'),
        ('train_dataloader.batchsize', 'batchsize', 'batch_size'),
        ('train_cfg.max_epoch', 'max_epoch', 'max_epochs'),
        ('model.box_head.num_classes', 'box_head', 'bbox_head'),
        ('param_scheduler.0.start_facter', 'start_facter', 'start_factor'),
        ('model.test_cfg.scor_thr', 'scor_thr', 'score_thr'),
    ],
)
def test_dotted_options_close_to_another(key, part, close, capsys):
    load_config(RETINANET, {key: 1})
    said = f"warning: --cfg-options {key}: the config has no '{part}' there; did you mean {close}?\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    'options',
    [
        {'optim_wrapper.clip_grad.max_norm': 1, 'optim_wrapper.paramwise_cfg.norm_decay_mult': 0.0},
        {'optim_wrapper.optimizer.type': 'SGD', 'optim_wrapper.optimizer.momentum': 0.9},
        {'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor', 'optim_wrapper.dtype': 'bfloat16'},
        {'train_dataloader.prefetch_factor': 4, 'train_dataloader.num_batch_per_epoch': 3},
        {'train_dataloader.dataset.metainfo.classes': ('a', 'b'), 'train_dataloader.dataset.indices': 5},
        {'param_scheduler.0.convert_to_iter_based': True, 'train_cfg.dynamic_intervals': [(1, 2)]},
        {'default_hooks.checkpoint.save_best': 'auto', 'default_hooks.checkpoint.priority': 'LOW'},
        {'default_hooks.mine.type': 'IterTimerHook', 'model.neck.norm_cfg.requires_grad': False},
        {'custom_hooks.0.momentum': 0.1, 'model.test_cfg.with_nms': True, 'model.backbone.frozen_stages': 1},
    ],
)
def test_dotted_options_that_are_read(tmp_path, capsys, options):
    config = tmp_path / 'c.py'
    config.write_text(f"_base_ = '{RETINANET}'\ncustom_hooks = [dict(type='EMAHook')]\n")
    load_config(str(config), options)
    assert capsys.readouterr().out == ''


def test_options_that_code_of_the_user_reads(tmp_path, capsys):
    config = tmp_path / 'c.py'
    config.write_text(f"_base_ = '{RETINANET}'\nlr = None\nmy_setting = dict(a=1)\n")
    cfg = load_config(str(config), {'lr': 1, 'my_setting.b': 3})
    assert (cfg.lr, cfg.my_setting) == (1, dict(a=1, b=3))
    assert capsys.readouterr().out == ''
    # What resembles nothing is let through, with a word.
    assert load_config(RETINANET, {'zebra_stripes': 7}).zebra_stripes == 7
    assert 'warning: --cfg-options zebra_stripes: ' in capsys.readouterr().out


def test_modules_that_an_option_names_are_imported(tmp_path, monkeypatch, capsys):
    (tmp_path / 'imported_by_an_option.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    load_config(RETINANET, {'custom_imports.imports': ['imported_by_an_option']})
    assert 'imported_by_an_option' in sys.modules and capsys.readouterr().out == ''
    with pytest.raises(UserError, match='do not fit .*Failed to import not_there'):
        load_config(RETINANET, {'custom_imports': dict(imports=['not_there'])})


def test_name_that_is_not_in_the_zoo():
    with pytest.raises(InvalidValue, match="no model 'retinanet_convmlp_x'; did you mean retinanet_conv"):
        load_config('retinanet_convmlp_x')


def test_options_that_do_not_fit():
    with pytest.raises(UserError, match='do not fit'):
        load_config(RETINANET, {'data_root.x': 1})


def test_framework_that_is_not_installed(tmp_path, monkeypatch):
    from mlp_backbones.utils import environment

    def absent(name):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name) if name == 'mmdet' else AssertionError

    real = environment.importlib.import_module
    monkeypatch.setattr(
        environment.importlib, 'import_module', lambda name: absent(name) if name == 'mmdet' else real(name)
    )
    with pytest.raises(environment.MissingDependency, match='mmdet is not installed.*\n.*pip install'):
        load_config(RETINANET)


def test_paths_as_objects(tmp_path):
    """In a config as in torch: what is a Path becomes a string before anything reads it."""
    (tmp_path / 'x.py').write_text(
        f"_base_ = '{CONFIGS / 'detection/retinanet_convmlp_s_fpn_shapes.py'}'\n"
        "Path = __import__('pathlib').Path\n"  # upstream takes an import for another kind of config
        "load_from = Path('a.pth')\nwork_dir = Path('work')\n"
        "model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=Path('b.pth'))))\n"
    )
    cfg = load_config(tmp_path / 'x.py')
    found = (cfg.load_from, cfg.work_dir, cfg.model.backbone.init_cfg.checkpoint)
    assert found == ('a.pth', 'work', 'b.pth')
