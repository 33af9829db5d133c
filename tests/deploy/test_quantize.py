"""Exported files in int8: what is refused, what is judged, and that accuracy is kept, with outliers too."""

import importlib
import json

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES, named, randomise
from helpers.outliers import add_outliers
from helpers.whole_models import CLASSIFICATION, WHOLE, small
from mmengine.config import Config

from mlp_backbones import GMLP, RepMLP, ResMLP, reparameterize
from mlp_backbones.apis.zoo import build_model
from mlp_backbones.deploy import evaluate, graph, quantize, runtime
from mlp_backbones.deploy.description import describe
from mlp_backbones.deploy.layers import int8_layers

if not hasattr(torch.library, 'custom_op'):
    pytest.skip('export needs torch 2.6', allow_module_level=True)
pytest.importorskip('nncf')
onnx = pytest.importorskip('onnx')

TASKS = dict(classification='imagenet', segmentation='ade', detection='coco')


def write_whole(cfg, path, hard=False, fold=True):
    """Write a model of random weights, whose outputs are far from equal."""
    torch.manual_seed(0)
    model = randomise(build_model(cfg), token_std=0.2).eval()
    if hasattr(model, 'head'):
        torch.nn.init.normal_(model.head.fc.weight, std=0.5)
    if hasattr(model, 'bbox_head'):
        torch.nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.1)
        torch.nn.init.constant_(model.bbox_head.retina_cls.bias, -2)
    if hard:
        add_outliers(model, 128.0)
    if fold:
        model = reparameterize(model, inplace=True)
    names = cfg.test_dataloader.dataset.metainfo.classes if 'metainfo' in cfg.test_dataloader.dataset else None
    model.dataset_meta = dict(classes=names or cfg.test_dataloader.dataset.classes)
    settings = describe(cfg, model, 'small')
    if 'RepMLP' in cfg.model.backbone.type:
        settings['fixed_size'] = [64, 64]  # traced for any size it takes longer
    onnx.save(graph.whole_onnx(model, settings), path)
    return path


def test_the_outliers_change_no_feature():
    for cls in FAMILIES:
        model = randomise(build_model(small(CLASSIFICATION, cls))).eval()
        x = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            before = model(x, mode='tensor')
            torch.testing.assert_close(add_outliers(model, 128.0)(x, mode='tensor'), before)


def test_results_become_samples_of_each_framework():
    from mmdet.structures import DetDataSample
    from mmpretrain.structures import DataSample
    from mmseg.structures import SegDataSample

    sample = evaluate.sample_of(dict(probabilities=np.array([0.1, 0.7, 0.2], np.float32)), DataSample())
    assert sample.pred_label.item() == 1 and torch.equal(sample.pred_score, torch.tensor([0.1, 0.7, 0.2]))
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    sample = evaluate.sample_of(dict(label_map=labels), SegDataSample())
    assert torch.equal(sample.pred_sem_seg.data, torch.arange(6).view(1, 2, 3))
    found = dict(
        boxes=np.array([[1, 2, 3, 4]], np.float32),
        scores=np.array([0.5], np.float32),
        labels=np.array([2]),
        masks=np.ones((1, 5, 6), bool),
    )
    sample = evaluate.sample_of(found, DetDataSample()).pred_instances
    assert torch.equal(sample.bboxes, torch.tensor([[1.0, 2, 3, 4]])) and sample.labels.tolist() == [2]
    assert sample.masks.shape == (1, 5, 6) and sample.scores.tolist() == [0.5]


def test_metrics_are_judged_from_0_to_1():
    metrics = {'accuracy/top1': 80.0, 'accuracy/top5': 99.0, 'coco/bbox_mAP': 0.4, 'coco/bbox_mAP_50': 0.6, 'mIoU': 50}
    assert quantize.judged(metrics) == {'accuracy/top1': 0.8, 'coco/bbox_mAP': 0.4, 'mIoU': 0.5}
    assert quantize.drop_of(dict(a=0.5, b=0.4), dict(a=0.6, b=0.1)) == pytest.approx(0.3)


def test_equal_results_agree():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 20, 20]], np.float32)
    found = dict(boxes=boxes, scores=np.array([0.9, 0.3], np.float32), labels=np.array([0, 1]))
    assert quantize.agreement(found, found) == pytest.approx(1)
    assert quantize.agreement(dict(found, labels=np.array([1, 0])), found) < 0.2
    assert quantize.agreement(dict(label_map=np.eye(2)), dict(label_map=np.ones((2, 2)))) == 0.5


@pytest.mark.parametrize(
    'options, words',
    [
        (['model.onnx', 'out.pt2'], 'the file to write must end in .xml or .onnx, got out.pt2'),
        (['model.xml', 'out.onnx'], 'an .onnx file is made of an .onnx file, got model.xml'),
        (['model.onnx', 'out.xml', '--max-drop', '-1'], '--max-drop must be from 0 to 1, got -1.0'),
        (['model.onnx', 'out.xml', '--images', '0'], '--images must be positive, got 0'),
        (['model.onnx', 'model.onnx'], 'model.onnx is the file to quantize itself'),
        (['model.onnx', 'old.xml'], 'old.xml already exists; --force replaces it'),
        (['model.onnx', 'weights.xml'], 'weights.bin already exists; --force replaces it'),
        (['model.onnx', 'none/out.xml'], 'the folder none does not exist'),
        (['none.onnx', 'out.xml'], 'the model none.onnx does not exist'),
        (['other.onnx', 'out.onnx'], 'other.onnx was not written by tools/export.py: it has no description'),
    ],
)
def test_what_cannot_be_quantized_is_refused(options, words, run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'old.xml').touch()
    (tmp_path / 'weights.bin').touch()
    helper = onnx.helper
    value = [helper.make_tensor_value_info(name, 1, [1]) for name in ('image', 'y')]
    node = helper.make_node('Relu', ['image'], ['y'])
    model = helper.make_model(helper.make_graph([node], 'g', value[:1], value[1:]), ir_version=9)
    model.opset_import[0].version = 18
    onnx.save(model, 'other.onnx')
    code, said = run_script('quantize.py', CLASSIFICATION, *options)
    assert code == 1 and words in said and 'Traceback' not in said
    assert not list(tmp_path.glob('out*'))


@pytest.mark.parametrize('package', ['nncf', 'openvino'])
def test_what_is_not_installed_is_named(package, run_script, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == package else find(name, *a))
    code, said = run_script('quantize.py', CLASSIFICATION, 'model.onnx', tmp_path / 'out.xml')
    assert code == 1 and f'needs {package}: pip install {package}' in said


def test_configs_that_do_not_fit_are_refused(shapes):
    cfg = Config.fromfile(CLASSIFICATION)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(shapes / 'imagenet')
    evaluation = evaluate.Evaluation(cfg, 'val')
    classes = ['circle', 'square', 'triangle']
    evaluation.check(dict(task='classification', classes=classes), 'x.onnx')
    for about, words in (
        (dict(task='detection', classes=classes), 'x.onnx is for detection, the config .* for classification'),
        (dict(task='classification', classes=[*classes[:2], 'star']), "differ: 'star' where the config has 'triangle'"),
        (dict(task='classification', classes=classes[:2]), 'differ: 2 of 3'),
    ):
        with pytest.raises(evaluate.UserError, match=words):
            evaluation.check(about, 'x.onnx')
    assert len(evaluate.calibration_images(cfg, 4)) == 4
    for part in ('val_evaluator', 'val_dataloader'):
        broken = Config(cfg.to_dict())
        broken[part] = None
        with pytest.raises(evaluate.UserError, match=f'has no {part}'):
            evaluate.Evaluation(broken, 'val')
    cfg.train_dataloader = None
    with pytest.raises(evaluate.UserError, match='has no train_dataloader'):
        evaluate.calibration_images(cfg, 4)


def scene(seed):
    """A picture with structure, 64x64."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


class Likeness:
    """Judges a model by how much its results agree with those of a file."""

    def __init__(self, path):
        self.images = [scene(number) for number in range(100, 116)]
        self.model = runtime.Runtime(path, 'openvino')
        self.expected = [self.model(image) for image in self.images]

    def __len__(self):
        return len(self.images)

    def image(self, index):
        return self.images[index]

    def score(self, model):
        pairs = zip(self.images, self.expected)
        return {'accuracy/top1': 100 * np.mean([quantize.agreement(model(image), result) for image, result in pairs])}


@pytest.mark.slow
@pytest.mark.parametrize('cls', [ResMLP, GMLP, RepMLP], ids=named)
def test_outliers_cost_less_than_with_the_defaults_of_nncf(cls, tmp_path):
    import nncf

    path = write_whole(small(CLASSIFICATION, cls), tmp_path / 'model.onnx', hard=True)
    quantizer = quantize.Quantizer(path, '.xml', [scene(number) for number in range(24)], Likeness(path), 0.15)
    ignored = nncf.IgnoredScope(names=quantizer.around, validate=False)
    naive = nncf.quantize(quantizer.model, quantizer._calibration(), ignored_scope=ignored)
    _, after, _ = quantize._written(quantizer, naive, tmp_path / 'naive.xml')
    report = quantize.quantize(quantizer, tmp_path / 'out.xml')
    assert report['drop'] <= 0.15 and report['drop'] < quantize.drop_of(quantizer.before, after)
    layers = int8_layers(quantize.load(tmp_path / 'out.xml', '.xml'))
    assert sum(layers.values()) == report['layers']['int8'] > len(layers) / 2
    made = runtime.Runtime(tmp_path / 'out.xml')
    assert made.about == runtime.Runtime(path).about
    assert made(scene(0))['probabilities'].sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_onnx_runtime_runs_the_tiles_of_repmlp(tmp_path):
    path = write_whole(small(CLASSIFICATION, RepMLP), tmp_path / 'model.onnx')
    likeness = Likeness(path)
    quantizer = quantize.Quantizer(path, '.onnx', [scene(number) for number in range(8)], likeness, 0.5)
    quantize.save(quantizer.plain(smooth=False), '{}', tmp_path / 'out.onnx')
    layers = int8_layers(quantize.load(tmp_path / 'out.onnx', '.onnx'))
    assert {name for name, int8 in layers.items() if not int8} == set(quantizer.floats) - set(quantizer.around)
    assert likeness.score(quantize.running(quantizer.runtime, onnx.load(tmp_path / 'out.onnx')))['accuracy/top1'] > 80


@pytest.mark.slow
def test_layers_return_to_float_until_accuracy_is_kept(tmp_path):
    path = write_whole(small(CLASSIFICATION), tmp_path / 'model.onnx', hard=True)
    quantizer = quantize.Quantizer(path, '.xml', [scene(number) for number in range(24)], Likeness(path), 0.2)
    report = quantize.quantize(quantizer, tmp_path / 'out.xml')
    assert report['drop'] <= 0.2 and report['fell_back'] and report['layers']['int8']
    reasons = {layer['reason'] for layer in report['layers']['float']}
    assert 'in int8 too much accuracy was lost' in reasons


@pytest.mark.slow
@pytest.mark.parametrize(
    'task, name, suffix',
    [
        ('classification', 'model.xml', '.xml'),
        ('segmentation', 'model.onnx', '.onnx'),
        ('detection', 'model.onnx', '.xml'),
    ],
)
def test_the_tool_writes_a_file_that_runs(task, name, suffix, exported, shapes, run_script, tmp_path):
    path, config = exported(task) / name, WHOLE[task]
    out, root = tmp_path / f'out{suffix}', f'data_root={shapes / TASKS[task]}/'
    options = ('--max-drop', 0.5, '--images', 6, '--cfg-options', root)
    code, said = run_script('quantize.py', config, path, out, *options)
    assert code == 0, said
    report = json.loads(out.with_suffix('.json').read_text())
    assert report['drop'] <= report['max_drop'] == 0.5
    assert report['images'] == dict(calibration=6, validation=5)
    assert report['layers']['int8'] > 5 and report['around']['names']
    assert report['milliseconds'].keys() == report['metrics'].keys() == report['mebibytes'].keys()
    assert f'{report["layers"]["int8"]} layers in int8' in said
    made = runtime.Runtime(out)
    assert made.about == runtime.Runtime(path).about
    assert (
        made(np.zeros((128, 160, 3), np.uint8)).keys()
        == runtime.Runtime(path)(np.zeros((128, 160, 3), np.uint8)).keys()
    )
    code, said = run_script('quantize.py', config, out, tmp_path / f'again{suffix}', *options)
    assert code == 1 and f'{out} is in int8 already' in said
