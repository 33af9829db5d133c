"""What happens to a training run when something happens to its process, its disk or its numbers.

``FAULT_ROUNDS=20 pytest tests/engine/test_faults.py`` kills twenty runs of each kind at random moments instead of one.
"""

import ast
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from helpers.processes import Run, gone
from helpers.training import BACKBONE, BY_EPOCH, BY_ITERATION

from mlp_backbones.datasets import make_shapes
from mlp_backbones.datasets.samplers import INTERRUPTS
from mlp_backbones.engine.hooks.checkpoint import newest_checkpoint
from mlp_backbones.utils.files import PARTIAL

ROUNDS = int(os.environ.get('FAULT_ROUNDS', 1))
pytestmark = pytest.mark.slow

RUNS = {'epoch': (BY_EPOCH, 'classification'), 'iteration': (BY_ITERATION, 'segmentation')}


class Case:
    """A config on a small set of shapes, and what an unbroken run of it came to."""

    def __init__(self, folder, text, task):
        make_shapes(folder / 'data', task, num_train=24, num_val=4, verbose=False)
        self.folder = folder
        self.config = folder / 'config.py'
        backbone = BACKBONE.format(out_indices='(3,)' if task == 'classification' else '(0, 1, 2, 3)')
        self.config.write_text(text.format(configs=ROOT / 'configs', backbone=backbone))
        assert self.start('unbroken').wait() == 0
        self.losses = losses(folder / 'unbroken')
        assert len(self.losses) == 36

    def start(self, work, *arguments, config=None, **kwargs):
        (self.folder / work).mkdir(parents=True, exist_ok=True)
        return Run(
            *(config or self.config, '--work-dir', self.folder / work, *arguments),
            *('--cfg-options', f'data_root={self.folder / "data"}/'),
            cwd=self.folder / work,
            **kwargs,
        )

    def check(self, work):
        """The broken and resumed run is the unbroken one: every loss, every tensor, the optimizer's and the EMA's."""
        assert losses(self.folder / work) == pytest.approx(self.losses, rel=1e-6)
        ours, theirs = (final(self.folder / w) for w in (work, 'unbroken'))
        assert ours['meta']['iter'] == theirs['meta']['iter'] and ours['meta']['epoch'] == theirs['meta']['epoch']
        for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
            assert equal(ours.get(part), theirs.get(part)), part
        assert not list((self.folder / work).glob(f'.*{PARTIAL}*'))


def final(work):
    return torch.load((work / 'last_checkpoint').read_text(), map_location='cpu', weights_only=False)


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def losses(work):
    """Iteration -> loss, over all starts of a work dir; what was done twice must have come to the same."""
    found = {}
    for path in sorted(work.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            record = json.loads(line) if line.endswith('}') else {}
            if 'loss' in record:
                assert record['loss'] == pytest.approx(found.setdefault(record['step'], record['loss']), rel=1e-6)
    return found


def progress(work):
    return len(losses(work))


@pytest.fixture(scope='module', params=RUNS)
def case(request, tmp_path_factory):
    return Case(tmp_path_factory.mktemp(request.param), *RUNS[request.param])


@pytest.fixture(scope='module')
def by_epoch(tmp_path_factory):
    return Case(tmp_path_factory.mktemp('faults'), *RUNS['epoch'])


@pytest.mark.parametrize('number', range(ROUNDS))
def test_sigkill_at_a_random_moment(case, number):
    """Two kills of the main process, wherever it is; resumed, nothing but what was not saved is done again."""
    work = f'killed {number}'
    shutil.rmtree(case.folder / work, ignore_errors=True)
    dice = random.Random(number)
    moments = sorted(dice.sample(range(2, 36), 2))
    for moment in moments:
        run = case.start(work, '--resume')
        run.wait_for(lambda m=moment: progress(case.folder / work) >= m)
        time.sleep(dice.uniform(0, 0.1))
        os.kill(run.process.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        gone(run.process.pid)
        saved = newest_checkpoint(case.folder / work)[0]
        assert moment < 7 or saved, 'what was saved is there'
    run = case.start(work, '--resume')
    assert run.wait() == 0
    assert saved is None or f'Resuming from {saved}' in run.printed
    case.check(work)


def test_the_own_script_of_mmdet_resumes_exactly(tmp_path):
    """All that it takes stands in the config: killed in the middle of an epoch, it goes on in the middle of it."""
    mmdet = pytest.importorskip('mmdet')
    script = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    make_shapes(tmp_path / 'data/shapes/coco', 'detection', num_train=10, num_val=2, verbose=False)
    settings = ['train_dataloader.batch_size=2', 'train_cfg.max_epochs=3', 'train_cfg.val_interval=3']
    settings += ['default_hooks.logger.interval=1', 'default_hooks.checkpoint.by_epoch=False']
    settings += ['default_hooks.checkpoint.interval=3']

    def start(work, *arguments):
        config = ROOT / 'configs/detection/retinanet_convmlp_s_fpn_shapes.py'
        arguments = [config, '--work-dir', tmp_path / work, *arguments, '--cfg-options', *settings]
        return Run(*arguments, cwd=tmp_path, script=script)

    assert start('unbroken').wait() == 0
    broken = start('broken')
    broken.wait_for(lambda: progress(tmp_path / 'broken') >= 7)
    os.kill(broken.process.pid, signal.SIGKILL)
    assert broken.wait() == -signal.SIGKILL
    gone(broken.process.pid)
    resumed = start('broken', '--resume')
    assert resumed.wait() == 0
    assert re.search(r'resumed epoch: 1, iter: [69]\n', resumed.printed), resumed.printed[-3000:]
    found = losses(tmp_path / 'broken')
    assert list(found) == list(range(1, 16))
    assert found == pytest.approx(losses(tmp_path / 'unbroken'), rel=1e-6)
    ours, theirs = (final(tmp_path / work) for work in ('broken', 'unbroken'))
    assert ours['meta']['iter'] == theirs['meta']['iter'] == 15
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert equal(ours[part], theirs[part]), part


SLOW_DISK = """
import os, time
def fsync(file):
    if len([1 for _ in os.scandir('.') if _.name.startswith('epoch')]):
        time.sleep(600)
os.fsync = fsync
"""


ASYNCHRONOUS = 'default_hooks = dict(checkpoint=dict(asynchronous=True))\n'


@pytest.mark.parametrize('settings', ['', ASYNCHRONOUS], ids=['', 'asynchronous'])
def test_sigkill_while_a_checkpoint_is_written(by_epoch, settings):
    """Everything but the end of the second checkpoint is on the disk when the process dies."""
    name = f'writing{len(settings)}'
    work = by_epoch.folder / name
    work.mkdir()
    (work / 'slow_disk.py').write_text(SLOW_DISK)
    config = work / 'slow.py'
    config.write_text(f"_base_ = '{by_epoch.config}'\ncustom_imports = dict(imports=['slow_disk'])\n{settings}")
    run = by_epoch.start(name, config=config, path=str(work))
    run.wait_for(lambda: (work / 'epoch_1.pth').exists() and list(work.glob(f'.epoch_2*{PARTIAL}*')))
    if settings:  # training goes on
        run.wait_for(lambda: progress(work) > 12)
    run.kill(signal.SIGKILL)
    run.wait()
    assert [p.name for p in work.glob('*.pth')] == ['epoch_1.pth'], 'removed only when the next one is there'
    run = by_epoch.start(name, '--resume')
    assert run.wait() == 0 and f'Resuming from {work / "epoch_1.pth"}' in run.printed
    by_epoch.check(name)


def mount_small_disk(folder, size):
    """A file system of that size at the folder, or a skip where the user may not."""
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], capture_output=True)
    if done.returncode:
        pytest.skip('mounting a small disk needs root')


@pytest.mark.parametrize('settings', ['', ASYNCHRONOUS], ids=['', 'asynchronous'])
def test_full_disk(by_epoch, settings):
    name = f'full{len(settings)}'
    work, log = by_epoch.folder / name, by_epoch.folder / f'{name}.txt'
    work.mkdir()
    config = by_epoch.folder / f'{name}.py'
    config.write_text(f"_base_ = '{by_epoch.config}'\n{settings}")
    size = by_epoch.folder.joinpath('unbroken', 'epoch_6.pth').stat().st_size
    mount_small_disk(work, int(1.9 * size))
    try:
        run = by_epoch.start(name, log=log, config=config)
        assert run.wait() == 1
        assert re.search(
            r'error: cannot save a checkpoint to .*full\d*: No space left on device; the last good checkpoint is '
            r'.*epoch_1.pth. Go on from it with --resume',
            run.printed,
        ), run.printed[-2000:]
        assert 'Traceback' not in run.printed
        # mmengine writes the newest one's name before that is whole.
        assert newest_checkpoint(work) == (work / 'epoch_1.pth', [work / 'epoch_2.pth'] if settings else [])
        assert not list(work.glob(f'.*{PARTIAL}*'))
        subprocess.run(['mount', '-o', f'remount,size={100 * size}', work], check=True)
        assert by_epoch.start(name, '--resume', log=log, config=config).wait() == 0
        by_epoch.check(name)
    finally:
        subprocess.run(['umount', work], check=True)


def test_file_size_limit(by_epoch):
    """The same without root: the process may not write files as large as a checkpoint."""
    size = by_epoch.folder.joinpath('unbroken', 'epoch_6.pth').stat().st_size
    run = by_epoch.start('limit', limit=size // 2)
    assert run.wait() == 1
    assert re.search(r'error: cannot save .*limit: File too large; no checkpoint was saved before', run.printed)
    assert not list((by_epoch.folder / 'limit').glob('*.pth')) + list((by_epoch.folder / 'limit').glob(f'.*{PARTIAL}*'))


@pytest.mark.parametrize('settings', ['', ASYNCHRONOUS], ids=['', 'asynchronous'])
def test_interrupt_without_space(by_epoch, settings):
    """Neither the checkpoint of the interrupt nor, being written at that time, the one before it is lost in silence."""
    name = f'no space {bool(settings)}'
    config = by_epoch.folder / f'{name}.py'
    hooks = settings or 'default_hooks = dict(checkpoint=None)\n'
    config.write_text(f"_base_ = '{by_epoch.config}'\n{hooks}")
    size = by_epoch.folder.joinpath('unbroken', 'epoch_6.pth').stat().st_size
    run = by_epoch.start(name, config=config, limit=size // 2)
    run.wait_for(lambda: progress(by_epoch.folder / name) >= 6)
    run.kill(signal.SIGINT)
    assert run.wait() == 1
    assert re.search(r'error: cannot save .*: File too large; no checkpoint was saved before', run.printed)


@pytest.mark.parametrize('harm', ['truncated', 'flipped', 'missing', 'pointer'])
def test_damaged_checkpoint(by_epoch, harm):
    """Falls back to the newest one that is whole, and says so."""
    work = by_epoch.folder / harm
    settings = by_epoch.folder / f'{harm}.py'
    settings.write_text(f"_base_ = '{by_epoch.config}'\ndefault_hooks = dict(checkpoint=dict(max_keep_ckpts=3))\n")
    run = by_epoch.start(harm, config=settings)
    run.wait_for(lambda: (work / 'epoch_3.pth').exists() and progress(work) >= 19)
    run.kill(signal.SIGKILL)
    run.wait()
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_3.pth')
    last, content = work / 'epoch_3.pth', (work / 'epoch_3.pth').read_bytes()
    if harm == 'truncated':
        last.write_bytes(content[: len(content) // 2])
    elif harm == 'flipped':
        at = len(content) // 2
        last.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif harm == 'missing':
        last.unlink()
    else:
        (work / 'last_checkpoint').write_text('')
    run = by_epoch.start(harm, '--resume', config=settings)
    assert run.wait() == 0
    if harm == 'pointer':
        assert f'Resuming from {last}' in run.printed
    else:
        assert f'missing or not whole, so passed over: {last}' in run.printed
        assert f'Resuming from {work / "epoch_2.pth"}' in run.printed
    by_epoch.check(harm)


def test_damaged_checkpoint_by_name(by_epoch, tmp_path):
    damaged = tmp_path / 'mine.pth'
    damaged.write_bytes((by_epoch.folder / 'unbroken/epoch_6.pth').read_bytes()[:1000])
    run = by_epoch.start('unbroken', '--resume', damaged)
    assert run.wait() == 1
    assert f'error: --resume {damaged}: the checkpoint does not exist, or is truncated' in run.printed
    assert f'the newest whole one in {by_epoch.folder / "unbroken"} is' in run.printed


def test_another_batch_size(by_epoch):
    """Nothing is left out of the epochs that follow, though the checkpoint counts other iterations."""
    work = by_epoch.folder / 'larger'
    work.mkdir()
    shutil.copy(by_epoch.folder / 'unbroken/epoch_6.pth', work)
    config = by_epoch.folder / 'larger.py'
    config.write_text(
        f"_base_ = '{by_epoch.config}'\ntrain_dataloader = dict(batch_size=8)\ntrain_cfg = dict(max_epochs=7)\n"
    )
    assert by_epoch.start('larger', '--resume', config=config).wait() == 0
    assert final(work)['meta']['iter'] == 36 + 24 // 8


def test_nan_stops(by_epoch):
    config = by_epoch.folder / 'nan.py'
    config.write_text(
        f"_base_ = '{by_epoch.config}'\n"
        # Good in the first epoch, absurd in the second.
        "param_scheduler = [dict(type='StepLR', step_size=1, gamma=1e34)]\n"
        'optim_wrapper = dict(clip_grad=None)\n'
    )
    run = by_epoch.start('nan', config=config)
    assert run.wait() == 1
    assert re.search(r'error: loss not finite at iteration \d+ \(epoch 2\), on:\n(  .*/train/.*jpg\n){4}', run.printed)
    assert f'the last good checkpoint is {by_epoch.folder / "nan/epoch_1.pth"}' in run.printed
    weights = torch.load(by_epoch.folder / 'nan/epoch_1.pth', weights_only=False)['state_dict']
    assert all(torch.isfinite(v).all() for v in weights.values())


@pytest.mark.parametrize('number', INTERRUPTS)
def test_interrupt_saves(case, number):
    work = f'interrupted {number}'
    run = case.start(work)
    run.wait_for(lambda: progress(case.folder / work) >= 9)
    run.kill(number)  # the workers get it too, as from a terminal
    assert run.wait() == 130
    gone(run.process.pid)
    done = int(
        re.search(
            r'Stopped after iteration (\d+): .*interrupted_iter_\1.pth, saved in [\d.]+ s. Go on with --resume',
            run.printed,
        )[1]
    )
    assert done >= 9 and (case.folder / work / f'interrupted_iter_{done}.pth').exists()
    run = case.start(work, '--resume')
    assert run.wait() == 0 and f'interrupted_iter_{done}.pth' in run.printed
    case.check(work)


def test_interrupt_with_evaluation_workers(by_epoch):
    """They stay from the first evaluation on; one that the signal ended would end the run."""
    config = by_epoch.folder / 'evaluating.py'
    config.write_text(
        f"_base_ = '{by_epoch.config}'\ntrain_cfg = dict(val_interval=1)\n"
        'val_dataloader = dict(num_workers=2, persistent_workers=True)\n'
    )
    work = by_epoch.folder / 'evaluating'
    run = by_epoch.start('evaluating', config=config)
    run.wait_for(lambda: progress(work) >= 9)
    run.kill(signal.SIGTERM)
    assert run.wait() == 130 and list(work.glob('interrupted_iter_*.pth')), run.printed[-3000:]
    gone(run.process.pid)


def launch(*arguments, cwd, log, **environment):
    """Start tools/dist_train.sh in a session of its own."""
    return subprocess.Popen(
        [str(part) for part in (ROOT / 'tools/dist_train.sh', *arguments)],
        cwd=cwd,
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


RECORD = """
from pathlib import Path
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Record(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        samples = [(Path(s.img_path).name, image.float().mean().item())
                   for image, s in zip(data_batch['inputs'], data_batch['data_samples'])]
        samples = sorted(sum(all_gather_object(samples), []))
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, 'mean')
        if is_main_process():
            with Path(runner.work_dir, 'record.txt').open('a') as file:
                print(repr((runner.iter, samples, loss.item())), file=file, flush=True)
"""
# Without what each process does in its own way: BatchNorm, drop path and mixup.
ELASTIC = """
_base_ = {base!r}
custom_imports = dict(imports=['record'])
custom_hooks = [dict(type='Record')]
model = dict(backbone=dict(norm_eval=True, drop_path_rate=0.0), {model})
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))
"""


@pytest.mark.parametrize('number', range(ROUNDS))
def test_processes_come_and_go(case, number):
    """Two, then one, then two, each killed: the global batches and the losses of an unbroken run."""
    folder = case.folder / f'elastic {number}'
    folder.mkdir()
    (folder / 'record.py').write_text(RECORD)
    batch, model = 4, 'train_cfg=None'
    if 'segmentation' in case.config.read_text():
        batch, model = 2, "decode_head=dict(dropout_ratio=0, norm_cfg=dict(_delete_=True, type='GN', num_groups=1))"
    (folder / 'elastic.py').write_text(ELASTIC.format(base=str(case.config), model=model))

    def recorded(work):
        """Iteration -> samples and loss; what was done twice must have come to the same."""
        found = {}
        path = folder / work / 'record.txt'
        for line in path.read_text().splitlines() if path.exists() else []:
            iteration, *values = ast.literal_eval(line)
            samples, loss = found.setdefault(iteration, values)
            assert samples == values[0] and loss == pytest.approx(values[1], rel=1e-4)
        return found

    def run(work, processes, until=None):
        arguments = ['--work-dir', work, '--resume', '--cfg-options', f'data_root={case.folder / "data"}/']
        arguments += [f'train_dataloader.batch_size={batch // processes}']

        def reached():
            return until is not None and max(recorded(work), default=-1) >= until

        if processes == 1:
            started = Run('elastic.py', *arguments, cwd=folder, path=str(folder), log=folder / f'{work}.txt')
            if until is not None:
                started.wait_for(reached)
                started.kill(signal.SIGKILL)
            assert started.wait() == (0 if until is None else -signal.SIGKILL), started.printed[-3000:]
            return
        with (folder / f'{work}.txt').open('a') as log:
            launcher = launch('elastic.py', processes, *arguments, cwd=folder, log=log, PYTHONPATH=str(folder))
            end = time.monotonic() + 300
            while launcher.poll() is None and not reached():
                assert time.monotonic() < end
                time.sleep(0.05)
            if until is not None:
                for pid in workers(launcher.pid).values():
                    os.kill(pid, signal.SIGKILL)
            assert (launcher.wait(300) == 0) == (until is None), (folder / f'{work}.txt').read_text()[-3000:]

    run('unbroken', 1)
    dice = random.Random(number)
    first = dice.randrange(3, 12)
    for processes, until in ((2, first), (1, dice.randrange(first + 6, 26)), (2, None)):
        run('broken', processes, until)
    found, expected = recorded('broken'), recorded('unbroken')
    assert list(expected) == sorted(found) == list(range(36))
    for iteration, (samples, loss) in expected.items():
        assert found[iteration][0] == samples, iteration
        assert found[iteration][1] == pytest.approx(loss, rel=1e-3), iteration


def workers(launcher):
    """Rank -> process id of the training processes under a launcher."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
        try:
            environment = dict(
                v.split('=', 1) for v in Path(f'/proc/{pid}/environ').read_text().split('\0') if '=' in v
            )
            parent = int(Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[1])
        except (OSError, UnicodeDecodeError):
            continue
        if 'RANK' in environment and parent == launcher:
            found[int(environment['RANK'])] = pid
    return found


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_one_of_two_processes(by_epoch, number):
    """One killed: the other ends within a minute. Ctrl-C or SIGTERM at the launcher: both save, and resume as one."""
    work = by_epoch.folder / f'two {number}'
    work.mkdir()
    arguments = ['--work-dir', work, '--resume', '--cfg-options', f'data_root={by_epoch.folder / "data"}/']
    arguments += ['train_dataloader.batch_size=2']

    def start():
        return launch(by_epoch.config, 2, *arguments, cwd=work, log=log)

    with (work / 'log.txt').open('w') as log:
        launcher = start()
        end = time.monotonic() + 180
        while progress(work) < 8 and time.monotonic() < end and launcher.poll() is None:
            time.sleep(0.05)
        pids = workers(launcher.pid)
        assert sorted(pids) == [0, 1], (work / 'log.txt').read_text()[-3000:]
        os.kill(pids[1] if number == signal.SIGKILL else launcher.pid, number)
        assert launcher.wait(60) != 0
        assert not any(Path(f'/proc/{pid}').exists() for pid in pids.values())
        if number != signal.SIGKILL:
            assert list(work.glob('interrupted_iter_*.pth')), (work / 'log.txt').read_text()[-3000:]
        assert start().wait(300) == 0
    assert 'Resuming from' in (work / 'log.txt').read_text()
    assert len(losses(work)) == 36  # and what was done twice came to the same
