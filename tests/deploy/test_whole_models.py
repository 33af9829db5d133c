"""Whole models in one file: what they decode is what OpenMMLab decodes, and the runtime needs neither it nor torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from helpers import CONFIGS, ROOT, build, host_config
from helpers.families import TINY
from helpers.pages import blocks
from helpers.processes import tool
from helpers.whole_models import WHOLE, detector, small

from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP, reparameterize
from mlp_backbones.apis.inference import Predictor
from mlp_backbones.apis.zoo import build_model
from mlp_backbones.engine.config import load_config

if not hasattr(torch.library, 'custom_op'):
    pytest.skip('export needs torch 2.6', allow_module_level=True)

from mlp_backbones.deploy import graph, heads, runtime
from mlp_backbones.deploy.description import describe

ARCH = TINY[ConvMLP]['arch']


def of_mmdet(name: str):
    """A config of mmdet's own with a small ConvMLP in it."""
    cfg = host_config(f'mmdet::{name}')
    cfg.default_scope = 'mmdet'
    cfg.model.backbone = dict(type='mlp_backbones.ConvMLP', arch=ARCH)
    cfg.model.neck.in_channels = [ARCH['channels'], *ARCH['dims']]
    return cfg


DETECTORS = {
    'RetinaNet': lambda: small(WHOLE['detection']),
    'Mask R-CNN': lambda: small(WHOLE['instances']),
    'FCOS': lambda: of_mmdet('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'),
    'ATSS': lambda: of_mmdet('atss/atss_r50_fpn_1x_coco.py'),
    'Faster R-CNN': lambda: of_mmdet('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
}


@pytest.mark.parametrize('name', DETECTORS)
def test_a_batch_is_decoded_as_mmdet_decodes_each_image(name):
    from mmdet.structures import DetDataSample

    model = detector(DETECTORS[name]())
    core = graph.core_of(model)
    x, size = torch.randn(2, 3, 128, 192), torch.tensor([120, 177])
    meta = dict(img_shape=(120, 177), ori_shape=(120, 177), scale_factor=(1.0, 1.0), batch_input_shape=(128, 192))
    with torch.no_grad():
        found = dict(zip(core.names, core(x, size)))
        expected = model.predict(x, [DetDataSample(metainfo=dict(meta)) for _ in range(2)], rescale=True)
    for image, sample in enumerate(expected):
        instances = sample.pred_instances
        count = len(instances.scores)
        assert count > 20
        assert (found['labels'][image] >= 0).sum() == count
        torch.testing.assert_close(found['scores'][image, :count], instances.scores)
        torch.testing.assert_close(found['boxes'][image, :count], instances.bboxes, atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(found['labels'][image, :count], instances.labels)
        if 'masks' in found:
            for number in range(count):
                pasted = runtime._paste(
                    found['masks'][image, number].numpy(), found['boxes'][image, number].numpy(), 120, 177
                )
                assert ((pasted >= 0.5) != instances.masks[number].numpy()).mean() < 1e-3


def one_by_one(boxes, scores, iou_threshold, score_threshold):
    """Suppression image by image and class by class."""
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for image, label in np.ndindex(*scores.shape[:2]):
        index = (scores[image, label] > score_threshold).nonzero()[:, 0]
        kept = torchvision.ops.nms(boxes[image, index], scores[image, label, index], iou_threshold)
        keep[image, label, index[kept]] = True
    return keep


@pytest.mark.parametrize('suppress', [heads.nms, heads.nms_operator()], ids=['function', 'operator'])
def test_suppression_of_a_batch_is_that_of_each_class(suppress):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 60, 2, generator=generator) * 900
    boxes = torch.cat([corners, corners + torch.rand(3, 60, 2, generator=generator) * 300], -1)
    scores = torch.rand(3, 7, 60, generator=generator)
    one, other = (f(boxes, scores, 0.4, 0.3) for f in (suppress, one_by_one))
    assert torch.equal(one, other)
    assert 0 < one.sum() < (scores > 0.3).sum()
    assert not one[scores <= 0.3].any()


def test_what_is_missing_has_no_score_and_no_label():
    boxes, scores, labels = torch.rand(1, 3, 4), torch.tensor([[0.2, 0.9, 0.5]]), torch.tensor([[4, 5, 6]])
    keep = torch.tensor([[True, False, True]])
    found = heads.best(boxes, scores, labels, keep, 4)
    assert torch.equal(found[1], torch.tensor([[0.5, 0.2, 0.0, 0.0]]))
    assert torch.equal(found[2], torch.tensor([[6, 4, -1, -1]]))
    assert torch.equal(found[0], torch.stack([boxes[0, 2], boxes[0, 0], torch.zeros(4), torch.zeros(4)])[None])


@pytest.mark.parametrize('task', ['detection', 'segmentation', 'classification'])
def test_images_are_prepared_as_the_framework_prepares_them(task):
    cfg = small(WHOLE[task])
    model = build(cfg).eval()
    settings = describe(cfg, model, 'x')
    image = torch.randint(0, 256, (1, 3, 128, 160), dtype=torch.uint8)
    x, size = graph.Preprocess(settings)(image)
    torch.testing.assert_close(x, model.data_preprocessor(dict(inputs=list(image)))['inputs'])
    assert size.tolist() == [128, 160]


def test_padding_is_after_normalization_at_the_right_and_the_bottom():
    settings = dict(mean=[100.0] * 3, std=[50.0] * 3, bgr_to_rgb=False, pad_divisor=32)
    x, size = graph.Preprocess(settings)(torch.full((2, 3, 33, 65), 200, dtype=torch.uint8))
    assert x.shape == (2, 3, 64, 96) and size.tolist() == [33, 65]
    assert (x[:, :, :33, :65] == 2).all()
    assert x.count_nonzero() == 2 * 3 * 33 * 65


def test_heads_that_cannot_be_exported_are_named():
    cfg = of_mmdet('yolox/yolox_s_8xb8-300e_coco.py')
    cfg.model.neck.in_channels = [*ARCH['dims']]
    cfg.model.backbone.out_indices = (1, 2, 3)
    cfg.model.bbox_head.in_channels = cfg.model.neck.out_channels
    with pytest.raises(ValueError, match=r'^YOLOXHead decodes predictions in its own way.*RetinaNet, FCOS, ATSS'):
        heads.Detector(build(cfg))


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('before, after', [((97, 131), (64, 80)), ((50, 60), (200, 133)), ((224, 224), (224, 100))])
def test_images_are_resized_as_pillow_resizes_them(before, after, interpolation):
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (*before, 3), np.uint8)
    expected = Image.fromarray(image).resize(after[::-1], getattr(Image, interpolation.upper()))
    made = runtime._resize_as_pillow(image, after[1], after[0], interpolation)
    assert np.array_equal(made, np.asarray(expected))


def test_crops_are_those_of_the_framework():
    from mmcv.transforms import CenterCrop

    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    model = object.__new__(runtime.Runtime)
    for size in (24, (40, 20)):
        cfg = small(WHOLE['classification'])
        cfg.test_dataloader.dataset.pipeline[1:-1] = [dict(type='CenterCrop', crop_size=size)]
        model.about = describe(cfg, build(cfg), 'x')
        assert np.array_equal(model.resize(image), CenterCrop(size)(dict(img=image))['img'])


@pytest.mark.parametrize(
    'step',
    [
        dict(type='CenterCrop', crop_size=9, auto_pad=True),
        dict(type='Resize', scale_factor=0.5),
        dict(type='Resize', scale=(32, 32), backend='pillow', interpolation='nearest'),
        dict(type='ResizeEdge', scale=32, backend='pillow', interpolation='lanczos'),
        dict(type='RandomFlip', prob=1.0),
    ],
)
def test_steps_that_a_file_cannot_do(step):
    cfg = small(WHOLE['classification'])
    cfg.test_dataloader.dataset.pipeline[1:-1] = [step]
    with pytest.raises(ValueError, match=f"'type': '{step['type']}'.* is not a step that a file can describe"):
        describe(cfg, build(cfg), 'x')
    assert describe(cfg, build(cfg), 'x', raw=True)['resize'] == [dict(step=step['type'])]


@pytest.mark.parametrize(
    ('task', 'change', 'words'),
    [
        ('detection', dict(data_preprocessor=dict(pad_value=3)), 'pads with 0, not with the 3'),
        ('detection', dict(test_cfg=dict(min_bbox_size=40)), 'min_bbox_size is of boxes in the original image'),
        ('detection', dict(test_cfg=dict(nms=dict(max_num=5))), 'knows no max_num'),
        ('detection', dict(test_cfg=dict(nms_pre=-1)), 'nms_pre must be positive'),
        ('detection', dict(test_cfg=dict(max_per_img=-1)), 'max_per_img must be positive'),
        ('segmentation', dict(decode_head=dict(num_classes=300)), 'eight bits, too few for 300 classes'),
        ('segmentation', dict(data_preprocessor=dict(test_cfg=dict(size=(96, 96)))), 'cannot pad to the size'),
    ],
)
def test_settings_that_a_file_cannot_follow(task, change, words):
    cfg = small(WHOLE[task])
    cfg.merge_from_dict(dict(model=change))
    model = build(cfg)
    with pytest.raises(ValueError, match=words):
        graph.Whole(model, describe(cfg, model, 'x'))


def test_masks_are_encoded_as_pycocotools_encodes_them():
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        mask = rng.random((37, 53)) < share
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert runtime.encode_mask(mask) == dict(size=[37, 53], counts=expected['counts'].decode())


@pytest.mark.slow
@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('task', WHOLE)
def test_the_file_predicts_what_openmmlab_predicts(task, engine, exported):
    pytest.importorskip(engine)
    folder = exported(task)
    whole = folder / ('model.xml' if engine == 'openvino' and task == 'classification' else 'model.onnx')
    model = runtime.Runtime(whole, engine)
    predictor = Predictor.build(folder / 'config.py', folder / 'weights.pth', 'cpu')
    assert (
        tuple(model.about['classes']) == predictor.about['classes'] and model.about['task'] == predictor.about['task']
    )
    for path in sorted(folder.glob('?.png')):
        image = cv2.imread(str(path))
        found, expected = model(image), predictor(image)
        assert found.keys() == expected.keys()
        if task == 'classification':
            np.testing.assert_allclose(found['probabilities'], expected['probabilities'], atol=1e-5)
            assert model.record(found)['name'] == predictor.record(expected)['name']
        elif task == 'segmentation':
            assert found['label_map'].shape == image.shape[:2]
            assert (found['label_map'] != expected['label_map']).mean() < 1e-3
        else:
            np.testing.assert_allclose(found['scores'], expected['scores'], atol=1e-4)
            alone = np.abs(np.diff(found['scores'], prepend=2, append=-1))
            alone = (alone[1:] > 1e-4) & (alone[:-1] > 1e-4)
            assert alone.sum() > 10
            np.testing.assert_allclose(found['boxes'][alone], expected['boxes'][alone], atol=0.05)
            if task == 'instances':
                assert (found['masks'][alone] != expected['masks'][alone]).mean() < 1e-3
        zoom = -(-600 // min(image.shape[:2]))
        assert model.draw(image, found).shape == (zoom * image.shape[0], zoom * image.shape[1], 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    'config, cls',
    [(WHOLE['classification'], cls) for cls in (ResMLP, GMLP, RepMLP)]
    + [(CONFIGS / 'segmentation/sfp_resmlp_p8_shapes.py', ResMLP)],
)
def test_windowed_families_take_any_size(config, cls, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    cfg = small(config, cls)
    torch.manual_seed(0)
    model = reparameterize(build(cfg).eval(), inplace=True)
    settings = describe(cfg, model, 'x')
    whole = graph.whole_onnx(model, settings).SerializeToString(deterministic=True)
    if cls is GMLP:  # exported twice, files are equal
        assert graph.whole_onnx(model, settings).SerializeToString(deterministic=True) == whole
    session = onnxruntime.InferenceSession(whole)
    torch.export.save(graph.whole_program(graph.Whole(model, settings), settings), tmp_path / 'x.pt2')
    program = torch.export.load(tmp_path / 'x.pt2').module()
    for batch, height, width in ((1, 40, 33), (2, 97, 150), (1, 64, 128)):  # of one tile or window, and of several
        image = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        expected = graph.outputs_of(model, settings, image)
        for outputs in (map(torch.tensor, session.run(None, dict(image=image.numpy()))), program(image)):
            assert graph.difference(dict(zip(expected, outputs)), expected) < 1e-4


@pytest.mark.slow
def test_the_torch_program_of_a_detector_takes_any_size(exported, tmp_path, monkeypatch):
    folder = exported('detection')
    config, weights = folder / 'config.py', folder / 'weights.pth'
    most = 'model.test_cfg.max_per_img'
    tool('export.py', config, weights, 'retinanet.pt2', '--cfg-options', f'{most}=7', cwd=tmp_path)
    model = reparameterize(build_model(load_config(str(config), {most: 7}), weights=weights), inplace=True)
    described = {f'{runtime.KEY}.json': ''}
    torch.export.load(tmp_path / 'retinanet.pt2', extra_files=described)
    settings = json.loads(described[f'{runtime.KEY}.json'])
    (text,) = (text for text in blocks(ROOT / 'docs/deploy.md', 'python') if 'torch.export.load' in text)
    monkeypatch.chdir(tmp_path)
    for height, width in ((32, 20), (64, 96), (100, 333)):  # maps of one row, without padding, with padding
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        names = dict(image=image)
        exec(text, names)
        expected = graph.outputs_of(model, settings, torch.from_numpy(image).permute(2, 0, 1)[None])
        assert names['boxes'].shape == (1, 7, 4) and graph.difference(names, expected) < 1e-4


@pytest.fixture(scope='module')
def bare_python(tmp_path_factory) -> Path:
    """The interpreter of a new environment with what the runtime needs and nothing else."""
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    install = [folder / 'bin/python', '-m', 'pip', 'install', '-q', 'numpy', 'opencv-python-headless', 'onnxruntime']
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / 'bin/python'


@pytest.mark.slow
@pytest.mark.parametrize('task', ['instances', 'segmentation'])
def test_the_runtime_stands_alone(task, exported, bare_python, tmp_path):
    folder = exported(task)
    (tmp_path / 'runtime.py').write_text(Path(runtime.__file__).read_text())
    command = [bare_python, '-I', 'runtime.py', folder / 'model.onnx', folder, '--out', tmp_path / 'out']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert {record['file_name'] for record in records} == {'0.png', '1.png', '2.png'}
    assert sorted(path.name for path in (tmp_path / 'out/pictures').iterdir()) == ['0.jpg', '1.jpg', '2.jpg']
    model = runtime.Runtime(folder / 'model.onnx')
    first = model(cv2.imread(str(folder / '0.png')))
    if task == 'segmentation':
        written = cv2.imread(str(tmp_path / 'out/maps/0.png'), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(written, first['label_map'])
    else:
        expected = model.record(first)
        assert [r['segmentation'] for r in records if r['image_id'] == 0] == [r['segmentation'] for r in expected]
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 1 and 'predictions.json already exists; --force replaces it' in again.stderr


@pytest.mark.slow
def test_the_runtime_tells_files_of_one_name_apart(exported, tmp_path):
    folder = exported('segmentation')
    for number, suffix in enumerate(('png', 'jpg')):
        cv2.imwrite(str(tmp_path / f'a.{suffix}'), cv2.imread(str(folder / f'{number}.png')))
    runtime.predict(folder / 'model.onnx', tmp_path, tmp_path / 'out')
    records = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert {r['file_name']: r['map'] for r in records} == {f'a.{s}': f'maps/a.{s}.png' for s in ('png', 'jpg')}
    assert sorted(path.name for path in (tmp_path / 'out/pictures').iterdir()) == ['a.jpg.jpg', 'a.png.jpg']


@pytest.mark.slow
def test_bad_input_of_the_runtime(exported, tmp_path):
    path = exported('classification') / 'model.onnx'
    model = runtime.Runtime(path)
    for image, words in (
        (np.zeros((50, 50), np.uint8), r'uint8 of shape \(height, width, 3\), got uint8 \(50, 50\)'),
        (np.zeros((50, 50, 3), np.float32), r'uint8 of shape \(height, width, 3\), got float32'),
        (np.zeros((9, 50, 3), np.uint8), 'an image of 9x50 is too small: at least 32x32'),
        ('photo.jpg', r'uint8 of shape \(height, width, 3\), got str'),
    ):
        with pytest.raises(runtime.RuntimeProblem, match=words):
            model(image)
    (tmp_path / 'x.onnx').write_bytes(b'not a model')
    for arguments, words in (
        ((tmp_path / 'none.onnx',), r'none\.onnx does not exist'),
        ((tmp_path,), 'does not exist'),
        ((tmp_path / 'x.onnx',), r'cannot read .*x\.onnx'),
        ((path, 'tensorrt'), "the engine must be onnxruntime or openvino, got 'tensorrt'"),
    ):
        with pytest.raises(runtime.RuntimeProblem, match=words):
            runtime.Runtime(*arguments)


@pytest.mark.slow
def test_images_that_a_file_does_not_take(exported, tmp_path):
    """The others are predicted; order and numbers are those of tools/infer.py."""
    (tmp_path / 'photos').mkdir()
    for number, size in ((9, (77, 100)), (10, (20, 50)), (139, (64, 64))):
        cv2.imwrite(str(tmp_path / f'photos/{number}.png'), np.zeros((*size, 3), np.uint8))
    (tmp_path / 'photos/11.png').write_bytes(b'no image')
    model = exported('classification') / 'model.onnx'
    words = r'2 of 4 files could not be used: 10.png \(an image of 20x50 is too small.*\), 11.png \(OpenCV'
    with pytest.raises(runtime.RuntimeProblem, match=words):
        runtime.predict(model, tmp_path / 'photos', tmp_path / 'out')
    records = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [record['file_name'] for record in records] == ['9.png', '139.png']
    runtime.predict(exported('detection') / 'model.onnx', tmp_path / 'photos/139.png', tmp_path / 'boxes')
    records = json.loads((tmp_path / 'boxes/predictions.json').read_text())
    assert {record['image_id'] for record in records} == {139}
    fixed = runtime.Runtime(model)
    fixed.about['fixed_size'] = [64, 96]
    with pytest.raises(
        runtime.RuntimeProblem, match=r'takes 64x96 pixels only, and of an image of 50x60 \d+x\d+ are left'
    ):
        fixed(np.zeros((50, 60, 3), np.uint8))


@pytest.mark.slow
def test_low_images_are_padded_before_they_are_too_small(exported):
    model = runtime.Runtime(exported('detection') / 'model.onnx')
    low = np.random.default_rng(0).integers(0, 256, (20, 120, 3), np.uint8)
    assert model.resize(low).shape[0] < model.about['min_size'][0]
    assert len(model(low)['boxes'])


def test_what_is_drawn_fits_into_a_file():
    model = runtime.Model()
    model.about = dict(task='classification', classes=['a'], palette=[])
    for height, width, suffix in ((40, 5000, 'jpg'), (1, 70, 'jpg'), (2, 66000, 'png')):
        drawn = model.draw(np.zeros((height, width, 3), np.uint8), dict(probabilities=np.ones(1)))
        assert drawn.shape[1] <= max(width, 4000)
        assert runtime.picture_name('x', drawn) == f'x.{suffix}' and cv2.imencode(f'.{suffix}', drawn)[0]


@pytest.mark.slow
def test_the_inference_tool_takes_the_file(exported, run_script, tmp_path):
    path = exported('segmentation') / 'model.onnx'
    out = tmp_path / 'out'
    code, said = run_script('infer.py', path.parent, '--model', path, '--out', out, '--no-pictures')
    assert code == 0, said
    assert len(json.loads((out / 'predictions.json').read_text())) == 3 and not (out / 'pictures').exists()
    code, said = run_script('infer.py', path.parent, '--model', path, '--out', tmp_path / 'new', '--device', 'cpu')
    assert code == 1 and f'--batch-size cannot be used with an exported file such as {path}' in said
    (tmp_path / 'x.onnx').write_text('no model')
    code, said = run_script('infer.py', path.parent, '--model', tmp_path / 'x.onnx', '--out', tmp_path / 'new')
    assert code == 1 and 'onnxruntime cannot read' in said and 'Traceback' not in said
    assert not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_the_inference_tool_gives_a_file_the_ids_of_the_annotations(exported, run_script, tmp_path):
    path, out = exported('detection') / 'model.onnx', tmp_path / 'out'
    categories = [dict(id=i, name=name) for i, name in ((9, 'circle'), (3, 'square'), (7, 'triangle'))]
    images = [dict(id=50 + i, file_name=f'{i}.png') for i in range(3)]
    (tmp_path / 'ann.json').write_text(json.dumps(dict(categories=categories, images=images)))
    args = ('--out', out, '--score', 0, '--ann', tmp_path / 'ann.json')
    code, said = run_script('infer.py', path.parent, '--model', path, *args)
    assert code == 0, said
    found = json.loads((out / 'predictions.json').read_text())
    assert {f['image_id'] for f in found} == {50, 51, 52}
    assert {f['category_id'] for f in found} <= {3, 7, 9}


@pytest.mark.slow
@pytest.mark.parametrize('task, data', [('instances', 'coco'), ('segmentation', 'ade'), ('classification', 'imagenet')])
def test_a_file_is_evaluated_as_its_checkpoint(task, data, exported, run_script, shapes, tmp_path):
    folder = exported(task)
    args = ('--work-dir', tmp_path, '--cfg-options', f'data_root={shapes / data}/')
    code, said = run_script('test.py', folder / 'config.py', folder / 'weights.pth', *args)
    assert code == 0, said
    (log,) = (path for path in tmp_path.glob('*/*.json'))
    expected = json.loads(log.read_text())
    code, said = run_script('test.py', folder / 'config.py', folder / 'model.onnx', *args)
    assert code == 0, said
    found = {name: float(value) for name, value in re.findall(r'^(\S+): ([\d.-]+)$', said, re.M)}
    assert found
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=0.1 if task == 'segmentation' else 0.002), name
    code, said = run_script('test.py', folder / 'config.py', folder / 'model.onnx', '--tta', *args)
    assert code == 1 and '--tta cannot be used with an exported file' in said


@pytest.mark.slow
def test_the_program_of_the_page(exported, tmp_path, monkeypatch):
    (text,) = (text for text in blocks(ROOT / 'docs/deploy.md', 'python') if 'deploy.runtime' in text)
    folder = exported('detection')
    (tmp_path / 'retinanet.onnx').symlink_to(folder / 'model.onnx')
    cv2.imwrite(str(tmp_path / 'photo.jpg'), cv2.imread(str(folder / '0.png')))
    monkeypatch.chdir(tmp_path)
    exec(text, {})
    assert cv2.imread('predictions.jpg').shape == (600, 800, 3)
