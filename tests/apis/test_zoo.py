"""The zoo's data is what the models and configs say."""

import re
import subprocess
import sys

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from helpers import CONFIGS, ROOT, build
from helpers.goldens import load as load_golden
from mmpretrain.structures import DataSample

import mlp_backbones
from mlp_backbones.apis import zoo

NAMES = mlp_backbones.list_models()
BY_CONFIG = {zoo.get_entry(name)['Config']: name for name in NAMES}  # weights of one config count once
COUNTED = {config: name for config, name in BY_CONFIG.items() if 'FLOPs' in zoo.get_entry(name)['Metadata']}


def test_names():
    assert len(NAMES) == len(set(NAMES)) and NAMES == sorted(NAMES)
    assert mlp_backbones.list_models('ResMLP_*_distilled') == [f'resmlp_{a}_distilled' for a in (12, 24, 36, 'big_24')]
    for alias in ('resmlp_24_distilled_224', 'resmlp_big_24_22k_224', 'gmlp_s16_224', 'repmlp_b_224', 'repmlp_b_256'):
        assert zoo.get_entry(alias)['Name'] in NAMES
    aliases = [alias.lower() for name in NAMES for alias in zoo.get_entry(name).get('Alias', [])]
    assert len(aliases) == len(set(aliases)) and not set(aliases) & set(NAMES)
    with pytest.raises(ValueError, match="^the zoo has no model 'resmlp_25'; did you mean resmlp_24"):
        mlp_backbones.get_model('resmlp_25')


@pytest.mark.parametrize('config', BY_CONFIG)
def test_parameters(config):
    name = BY_CONFIG[config]
    entry, cfg = zoo.get_entry(name), mlp_backbones.get_config(name)
    with torch.device('meta'):
        model = build(cfg)
    assert sum(p.numel() for p in model.parameters()) == entry['Metadata']['Parameters']
    if 'Deploy' in entry:
        cfg.model.backbone.deploy = True
        with torch.device('meta'):
            model = build(cfg)
        assert sum(p.numel() for p in model.parameters()) == entry['Deploy']['Parameters']


def test_tables_of_the_readme():
    """Parameters and multiply-adds, of both forms where they differ; accuracies are the metafiles' own."""
    readme = (ROOT / 'README.md').read_text()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in readme.splitlines() if '](configs/' in line]
    assert len(rows) == 16 + 6 + 3
    for row in rows:
        entry = zoo.get_entry(BY_CONFIG[re.search(r'\]\((configs/.*?)\)', row[-1])[1]])
        forms = [entry['Metadata'], *([entry['Deploy']] if 'Deploy' in entry else [])]
        counted = [[f'{form["Parameters"] / 1e6:.2f}' for form in forms]]
        if 'imagenet' in row[-1]:
            counted.append([f'{form["FLOPs"] / 1e9:.2f}' for form in forms])
        assert [re.findall(r'[\d.]+', cell) for cell in row[1 : 1 + len(counted)]] == counted, row
        published = [f'{v:g}' for result in entry.get('Results', []) for v in result['Metrics'].values()]
        given = [f'{float(v):g}' for cell in row[1 + len(counted) : -1] for v in re.findall(r'[\d.]+', cell)]
        assert set(published) <= set(given), row


@pytest.mark.slow
@pytest.mark.parametrize('config', COUNTED)
def test_multiply_adds(config):
    name = COUNTED[config]
    entry = zoo.get_entry(name)
    forms = {'Metadata': {}, **({'Deploy': dict(deploy=True)} if 'Deploy' in entry else {})}
    for form, settings in forms.items():
        model = mlp_backbones.get_model(name, backbone=settings)
        model.forward = model.extract_feat = lambda x, m=model: m.head(m.neck(m.backbone(x)))
        size = entry['Input']['Size']
        counted = FlopCountAnalysis(model, torch.zeros(1, 3, size, size))
        counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert counted.total() == entry[form]['FLOPs']


@pytest.mark.parametrize('name', [n for n in NAMES if 'classification' in zoo.get_entry(n)['Config']])
def test_input_is_the_configs(name):
    entry, cfg = zoo.get_entry(name), mlp_backbones.get_config(name)
    given = entry['Input']
    assert (given['Mean'], given['Std']) == (cfg.data_preprocessor.mean, cfg.data_preprocessor.std)
    pipeline = cfg.test_dataloader.dataset.pipeline
    resize = next(step for step in pipeline if step.type.startswith('Resize'))
    crop = next((step.crop_size for step in pipeline if step.type == 'CenterCrop'), resize.scale)
    assert crop == given['Size'] and int(crop / given['Crop Ratio']) == resize.scale
    assert resize.get('interpolation', 'bilinear') == given['Interpolation']


def test_every_config_of_the_release_is_in_the_zoo():
    """But those of the shapes, of another way to train the same model or split of its data, and recipes of ours."""
    paths = [p for p in CONFIGS.glob('*/*.py') if not p.stem.endswith(('_shapes', '_fsdp', '_official'))]
    configs = {f'configs/{p.relative_to(CONFIGS)}' for p in paths}
    ours = re.compile(r'_ms_3x_|/upernet_')
    unpublished = {
        c for c in configs - BY_CONFIG.keys() if ours.search(c) or ('convmlp' not in c and 'classification' not in c)
    }
    assert configs - unpublished == set(BY_CONFIG)


def test_entries_say_where_the_weights_are():
    for name in NAMES:
        entry = zoo.get_entry(name)
        assert entry.get('Weights', '').startswith('https://') or len(entry['Get']) > 20
    with pytest.raises(ValueError, match='no direct link to weights. On Google Drive.*pretrained=PATH'):
        mlp_backbones.get_model('repmlp_t224', pretrained=True)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resmlp_12', 'RepMLPNet-T224', 'fpn_convmlp_s'])
def test_get_model(name, tmp_path):
    frozen = mlp_backbones.get_model(name, backbone=dict(frozen_stages=0))
    assert frozen.backbone.frozen_stages == 0 and not frozen.training
    torch.save(dict(model=frozen.state_dict()), tmp_path / 'x.pth')
    model = mlp_backbones.get_model(name, pretrained=tmp_path / 'x.pth')
    assert all(torch.equal(v, frozen.state_dict()[k]) for k, v in model.state_dict().items())
    torch.save({'a': torch.ones(1)}, tmp_path / 'y.pth')
    with pytest.raises(RuntimeError, match='does not fill'):
        mlp_backbones.get_model(name, pretrained=str(tmp_path / 'y.pth'))


@pytest.mark.parametrize(
    'name, overrides, message',
    [
        (
            'convmlp_s',
            dict(in_channels=4),
            r"^get_model\('convmlp_s'\): ImageClassifier takes no argument in_channels, only backbone, neck, .*init_cfg"
            r'\. Arguments of a part are given as in backbone=dict\(in_channels=4\)$',
        ),
        ('retinanet_convmlp_s', dict(num_classes=3), 'RetinaNet takes no argument num_classes, only backbone, neck'),
        ('fpn_convmlp_s', dict(bakbone={}), 'EncoderDecoder takes no argument bakbone, only backbone, decode_head'),
        ('resmlp_12', dict(backbone=dict(drop_path=0.1)), "unexpected keyword argument 'drop_path'"),
        ('convmlp_s', dict(head=dict(num_class=3)), "unexpected keyword argument 'num_class'"),
    ],
)
def test_get_model_names_the_argument_that_nothing_takes(name, overrides, message):
    with pytest.raises(TypeError, match=message):
        mlp_backbones.get_model(name, **overrides)


def test_get_model_trains_with_another_number_of_classes():
    """With the recipe's Mixup, whose labels the preprocessor makes; the rest of its settings stays."""
    samples = [DataSample().set_gt_label(index) for index in range(4)]
    data = dict(inputs=torch.full((4, 3, 64, 64), 128, dtype=torch.uint8), data_samples=samples)
    for overrides in (dict(), dict(data_preprocessor=dict(to_rgb=False))):
        model = mlp_backbones.get_model('convmlp_s', head=dict(num_classes=4), **overrides)
        batch = model.data_preprocessor(data, training=True)
        assert batch['inputs'].max() < 1  # normalized
        assert model(**batch, mode='loss')['loss'].isfinite()


def test_get_model_takes_what_the_parts_of_a_model_take():
    model = mlp_backbones.get_model(
        'retinanet_convmlp_s',
        bbox_head=dict(num_classes=3, anchor_generator=dict(octave_base_scale=2), loss_cls=dict(gamma=1.5)),
        backbone=dict(_delete_=True, type='mlp_backbones.RepMLP', arch='t224'),
        neck=dict(in_channels=[64, 128, 256, 512]),
        test_cfg=dict(score_thr=0.2),
    )
    assert type(model.backbone).__name__ == 'RepMLP' and model.bbox_head.loss_cls.gamma == 1.5


def test_what_a_file_lacks_is_initialized(tmp_path):
    backbone = mlp_backbones.get_model('retinanet_convmlp_s').backbone
    torch.save({f'backbone.{k}': v for k, v in backbone.state_dict().items()}, tmp_path / 'x.pth')
    model = mlp_backbones.get_model('retinanet_convmlp_s', pretrained=tmp_path / 'x.pth')
    assert model.bbox_head.retina_cls.bias.mean().item() == pytest.approx(-4.595, abs=1e-3)


@pytest.mark.parametrize(
    'order',
    [
        'import mmpretrain, mlp_backbones',
        pytest.param('import mlp_backbones, mmpretrain', marks=pytest.mark.slow),
    ],
)
def test_mmpretrain_knows_the_names(order):
    code = f"""
{order}
for _ in range(2):
    mlp_backbones.register_with_mmpretrain()
assert 'resmlp_24_distilled' in mmpretrain.list_models() and 'repmlp_b_256' in mmpretrain.list_models()
model = mmpretrain.get_model('gmlp_ti16', head=dict(num_classes=7))
print(type(model.backbone).__name__, model.head.num_classes)
"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'GMLP 7'


@pytest.mark.slow
def test_mmpretrain_loads_originals(tmp_path):
    """Through the scheme that the zoo's weights are registered with."""
    _, checkpoint, _ = load_golden('deit_resmlp_12')
    torch.save(dict(model=checkpoint), tmp_path / 'x.pth')
    code = f"""
import mmpretrain, torch
from mmpretrain.apis.model import ModelHub
import mlp_backbones
mlp_backbones.register_with_mmpretrain()
url = ModelHub.get('resmlp_12').weights
model = mmpretrain.get_model('resmlp_12', pretrained='mlp_backbones:{tmp_path / 'x.pth'}')
torch.save(model.state_dict(), {str(tmp_path / 'y.pth')!r})
print(url)
"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'mlp_backbones:https://dl.fbaipublicfiles.com/deit/resmlp_12_no_dist.pth'
    expected = mlp_backbones.get_model('resmlp_12', pretrained=tmp_path / 'x.pth').state_dict()
    loaded = torch.load(tmp_path / 'y.pth')
    assert all(torch.equal(v, expected[k]) for k, v in loaded.items()) and loaded.keys() == expected.keys()


def test_the_page_is_up_to_date(run_script):
    code, said = run_script('make_model_zoo.py', '--check')
    assert code == 0, said
