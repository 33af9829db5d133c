"""Whole runs on GPUs, with the frameworks: `TEST_CUDA=1 python -m pytest tests/cuda`."""

import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT
from helpers.training import (
    BACKBONE,
    BY_EPOCH,
    CLASSIFICATION,
    DETECTION,
    FSDP,
    MASK,
    METRIC,
    SEGMENTATION,
    history,
    options,
    run,
)

if not torch.cuda.is_available():
    pytest.skip('needs a GPU, and TEST_CUDA=1', allow_module_level=True)
for package in ('mmpretrain', 'mmdet', 'mmseg'):
    pytest.importorskip(package)


def operators_on_a_gpu():
    """Whether mmcv was compiled with CUDA, which the detectors need."""
    from mmcv.ops import nms

    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device='cuda')
    try:
        return len(nms(box, box[:, 2], 0.5)[1]) == 1
    except RuntimeError:
        return False


HAS_OPERATORS = operators_on_a_gpu()
needs_operators = pytest.mark.skipif(not HAS_OPERATORS, reason='needs an mmcv with CUDA')
TASKS = [
    CLASSIFICATION,
    SEGMENTATION,
    *(pytest.param(config, marks=needs_operators) for config in (DETECTION, MASK)),
]
COUNTS = [1, pytest.param(2, marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs'))]


def predictions(shapes, out, *model):
    """What tools/infer.py writes about a folder of images; it draws each."""
    source = shapes / 'imagenet/val/circle'
    run(sys.executable, ROOT / 'tools/infer.py', source, *model, '--out', out, cwd=out.parent)
    assert {p.stem for p in (out / 'pictures').iterdir()} == {p.stem for p in source.iterdir()}
    return json.loads((out / 'predictions.json').read_text())


@pytest.mark.parametrize('config', TASKS)
def test_train_evaluate_and_infer(config, shapes, tmp_path):
    name = ROOT / 'configs' / config
    settings = ['--cfg-options', *options(config, shapes)]
    done = run(sys.executable, ROOT / 'tools/train.py', name, '--work-dir', 'w', '--amp', *settings, cwd=tmp_path)
    assert 'No GPU found' not in done.stdout + done.stderr
    training, evaluation = history(tmp_path / 'w')
    assert len(training) == 3 and METRIC[config] in evaluation[-1]
    assert all(record['loss'] == record['loss'] and record['memory'] > 0 for record in training)
    last = (tmp_path / 'w/last_checkpoint').read_text()
    predictions(shapes, tmp_path / 'found', '--model', name, '--weights', last)  # a detector may find nothing


@pytest.mark.parametrize('count', COUNTS)
@pytest.mark.parametrize('extra', [[], ['--sync-bn'], ['--compile']], ids=' '.join)
def test_nccl(count, extra, shapes, tmp_path):
    command = [ROOT / 'tools/dist_train.sh', ROOT / 'configs' / CLASSIFICATION, count, '--work-dir', 'w', *extra]
    done = run(*command, '--cfg-options', *options(CLASSIFICATION, shapes), cwd=tmp_path, PYTHON=sys.executable)
    assert 'gloo instead of NCCL' not in done.stdout and 'BN instead of SyncBN' not in done.stdout
    training, evaluation = history(tmp_path / 'w')
    assert len(training) == -(-3 // count) and METRIC[CLASSIFICATION] in evaluation[-1]


@pytest.mark.parametrize('count', COUNTS)
def test_fsdp(count, shapes, tmp_path):
    config = tmp_path / 'fsdp.py'
    config.write_text(FSDP.format(configs=ROOT / 'configs', data=shapes / 'imagenet'))
    command = [ROOT / 'tools/dist_train.sh', config, count, '--work-dir', 'w', '--resume', '--cfg-options']
    for epochs in (1, 2):
        run(*command, f'train_cfg.max_epochs={epochs}', cwd=tmp_path, PYTHON=sys.executable)
    training, evaluation = history(tmp_path / 'w')
    assert training[-1]['step'] == 2 * -(-3 // count) and METRIC[CLASSIFICATION] in evaluation[-1]


def test_killed_and_resumed(shapes, tmp_path):
    config = tmp_path / 'small.py'
    config.write_text(BY_EPOCH.format(configs=ROOT / 'configs', backbone=BACKBONE.format(out_indices='(3,)')))
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(config), '--work-dir', 'w', '--resume']
    command += ['--cfg-options', f'data_root={shapes / "imagenet"}/']
    started = subprocess.Popen(command, cwd=tmp_path)
    end = time.monotonic() + 200
    while not (tmp_path / 'w/epoch_2.pth').exists():
        assert started.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    run(*command, cwd=tmp_path)
    training, _ = history(tmp_path / 'w')
    assert 0 < training[0]['step'] and (tmp_path / 'w/epoch_6.pth').is_file()


@needs_operators
def test_quick_start(tmp_path):
    """The detector of tools/quickstart.sh."""
    run(sys.executable, ROOT / 'tools/train.py', ROOT / 'configs' / DETECTION, '--work-dir', 'w', cwd=tmp_path)
    assert history(tmp_path / 'w')[1][-1]['coco/bbox_mAP'] >= 0.5


@pytest.mark.skipif(importlib.util.find_spec('onnxruntime') is None, reason='needs onnxruntime-gpu')
def test_exported(shapes, tmp_path):
    import onnxruntime

    if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
        pytest.skip('needs onnxruntime-gpu')
    from mlp_backbones.apis.zoo import build_model
    from mlp_backbones.engine.config import load_config

    config = ROOT / 'configs' / CLASSIFICATION
    torch.save(build_model(load_config(str(config))).state_dict(), tmp_path / 'x.pth')
    run(sys.executable, ROOT / 'tools/export.py', config, 'x.pth', 'x.onnx', cwd=tmp_path)
    host, file = (
        predictions(shapes, tmp_path / name, *model)
        for name, model in (('host', ['--model', config, '--weights', 'x.pth']), ('file', ['--model', 'x.onnx']))
    )
    assert len(host) == len(file) > 0
    for ours, theirs in zip(file, host):
        assert ours['file_name'] == theirs['file_name']
        scores = [{found['name']: found['score'] for found in record['best']} for record in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)
