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
SHI_LABS = 'https://shi-labs.com/projects/convmlp/checkpoints/convmlp_{}_imagenet.pth'
TIMM = 'https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/'
WEIGHTS = {
    **{f'convmlp_{size}': SHI_LABS.format(size) for size in 'sml'},
    'resmlp_24': 'https://dl.fbaipublicfiles.com/deit/resmlp_24_dist.pth',
    'gmlp_s16': TIMM + 'gmlp_s16_224_raa-10536d42.pth',
    'repmlp_b256': 'https://download.openmmlab.com/mmclassification/v0/repmlp/'
    'repmlp-base_3rdparty_8xb64_in1k-256px_20220330-7c5a91ce.pth',
    'repmlp_t224': 'checkpoints/RepMLPNet-T224-train-acc76.62.pth',  # its authors have it on Google Drive only
}

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
    'classification/gmlp_b16_imagenet.py': 73_075_392,
    'classification/gmlp_s16_imagenet.py': 19_422_656,
    'classification/gmlp_ti16_imagenet.py': 5_867_328,
    'classification/repmlp_b224_imagenet.py': 68_242_712,
    'classification/repmlp_b256_imagenet.py': 96_447_512,
    'classification/repmlp_d256_imagenet.py': 86_887_648,
    'classification/repmlp_l256_imagenet.py': 117_641_560,
    'classification/repmlp_t224_imagenet.py': 38_293_608,
    'classification/repmlp_t256_imagenet.py': 58_687_848,
    'classification/resmlp_12_imagenet.py': 15_350_872,
    'classification/resmlp_24_imagenet.py': 30_020_680,
    'classification/resmlp_36_imagenet.py': 44_690_488,
    'classification/resmlp_big_24_imagenet.py': 129_138_280,
    'classification/resmlp_big_24_imagenet_fsdp.py': 129_138_280,
    # No published counterpart: as counted here once, so that a change shows.
    'classification/gmlp_p8_shapes.py': 1_867_779,
    'classification/resmlp_p8_shapes.py': 3_652_227,
    'detection/maskrcnn_gmlp_p8_sfp_shapes.py': 22_066_914,
    'detection/maskrcnn_resmlp_p8_sfp_shapes.py': 23_933_122,
    'detection/retinanet_gmlp_p8_sfp_shapes.py': 9_163_199,
    'detection/retinanet_resmlp_p8_sfp_shapes.py': 10_980_223,
    'segmentation/sfp_gmlp_p8_shapes.py': 5_579_652,
    'segmentation/sfp_resmlp_p8_shapes.py': 7_445_860,
    'classification/repmlp_t224_shapes.py': 9_085_827,
    'detection/maskrcnn_gmlp_s16_sfp_1x_coco.py': 39_558_920,
    'detection/maskrcnn_repmlp_b256_fpn_1x_coco.py': 115_950_880,
    'detection/maskrcnn_repmlp_t224_fpn_1x_coco.py': 57_930_608,
    'detection/maskrcnn_repmlp_t224_fpn_shapes.py': 33_440_162,
    'detection/maskrcnn_resmlp_24_sfp_1x_coco.py': 50_493_104,
    'detection/retinanet_gmlp_s16_sfp_1x_coco.py': 27_706_700,
    'detection/retinanet_repmlp_b256_fpn_1x_coco.py': 106_615_076,
    'detection/retinanet_repmlp_t224_fpn_1x_coco.py': 48_013_172,
    'detection/retinanet_repmlp_t224_fpn_shapes.py': 22_339_775,
    'detection/retinanet_resmlp_24_sfp_1x_coco.py': 38_427_668,
    'segmentation/fpn_repmlp_b256_512x512_40k_ade20k.py': 100_050_118,
    'segmentation/fpn_repmlp_t224_512x512_40k_ade20k.py': 42_029_846,
    'segmentation/fpn_repmlp_t224_shapes.py': 14_096_772,
    'segmentation/sfp_gmlp_s16_512x512_40k_ade20k.py': 23_658_158,
    'segmentation/sfp_resmlp_24_512x512_40k_ade20k.py': 34_592_342,
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
    if name.endswith(('_shapes.py', '_imagenet.py', '_fsdp.py')):
        assert init_cfg is None  # trained from scratch
    else:
        model = next(model for model in WEIGHTS if f'{model}_' in name)
        assert init_cfg == dict(type='Pretrained', checkpoint=WEIGHTS[model])


@pytest.mark.parametrize('name', PARAMETERS)
def test_schedule_and_batch(name):
    cfg = Config.fromfile(CONFIGS / name)
    end = cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))
    last = cfg.param_scheduler[-1].end
    if not name.endswith('_shapes.py'):
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    if name.startswith('classification/convmlp') and not name.endswith('_shapes.py'):
        assert end - last == 10  # cool-down
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


# optimizer, lr, weight decay, epochs, batch, mixup, the size that testing resizes to
OTHER_RECIPES = {
    'resmlp_24': ('Lamb', 5e-3, 0.2, 400, 2048, 0.8, 248),
    'gmlp_s16': ('AdamW', 1e-3, 0.05, 300, 4096, 0.8, 256),
    'repmlp_t224': ('AdamW', 1e-3, 0.1, 100, 256, 0.4, 224),
    'repmlp_l256': ('AdamW', 1e-3, 0.1, 100, 256, 0.4, 256),
}


@pytest.mark.parametrize('name', OTHER_RECIPES)
def test_recipe_of_the_other_families(name):
    cfg = Config.fromfile(CONFIGS / f'classification/{name}_imagenet.py')
    resize = next(t for t in cfg.val_dataloader.dataset.pipeline if t.type.startswith('Resize'))
    optimizer = cfg.optim_wrapper.optimizer
    assert (
        *(optimizer.type, optimizer.lr, optimizer.weight_decay, cfg.train_cfg.max_epochs),
        *(cfg.auto_scale_lr.base_batch_size, cfg.model.train_cfg.augments[0].alpha, resize.scale),
    ) == OTHER_RECIPES[name]


@pytest.mark.parametrize('name', [n for n in PARAMETERS if 'gmlp' in n])
def test_gmlp_is_normalised_its_own_way(name):
    cfg = Config.fromfile(CONFIGS / name)
    preprocessor = cfg.get('data_preprocessor') or cfg.model.data_preprocessor
    assert preprocessor.mean == preprocessor.std == [127.5] * 3


@pytest.mark.parametrize('name', [n for n in PARAMETERS if 'convmlp' not in n and not n.endswith('_shapes.py')])
def test_no_decay_for_norms_biases_affines_and_layer_scales(name):
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(CONFIGS / name)
    with torch.device('meta'):
        model = build(cfg)
    settings = dict(cfg.optim_wrapper, type='OptimWrapper')
    for key in ('dtype', 'loss_scale'):
        settings.pop(key, None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        groups = build_optim_wrapper(model, settings).optimizer.param_groups
    decay = {p: group['weight_decay'] for group in groups for p in group['params']}
    for key, parameter in model.named_parameters():
        free = parameter.ndim == 1 or key.endswith(('.alpha', '.beta'))
        assert (decay[parameter] == 0) is free, key
