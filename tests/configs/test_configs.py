"""Every config loads, builds and has the parameters of its paper's code."""

import re

import pytest
import torch
from helpers import CONFIGS, build
from mmengine.config import Config

from mlp_backbones import MODELS
from mlp_backbones.apis.zoo import get_entry
from mlp_backbones.engine.config import load_config

# The zoo's entry of the weights that a config with this model in its name starts from.
PRETRAINED = {
    **{name: name for name in ('convmlp_s', 'convmlp_m', 'convmlp_l', 'gmlp_s16', 'repmlp_b256')},
    'resmlp_24': 'resmlp_24_distilled',
}
# Settings of a built config: what mmengine's runner, the hosts' tools and ours read, and what a config that inherits
# this one refers to.
SETTINGS = {
    *('auto_scale_lr', 'custom_hooks', 'data_preprocessor', 'data_root', 'default_hooks', 'default_scope', 'env_cfg'),
    *('load_from', 'log_level', 'log_processor', 'model', 'optim_wrapper', 'param_scheduler', 'randomness', 'resume'),
    *('runner_type', 'shapes', 'strategy', 'tta_model', 'tta_pipeline', 'vis_backends', 'visualizer'),
    *(f'{split}_{what}' for split in ('train', 'test') for what in ('cfg', 'dataloader', 'pipeline')),
    *('test_evaluator', 'val_cfg', 'val_dataloader', 'val_evaluator'),
}

PARAMETERS = {
    'classification/convmlp_s_imagenet.py': 9_022_920,
    'classification/convmlp_m_imagenet.py': 17_410_504,
    'classification/convmlp_l_imagenet.py': 42_728_440,
    'classification/convmlp_s_cifar10.py': 8_515_050,
    'classification/convmlp_s_cifar100.py': 8_561_220,
    'classification/convmlp_s_flowers102.py': 8_562_246,
    'classification/convmlp_s_flowers102_official.py': 8_562_246,
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
    'segmentation/upernet_repmlp_d256_512x1024_80k_cityscapes.py': 117_508_894,
    'detection/maskrcnn_convmlp_s_fpn_ms_3x_coco.py': 28_659_920,
    'detection/maskrcnn_convmlp_m_fpn_ms_3x_coco.py': 37_047_504,
    'detection/maskrcnn_convmlp_l_fpn_ms_3x_coco.py': 62_231_808,
    'segmentation/upernet_convmlp_s_512x512_160k_ade20k.py': 38_816_524,
    'segmentation/upernet_convmlp_m_512x512_160k_ade20k.py': 47_204_108,
    'segmentation/upernet_convmlp_l_512x512_160k_ade20k.py': 74_379_068,
    'segmentation/upernet_gmlp_s16_512x512_160k_ade20k.py': 50_782_532,
    'segmentation/upernet_repmlp_b256_512x512_160k_ade20k.py': 128_098_140,
    'segmentation/upernet_resmlp_24_512x512_160k_ade20k.py': 61_716_716,
}


def test_every_config_is_listed():
    assert {str(p.relative_to(CONFIGS)) for p in CONFIGS.glob('*/*.py')} == set(PARAMETERS)


@pytest.mark.slow
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
    from_scratch = ('_shapes.py', '_imagenet.py', '_fsdp.py')
    if name.endswith(from_scratch) or 'repmlp_t224' in name or 'repmlp_d256' in name:
        assert init_cfg is None  # of these two RepMLPs no file can be named, see the comments of their configs
    else:
        model = next(model for model in PRETRAINED if f'{model}_' in name)
        assert init_cfg == dict(type='Pretrained', checkpoint=get_entry(PRETRAINED[model])['Weights'])


@pytest.mark.parametrize('name', PARAMETERS)
def test_no_name_of_a_config_file_is_mistaken_for_a_setting(name):
    assert set(Config.fromfile(CONFIGS / name)) - SETTINGS == set()


@pytest.mark.slow
def test_seeds_are_the_same_everywhere():
    assert {Config.fromfile(CONFIGS / name).randomness.seed for name in PARAMETERS} == {42}


@pytest.mark.parametrize('name', PARAMETERS)
def test_schedule_and_batch(name):
    cfg = Config.fromfile(CONFIGS / name)
    end = cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))
    last = cfg.param_scheduler[-1].end
    if not name.endswith('_shapes.py'):
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    if name.startswith('classification/convmlp') and not name.endswith('_shapes.py'):
        assert end - cfg.param_scheduler[-1].T_max == 10  # cool-down
        assert end - last == 9  # which begins with the step that reaches the minimum
        warm_up = cfg.param_scheduler[0]
        lr = cfg.optim_wrapper.optimizer.lr
        assert warm_up.start_factor * lr == pytest.approx(1e-4 if 'imagenet' in name else 1e-6)
    else:
        assert end == last
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[key].dataset.data_root == cfg.data_root
    assert cfg.val_evaluator == cfg.test_evaluator


# Those whose weights are on Google Drive only.
WITHOUT_WEIGHTS = [n for n in PARAMETERS if '_repmlp_t224' in n or '_repmlp_d256' in n]
WITHOUT_WEIGHTS = [n for n in WITHOUT_WEIGHTS if not n.endswith('_shapes.py') and not n.startswith('classification/')]


@pytest.mark.slow
@pytest.mark.parametrize('name', WITHOUT_WEIGHTS)
@pytest.mark.parametrize('how', ['option', 'line'])
def test_the_line_that_adds_the_weights(name, how, tmp_path):
    """The comment at the top of a config says how to start from the authors' file: both ways of it are taken here."""
    text = (CONFIGS / name).read_text()
    weights = tmp_path / 'authors.pth'
    backbone = MODELS.build(Config.fromfile(CONFIGS / name).model.backbone)
    expected = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in backbone.state_dict().items()}
    torch.save(expected, weights)
    if how == 'option':
        settings = re.search(r'^#   --cfg-options (.*)$', text, re.MULTILINE)[1].replace('FILE', str(weights))
        cfg = load_config(str(CONFIGS / name), dict(s.split('=') for s in settings.split()))
    else:
        line = re.search(r'^#   (model = .*)$', text, re.MULTILINE)[1].replace('FILE', str(weights))
        (tmp_path / 'child.py').write_text(f"_base_ = '{CONFIGS / name}'\n{line}\n")
        cfg = load_config(str(tmp_path / 'child.py'))
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    found = backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
