"""What a run of mmengine writes is read whole, and nothing in it is run, wherever a file enters."""

import pickle
import re
from collections import OrderedDict

import cv2
import numpy as np
import pytest
import torch
from helpers import build
from helpers.processes import tool
from helpers.training import CLASSIFICATION, options
from helpers.whole_models import WHOLE, small
from hostile.attacks import Touch, call, doubled, text
from hostile.mutations import pack
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.runner.checkpoint import CheckpointLoader

from mlp_backbones.checkpoints import CheckpointError
from mlp_backbones.checkpoints.runs import read_predictions, read_training_checkpoint, use_safe_reader


@pytest.fixture
def canary(tmp_path):
    yield tmp_path / 'canary'
    assert not (tmp_path / 'canary').exists()


def test_everything_of_a_run_comes_back(tmp_path):
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(1, 2)).sum().backward()
    optimizer.step()
    history = HistoryBuffer([0.5, 0.25], [2, 3], 7)
    content = dict(
        meta=dict(epoch=1, iter=2, seed=3, hook_msgs=dict(best_score=np.float64(0.5)), data=(1, [(0, 2)])),
        state_dict=OrderedDict(model.state_dict()),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=4, verbose=False, betas=(0.9, 0.999))],
        message_hub=dict(
            log_scalars=OrderedDict(loss=history), runtime_info=dict(big=np.arange(6.0).reshape(2, 3)), resumed_keys={}
        ),
        device=torch.device('cpu'),
        dtype=torch.bfloat16,
    )
    torch.save(content, tmp_path / 'run.pth')
    read = read_training_checkpoint(tmp_path / 'run.pth')
    assert read['meta'] == content['meta'] and read['param_schedulers'] == content['param_schedulers']
    assert read['device'] == torch.device('cpu') and read['dtype'] == torch.bfloat16
    torch.testing.assert_close(read['state_dict'], dict(content['state_dict']), rtol=0, atol=0)
    torch.testing.assert_close(read['optimizer']['state'], content['optimizer']['state'], rtol=0, atol=0)
    assert read['optimizer']['param_groups'] == content['optimizer']['param_groups']
    hub = read['message_hub']
    assert np.array_equal(hub['runtime_info']['big'], content['message_hub']['runtime_info']['big'])
    loss = hub['log_scalars']['loss']
    assert isinstance(loss, HistoryBuffer) and loss.mean() == history.mean() and loss.current() == 0.25
    assert loss.max_length == 7
    loss.update(1.0)  # and it goes on
    assert loss.data[0].tolist() == [0.5, 0.25, 1.0]


def test_what_schedules_and_settings_bring_along(tmp_path):
    """OneCycleLR keeps a method of its own, metainfo mmengine's dicts, and protocol 2 knows no empty bytes."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    schedules = [OneCycleLR(optimizer, eta_max=0.2, total_steps=8) for _ in range(2)]
    optimizer.step()
    schedules[0].step()
    meta = ConfigDict(classes=('a', 'b'), groups=dict(round=['a']))
    torch.save(dict(state=schedules[0].state_dict(), meta=meta, empty=np.zeros((0, 4)), none=b''), tmp_path / 'run.pth')
    read = read_training_checkpoint(tmp_path / 'run.pth')
    assert read['meta'] == dict(classes=('a', 'b'), groups=dict(round=['a']))
    assert read['empty'].shape == (0, 4) and read['none'] == b''
    assert read['state'].keys() == schedules[0].state_dict().keys() - {'anneal_func'}
    schedules[1].load_state_dict(read['state'])
    rates = []
    for schedule in schedules:
        schedule.step()
        rates.append(schedule.get_last_value())
    assert rates[0] == rates[1]


def test_a_config_that_mmengine_would_run_is_left_out(tmp_path, canary):
    content = dict(meta=dict(epoch=0, config=f'open({str(canary)!r}, "w")', cfg='a = 1'), state_dict={})
    torch.save(content, tmp_path / 'run.pth')
    assert read_training_checkpoint(tmp_path / 'run.pth')['meta'] == dict(epoch=0, cfg='a = 1')


ENDLESS = {'doubled': doubled(60), 'in itself': b']q\x01h\x01a', 'deep': b'(' * 3000 + b't' * 3000}


@pytest.mark.parametrize('program', ENDLESS.values(), ids=ENDLESS)
def test_containers_that_never_end(tmp_path, program):
    """Each container is made once; those within themselves, or too deep for Python, are refused."""
    (tmp_path / 'x.pth').write_bytes(pack([('a/data.pkl', b'\x80\x02}' + text('a') + program + b's.')]))
    try:
        assert 'a' in read_training_checkpoint(tmp_path / 'x.pth')
    except CheckpointError:
        assert program != doubled(60)


def test_predictions(tmp_path, canary):
    written = [dict(img_id=1, ori_shape=(4, 5), pred_instances=dict(scores=torch.rand(3), labels=torch.arange(3)))]
    path = tmp_path / 'x.pkl'
    path.write_bytes(pickle.dumps(written))
    (read,) = read_predictions(path)
    assert read['img_id'] == 1 and read['ori_shape'] == (4, 5)
    torch.testing.assert_close(read['pred_instances'], written[0]['pred_instances'], rtol=0, atol=0)
    path.write_bytes(pickle.dumps([Touch(canary)]))
    with pytest.raises(CheckpointError, match=r'asks for _?io.open, which no checkpoint needs; nothing in it was run'):
        read_predictions(path)
    path.write_bytes(b'\x80\x02' + call('torch.storage', '_load_from_bytes', b'B\x03\0\0\0abc') + b'.')
    with pytest.raises(CheckpointError, match='is not a pickle, or is truncated'):
        read_predictions(path)


def test_mmengine_reads_with_ours(tmp_path, canary):
    use_safe_reader()
    torch.save(dict(state_dict={}, hostile=Touch(canary)), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='was refused'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'))


DOORS = {
    'load_from': ('train.py', 'small.py', '--cfg-options', 'load_from=hostile.pth'),
    'resume': ('train.py', 'small.py', '--resume', 'hostile.pth', '--cfg-options'),
    'weights of the backbone': ('train.py', 'backbone.py', '--cfg-options'),
    'weights of the model': ('train.py', 'model.py', '--cfg-options'),
    'test': ('test.py', 'small.py', 'hostile.pth', '--cfg-options'),
    'infer': ('infer.py', 'picture.png', '--model', 'small.py', '--weights', 'hostile.pth', '--out', 'x.out'),
    'export': ('export.py', 'small.py', 'hostile.pth', 'x.pt2'),
    'reparameterize': ('reparameterize.py', 'small.py', 'hostile.pth', 'x.pth'),
    'convert': ('convert_checkpoint.py', 'hostile.pth', 'x.pth'),
    'visualize': (
        *('visualize.py', 'features', 'picture.png', '--model', 'small.py', '--weights', 'hostile.pth'),
        *('--out', 'x.png'),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize('door', DOORS)
def test_no_door_runs_code(door, shapes, tmp_path, canary):
    if door == 'export' and not hasattr(getattr(torch.export, 'Dim', None), 'AUTO'):
        pytest.skip('export needs torch 2.6')
    cfg = small(WHOLE['classification'])
    content = dict(state_dict=build(cfg).state_dict(), meta=dict(epoch=1), message_hub={}, hostile=Touch(canary))
    torch.save(content, tmp_path / 'hostile.pth')
    cv2.imwrite(str(tmp_path / 'picture.png'), np.zeros((64, 64, 3), np.uint8))
    cfg.dump(tmp_path / 'small.py')
    for name, part in (('model', cfg.model), ('backbone', cfg.model.backbone)):
        part.init_cfg = dict(type='Pretrained', checkpoint='hostile.pth')
        cfg.dump(tmp_path / f'{name}.py')
        part.init_cfg = None
    command = DOORS[door]
    settings = options(CLASSIFICATION, shapes) if '--cfg-options' in command else []
    code, said = tool(*command, *settings, cwd=tmp_path, check=False)
    assert code == 1, said
    assert re.search(r'hostile.pth was refused: it asks for .*open, which no checkpoint needs; nothing in it was', said)
    assert 'Traceback' not in said and not list(tmp_path.glob('x.*'))
