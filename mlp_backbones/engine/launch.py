"""From a config to a run of mmengine's runner, with everything that can be checked checked before it starts.

The config decides which framework runs: its ``default_scope`` is 'mmdet', 'mmseg' or 'mmpretrain'.
"""

import argparse
import contextlib
import datetime
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..utils.cli import check_writable, config_parser, say
from ..utils.config import nodes
from ..utils.errors import UserError
from .config import class_name, load_config, report
from .data import adapt_to_data
from .preflight import problems

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RANKS = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')  # what launchers number processes by


def common_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that training and testing share."""
    parser = config_parser(description)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--launcher',
        choices=['none', *RANKS],
        default='none',
        help='how the processes were started; the dist_ and slurm_ scripts set it (default: none)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def prepare(args: argparse.Namespace, train: bool, amp: str | None = None):
    """Load the config of a run, adapt it to data and device, and refuse what cannot work.

    It also acts: synthetic shapes are drawn, and on CPUs with a launcher the process group is started.

    Args:
        args (Namespace): What ``common_parser`` parsed.
        train (bool): Whether the run trains, or only tests.
        amp (str, optional): Mixed precision in 'float16', 'bfloat16' or 'auto', the one that the family takes. Defaults
            to None, as the config says.

    Returns:
        mmengine.Config: Ready for ``Runner.from_cfg``.

    Raises:
        UserError: A path, a setting or a piece of data that cannot be used.
        MissingDependency: The config's framework is missing or broken.
    """
    if args.launcher != 'none':
        variable = RANKS[args.launcher]
        if variable not in os.environ:
            raise UserError(
                f'--launcher {args.launcher} is for processes that torchrun, srun or mpirun has started ({variable} is '
                'not set): use tools/dist_train.sh or tools/slurm_train.sh'
            )
        os.environ['RANK'] = os.environ[variable]  # as mmengine does, but only when the runner is built
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or os.path.join('work_dirs', Path(args.config).stem)
    adapt_to_data(cfg)
    report(problems(cfg, train))
    _drop_removed_hooks(cfg)
    if train:
        _set_precision(cfg, amp)
    else:
        cfg.resume, cfg.load_from = False, None
    _adapt_to_device(cfg)
    return cfg


def _drop_removed_hooks(cfg) -> None:
    """Leave out hooks that are None: mmengine does so for its own names, and fails on others."""
    own = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
    for name, hook in list(cfg.get('default_hooks', {}).items()):
        if hook is None and name not in own:
            cfg.default_hooks.pop(name)


def _set_precision(cfg, amp: str | None) -> None:
    """Switch mixed precision on, and refuse float16 for a family whose activations are too large for it."""
    from ..registry import MODELS

    wrapper, name = cfg.optim_wrapper, class_name(cfg.model.backbone)
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


def _adapt_to_device(cfg) -> None:
    """Without a GPU: gloo instead of NCCL, float32 instead of AMP, BatchNorm instead of SyncBN; each is printed."""
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        return
    if cfg.launcher in ('mpi', 'slurm'):
        raise UserError(
            f'no GPU found, and --launcher {cfg.launcher} needs one: use pytorch, as the scripts in tools/ do'
        )
    notes = []
    wrapper = cfg.get('optim_wrapper')
    if class_name(wrapper) == 'AmpOptimWrapper':
        wrapper['type'] = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            wrapper.pop(key, None)
        notes.append('float32 instead of mixed precision')
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
        notes.append('gloo instead of NCCL')
        synchronized = [node for node in nodes(cfg.model) if class_name(node) == 'SyncBN']
        for node in synchronized:
            node['type'] = 'BN'
        if cfg.pop('sync_bn', None) or synchronized:
            notes.append('BN instead of SyncBN')
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

    from ..checkpoints.runs import use_safe_reader

    use_safe_reader()  # the model may load weights before a hook can say so
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextlib.contextmanager
def sole_run_in(work_dir: str | Path) -> Iterator[None]:
    """Keep other runs out of a work dir while one trains there; the first of several processes holds the lock.

    The system releases it however the process ends. Where the file system has no locks, a warning is printed.

    Raises:
        UserError: The folder cannot be written, or another run trains in it.
    """
    if os.environ.get('RANK', '0') != '0' or fcntl is None:
        yield
        return
    check_writable(work_dir)
    with open(Path(work_dir, '.lock'), 'a+') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock of this process, not of its workers too
        except OSError as error:
            file.seek(0)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise UserError(
                    f'another run trains in {work_dir}: {file.read() or "its process is unknown"}'
                ) from error
            say(f'warning: {work_dir} has no file locks ({error.strerror}): nothing keeps a second run out of it')
        else:
            file.truncate(0)
            file.write(f'process {os.getpid()} on {socket.gethostname()}')
            file.flush()
        yield


def resume(runner, source: str) -> None:
    """Let a run go on from a checkpoint that is whole; the first process chooses for all.

    Args:
        runner (mmengine.runner.Runner): What ``build_runner`` gave.
        source (str): The file, or 'auto' for the newest of the work dir. Without any the run starts as it would without
            being resumed.

    Raises:
        CheckpointError: The file does not exist or is damaged.
    """
    from mmengine.dist import broadcast_object_list, is_main_process

    from .hooks.checkpoint import choose_checkpoint

    choice = [choose_checkpoint(runner.work_dir, source) if is_main_process() else None]
    broadcast_object_list(choice)
    if choice[0]:
        runner._load_from, runner._resume = choice[0], True


def load_whole(runner, source: str) -> None:
    """Load a checkpoint that fills the whole model: with a head of random weights the figures would mean nothing.

    Args:
        runner (mmengine.runner.Runner): What ``build_runner`` gave.
        source (str): File or URL.

    Raises:
        CheckpointError: A tensor of the model is missing or of another shape, or there are others.
    """
    from ..checkpoints import read_checkpoint
    from ..models.backbones.loading import fill_model
    from .hooks.adapt_checkpoint import unwrapped

    if hasattr(runner, 'strategy'):  # FlexibleRunner has no model yet, and its checkpoint may be in parts
        runner._load_from = source
    else:
        fill_model(unwrapped(runner.model), read_checkpoint(source), source, strict=True)
