"""Hooks within mmengine's own runner, in this process."""

import argparse
import errno
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch
from hostile.attacks import Touch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mlp_backbones.datasets.samplers import INTERRUPTS
from mlp_backbones.engine.hooks.checkpoint import (
    WRITER,
    WholeFileBackend,
    is_whole,
    newest_checkpoint,
    save_after_last,
    whole_files,
)
from mlp_backbones.engine.hooks.interrupt import InterruptHook
from mlp_backbones.engine.launch import resume
from mlp_backbones.utils.errors import CheckpointError, InvalidState


class Model(BaseModel):
    """One number to learn; ``act`` is called in each step."""

    def __init__(self, act):
        super().__init__()
        self.layer, self.act = nn.Linear(1, 1), act

    def forward(self, inputs, mode='tensor'):
        if mode == 'predict':
            return [inputs]
        self.act()
        return dict(loss=self.layer(inputs).square().mean())


def handlers():
    return [signal.getsignal(number) for number in INTERRUPTS]


DATA = [dict(inputs=torch.rand(1)) for _ in range(4)]


def make_runner(folder, act, by_epoch=True, hook='InterruptHook', epochs=2, checkpoint=None, **settings):
    length = dict(by_epoch=True, max_epochs=epochs) if by_epoch else dict(by_epoch=False, max_iters=4, val_interval=2)
    settings = {'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.1)), **settings}
    settings.setdefault('train_dataloader', torch.utils.data.DataLoader(DATA, batch_size=2))
    return Runner(
        Model(act),
        str(folder),
        train_cfg=length,
        default_hooks=dict(checkpoint=checkpoint or dict(type='CheckpointHook', by_epoch=by_epoch, interval=100)),
        custom_hooks=[dict(type=f'mlp_backbones.{name}') for name in hook.split()],
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


class Scores(BaseMetric):
    """What an evaluation finds, one number each; ``act`` is called in each."""

    def __init__(self, *values, act=lambda: None):
        super().__init__()
        self.values, self.act = list(values), act

    def process(self, batch, outputs):
        self.results.append(0)

    def compute_metrics(self, results):
        self.act()
        return dict(score=self.values.pop(0))


def evaluated(metric):
    loader = torch.utils.data.DataLoader(DATA, batch_size=4)
    return dict(val_dataloader=loader, val_cfg=dict(), val_evaluator=[metric])


def saved(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


class TestReplacedCheckpoints:
    """mmengine removes the last one, and the best one, before it saves the next."""

    @staticmethod
    def start(folder, *scores, go_on='', epochs=2, **settings):
        settings = dict(interval=1, max_keep_ckpts=1, save_best='score', rule='greater', **settings)
        checkpoint = dict(type='mlp_backbones.CheckpointHook', **settings)
        runner = make_runner(folder, lambda: None, epochs=epochs, checkpoint=checkpoint, **evaluated(Scores(*scores)))
        if go_on:
            resume(runner, str(go_on))
        runner.train()

    @pytest.mark.parametrize('asynchronous', [False, True])
    def test_they_go_when_the_next_is_whole(self, tmp_path, asynchronous):
        self.start(tmp_path, 0.5, 0.6, 0.4, epochs=3, asynchronous=asynchronous)
        assert saved(tmp_path) == ['best_score_epoch_2.pth', 'epoch_3.pth']

    @pytest.mark.parametrize('asynchronous', [False, True])
    @pytest.mark.parametrize('name', ['epoch_2.pth', 'best_score_epoch_2.pth'])
    def test_they_stay_where_it_cannot_be_written(self, tmp_path, monkeypatch, asynchronous, name):
        fsync, full = os.fsync, []

        def without_room(descriptor):
            if Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.startswith(f'.{name}.partial-'):
                full.append(name)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, 'fsync', without_room)
        with pytest.raises(InvalidState, match='No space left on device; the last good checkpoint is .*epoch_[12].pth'):
            self.start(tmp_path, 0.5, 0.6, asynchronous=asynchronous)
        WRITER.pool.submit(int).result()
        assert full and saved(tmp_path) == [
            'best_score_epoch_1.pth',
            'epoch_1.pth' if name == 'epoch_2.pth' else 'epoch_2.pth',
        ]
        monkeypatch.setattr(os, 'fsync', fsync)
        self.start(tmp_path / 'other', 0.5, epochs=1)  # a run after it in this process
        assert 'best_score_epoch_1.pth' in saved(tmp_path)

    def test_another_backend_removes_before_it_writes(self, tmp_path):
        self.start(tmp_path, 0.5, 0.4, 0.3, epochs=3, backend_args=dict(backend='local'))
        assert saved(tmp_path) == ['best_score_epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']

    def test_a_run_that_goes_on_elsewhere_removes_nothing_where_it_came_from(self, tmp_path):
        self.start(tmp_path / 'a', 0.5, 0.6)
        assert saved(tmp_path / 'a') == ['best_score_epoch_2.pth', 'epoch_2.pth']
        self.start(tmp_path / 'b', 0.7, 0.8, go_on=tmp_path / 'a/epoch_2.pth', epochs=4)
        assert saved(tmp_path / 'a') == ['best_score_epoch_2.pth', 'epoch_2.pth']
        assert saved(tmp_path / 'b') == ['best_score_epoch_4.pth', 'epoch_4.pth']
        # Nor what a checkpoint from elsewhere calls its best one.
        (tmp_path / 'b/notes').mkdir()
        content = torch.load(tmp_path / 'b/epoch_4.pth', weights_only=False)
        for path in ('notes', '..', ''):
            content['message_hub']['runtime_info'].update(best_ckpt=str(tmp_path / 'b' / path), best_score=0.1)
            torch.save(content, tmp_path / 'c.pth')
            self.start(tmp_path / 'b', 0.9, go_on=tmp_path / 'c.pth', epochs=5)
            assert (tmp_path / 'b/notes').is_dir() and (tmp_path / 'b/best_score_epoch_4.pth').exists()


def test_checkpoints_in_a_folder_of_their_own(tmp_path):
    checkpoint = dict(type='mlp_backbones.CheckpointHook', interval=1, out_dir=str(tmp_path / 'out'))
    make_runner(tmp_path / 'w', lambda: None, checkpoint=checkpoint).train()
    for number in (2, 1):
        path = tmp_path / f'out/w/epoch_{number}.pth'
        assert newest_checkpoint(tmp_path / 'w')[0] == path
        path.unlink()
    assert newest_checkpoint(tmp_path / 'w') == (None, [tmp_path / 'out/w/epoch_2.pth'])


def test_a_damaged_file_is_passed_over(tmp_path):
    """Whatever reading it raises."""
    torch.save(dict(a=torch.rand(3)), tmp_path / 'epoch_1.pth')
    assert is_whole(tmp_path / 'epoch_1.pth')
    content = (tmp_path / 'epoch_1.pth').read_bytes()
    damaged = tmp_path / 'epoch_2.pth'
    refused = 0
    for place in range(len(content)):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        refused += not is_whole(damaged)
    assert refused > len(content) / 3


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('when', [1, 2])
def test_a_signal_during_an_evaluation(by_epoch, when, tmp_path):
    """The evaluation ends first; of the last one too the run says that it was asked to stop."""

    def act():
        if len(metric.values) == 3 - when:
            os.kill(os.getpid(), signal.SIGTERM)

    metric = Scores(0.1, 0.2, act=act)
    with pytest.raises(SystemExit) as stopped:
        make_runner(tmp_path, lambda: None, by_epoch, **evaluated(metric)).train()
    assert stopped.value.code == 130 and len(metric.values) == 2 - when
    assert newest_checkpoint(tmp_path) == (tmp_path / f'interrupted_iter_{2 * when}.pth', [])
    metric.act = lambda: None
    runner = make_runner(tmp_path, lambda: None, by_epoch, **evaluated(metric))
    resume(runner, 'auto')
    runner.train()
    assert runner.iter == 4 and not metric.values


def leave(rank, folder):
    """A process of two that are asked to stop; the first one takes longer to save."""
    torch.distributed.init_process_group('gloo', f'file://{folder}/meet', rank=rank, world_size=2)

    def save(*args, **kwargs):
        if rank == 0:
            time.sleep(2)
            (folder / 'saved').touch()

    optimizer = argparse.Namespace(should_update=lambda: True)
    runner = argparse.Namespace(
        work_dir=str(folder), iter=0, epoch=0, save_checkpoint=save, optim_wrapper=optimizer, logger=None
    )
    hook = InterruptHook()
    hook.requested = rank == 1
    try:
        hook.after_train_iter(runner, 0)
    finally:
        (folder / f'left_{rank}_{(folder / "saved").exists()}').touch()


def test_no_process_leaves_before_the_checkpoint_is_written(tmp_path):
    """Launchers kill the others when one has left."""
    context = multiprocessing.get_context('spawn')
    processes = [context.Process(target=leave, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [130, 130]
    assert sorted(path.name for path in tmp_path.glob('left_*')) == ['left_0_True', 'left_1_True']


class Dataset(list):
    """Which takes attributes."""


def resumable(batch_size=2):
    batches = dict(type='mlp_backbones.ResumableBatchSampler')
    sampler = dict(type='DefaultSampler')
    settings = dict(batch_size=batch_size, batch_sampler=batches, collate_fn=dict(type='default_collate'))
    return dict(dataset=Dataset(DATA), sampler=sampler, **settings)


def test_accumulated_gradients_of_a_run_with_other_batches(tmp_path):
    """It has another number of iterations, by which mmengine would scale the losses of what it takes for the last."""
    optimizer = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    scales = []

    def start(batch_size, epochs):
        runner = make_runner(
            tmp_path,
            lambda: scales.append(float(runner.optim_wrapper.scale_loss(torch.tensor(6.0)))),
            hook='ExactResumeHook',
            checkpoint=dict(type='mlp_backbones.CheckpointHook', interval=1),
            train_dataloader=resumable(batch_size),
            optim_wrapper=optimizer,
            epochs=epochs,
        )
        resume(runner, 'auto')
        runner.train()

    start(1, 2)
    scales.clear()
    start(2, 3)  # six iterations by its own count, after eight
    assert scales == [2.0, 2.0]  # a third


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
        torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
        other = dict(meta={}, message_hub={}, state_dict={'layer.weight': torch.rand(5, 7)})
        torch.save(other, tmp_path / 'other.pth')
        for name, why in (
            ('list', 'it has no meta, message_hub, state_dict'),
            ('weights', 'it has no meta, message_hub'),
            ('other', r'layer.weight is of shape \(5, 7\) there, and .* in this model'),
        ):
            runner = make_runner(
                tmp_path / 'w',
                lambda: None,
                hook='ExactResumeHook AdaptCheckpointHook',
                load_from=str(tmp_path / f'{name}.pth'),
                resume=True,
                train_dataloader=resumable(),
            )
            runner._train_loop = runner.build_train_loop(runner._train_loop)
            runner.call_hook('before_run')
            with pytest.raises(CheckpointError, match=rf'{name}\.pth cannot be resumed: {why}\.'):
                runner.load_or_resume()
