"""What is checked before a run starts, and what a run's config is made into."""

import argparse
import errno
import os
import socket
import subprocess

import pytest
import torch
from helpers import CONFIGS, ROOT
from helpers.processes import tool
from helpers.training import CLASSIFICATION, options, ready
from mmengine.runner import Runner

from mlp_backbones.apis.zoo import build_model
from mlp_backbones.engine import launch
from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.cli import run_tool
from mlp_backbones.utils.errors import CheckpointError, UserError

RETINANET = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py')
SHAPES = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_shapes.py')
SCRATCH = {'model.backbone.init_cfg': None}
ONE_OF_EACH = {
    'classification': 'resmlp_12_imagenet',
    'detection': 'retinanet_gmlp_s16_sfp_1x_coco',
    'segmentation': 'fpn_convmlp_l_512x512_40k_ade20k',
}


@pytest.mark.parametrize('scope', ['', 'mmengine.'])
def test_without_a_gpu(capsys, scope):
    cfg = load_config(str(CONFIGS / 'classification/convmlp_s_imagenet.py'))
    cfg.launcher = 'none'
    cfg.optim_wrapper.type = f'{scope}AmpOptimWrapper'
    launch._adapt_to_device(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper' and 'loss_scale' not in cfg.optim_wrapper
    assert 'No GPU found: float32 instead of mixed precision.' in capsys.readouterr().out


class TestBadInput:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ('option', 'words'),
        [
            ('train_cfg.max_epoch=1', "got an unexpected keyword argument 'max_epoch'"),
            ('model.backbone.arch=huge', "error: ConvMLP has no arch 'huge'; choose from"),
            ('model.backbone.depth=50', "unexpected keyword argument 'depth'. If another backbone was inherited"),
            ('model.backbone.type=mlp_backbones.ConvMPL', 'error: mlp_backbones.ConvMPL is not in the mmdet::model '),
        ],
    )
    def test_a_class_refuses_what_it_does_not_take(self, shapes, tmp_path, run_script, option, words):
        settings = [f'data_root={shapes / "coco"}/', option, 'train_dataloader.num_workers=0']
        settings += ['train_dataloader.persistent_workers=False']
        code, said = run_script('train.py', SHAPES, '--work-dir', tmp_path / 'w', '--cfg-options', *settings)
        assert code == 1 and words in said and 'Traceback' not in said

    def test_option_without_a_value(self, capsys):
        with pytest.raises(SystemExit):
            launch.common_parser('').parse_args(['c.py', '--cfg-options', 'a=1', 'novalue'])
        assert '--cfg-options takes KEY=VALUE, got novalue' in capsys.readouterr().err

    @pytest.mark.parametrize(('launcher', 'variable'), launch.RANKS.items())
    def test_launcher_that_did_not_launch(self, tmp_path, monkeypatch, launcher, variable):
        monkeypatch.delenv(variable, raising=False)
        with pytest.raises(UserError, match=f'--launcher {launcher} .*{variable} is not set.*tools/dist_train.sh or'):
            ready(SHAPES, tmp_path, launcher=launcher)

    def test_launchers_without_a_gpu(self, shapes, tmp_path, monkeypatch):
        monkeypatch.setenv('RANK', 'another')
        for launcher in ('mpi', 'slurm'):
            monkeypatch.setenv(launch.RANKS[launcher], '1')
            with pytest.raises(UserError, match=f'no GPU found, and --launcher {launcher} needs one: use pytorch'):
                ready(SHAPES, tmp_path, launcher=launcher, data_root=str(shapes / 'coco'))
            with launch.sole_run_in(tmp_path / 'w'):  # of which the first process holds the lock, and this is another
                assert not (tmp_path / 'w').exists()

    @pytest.mark.parametrize('name', ['lost.pth', 'short.pth'])
    def test_resuming_from_a_file_that_is_not_whole(self, tmp_path, name):
        (tmp_path / 'short.pth').write_bytes(b'PK')
        torch.save({}, tmp_path / 'epoch_1.pth')
        runner = argparse.Namespace(work_dir=str(tmp_path), _load_from=None, _resume=False)
        match = f'--resume .*{name}: the checkpoint does not exist, or is truncated; the newest whole .*epoch_1.pth$'
        with pytest.raises(CheckpointError, match=match):
            launch.resume(runner, str(tmp_path / name))
        launch.resume(runner, str(tmp_path / 'epoch_1.pth'))
        assert (runner._resume, runner._load_from) == (True, str(tmp_path / 'epoch_1.pth'))

    @pytest.mark.slow
    def test_a_second_run_in_a_work_dir(self, shapes, tmp_path):
        settings = [CONFIGS / CLASSIFICATION, '--work-dir', 'w', *options(CLASSIFICATION, shapes)]
        settings.insert(3, '--cfg-options')
        with launch.sole_run_in(tmp_path / 'w'):
            code, said = tool('train.py', *settings, cwd=tmp_path, check=False)
        assert code == 1 and f'error: another run trains in w: process {os.getpid()} on {socket.gethostname()}' in said
        assert [path.name for path in (tmp_path / 'w').iterdir()] == ['.lock']
        tool('train.py', *settings, cwd=tmp_path)

    def test_a_work_dir_without_locks_or_without_room(self, tmp_path, monkeypatch, capsys):
        def refuse(*args):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(launch.fcntl, 'lockf', refuse)
        with launch.sole_run_in(tmp_path):
            assert 'has no file locks (No locks available): nothing keeps a second run out' in capsys.readouterr().out
        (tmp_path / 'file').touch()
        with pytest.raises(UserError, match='cannot write to the folder .*file'), launch.sole_run_in(tmp_path / 'file'):
            pass

    def test_error_of_the_package_is_one_message(self, capsys):
        from mlp_backbones import ConvMLP

        assert run_tool(lambda: ConvMLP('s')(torch.zeros(1, 3, 16, 16))) == 1
        assert capsys.readouterr().err.strip() == (
            'error: ConvMLP takes images of at least 32x32 pixels, got 16x16; resize or pad them'
        )
        with pytest.raises(ValueError, match='invalid literal'):
            run_tool(lambda: int('x'))  # not ours: the traceback stays

    @pytest.mark.parametrize(
        ('name', 'args', 'words'),
        [
            ('train.py', ['nothing.py'], 'error: the config nothing.py does not exist'),
            ('test.py', [SHAPES, 'lost.pth', '--cfg-options', 'data_root=lost'], 'error: the data of test_dataloader'),
        ],
    )
    def test_exit_status(self, tmp_path, name, args, words):
        code, said = tool(name, *args, cwd=tmp_path, check=False)
        assert code == 1 and words in said and 'Traceback' not in said
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ('script', 'args', 'words'),
        [
            ('dist_train.sh', ['c.py'], 'usage:'),
            ('dist_train.sh', ['c.py', 'two'], "positive number, got 'two'"),
            ('dist_test.sh', ['c.py', 'x.pth'], 'usage:'),
            ('slurm_train.sh', ['a'], 'usage:'),
            ('slurm_test.sh', ['a'], 'usage:'),
            ('quickstart.sh', ['a'], 'usage:'),
        ],
    )
    def test_scripts(self, script, args, words):
        done = subprocess.run([ROOT / 'tools' / script, *args], capture_output=True, text=True)
        assert done.returncode == 2 and words in done.stderr and not done.stdout
        usage = done.stderr.partition('\nerror:')[0].strip()
        assert usage.startswith(f'usage: tools/{script} ') and usage.count(f'tools/{script} ') == 2  # and an example
        for option in ('-h', '--help'):
            done = subprocess.run([ROOT / 'tools' / script, option], cwd='/', capture_output=True, text=True)
            assert (done.returncode, done.stdout.strip(), done.stderr) == (0, usage, '')

    @pytest.mark.parametrize('tool', ['train', 'test'])
    def test_slurm(self, tool, tmp_path):
        """What srun is asked to run, with a stand-in for srun that prints it."""
        (tmp_path / 'srun').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / 'srun').chmod(0o755)
        arguments = ['part', 'my job', 'c.py', 'some place', '--cfg-options', 'a=b c']
        settings = dict(
            GPUS='16', SRUN_ARGS='--time=1:00 --qos=x', PYTHON='py', PATH=f'{tmp_path}:{os.environ["PATH"]}'
        )
        done = subprocess.run(
            [ROOT / f'tools/slurm_{tool}.sh', *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **settings},
        )
        asked = done.stdout.splitlines()
        assert asked[:6] == ['-p', 'part', '--job-name=my job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8']
        assert asked[6:12] == ['--cpus-per-task=5', '--kill-on-bad-exit=1', '--time=1:00', '--qos=x', 'bash', '-c']
        place = ['--work-dir', 'some place'] if tool == 'train' else ['some place']
        end = ['bash', 'py', '-u', str(ROOT / f'tools/{tool}.py'), 'c.py', *place, '--cfg-options', 'a=b c']
        assert asked[-len(end) - 2 :] == [*end, '--launcher', 'pytorch']


@pytest.mark.slow
def test_only_whole_models_are_tested(shapes, tmp_path, run_script):
    """A head of another number of classes would be random, and the figures would mean nothing."""
    config = CONFIGS / 'classification/gmlp_p8_shapes.py'
    root = f'data_root={shapes / "imagenet"}'
    cfg = load_config(str(config))
    for number in (3, 4):
        cfg.model.head.num_classes = number
        (tmp_path / str(number)).mkdir()
        torch.save(dict(state_dict=build_model(cfg).state_dict()), tmp_path / f'{number}/epoch_1.pth')
    cfg.dump(tmp_path / '4/trained.py')
    arguments = ['--work-dir', tmp_path / 'w', '--cfg-options', root, 'test_dataloader.num_workers=0']
    arguments += ['test_dataloader.persistent_workers=False']
    code, said = run_script('test.py', config, tmp_path / '4/epoch_1.pth', *arguments)
    assert code == 1 and 'does not fill the model' in said and 'head.fc.weight' in said
    assert f'among the files beside it? {tmp_path / "4/trained.py"}' in said
    code, said = run_script('test.py', config, tmp_path / '3/epoch_1.pth', *arguments)
    assert code == 0, said[-2000:]


class TestRunHooks:
    OURS = ['CheckpointHook', 'ExactResumeHook', 'StopAtNonFiniteHook', 'InterruptHook']
    OURS += ['FaultyFilesHook', 'AdaptCheckpointHook']

    @pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
    def test_they_stand_in_the_configs(self, task):
        """So that the frameworks' own tools run them too."""
        hooks = load_config(CONFIGS / task / f'{ONE_OF_EACH[task]}.py').default_hooks.values()
        assert [h.type for h in hooks if h.type.startswith('mlp_backbones.')] == [
            f'mlp_backbones.{n}' for n in self.OURS
        ]

    def test_the_launcher_adds_none(self, tmp_path, shapes):
        root = f'{shapes / "coco"}/'
        before = load_config(SHAPES).default_hooks
        cfg = ready(SHAPES, tmp_path / 'w', data_root=root)
        assert cfg.default_hooks == before and not cfg.get('custom_hooks')

    def test_none_removes_a_hook(self, tmp_path, shapes):
        options = {'default_hooks.interrupt': None, 'default_hooks.checkpoint': None}
        cfg = ready(SHAPES, tmp_path / 'w', data_root=f'{shapes / "coco"}/', **options)
        registered = []
        runner = argparse.Namespace(register_hook=lambda hook: registered.append(hook['type']))
        Runner.register_default_hooks(runner, cfg.default_hooks)
        assert {'mlp_backbones.ExactResumeHook', 'LoggerHook'} <= set(registered)
        assert not {'mlp_backbones.InterruptHook', 'mlp_backbones.CheckpointHook', 'CheckpointHook'} & set(registered)

    def test_a_config_without_a_hook_of_its_base(self, tmp_path):
        """What works in the frameworks' own scripts too."""
        config = tmp_path / 'c.py'
        config.write_text(
            f"_base_ = '{SHAPES}'\n"
            "default_hooks = {k: v for k, v in _base_.default_hooks.items() if k != 'interrupt'}\n"
            "default_hooks['_delete_'] = True\n"
        )
        hooks = load_config(str(config)).default_hooks
        assert 'interrupt' not in hooks
        assert set(load_config(SHAPES).default_hooks) == {*hooks, 'interrupt'}

    def test_weights_need_the_hook_that_adapts_them(self, tmp_path, shapes):
        """It is not added behind the config's back; None is a choice."""
        hooks = "default_hooks = dict(_delete_=True, checkpoint=dict(type='CheckpointHook'){})"
        config = tmp_path / 'c.py'
        torch.save({}, tmp_path / 'a.pth')
        options = dict(data_root=f'{shapes / "coco"}/', load_from=str(tmp_path / 'a.pth'))
        config.write_text(f"_base_ = '{SHAPES}'\n{hooks.format('')}\n")
        with pytest.raises(UserError, match='load_from needs a hook.*adapt_checkpoint.type=mlp_backbones.Adapt'):
            ready(str(config), tmp_path / 'w', **options)
        config.write_text(f"_base_ = '{SHAPES}'\n{hooks.format(', adapt_checkpoint=None')}\n")
        assert 'adapt_checkpoint' not in ready(str(config), tmp_path / 'w', **options).default_hooks

    def test_a_dumped_config_is_the_same_run(self, tmp_path, shapes):
        cfg = ready(SHAPES, tmp_path / 'w', data_root=f'{shapes / "coco"}/')
        assert cfg.train_dataloader.batch_sampler.type == 'mlp_backbones.ResumableBatchSampler'
        cfg.resume = True
        cfg.dump(tmp_path / 'dumped.py')
        again = ready(str(tmp_path / 'dumped.py'), tmp_path / 'w')
        assert again.default_hooks == cfg.default_hooks
        assert again.train_dataloader.batch_sampler == cfg.train_dataloader.batch_sampler
        tested = ready(str(tmp_path / 'dumped.py'), tmp_path / 'w', train=False)
        assert not tested.resume and tested.default_hooks == cfg.default_hooks

    def test_a_config_that_only_tests(self, tmp_path, shapes):
        with pytest.raises(UserError, match='has no train_dataloader, so it cannot be trained'):
            ready(SHAPES, tmp_path, data_root=f'{shapes / "coco"}/', train_dataloader=None)

    def test_resuming_without_a_checkpoint_keeps_load_from(self, tmp_path):
        runner = argparse.Namespace(work_dir=str(tmp_path), _load_from='weights.pth', _resume=False)
        launch.resume(runner, 'auto')
        assert (runner._resume, runner._load_from) == (False, 'weights.pth')


class TestPrecision:
    RESMLP = str(CONFIGS / 'classification/resmlp_p8_shapes.py')

    @pytest.mark.parametrize(
        ('config', 'amp', 'dtype'),
        [(SHAPES, 'auto', 'float16'), (SHAPES, 'bfloat16', 'bfloat16'), (RESMLP, 'auto', 'bfloat16')],
    )
    def test_dtype(self, config, amp, dtype):
        cfg = load_config(config)
        launch._set_precision(cfg, amp)
        assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', dtype)

    def test_resmlp_refuses_float16(self):
        cfg = load_config(self.RESMLP)
        with pytest.raises(UserError, match='ResMLP overflows in float16.*bfloat16'):
            launch._set_precision(cfg, 'float16')
        cfg.optim_wrapper = dict(type='AmpOptimWrapper')  # float16 is mmengine's own default
        with pytest.raises(UserError, match='ResMLP overflows in float16'):
            launch._set_precision(cfg, None)
