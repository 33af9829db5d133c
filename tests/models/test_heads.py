"""The heads of docs/heads.md with every family: each trains for an iteration and predicts."""

import re
from ast import literal_eval

import pytest
import torch
from helpers import ROOT, build
from helpers.pages import blocks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData

PAGE = ROOT / 'docs/heads.md'
# Small ones of the channels that the page has: the tokens of ResMLP and gMLP and the tiles of RepMLP cover 64 pixels.
BACKBONES = {
    'ConvMLP': dict(arch='small'),
    'RepMLP': dict(arch='t224', img_size=64),
    'ResMLP': dict(arch=dict(patch_size=16, dim=384, depth=4, mlp_ratio=4, layer_scale=0.1), img_size=64),
    'GMLP': dict(arch=dict(patch_size=16, dim=256, depth=4, mlp_ratio=6), img_size=64),
}
WIDTH = dict(ResMLP=384, GMLP=256)
# What makes a head quick: fewer layers, queries and proposals.
QUICK = {
    'cascade_mask_rcnn': dict(
        train_cfg=dict(rpn_proposal=dict(max_per_img=20)), test_cfg=dict(rpn=dict(max_per_img=20))
    ),
    'dino': dict(num_queries=20, encoder=dict(num_layers=1), decoder=dict(num_layers=1)),
    'deformable_detr': dict(num_queries=20, encoder=dict(num_layers=1), decoder=dict(num_layers=1)),
    'mask2former': dict(
        data_preprocessor=dict(batch_augments=None),
        panoptic_head=dict(
            num_queries=10,
            pixel_decoder=dict(encoder=dict(num_layers=1)),
            transformer_decoder=dict(num_layers=1),
        ),
    ),
}


def example(name: str) -> str:
    (text,) = (t for t in blocks(PAGE, 'python') if t.startswith(f'# my_{name}.py\n'))
    return text


def row_of(head: str) -> tuple[tuple[int, ...], dict]:
    """The strides and the other settings of a head with ResMLP and gMLP, of the page's table."""
    strides, settings = re.search(
        rf'^\| {re.escape(head)} \| ([\d, ]+) \| (.*)\|$', PAGE.read_text(), re.MULTILINE
    ).groups()
    options = dict(re.findall(r'`([\w.]+)=([^`]+)`', settings))
    return tuple(map(int, strides.split(', '))), {f'model.{key}': literal_eval(value) for key, value in options.items()}


HEADS = {
    'fcos': 'FCOS',
    'atss': 'ATSS',
    'cascade_mask_rcnn': 'Cascade Mask R-CNN',
    'dino': 'DINO',
    'deformable_detr': 'Deformable DETR',
    'mask2former': 'Mask2Former',
    'rtmdet': 'RTMDet',
    'upernet': 'UPerNet',
    'segformer': 'SegFormer',
    'deeplabv3plus': 'DeepLabV3+',
}


def test_every_head_of_the_page_is_here():
    rows = re.findall(r'^\| ([A-Z][\w+ -]+) \| [\d, ]+ \|[^|]*\|$', PAGE.read_text(), re.MULTILINE)
    assert rows == list(HEADS.values())
    assert {re.match(r'# my_(\w+)\.py', text)[1] for text in blocks(PAGE, 'python')} == {*HEADS, 'fcos_resmlp'}


def batch(host: str, masks: bool):
    """Two images with their annotations, as the host's data loaders give them."""
    if host == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(2, [(3, 128, 160), (3, 120, 128)], num_items=[2, 3], num_classes=80, with_mask=masks)
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    samples = []
    for _ in range(2):
        meta = dict(img_shape=(128, 160), ori_shape=(128, 160), pad_shape=(128, 160), scale_factor=(1.0, 1.0))
        labels = PixelData(data=torch.randint(0, 150, (1, 128, 160)))
        samples.append(SegDataSample(metainfo=meta, gt_sem_seg=labels))
    return dict(
        inputs=[torch.randint(0, 256, (3, 128, 160), dtype=torch.uint8) for _ in range(2)], data_samples=samples
    )


@pytest.mark.slow
@pytest.mark.parametrize('family', BACKBONES)
@pytest.mark.parametrize('name', HEADS)
def test_one_iteration_and_a_prediction(name, family, tmp_path):
    (tmp_path / 'my.py').write_text(example(name))
    cfg = Config.fromfile(tmp_path / 'my.py')
    out_indices = cfg.model.backbone.get('out_indices', (0, 1, 2, 3))
    cfg.model.backbone = dict(type=f'mlp_backbones.{family}', **BACKBONES[family])
    if family in WIDTH:
        strides, settings = row_of(HEADS[name])
        cfg.merge_from_dict(settings)
        cfg.model.neck = dict(type='mlp_backbones.SimpleFeaturePyramid', in_channels=WIDTH[family], out_strides=strides)
    else:
        cfg.model.backbone.out_indices = out_indices
    cfg.merge_from_dict(dict(model=QUICK.get(name, {})))
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = None
        cfg.model.data_preprocessor.size_divisor = 32
    masks = name in ('cascade_mask_rcnn', 'mask2former')
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build(cfg))
    model.init_weights()
    data = batch(cfg.default_scope, masks)
    losses, _ = model.parse_losses(model._run_forward(model.data_preprocessor(data, True), mode='loss'))
    losses.backward()
    assert losses.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.backbone.parameters())
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    predictions = model.eval().test_step(batch(cfg.default_scope, masks))
    assert len(predictions) == 2
    for sample in predictions:
        if cfg.default_scope == 'mmseg':
            assert sample.pred_sem_seg.data.shape == (1, 128, 160) and sample.seg_logits.data.isfinite().all()
        else:
            found = sample.pred_instances
            assert found.bboxes.shape[1] == 4 and found.scores.isfinite().all()
            assert ('masks' in found) is masks
