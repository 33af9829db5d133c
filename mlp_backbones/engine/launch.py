"""From a config to a run of mmengine's runner, with everything that can be checked checked before it starts.

The config decides which framework runs: its ``default_scope`` is 'mmdet', 'mmseg' or 'mmpretrain'.
"""

import argparse
import datetime
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from ..utils.cli import check_writable, config_parser, say
from ..utils.config import nodes
from ..utils.errors import UserError
from .config import class_name, load_config, report
from .data import adapt_to_data
from .preflight import backbone_problems, problems


def common_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that training and testing share."""
    parser = config_parser(description)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started; the dist_ and slurm_ scripts set it (default: none)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def prepare(args: argparse.Namespace, train: bool, amp: str | None = None, resume: str | None = None):
    """Load the config of a run, adapt it to data and device, and refuse what cannot work.

    It also acts: synthetic shapes are drawn, weights downloaded, and on CPUs with a launcher the process group started.

    Args:
        args (Namespace): What ``common_parser`` parsed.
        train (bool): Whether the run trains, or only tests.
        amp (str, optional): Mixed precision in 'float16', 'bfloat16' or 'auto', the one that the family takes. Defaults
            to None, as the config says.
        resume (str, optional): A checkpoint to go on from, or 'auto' for the work dir's newest. Defaults to None, as
            the config says.

    Returns:
        mmengine.Config: Ready for ``Runner.from_cfg``.

    Raises:
        UserError: A path, a URL, a setting or a piece of data that cannot be used.
        MissingDependency: The config's framework is missing or broken.
    """
    if args.launcher == 'slurm':
        _read_slurm()
    if args.launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError('--launcher pytorch is for processes that torchrun has started: use tools/dist_train.sh')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    report(backbone_problems(cfg))
    adapt_to_data(cfg)
    report(problems(cfg, train))
    check_writable(cfg.work_dir, 'the work dir', '--work-dir')
    _drop_removed_hooks(cfg)
    if train:
        _set_precision(cfg, amp)
        if resume:
            cfg.resume = True
            cfg.load_from = cfg.get('load_from') if resume == 'auto' else resume
        if cfg.get('resume'):
            _choose_checkpoint(cfg, auto=resume == 'auto' or not cfg.get('load_from'))
        init_cfg = cfg.model.get('backbone', {}).get('init_cfg') or {}
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained' and 'checkpoint' in init_cfg:
            _check_weights(init_cfg['checkpoint'], 'model.backbone.init_cfg.checkpoint')
    else:
        cfg.resume = False
    if cfg.get('load_from'):
        given = 'CHECKPOINT' if not train else '--resume' if resume not in (None, 'auto') else 'load_from'
        _check_weights(cfg.load_from, given)
    _adapt_to_device(cfg)
    return cfg


def _drop_removed_hooks(cfg) -> None:
    """Leave out hooks that are None: mmengine does so for its own names, and fails on others."""
    own = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None and name not in own]:
        hooks.pop(name)


def _read_slurm() -> None:
    """Set what torch.distributed reads from what srun sets, as mmengine does, but with a port for each job.

    Two jobs on one machine would meet on mmengine's 29500.
    """
    given = os.environ
    try:
        given.update(RANK=given['SLURM_PROCID'], WORLD_SIZE=given['SLURM_NTASKS'], LOCAL_RANK=given['SLURM_LOCALID'])
        given.setdefault('MASTER_PORT', str(20000 + int(given['SLURM_JOB_ID']) % 10000))
        machines = given.get('SLURM_STEP_NODELIST') or given['SLURM_NODELIST']
    except KeyError as error:
        raise UserError(
            f'--launcher slurm is for processes that srun has started ({error} is not set): use tools/slurm_train.sh'
        ) from error
    if 'MASTER_ADDR' not in given:
        command = ['scontrol', 'show', 'hostnames', machines]
        try:
            names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f'scontrol does not tell the machines of {machines} ({error}): set MASTER_ADDR') from error
        given['MASTER_ADDR'] = names.split()[0]


def _set_precision(cfg, amp: str | None) -> None:
    """Switch mixed precision on, and refuse float16 for a family whose activations are too large for it."""
    from ..registry import MODELS

    wrapper, name = cfg.optim_wrapper, class_name(cfg.model.get('backbone'))
    needs_bfloat16 = getattr(MODELS.get(f'mlp_backbones.{name}'), 'amp_dtype', None) == 'bfloat16'
    if amp:
        wrapper['type'] = 'AmpOptimWrapper'
        auto = wrapper.get('dtype') or ('bfloat16' if needs_bfloat16 else 'float16')
        wrapper['dtype'] = auto if amp == 'auto' else amp
    if class_name(wrapper) == 'AmpOptimWrapper' and needs_bfloat16 and wrapper.get('dtype') != 'bfloat16':
        raise UserError(
            f'{name} overflows in float16: its authors train it in float32, and bfloat16 works too. '
            "Use --amp bfloat16, or optim_wrapper.dtype='bfloat16' in the config"
        )


def _choose_checkpoint(cfg, auto: bool) -> None:
    """Find the checkpoint that a resumed run goes on from, and make sure that it is whole.

    Without one, with ``auto``, the run starts as it would without being resumed.
    """
    from .hooks.checkpoint import is_whole, newest_checkpoint, remove_partial_files

    remove_partial_files(cfg.work_dir)
    newest, broken = newest_checkpoint(cfg.work_dir)
    if not auto:
        path = Path(cfg.load_from)
        if path.exists() and not is_whole(path):
            other = f'; the newest whole one in {cfg.work_dir} is {newest}' if newest else ''
            raise UserError(f'--resume {path}: the checkpoint is truncated, or not one of training{other}')
        return
    if broken:
        say(f'missing or not whole, so passed over: {", ".join(map(str, broken))}')
    say(f'Resuming from {newest}' if newest else f'No checkpoint in {cfg.work_dir}: starting anew')
    cfg.resume = newest is not None
    if newest:
        cfg.load_from = str(newest)


def _check_weights(source: str, setting: str) -> None:
    """Make sure that a checkpoint can be read; one on the web is put into torch's cache, where mmengine looks.

    Raises:
        UserError: The path does not exist, the file is damaged, or the URL cannot be downloaded.
    """
    from ..checkpoints import CheckpointError, fetch

    help_ = ''
    if setting[0].islower():  # of the config
        help_ = f'. Give another with --cfg-options {setting}=PATH_OR_URL'
    if '.init_cfg' in setting:
        help_ += f', or train from scratch with --cfg-options {setting.rsplit(".", 1)[0]}=None'
    problem = None
    if source.startswith(('http://', 'https://')):
        try:
            fetch(source)
        except CheckpointError as error:
            problem = str(error)
    elif '://' not in source:
        problem = _damage(Path(source)) if os.path.exists(source) else f'the checkpoint {source} does not exist'
    if problem:
        raise UserError(f'{problem} ({setting}){help_}')


def _damage(path: Path) -> str | None:
    """Return why a checkpoint cannot be read, or None; whether it fits the model is for whoever loads it to say."""
    from ..checkpoints import CheckpointError, read_checkpoint
    from .hooks.checkpoint import is_whole

    if path.is_dir():  # DeepSpeed's
        return None
    if zipfile.is_zipfile(path):  # of torch since 1.6: the checksums of its records, without making tensors
        return None if is_whole(path) else f'the checkpoint {path} is damaged'
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        # One that was read and refused for what it would make is whole.
        return None if isinstance(error.__cause__, CheckpointError) else str(error)
    return None


def _adapt_to_device(cfg) -> None:
    """Without a GPU: gloo instead of NCCL, float32 instead of AMP, BatchNorm instead of SyncBN; each is printed."""
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        return
    notes = []
    if cfg.pop('sync_bn', None):
        notes.append('BatchNorm statistics of each process alone')
    wrapper = cfg.get('optim_wrapper') or {}
    if class_name(wrapper) == 'AmpOptimWrapper':
        wrapper['type'] = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            wrapper.pop(key, None)
        notes.append('float32 instead of mixed precision')
    if cfg.launcher == 'mpi':
        raise UserError('no GPU found, and --launcher mpi needs one: use pytorch or slurm')
    if cfg.launcher != 'none':
        if not dist.is_initialized():
            seconds = (cfg.get('env_cfg') or {}).get('dist_cfg', {}).get('timeout', 600)
            dist.init_process_group('gloo', timeout=datetime.timedelta(seconds=seconds))
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        norms = [n for n in nodes(cfg.model) if class_name(n) == 'SyncBN']
        for node in norms:
            node['type'] = 'BN'
        notes.append('gloo instead of NCCL' + (', BN instead of SyncBN' if norms else ''))
    if notes:
        say(f'No GPU found: {", ".join(notes)}.')


def build_runner(cfg):
    """Return the runner of a config; ``runner_type`` names another class than mmengine's Runner.

    Args:
        cfg (mmengine.Config): What ``prepare`` gave.

    Returns:
        mmengine.runner.Runner: Ready to ``train()`` or ``test()``.
    """
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def check_filled(runner, source: str) -> None:
    """Refuse to test a model that a checkpoint does not fill: with a head of random weights the figures mean nothing.

    Args:
        runner (mmengine.runner.Runner): What ``build_runner`` gave.
        source (str): File or URL.

    Raises:
        CheckpointError: A tensor of the model is missing or of another shape, or there are others.
    """
    import torch

    from ..apis.zoo import fill_model
    from ..checkpoints import read_checkpoint
    from .hooks.adapt_checkpoint import unwrapped

    model: Any = getattr(runner, 'model', None)
    if isinstance(model, torch.nn.Module) and not os.path.isdir(source):  # FlexibleRunner has none yet
        fill_model(unwrapped(model), read_checkpoint(source), source, strict=True)
