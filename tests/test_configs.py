"""Every config loads, builds and has the parameters that its papers' code has."""

import importlib
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
URL = 'https://shi-labs.com/projects/convmlp/checkpoints/convmlp_{}_imagenet.pth'

PARAMETERS = {
    'classification/convmlp_s_imagenet.py': 9_022_920,
    'classification/convmlp_m_imagenet.py': 17_410_504,
    'classification/convmlp_l_imagenet.py': 42_728_440,
    'classification/convmlp_s_cifar10.py': 8_515_050,
    'classification/convmlp_s_cifar100.py': 8_561_220,
    'classification/convmlp_s_flowers102.py': 8_562_246,
    'classification/convmlp_m_cifar10.py': 16_902_634,
    'classification/convmlp_m_cifar100.py': 16_948_804,
    'classification/convmlp_m_flowers102.py': 16_949_830,
    'classification/convmlp_l_cifar10.py': 41_967_130,
    'classification/convmlp_l_cifar100.py': 42_036_340,
    'classification/convmlp_l_flowers102.py': 42_037_878,
    'classification/convmlp_s_shapes.py': 8_511_459,
    'detection/retinanet_convmlp_s_fpn_1x_coco.py': 18_742_484,
    'detection/retinanet_convmlp_m_fpn_1x_coco.py': 27_130_068,
    'detection/retinanet_convmlp_l_fpn_1x_coco.py': 52_896_004,
    # 77 classes fewer: 77 x 9 anchors x (256 x 3 x 3 weights and a bias)
    'detection/retinanet_convmlp_s_fpn_shapes.py': 18_742_484 - 77 * 9 * 2305,
    'detection/maskrcnn_convmlp_s_fpn_1x_coco.py': 28_659_920,
    'detection/maskrcnn_convmlp_m_fpn_1x_coco.py': 37_047_504,
    'detection/maskrcnn_convmlp_l_fpn_1x_coco.py': 62_231_808,
    # 77 classes fewer: scores, four box offsets, masks
    'detection/maskrcnn_convmlp_s_fpn_shapes.py': 28_659_920 - 77 * (5 * 1025 + 257),
    'segmentation/fpn_convmlp_s_512x512_40k_ade20k.py': 12_759_158,
    'segmentation/fpn_convmlp_m_512x512_40k_ade20k.py': 21_146_742,
    'segmentation/fpn_convmlp_l_512x512_40k_ade20k.py': 46_331_046,
    'segmentation/fpn_convmlp_s_shapes.py': 12_759_158 - 146 * 129,
}


def build(cfg):
    scope = cfg.default_scope
    importlib.import_module(f'{scope}.models')
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return importlib.import_module(f'{scope}.registry').MODELS.build(model)


def test_every_config_is_listed():
    assert {str(p.relative_to(CONFIGS)) for p in CONFIGS.glob('*/*.py')} == set(PARAMETERS)


@pytest.mark.parametrize('name', PARAMETERS)
def test_builds_with_its_parameters(name):
    cfg = Config.fromfile(CONFIGS / name)
    with torch.device('meta'):
        model = build(cfg)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('name', PARAMETERS)
def test_weights(name):
    init_cfg = Config.fromfile(CONFIGS / name).model.backbone.get('init_cfg')
    if name.endswith(('_shapes.py', '_imagenet.py')):
        assert init_cfg is None  # trained from scratch
    else:
        size = name.split('convmlp_')[1][0]
        assert init_cfg == dict(type='Pretrained', checkpoint=URL.format(size))


@pytest.mark.parametrize('name', PARAMETERS)
def test_schedule_and_batch(name):
    cfg = Config.fromfile(CONFIGS / name)
    end = cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))
    last = cfg.param_scheduler[-1].end
    if name.startswith('classification') and not name.endswith('_shapes.py'):
        assert end - last == 10  # cool-down
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
        warm_up = cfg.param_scheduler[0]
        lr = cfg.optim_wrapper.optimizer.lr
        assert warm_up.start_factor * lr == pytest.approx(1e-4 if 'imagenet' in name else 1e-6)
    else:
        assert end == last
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[key].dataset.data_root == cfg.data_root
    assert cfg.val_evaluator == cfg.test_evaluator


# batch, lr, min lr, crop ratio's resize, from the configuration files of the release
RECIPES = {
    's_imagenet': (128, 5e-4, 1e-5, 248),
    'l_imagenet': (128, 5e-4, 1e-5, 248),
    's_cifar10': (128, 3e-4, 1e-5, 224),
    'l_cifar100': (64, 3e-4, 1e-5, 224),
    's_flowers102': (96, 5e-4, 1e-8, 224),
    'm_flowers102': (96, 3e-4, 1e-8, 224),
    'l_flowers102': (64, 3e-4, 1e-8, 224),
}


@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name):
    cfg = Config.fromfile(CONFIGS / f'classification/convmlp_{name}.py')
    resize = next(t for t in cfg.val_dataloader.dataset.pipeline if t.type.startswith('Resize'))
    found = (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr, cfg.param_scheduler[-1].eta_min)
    assert (*found, resize.scale) == RECIPES[name]
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
