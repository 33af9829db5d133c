"""Our configs where users of OpenMMLab expect them: by `mlp_backbones::`, in mmengine.hub, and in the hosts' tools."""

import importlib
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import mmengine.hub
import pytest
import torch
from helpers import ROOT
from mmengine.config import Config

import mlp_backbones
from mlp_backbones.apis.zoo import build_model
from mlp_backbones.utils import compat
from mlp_backbones.utils.environment import installed

PAGE = (ROOT / 'docs/ecosystem.md').read_text()
ONE_OF_EACH = {
    'classification/gmlp_p8_shapes.py': ('mmpretrain', 'ImageClassifier'),
    'detection/retinanet_resmlp_p8_sfp_shapes.py': ('mmdet', 'RetinaNet'),
    'detection/maskrcnn_convmlp_s_fpn_shapes.py': ('mmdet', 'MaskRCNN'),
    'segmentation/fpn_repmlp_t224_shapes.py': ('mmseg', 'EncoderDecoder'),
}


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_inherited_by_name_is_inherited_by_path(name, tmp_path):
    (tmp_path / 'by_name.py').write_text(f"_base_ = 'mlp_backbones::{name}'\nmodel = dict(backbone=dict(with_cp=True))")
    (tmp_path / 'by_path.py').write_text(f"_base_ = '{ROOT}/configs/{name}'\nmodel = dict(backbone=dict(with_cp=True))")
    by_name, by_path = (Config.fromfile(tmp_path / f) for f in ('by_name.py', 'by_path.py'))
    assert by_name.to_dict() == by_path.to_dict()
    assert by_name.default_scope == ONE_OF_EACH[name][0] and by_name.model.backbone.with_cp


def test_a_base_that_is_not_there(tmp_path):
    (tmp_path / 'wrong.py').write_text("_base_ = 'mlp_backbones::detection/nothing.py'")
    with pytest.raises(FileNotFoundError, match=r'detection/nothing\.py'):
        Config.fromfile(tmp_path / 'wrong.py')


def test_other_packages_keep_their_scope():
    before = Config._get_cfg_path
    compat.find_our_configs()
    assert Config._get_cfg_path is before  # not wrapped twice
    path, scope = Config._get_cfg_path('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'any.py')
    assert Path(path).is_file() and scope == 'mmdet'


def test_example_of_the_page(tmp_path):
    (example,) = re.findall(r'```python\n# my_retinanet\.py\n(.*?)```', PAGE, re.DOTALL)
    (tmp_path / 'my.py').write_text(example)
    cfg = Config.fromfile(tmp_path / 'my.py')
    assert cfg.model.backbone.arch == 'medium' and cfg.train_dataloader.batch_size == 4


@pytest.mark.slow
def test_without_an_import(tmp_path):
    (example,) = re.findall(r'```python\n# my_plain_\w+\.py\n(.*?)```', PAGE, re.DOTALL)
    (tmp_path / 'plain.py').write_text(example)
    code = 'from mmengine.config import Config; print(Config.fromfile("plain.py").model.backbone.arch)'
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ['medium'], done.stderr


def test_hub_config():
    name = 'detection/retinanet_convmlp_m_fpn_1x_coco.py'
    cfg = mmengine.hub.get_config(f'mlp_backbones::{name}', pretrained=True)
    assert cfg.model_path.endswith('/retinanet_convmlp_m_coco.pth')
    values = cfg.to_dict()
    del values['model_path']
    assert values == Config.fromfile(ROOT / 'configs' / name).to_dict()


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_hub_model(name):
    with torch.device('meta'):
        model = mmengine.hub.get_model(f'mlp_backbones::{name}')
    host, cls = ONE_OF_EACH[name]
    assert type(model).__name__ == cls and type(model).__module__.startswith(f'{host}.')
    assert type(model.backbone).__module__.startswith('mlp_backbones.')
    others = [m for m in model.children() if m is not model.backbone]
    assert {type(m).__module__.split('.')[0] for m in others} <= {host, 'mlp_backbones'}


# --- the hosts' tools: every line of the page that starts with `python $(tools HOST)/` ---

LINES = re.findall(r'^python \$\(tools (\w+)\)/(.*)$', PAGE, re.MULTILINE)
QUICK = {'kfold-cross-valid.py': ['--num-splits', '2', '--cfg-options', 'train_cfg.max_epochs=1']}


def run_host_tool(line, monkeypatch):
    host, command = line
    if host == 'mmseg' and 'mmsegmentation' in installed('mmseg'):
        pytest.skip("upstream's tool fails with any config, as the page says")
    script, *arguments = shlex.split(command)
    script = Path(importlib.import_module(host).__file__).parent / '.mim/tools' / script
    arguments += QUICK.get(script.name, [])
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    runpy.run_path(str(script), run_name='__main__')


@pytest.fixture
def clone(tmp_path, shapes, monkeypatch):
    """A folder with configs and drawn shapes, as a clone has them; the current one."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/shapes').symlink_to(shapes)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_the_tools():
    assert {(host, Path(command.split()[0]).name) for host, command in LINES} >= {
        ('mmdet', 'get_flops.py'),
        ('mmdet', 'browse_dataset.py'),
        ('mmpretrain', 'get_flops.py'),
        ('mmpretrain', 'kfold-cross-valid.py'),
        ('mmpretrain', 'vis_cam.py'),
        ('mmseg', 'get_flops.py'),
        ('mmseg', 'browse_dataset.py'),
    }


@pytest.mark.slow
@pytest.mark.parametrize('line', [x for x in LINES if 'get_flops' in x[1]], ids=' '.join)
def test_get_flops(line, clone, capsys, monkeypatch):
    run_host_tool(line, monkeypatch)
    printed = capsys.readouterr().out
    cfg = Config.fromfile(shlex.split(line[1])[1])
    flops, params = (float(re.search(rf'^{k}: ([\d.]+)[GM]$', printed, re.MULTILINE)[1]) for k in ('Flops', 'Params'))
    with torch.device('meta'):
        backbone = mlp_backbones.MODELS.build(cfg.model.backbone)
    assert flops > 0 and params >= sum(p.numel() for p in backbone.parameters()) / 1e6 - 0.01


@pytest.mark.slow
@pytest.mark.parametrize('line', [x for x in LINES if 'browse_dataset' in x[1]], ids=' '.join)
def test_browse_dataset(line, clone, monkeypatch):
    import cv2

    run_host_tool(line, monkeypatch)
    pictures = [cv2.imread(str(p)) for p in clone.glob('browse/*/*')]
    assert len(pictures) == 6 and all(p.std() > 0 for p in pictures)


@pytest.mark.slow
def test_kfold(clone, monkeypatch):
    (line,) = (x for x in LINES if 'kfold' in x[1])
    run_host_tool(line, monkeypatch)
    work = clone / 'work_dirs/convmlp_s_shapes'
    assert (work / 'fold0/epoch_1.pth').is_file() and (work / 'fold1/epoch_1.pth').is_file()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('pytorch_grad_cam') is None, reason='needs grad-cam')
@pytest.mark.parametrize('line', [x for x in LINES if 'vis_cam' in x[1]], ids=' '.join)
def test_vis_cam(line, clone, shapes, monkeypatch):
    import cv2

    _, image, config, checkpoint, *_ = shlex.split(line[1])
    cv2.imwrite(image, cv2.resize(cv2.imread(str(next(shapes.glob('imagenet/val/*/*')))), (224, 224)))
    cfg = Config.fromfile(config)
    torch.save(build_model(cfg).state_dict(), checkpoint)
    run_host_tool(line, monkeypatch)
    assert cv2.imread('cam.png').shape == (224, 224, 3)


# --- the notebook ---


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(getattr(torch.export, 'Dim', None), 'AUTO'), reason='exports, which needs torch 2.6')
def test_notebook(tmp_path, monkeypatch):
    pytest.importorskip('nbclient')
    import nbformat
    from nbclient import NotebookClient

    path = ROOT / 'demo/quickstart.ipynb'
    assert path.stat().st_size < 300_000
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv('PYTHONPATH', str(Path(mlp_backbones.__file__).parents[1]))
    NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    outputs = [o for cell in notebook.cells for o in cell.get('outputs', [])]
    assert sum('image/png' in o.get('data', {}) for o in outputs) == 3
    printed = ''.join(o.get('text', '') for o in outputs)
    first, last = map(float, re.search(r'loss ([\d.]+) -> ([\d.]+)', printed).groups())
    assert last < 0.6 * first
    assert (tmp_path / 'work_dirs/notebook/segmentor.onnx').is_file()
