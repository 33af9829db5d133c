"""Hooks within mmengine's own runner, in this process."""

import argparse
import errno
import os
import pickle
import signal
import time

import pytest
import torch
from hostile.attacks import Touch
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mlp_backbones.datasets.samplers import INTERRUPTS
from mlp_backbones.engine.hooks.checkpoint import (
    CheckpointHook,
    WholeFileBackend,
    newest_checkpoint,
    save_after_last,
    whole_files,
)
from mlp_backbones.utils.errors import CheckpointError, InvalidState


class Model(BaseModel):
    """One number to learn; ``act`` is called in each step."""

    def __init__(self, act):
        super().__init__()
        self.layer, self.act = nn.Linear(1, 1), act

    def forward(self, inputs, mode='tensor'):
        self.act()
        return dict(loss=self.layer(inputs).square().mean())


def handlers():
    return [signal.getsignal(number) for number in INTERRUPTS]


def make_runner(folder, act, by_epoch=True, hook='InterruptHook', **settings):
    length = dict(by_epoch=True, max_epochs=2) if by_epoch else dict(by_epoch=False, max_iters=4)
    return Runner(
        Model(act),
        str(folder),
        train_dataloader=torch.utils.data.DataLoader([dict(inputs=torch.rand(1)) for _ in range(4)], batch_size=2),
        train_cfg=length,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=100)),
        custom_hooks=[dict(type=f'mlp_backbones.{hook}')],
        experiment_name=f'{folder.name}-{time.monotonic_ns()}',
        log_level='ERROR',
        **settings,
    )


def fail():
    raise RuntimeError('in the model')


def interrupt_twice():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1.1)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize(
    'act, error',
    [
        (lambda: None, None),
        (fail, RuntimeError),
        (lambda: os.kill(os.getpid(), signal.SIGINT), SystemExit),
        (interrupt_twice, KeyboardInterrupt),
    ],
    ids=['ends', 'fails', 'interrupted', 'interrupted twice'],
)
def test_signal_handlers_are_there_while_the_loop_runs(by_epoch, act, error, tmp_path):
    before, during = handlers(), []
    runner = make_runner(tmp_path, lambda: (during.append(handlers()), act()), by_epoch)
    assert handlers() == before
    if error is None:
        runner.train()
    else:
        with pytest.raises(error):
            runner.train()
    assert handlers() == before
    assert all(now != then for now, then in zip(during[0], before))


def test_an_interrupted_run_is_saved(tmp_path):
    runner = make_runner(tmp_path, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(SystemExit) as stopped:
        runner.train()
    assert stopped.value.code == 130
    assert newest_checkpoint(tmp_path) == (tmp_path / 'interrupted_iter_1.pth', [])


def test_a_second_run_of_a_runner_in_a_notebook(tmp_path):
    """The request to stop of a run that has ended does not stop the next one."""
    runner = make_runner(tmp_path, lambda: None)
    (hook,) = (h for h in runner.hooks if type(h).__name__ == 'InterruptHook')
    hook.requested = True
    runner.train()
    assert runner.iter == 4


def test_the_file_backend_of_mmengine_stays():
    """Checkpoints are written whole by another, which is asked for by its name."""
    assert type(get_file_backend('x.pth', backend_args=whole_files())) is WholeFileBackend
    assert type(get_file_backend('x.pth')) is LocalBackend


def test_where_a_file_cannot_take_the_place_of_another(tmp_path, monkeypatch):
    """As on some network file systems: what is there stays, and nothing half-written remains."""

    def replace(source, target):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))

    (tmp_path / 'x.pth').write_bytes(b'old')
    monkeypatch.setattr(os, 'replace', replace)
    runner = argparse.Namespace(work_dir=str(tmp_path))
    put = get_file_backend('x.pth', backend_args=whole_files()).put
    with pytest.raises(InvalidState, match=r'cannot save a checkpoint to .*: File exists; no checkpoint was saved'):
        save_after_last(runner, str(tmp_path), put, b'new', tmp_path / 'x.pth')
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [('x.pth', b'old')]


def test_the_only_checkpoint_is_not_removed_before_the_next_is_there():
    assert [CheckpointHook(max_keep_ckpts=number).max_keep_ckpts for number in (-1, 1, 2, 3)] == [-1, 2, 2, 3]


class TestLoadFrom:
    """By the reader of ``init_cfg``, in mmengine's own runner."""

    @pytest.fixture
    def load(self, tmp_path):
        def load(path):
            runner = make_runner(tmp_path / 'w', lambda: None, hook='AdaptCheckpointHook', load_from=str(path))
            runner.call_hook('before_run')
            runner.load_or_resume()
            return runner.model.state_dict()

        return load

    @pytest.mark.parametrize('kind', ['pth', 'old.pth', 'pdparams', 'safetensors'])
    def test_whole_and_truncated(self, load, tmp_path, kind):
        path = tmp_path / f'a.{kind}'
        tensors = {'layer.weight': torch.rand(1, 1), 'layer.bias': torch.rand(1), 'other': torch.rand(5000)}
        if kind == 'safetensors':
            pytest.importorskip('safetensors.torch').save_file(tensors, path)
        elif kind == 'pdparams':
            path.write_bytes(pickle.dumps({k: v.numpy() for k, v in tensors.items()}, 2))
        else:
            torch.save(dict(state_dict=tensors), path, _use_new_zipfile_serialization=kind == 'pth')
        loaded = load(path)
        assert all(torch.equal(loaded[name], tensors[name]) for name in loaded)
        path.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(CheckpointError, match=f'{path} is not a checkpoint, or is truncated'):
            load(path)

    def test_a_file_that_does_not_exist(self, load):
        with pytest.raises(CheckpointError, match='the checkpoint lost.pth does not exist'):
            load('lost.pth')

    def test_a_file_that_would_run_code(self, load, tmp_path):
        torch.save(dict(state_dict={}, hostile=Touch(tmp_path / 'canary')), tmp_path / 'a.pth')
        with pytest.raises(CheckpointError, match='was refused.*nothing in it was run'):
            load(tmp_path / 'a.pth')
        assert not (tmp_path / 'canary').exists()

    def test_what_cannot_be_resumed(self, tmp_path):
        torch.save([torch.rand(1)], tmp_path / 'list.pth')
        runner = make_runner(
            tmp_path / 'w', lambda: None, hook='AdaptCheckpointHook', load_from=str(tmp_path / 'list.pth'), resume=True
        )
        runner.call_hook('before_run')
        with pytest.raises(
            CheckpointError, match=r'list\.pth cannot be resumed: it has no meta, message_hub, state_dict'
        ):
            runner.load_or_resume()
