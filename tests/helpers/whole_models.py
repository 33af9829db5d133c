"""Whole models of small backbones, one for each task."""

import torch

from helpers import CONFIGS, build
from helpers.families import TINY
from mlp_backbones import ConvMLP, RepMLP
from mlp_backbones.engine.config import load_config

CLASSIFICATION = CONFIGS / 'classification/convmlp_s_shapes.py'
SEGMENTATION = CONFIGS / 'segmentation/fpn_convmlp_s_shapes.py'
RETINANET = CONFIGS / 'detection/retinanet_convmlp_s_fpn_shapes.py'
MASKRCNN = CONFIGS / 'detection/maskrcnn_convmlp_s_fpn_shapes.py'
WHOLE = dict(detection=RETINANET, instances=MASKRCNN, segmentation=SEGMENTATION, classification=CLASSIFICATION)


def small(config, cls=ConvMLP):
    """A config with a small backbone."""
    cfg = load_config(str(config))
    arch = TINY[cls]['arch']
    if cfg.model.backbone.type != f'mlp_backbones.{cls.__name__}':
        extra = dict(final_norm=True, out_indices=-1) if 'head' in cfg.model else {}
        cfg.model.backbone = dict(type=f'mlp_backbones.{cls.__name__}', **extra)
    cfg.model.backbone.update(TINY[cls], init_cfg=None)
    if cls is ConvMLP:
        channels = [arch['channels'], *arch['dims']]
    else:
        channels = list(arch['channels']) if cls is RepMLP else [arch['dim']]
    if 'head' in cfg.model:
        cfg.model.head.in_channels = channels[-1]
    else:
        cfg.model.neck.in_channels = channels if cfg.model.neck.type == 'FPN' else channels[-1]
    return cfg


def detector(cfg):
    """Random weights of which every score is high enough to be kept, and different from all others."""
    torch.manual_seed(0)
    model = build(cfg).eval()
    for name, module in model.named_modules():
        if name.endswith(('retina_cls', 'conv_cls', 'atss_cls', 'fc_cls', 'rpn_cls')):
            torch.nn.init.normal_(module.weight, std=1.0 if name.endswith('fc_cls') else 0.1)
            torch.nn.init.constant_(module.bias, 0 if name.endswith('fc_cls') else -2)
        if name.endswith(('retina_reg', 'conv_reg', 'atss_reg', 'fc_reg', 'rpn_reg')):
            torch.nn.init.normal_(module.weight, std=0.03)
    return model
