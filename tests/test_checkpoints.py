"""Weights under other libraries' names are the same weights."""

import pytest
import torch
from goldens import difference, image, load
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import RepMLP, ResMLP
from mlp_backbones.checkpoints import REPMLP, RESMLP


def test_resmlp_of_deit():
    facts, checkpoint, answers = load('deit_resmlp_12')
    before = {k: v.clone() for k, v in checkpoint.items()}
    model = nn.Module()
    model.backbone, model.head = ResMLP('12', final_norm=True).eval(), nn.Linear(384, 1000)
    model.load_state_dict({k if k.startswith('head.') else f'backbone.{k}': v for k, v in checkpoint.items()})
    logits = model.head(model.backbone(image(*facts['input'][:1], *facts['input'][2:], seed=0))[-1].mean((2, 3)))
    assert difference(logits, answers['logits']) < 1e-5
    RESMLP[0].convert(checkpoint)
    assert all(torch.equal(v, before[k]) and v.shape == before[k].shape for k, v in checkpoint.items())


@pytest.mark.parametrize('deploy', [False, True])
def test_repmlp_of_mmpretrain(deploy, tmp_path):
    from mmpretrain.models import RepMLPNet

    torch.manual_seed(0)
    theirs = RepMLPNet(arch='B', img_size=224, out_indices=(3,), reparam_conv_kernels=(1, 3), final_norm=True)
    for module in theirs.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    theirs.eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(x)[-1]
    if deploy:
        theirs.switch_to_deploy()
    state = {f'backbone.{k}': v for k, v in theirs.state_dict().items()}
    torch.save({'state_dict': {**state, 'head.fc.weight': torch.zeros(2)}}, tmp_path / 'x.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    ours = RepMLP('b224', out_indices=(3,), final_norm=True, deploy=deploy, init_cfg=init_cfg)
    ours.init_weights()
    with torch.no_grad():
        assert difference(ours.eval()(x)[-1], expected) < 1e-4


@pytest.mark.parametrize('cls, dialects', [(ResMLP, RESMLP), (RepMLP, REPMLP)], ids=['ResMLP', 'RepMLP'])
def test_own_names_are_no_dialect(cls, dialects):
    with torch.device('meta'):
        state = cls(final_norm=True).state_dict()
    assert not any(dialect.recognises(state) for dialect in dialects)
    for dialect in dialects:
        assert dialect.convert(state).keys() == state.keys()
