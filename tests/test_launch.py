"""What is checked before a run starts, and what a run's config is made into."""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlp_backbones import launch
from mlp_backbones.launch import UserError, load_config, prepare, run_tool
from mlp_backbones.zoo import build_model

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
RETINANET = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py')
MASKRCNN = str(CONFIGS / 'detection/maskrcnn_convmlp_s_fpn_1x_coco.py')
SHAPES = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_shapes.py')
SCRATCH = {'model.backbone.init_cfg': None}


def ready(config, work_dir, train=True, launcher='none', **options):
    args = argparse.Namespace(
        config=config, work_dir=str(work_dir), cfg_options=options, launcher=launcher, local_rank=0
    )
    return prepare(args, train=train)


@pytest.mark.parametrize('config', [RETINANET, MASKRCNN])
@pytest.mark.parametrize('scope', ['', 'mmdet.'])
def test_data_root_is_set_in_one_place(shapes, tmp_path, config, scope):
    root = str(shapes / 'coco')
    kinds = {f'{split}_dataloader.dataset.type': f'{scope}CocoDataset' for split in ('train', 'val', 'test')}
    cfg = ready(config, tmp_path, data_root=root, **kinds, **SCRATCH)
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == root
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == os.path.join(root, 'annotations/instances_val2017.json')
    # The folder has classes of its own, and nothing else had to be said.
    assert cfg.train_dataloader.dataset.metainfo.classes == ('circle', 'square', 'triangle')
    heads = [n['num_classes'] for n in launch.nodes(cfg.model) if 'num_classes' in n]
    assert set(heads) == {3} and len(heads) == (2 if config == MASKRCNN else 1)


@pytest.mark.parametrize('name', ['segmentation/fpn_convmlp_s_512x512_40k_ade20k', 'classification/convmlp_s_imagenet'])
def test_data_root_of_the_other_tasks(shapes, name):
    root = str(shapes / ('ade' if 'ade' in name else 'imagenet'))
    cfg = load_config(str(CONFIGS / f'{name}.py'), dict(data_root=root))
    assert {cfg[f'{s}_dataloader'].dataset.data_root for s in ('train', 'val', 'test')} == {root}


def test_data_root_in_an_inheriting_config(tmp_path):
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = '{RETINANET}'\ndata_root = '/mine/'\n")
    cfg = load_config(str(child))
    assert cfg.train_dataloader.dataset.data_root == '/mine/'
    assert cfg.val_evaluator.ann_file == '/mine/annotations/instances_val2017.json'
    # A dataset that was given a root of its own keeps it.
    child.write_text(f"_base_ = '{RETINANET}'\ntrain_dataloader = dict(dataset=dict(data_root='/other/'))\n")
    cfg = load_config(str(child), dict(data_root='/mine/'))
    assert cfg.train_dataloader.dataset.data_root == '/other/'
    assert cfg.val_dataloader.dataset.data_root == '/mine/'


def test_coco_classes_stay(shapes, tmp_path):
    root = tmp_path / 'coco'
    shutil.copytree(shapes / 'coco', root)
    for path in (root / 'annotations').iterdir():
        truth = json.loads(path.read_text())
        for category, name in zip(truth['categories'], ('person', 'car', 'dog', 'cat', 'bus')):
            category['name'] = name
        path.write_text(json.dumps(truth))
    cfg = ready(RETINANET, tmp_path / 'w', data_root=str(root), **SCRATCH)
    assert cfg.model.bbox_head.num_classes == 80 and 'metainfo' not in cfg.train_dataloader.dataset


def test_shapes_are_drawn_on_first_use(tmp_path, monkeypatch, capsys):
    from mlp_backbones.datasets import shapes as module

    small = {k: module.Task(v.size, v.objects, v.radius, (2, 2)) for k, v in module.TASKS.items()}
    monkeypatch.setattr(module, 'TASKS', small)
    monkeypatch.chdir(tmp_path)
    ready(SHAPES, 'work')
    assert 'Drawing the synthetic detection set' in capsys.readouterr().out
    assert len(list(Path('data/shapes/coco/train2017').iterdir())) == 2
    # A folder that the user names is never made up.
    with pytest.raises(UserError, match='missing  nowhere'):
        ready(SHAPES, 'work', data_root='nowhere')


def test_accuracies_that_a_few_classes_cannot_have(shapes, tmp_path, capsys):
    config = tmp_path / 'c.py'
    mine = "dict(dataset=dict(_delete_=True, type='CustomDataset', data_root=data_root, data_prefix='{}', pipeline=[]))"
    config.write_text(
        f"_base_ = '{CONFIGS / 'classification/convmlp_s_imagenet.py'}'\n"
        f"data_root = '{shapes / 'imagenet'}'\n"
        f'train_dataloader = {mine.format("train")}\nval_dataloader = {mine.format("val")}\n'
        f'data_preprocessor = dict(num_classes=3)\nmodel = dict(head=dict(num_classes=3))\n'
    )
    cfg = ready(str(config), tmp_path / 'w')
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    assert '3 classes: accuracies of the first (1,) are measured, not of (1, 5).' in capsys.readouterr().out


def test_settings_without_an_effect_are_named(shapes, tmp_path, capsys):
    options = {'data_root': str(shapes / 'coco'), **SCRATCH}
    ready(RETINANET, tmp_path, **options)
    assert 'warning' not in capsys.readouterr().out
    config = tmp_path / 'c.py'
    config.write_text(f"_base_ = '{RETINANET}'\ntrain_pipeline = [dict(type='LoadImageFromFile')]\n")
    ready(str(config), tmp_path, **{'train_cfg.max_epochs': 3}, **options)
    said = capsys.readouterr().out
    assert 'warning: no dataset has the train_pipeline' in said and 'train_dataloader = dict(dataset=dict(' in said
    assert 'the run ends after epoch 3, the learning rate of MultiStepLR is scheduled up to 12.' in said


@pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
@pytest.mark.parametrize('scope', ['', 'mmengine.'])
def test_without_a_gpu(capsys, scope):
    cfg = load_config(str(CONFIGS / 'classification/convmlp_s_imagenet.py'))
    cfg.launcher = 'none'
    cfg.optim_wrapper.type = f'{scope}AmpOptimWrapper'
    launch._adapt_to_device(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper' and 'loss_scale' not in cfg.optim_wrapper
    assert 'No GPU found: float32 instead of mixed precision.' in capsys.readouterr().out


class TestBadInput:
    @pytest.mark.parametrize('options', [{'model.backbone.arch': 'huge'}, {'model.backbone.out_indices': [0, 7]}])
    def test_backbone_arguments(self, tmp_path, options):
        with pytest.raises(UserError, match=r'model.backbone does not fit: ConvMLP.*(huge|7)'):
            ready(SHAPES, tmp_path, **options)

    def test_backbone_type(self, tmp_path):
        with pytest.raises(UserError, match=r'mlp_backbones.ConvMPL.*has mlp_backbones.ConvMLP'):
            ready(SHAPES, tmp_path, **{'model.backbone.type': 'mlp_backbones.ConvMPL'})

    def test_config_that_is_not_there(self):
        with pytest.raises(UserError, match=r'retinanet_convmlp_x_fpn_1x_coco.py; in .* retinanet_convmlp_\w_fpn_1x'):
            load_config(RETINANET.replace('_s_', '_x_'))

    def test_config_with_an_error(self, tmp_path):
        (tmp_path / 'c.py').write_text('model = dict(')
        with pytest.raises(UserError, match='c.py is not a usable config'):
            load_config(str(tmp_path / 'c.py'))

    def test_base_file(self):
        with pytest.raises(UserError, match='no `model`'):
            load_config(str(CONFIGS / 'detection/_base_/coco_detection.py'))

    @pytest.mark.parametrize('key', ['lr', 'optimizer.lr', 'optim_wraper.optimizer.lr'])
    def test_options_that_nothing_reads(self, key):
        match = f'--cfg-options {key}: .* has no such setting; did you mean .*optim_wrapper.optimizer.lr'
        with pytest.raises(UserError, match=match):
            load_config(RETINANET, {key: 1e-3})
        # What a config need not have is fine.
        cfg = load_config(RETINANET, {'max_faulty_files': 3, 'randomness.seed': 1, 'default_hooks.logger.interval': 5})
        assert cfg.randomness.seed == 1

    def test_option_without_a_value(self, capsys):
        with pytest.raises(SystemExit):
            launch.common_parser('').parse_args(['c.py', '--cfg-options', 'a=1', 'novalue'])
        assert '--cfg-options takes KEY=VALUE, got novalue' in capsys.readouterr().err

    def test_name_that_is_not_in_the_zoo(self):
        with pytest.raises(UserError, match="no model 'retinanet_convmlp_x' in the zoo; did you mean retinanet_conv"):
            load_config('retinanet_convmlp_x')

    def test_settings_of_an_inherited_backbone(self, tmp_path):
        with pytest.raises(UserError, match=r"argument 'depth'. If another backbone was inherited.*_delete_=True"):
            ready(SHAPES, tmp_path, **{'model.backbone.depth': 50})

    def test_neck_for_another_backbone(self, tmp_path):
        match = r'in_channels is \[256, 512, 1024, 2048\], but the backbone gives \[64, 128, 256, 512\]'
        with pytest.raises(UserError, match=match):
            ready(SHAPES, tmp_path, **{'model.neck.in_channels': [256, 512, 1024, 2048]})

    @pytest.mark.parametrize('prefix', ['train', dict(_delete_=True, img_path='train')])
    def test_more_folders_than_classes(self, shapes, tmp_path, prefix):
        options = {'model.head.num_classes': 2, 'data_root': str(shapes / 'imagenet')}
        options['train_dataloader.dataset.data_prefix'] = prefix
        with pytest.raises(UserError, match=r'train has 3 folders.*num_classes is 2: circle, square, triangle'):
            ready(str(CONFIGS / 'classification/gmlp_p8_shapes.py'), tmp_path, **options)

    def test_pytorch_without_torchrun(self, tmp_path, monkeypatch):
        monkeypatch.delenv('RANK', raising=False)
        with pytest.raises(UserError, match='torchrun has started: use tools/dist_train.sh'):
            ready(SHAPES, tmp_path, launcher='pytorch')

    def test_options_that_do_not_fit(self):
        with pytest.raises(UserError, match='do not fit'):
            load_config(RETINANET, {'data_root.x': 1})

    def test_missing_folder(self, tmp_path):
        with pytest.raises(UserError, match=r'missing  .*nowhere\n.*missing .*train2017.json[\s\S]*data_root=FOLDER'):
            ready(RETINANET, tmp_path, data_root=str(tmp_path / 'nowhere'))
        assert not list(tmp_path.iterdir())

    def test_missing_annotations(self, shapes, tmp_path):
        root = tmp_path / 'coco'
        shutil.copytree(shapes / 'coco', root)
        (root / 'annotations/instances_val2017.json').unlink()
        with pytest.raises(UserError, match=r'there .*train2017|missing .*instances_val2017.json'):
            ready(RETINANET, tmp_path / 'w', data_root=str(root))

    def test_slurm_without_srun(self, tmp_path, monkeypatch):
        for name in [name for name in os.environ if name.startswith('SLURM_')]:
            monkeypatch.delenv(name)
        with pytest.raises(UserError, match="srun has started.*'SLURM_PROCID' is not set.*slurm_train.sh"):
            ready(SHAPES, tmp_path, launcher='slurm')
        job = dict(JOB_ID='12345', PROCID='0', NTASKS='1', LOCALID='0', NODELIST='n1')
        for name, value in job.items():
            monkeypatch.setenv(f'SLURM_{name}', value)
        for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT'):
            monkeypatch.setenv(name, '7')  # put back after the test
        monkeypatch.delenv('MASTER_PORT')
        monkeypatch.delenv('MASTER_ADDR', raising=False)
        monkeypatch.setenv('PATH', str(tmp_path))
        with pytest.raises(UserError, match='scontrol does not tell the machines of n1.*set MASTER_ADDR'):
            ready(SHAPES, tmp_path, launcher='slurm')
        assert (os.environ['RANK'], os.environ['MASTER_PORT']) == ('0', '22345')

    @pytest.mark.skipif(torch.cuda.is_available(), reason='what happens without a GPU')
    def test_mpi_without_a_gpu(self, shapes, tmp_path):
        with pytest.raises(UserError, match='without one --launcher mpi is not possible: there are pytorch and slurm'):
            ready(SHAPES, tmp_path, launcher='mpi', data_root=str(shapes / 'coco'))

    @pytest.mark.parametrize('text', ['not json', '{}', '[]', '{"categories": []}'])
    def test_damaged_annotations(self, shapes, tmp_path, text):
        root = tmp_path / 'coco'
        shutil.copytree(shapes / 'coco', root)
        (root / 'annotations/instances_train2017.json').write_text(text)
        with pytest.raises(
            UserError, match='instances_train2017.json (is not a COCO annotation file|has no categories)'
        ):
            ready(RETINANET, tmp_path / 'w', data_root=str(root))

    def test_missing_imagenet(self, tmp_path):
        with pytest.raises(UserError, match='train_dataloader.*ImageNet.*is not there'):
            ready(str(CONFIGS / 'classification/convmlp_s_imagenet.py'), tmp_path, data_root='nowhere')

    def test_missing_checkpoint(self, shapes, tmp_path):
        setting = 'model.backbone.init_cfg.checkpoint'
        with pytest.raises(UserError, match=f'there is no checkpoint lost.pth .{setting}.*from scratch.*init_cfg=None'):
            ready(RETINANET, tmp_path, data_root=str(shapes / 'coco'), **{setting: 'lost.pth'})
        with pytest.raises(UserError, match='there is no checkpoint lost.pth .load_from'):
            ready(RETINANET, tmp_path, data_root=str(shapes / 'coco'), load_from='lost.pth', **SCRATCH)
        with pytest.raises(UserError, match='there is no checkpoint lost.pth .CHECKPOINT.$'):
            ready(RETINANET, tmp_path, train=False, data_root=str(shapes / 'coco'), load_from='lost.pth')
        args = argparse.Namespace(
            config=RETINANET, work_dir=str(tmp_path), cfg_options=SCRATCH | {'data_root': str(shapes / 'coco')}
        )
        args.launcher, args.local_rank = 'none', 0
        with pytest.raises(UserError, match='there is no checkpoint lost.pth .--resume.$'):
            prepare(args, train=True, resume='lost.pth')

    def test_unreachable_url(self, shapes, tmp_path, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
        with socket.socket() as unused:  # bound, but nobody listens
            unused.bind(('127.0.0.1', 0))
            url = f'http://127.0.0.1:{unused.getsockname()[1]}/x.pth'
            with pytest.raises(UserError, match=f'cannot download {url}.*refused'):
                options = {'model.backbone.init_cfg.checkpoint': url}
                ready(RETINANET, tmp_path / 'w', data_root=str(shapes / 'coco'), **options)
        assert not [p for p in (tmp_path / 'cache').rglob('*') if p.is_file()]

    def test_work_dir_that_cannot_be_written(self, shapes, tmp_path):
        (tmp_path / 'file').write_text('')
        with pytest.raises(UserError, match='cannot write to the work dir .*file/x.*--work-dir'):
            ready(RETINANET, tmp_path / 'file' / 'x', data_root=str(shapes / 'coco'), **SCRATCH)

    def test_framework_that_is_not_installed(self, tmp_path, monkeypatch):
        from mlp_backbones import environment

        def absent(name):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name) if name == 'mmdet' else AssertionError

        real = environment.importlib.import_module
        monkeypatch.setattr(
            environment.importlib, 'import_module', lambda name: absent(name) if name == 'mmdet' else real(name)
        )
        with pytest.raises(environment.MissingDependency, match='mmdet is not installed.*\n.*pip install'):
            load_config(RETINANET)

    def test_error_of_the_package_is_one_message(self, capsys):
        from mlp_backbones import ConvMLP

        assert run_tool(lambda: ConvMLP('s')(torch.zeros(1, 3, 16, 16))) == 1
        assert capsys.readouterr().err.strip() == (
            'error: ConvMLP takes images of at least 32x32 pixels, got 16x16; resize or pad them'
        )
        with pytest.raises(ValueError, match='invalid literal'):
            run_tool(lambda: int('x'))  # not ours: the traceback stays

    @pytest.mark.parametrize(
        ('tool', 'args', 'words'),
        [
            ('train.py', ['nothing.py'], 'error: there is no config nothing.py'),
            ('test.py', [SHAPES, 'lost.pth', '--cfg-options', 'data_root=lost'], 'error: the data of test_dataloader'),
        ],
    )
    def test_exit_status(self, tmp_path, tool, args, words):
        command = [sys.executable, '-W', 'ignore', ROOT / 'tools' / tool, *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr and 'Traceback' not in done.stderr
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
        assert asked[6:11] == ['--cpus-per-task=5', '--kill-on-bad-exit=1', '--time=1:00', '--qos=x', 'py']
        place = ['--work-dir', 'some place'] if tool == 'train' else ['some place']
        end = ['c.py', *place, '--cfg-options', 'a=b c', '--launcher', 'slurm']
        assert asked[11:] == ['-u', str(ROOT / f'tools/{tool}.py'), *end]


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
    assert f'was trained with lies beside it: {tmp_path / "4/trained.py"}' in said
    code, said = run_script('test.py', config, tmp_path / '3/epoch_1.pth', *arguments)
    assert code == 0, said[-2000:]


class TestRunHooks:
    def test_training_has_them_and_testing_a_dumped_config_has_not(self, tmp_path, shapes):
        root = f'{shapes / "coco"}/'
        cfg = ready(SHAPES, tmp_path / 'w', data_root=root)
        types = [h['type'] for h in cfg.custom_hooks]
        assert [f'mlp_backbones.{name}' for name in launch.RUN_HOOKS] == types[-3:]
        assert cfg.default_hooks.checkpoint.type == 'mlp_backbones.CheckpointHook'
        assert cfg.train_dataloader.batch_sampler.type == 'mlp_backbones.ResumableBatchSampler'
        cfg.resume = True
        cfg.dump(tmp_path / 'dumped.py')
        again = ready(str(tmp_path / 'dumped.py'), tmp_path / 'w')
        assert [h['type'] for h in again.custom_hooks] == types
        assert again.train_dataloader.batch_sampler == cfg.train_dataloader.batch_sampler
        tested = ready(str(tmp_path / 'dumped.py'), tmp_path / 'w', train=False)
        assert not tested.resume and not [h for h in tested.custom_hooks if 'mlp_backbones' in h['type']]

    def test_a_config_that_only_tests(self, tmp_path, shapes):
        with pytest.raises(UserError, match='has no train_dataloader, so it cannot be trained'):
            ready(SHAPES, tmp_path, data_root=f'{shapes / "coco"}/', train_dataloader=None)

    def test_resuming_without_a_checkpoint_keeps_load_from(self, tmp_path):
        cfg = load_config(SHAPES, dict(load_from='weights.pth', work_dir=str(tmp_path)))
        launch._choose_checkpoint(cfg, auto=True)
        assert (cfg.resume, cfg.load_from) == (False, 'weights.pth')


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
