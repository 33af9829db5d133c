"""Several processes, "machines" and the options of a run, on a CPU with gloo."""

import inspect
import os
import socket
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from helpers.processes import Run
from helpers.training import BACKBONE, BY_EPOCH, CLASSIFICATION, FSDP, METRIC, history, options, run
from mmengine.config import Config

from mlp_backbones.apis.zoo import build_model
from mlp_backbones.engine.config import load_config

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def two_nodes(tmp_path, shapes, *folders):
    """Train with two launchers that meet on loopback, from another folder, each with a work dir of its own."""
    environment = {**os.environ, 'NNODES': '2', 'MASTER_ADDR': '127.0.0.1', 'PORT': str(free_port())}
    environment |= {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}
    command = [ROOT / 'tools/dist_train.sh', ROOT / 'configs' / CLASSIFICATION, 1, '--resume', '--cfg-options']
    command += [*options(CLASSIFICATION, shapes), '--work-dir']
    nodes = [
        subprocess.Popen(
            [str(part) for part in (*command, folder)],
            cwd=tmp_path,
            env={**environment, 'NODE_RANK': str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    return [node.returncode for node in nodes], printed


def test_two_nodes(shapes, tmp_path):
    status, printed = two_nodes(tmp_path, shapes, 'work dir of two', 'work dir of two')
    assert status == [0, 0], printed[0][-2000:] + printed[1][-2000:]
    training, evaluation = history(tmp_path / 'work dir of two')
    assert len(training) == 2, 'six images, two a process'
    assert METRIC[CLASSIFICATION] in evaluation[-1]
    # The first process chooses the checkpoint for all: one that began anew would wait for the others, and they for it.
    status, printed = two_nodes(tmp_path, shapes, 'work dir of two', 'not shared')
    assert status == [0, 0], printed[0][-2000:] + printed[1][-2000:]
    assert 'resumed epoch: 1, iter: 2' in printed[0]


SRUN = """
import os, subprocess, sys

tasks = int(next(a for a in sys.argv if a.startswith('--ntasks=')).split('=')[1])
command = sys.argv[sys.argv.index('bash'):]
common = dict(os.environ, SLURM_JOB_ID='4711', SLURM_NTASKS=str(tasks), SLURM_STEP_NODELIST='n[1-2]')
started = [subprocess.Popen(command, env=dict(common, SLURM_PROCID=str(i), SLURM_LOCALID='0')) for i in range(tasks)]
sys.exit(max(process.wait() for process in started))
"""
SCONTROL = """
import sys

assert sys.argv[1:] == ['show', 'hostnames', 'n[1-2]']
print('localhost\\nother')
"""


def test_slurm(shapes, tmp_path):
    """With a stand-in for Slurm, which starts processes with Slurm's variables and no others."""
    for name, code in (('srun', SRUN), ('scontrol', SCONTROL)):
        (tmp_path / name).write_text(f'#!{sys.executable}\n{code}')
        (tmp_path / name).chmod(0o755)
    command = [ROOT / 'tools/slurm_train.sh', 'part', 'a job', ROOT / 'configs' / CLASSIFICATION, 'work dir']
    command += ['--cfg-options', *options(CLASSIFICATION, shapes)]
    environment = dict(PYTHON=sys.executable, OMP_NUM_THREADS='1', PATH=f'{tmp_path}:{os.environ["PATH"]}')
    printed = run(*command, cwd=tmp_path, GPUS='2', **environment).stdout
    assert printed.count('No GPU found') == 1, 'the first process speaks for all'
    training, evaluation = history(tmp_path / 'work dir')
    assert len(training) == 2, 'six images, two a process'
    assert METRIC[CLASSIFICATION] in evaluation[-1]


ON_A_CPU = """
# Full states are not moved to a CPU that they are on.
state = dict(state_dict_type='FULL_STATE_DICT')
state['state_dict_config'] = dict(type='FullStateDictConfig', offload_to_cpu=False)
state['optim_state_dict_config'] = dict(type='FullOptimStateDictConfig', offload_to_cpu=False)
strategy['state_dict_cfg'] = dict(_delete_=True, **state)
strategy['model_wrapper']['device_id'] = 'cpu'
"""


@pytest.mark.skipif(
    not hasattr(torch.cpu, 'Stream') or 'priority' not in inspect.signature(torch.cpu.Stream).parameters,
    reason='FSDP of this torch wants GPUs',
)
def test_fsdp_trains_resumes_and_saves_plain_checkpoints(shapes, tmp_path):
    (tmp_path / 'fsdp.py').write_text(FSDP.format(configs=ROOT / 'configs', data=shapes / 'imagenet') + ON_A_CPU)
    steps = []
    for epochs, processes in ((1, 2), (2, 2), (3, 1), (4, 2)):  # whole checkpoints go on in any number of processes
        command = [ROOT / 'tools/dist_train.sh', 'fsdp.py', processes, '--work-dir', 'w', '--resume', '--cfg-options']
        done = run(
            *(*command, f'train_cfg.max_epochs={epochs}'), cwd=tmp_path, PYTHON=sys.executable, OMP_NUM_THREADS='1'
        )
        training, evaluation = history(tmp_path / 'w')
        steps.append([record['step'] for record in training])
        assert epochs == 1 or f'resumed epoch: {epochs - 1}, iter: {steps[-2][-1]}' in done.stdout + done.stderr
        assert METRIC[CLASSIFICATION] in evaluation[-1]
    assert steps == [[1, 2], [3, 4], [5, 6, 7], [8, 9]]
    assert sorted(path.name for path in (tmp_path / 'w').glob('*.pth')) == [f'epoch_{n}.pth' for n in (2, 3, 4)]
    cfg = load_config(str(tmp_path / 'fsdp.py'))
    model = build_model(cfg, weights=str(tmp_path / 'w/epoch_4.pth'))
    saved = torch.load(tmp_path / 'w/epoch_4.pth', weights_only=False)['state_dict']
    assert all(torch.equal(v, saved[k]) for k, v in model.state_dict().items())


def train(tmp_path, shapes, *arguments, evaluate=True):
    config = tmp_path / 'small.py'
    config.write_text(BY_EPOCH.format(configs=ROOT / 'configs', backbone=BACKBONE.format(out_indices='(3,)')))
    started = Run(
        *(config, '--work-dir', tmp_path / 'w', *arguments, '--cfg-options', *options(CLASSIFICATION, shapes)),
        f'train_cfg.val_interval={1 if evaluate else 2}',
        cwd=tmp_path,
    )
    assert started.wait() == 0, started.printed[-3000:]
    return started.printed


def test_accumulated_gradients_and_sync_bn(shapes, tmp_path):
    printed = train(tmp_path, shapes, '--accumulate', 2, '--sync-bn', '--amp')
    assert 'No GPU found: float32 instead of mixed precision.' in printed
    used = Config.fromfile(tmp_path / 'w/small.py')
    assert used.optim_wrapper.accumulative_counts == 2


def test_compiled_training_step(shapes, tmp_path):
    printed = train(tmp_path, shapes, '--compile', evaluate=False)  # which would compile the backbone again
    assert 'The backbone is compiled' in printed
    training, _ = history(tmp_path / 'w')
    assert len(training) == 3


SHAPES = sorted(str(p.relative_to(ROOT / 'configs')) for p in (ROOT / 'configs').glob('*/*_shapes.py'))


@pytest.mark.parametrize('config', SHAPES)
def test_every_parameter_gets_a_gradient(config, shapes):
    """Or DistributedDataParallel would wait for ever: no shipped config needs ``find_unused_parameters``."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    task = config.split('/')[0]
    root = shapes / {'detection': 'coco', 'segmentation': 'ade', 'classification': 'imagenet'}[task]
    cfg = load_config(str(ROOT / 'configs' / config), dict(data_root=f'{root}/'))
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    model = build_model(cfg).train()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    batch = model.data_preprocessor(batch, training=True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
