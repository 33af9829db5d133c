import json
import subprocess
import sys

import pytest
import torch

from mlp_backbones import ConvMLP


def run(code: str) -> str:
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize('host', ['mmdet', 'mmseg', 'mmpretrain'])
def test_scoped_name_builds_with_nothing_imported(host):
    code = f"""
import sys
from {host}.registry import MODELS
assert 'mlp_backbones' not in sys.modules
model = MODELS.build(dict(type='mlp_backbones.ConvMLP', arch='small'))
print(type(model).__module__, model.out_channels)
"""
    assert run(code) == 'mlp_backbones.models.backbones.convmlp (64, 128, 256, 512)'


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_plain_name_that_is_taken_is_left_alone():
    code = """
import warnings
from mmengine.registry import MODELS
class RepMLP: pass
MODELS.register_module(module=RepMLP)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    import mlp_backbones
    ours = mlp_backbones.RepMLP
(line,) = [str(w.message) for w in said if 'registered before' in str(w.message)]
import mmdet.registry
assert MODELS.get('RepMLP') is RepMLP and mmdet.registry.MODELS.get('RepMLP') is RepMLP
assert mmdet.registry.MODELS.get('mlp_backbones.RepMLP') is ours and MODELS.get('ResMLP') is mlp_backbones.ResMLP
print(line)
"""
    assert run(code) == (
        "type='RepMLP' is __main__.RepMLP, registered before mlp_backbones was imported; "
        "ours is type='mlp_backbones.RepMLP'"
    )


def test_a_name_of_ours_twice_raises():
    from mlp_backbones.registry import register_model

    with pytest.raises(KeyError, match='ConvMLP is already registered'):
        register_model(type('ConvMLP', (torch.nn.Module,), {}))


# --- importing changes nothing ---

STATE = """
import importlib, json, pkgutil, signal, sys

def import_hosts():
    for host in ('mmpretrain', 'mmdet', 'mmseg'):
        for part in ('apis', 'datasets', 'engine', 'models', 'visualization'):
            importlib.import_module(f'{host}.{part}')

def import_ours():
    import mlp_backbones
    for module in pkgutil.walk_packages(mlp_backbones.__path__, 'mlp_backbones.'):
        importlib.import_module(module.name)

def described(value):
    if isinstance(value, dict):
        return {f'{key}': named(entry) for key, entry in value.items()}
    if isinstance(value, (list, set, tuple)):
        return [named(entry) for entry in value]
    return named(value)

def named(value):
    return f'{getattr(value, "__module__", "")}.{getattr(value, "__qualname__", type(value).__qualname__)}'

def state():
    \'\'\'What the modules, classes and registries of mmengine and the hosts hold, and the handlers of signals.\'\'\'
    found = {f'signal {number}': str(signal.getsignal(number)) for number in signal.valid_signals()}
    seen = set()
    for name, module in sorted(sys.modules.items()):
        if name.split('.')[0] not in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):
            continue
        for key, value in list(vars(module).items()):
            if type(value).__name__ == 'Registry':
                found[f'{value.scope} {value.name}'] = dict.fromkeys([*value.module_dict, *value.children])
            elif isinstance(value, type) and value.__module__ == name:
                found[f'{name}.{key}'] = {k: described(v) for k, v in vars(value).items() if not k.startswith('_abc_')}
            elif not key.startswith('__') and type(value).__name__ != 'module' and id(value) not in seen:
                found[f'{name}.{key}'] = described(value)
                seen |= {id(value)} if isinstance(value, dict) else set()  # one that modules share counts once
    return found
"""
OURS = 'mlp_backbones'
CHANGES = {  # where -> the names that are new or have another value
    'mmengine model': {'ConvMLP', 'GMLP', 'RepMLP', 'ResMLP', 'SimpleFeaturePyramid', OURS},
    **{f'mmengine {kind}': {OURS} for kind in ('hook', 'data sampler', 'dataset', 'strategy')},
    # of mlp_backbones/utils/compat.py
    'mmengine.config.config.Config': {'_get_cfg_path'},
    'mmengine.config.utils.MODULE2PACKAGE': {OURS},
}


@pytest.fixture(scope='module')
def states(tmp_path_factory):
    """What mmengine and the hosts hold: before our import, after it, and after imports in the other order."""
    folder = tmp_path_factory.mktemp('states')
    orders = {
        'first': 'import_hosts(); write("before"); import_ours(); write("hosts_first")',
        'last': 'import_ours(); import_hosts(); write("ours_first")',
    }
    for order in orders.values():
        write = f'def write(name): json.dump(state(), open("{folder}/" + name, "w"))\n'
        run(f'{STATE}\n{write}{order}\nprint("done")')
    return {path.name: json.loads(path.read_text()) for path in folder.iterdir()}


@pytest.mark.slow
def test_importing_changes_nothing_else(states):
    before, after = states['before'], states['hosts_first']
    changed = {key for key in before if before[key] != after[key]}
    assert changed == set(CHANGES)
    for key, names in CHANGES.items():
        old, new = before[key], after[key]
        assert {name for name in old.keys() | new.keys() if old.get(name, 'none') != new.get(name, 'none')} == names


@pytest.mark.slow
def test_the_order_of_imports_does_not_matter(states):
    one, other = states['hosts_first'], states['ours_first']
    assert one.keys() == other.keys()
    assert {key for key in one if one[key] != other[key]} == set()
