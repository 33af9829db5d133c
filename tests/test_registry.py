import subprocess
import sys

import pytest
import torch

from mlp_backbones import ConvMLP


def run(code: str) -> str:
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize('host', ['mmdet', 'mmseg', 'mmpretrain'])
def test_scoped_name_builds_with_nothing_imported(host):
    code = f"""
import sys
from {host}.registry import MODELS
assert 'mlp_backbones' not in sys.modules
model = MODELS.build(dict(type='mlp_backbones.ConvMLP', arch='small'))
print(type(model).__module__, model.out_channels)
"""
    assert run(code) == 'mlp_backbones.backbones.convmlp (64, 128, 256, 512)'


@pytest.mark.parametrize('how', ['import mlp_backbones', 'custom_imports'])
def test_plain_name_builds_after_the_import(how):
    if how == 'custom_imports':
        how = (
            'from mmengine.config import Config; '
            "Config(dict(custom_imports=dict(imports=['mlp_backbones']))); "
            "from mmengine.utils import import_modules_from_strings; import_modules_from_strings(['mlp_backbones'])"
        )
    code = f"""
{how}
import mmdet.registry, mmseg.registry, mmpretrain.registry
for host in (mmdet, mmseg, mmpretrain):
    print(end=type(host.registry.MODELS.build(dict(type='ConvMLP', arch='s'))).__name__ + ' ')
"""
    assert run(code) == 'ConvMLP ConvMLP ConvMLP'


def test_one_class_under_both_names():
    from mmengine.registry import MODELS

    assert MODELS.get('mlp_backbones.ConvMLP') is MODELS.get('ConvMLP') is ConvMLP


def test_unknown_name_is_refused():
    from mmdet.registry import MODELS

    with pytest.raises(KeyError, match='ConvMPL'):
        MODELS.build(dict(type='mlp_backbones.ConvMPL'))


def test_registering_a_name_twice_raises():
    from mlp_backbones.registry import register_model

    with pytest.raises(KeyError, match='ConvMLP is already registered'):
        register_model(type('ConvMLP', (torch.nn.Module,), {}))
