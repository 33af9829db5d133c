"""What keeps a long run safe: checkpoints that are whole, resuming that continues, and stopping in time.

``tools/train.py`` adds these to every config; ``prepare`` in ``launch.py`` says which.
"""

import os
import re
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object, all_reduce, get_rank, is_distributed, is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from .checkpoints.files import PARTIAL, written_whole
from .datasets.sampling import ResumableBatchSampler, seed_everything
from .registry import HOOKS


class WholeFileBackend(LocalBackend):
    """mmengine's files on local disks, each written beside its place and moved there when it is whole."""

    def put(self, obj: bytes, filepath) -> None:
        os.makedirs(os.path.dirname(filepath) or '.', exist_ok=True)
        with written_whole(filepath) as partial, partial.open('wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())


register_backend('local', WholeFileBackend, force=True, prefixes='')


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end: every record of the archive is there and matches its CRC-32.

    A folder, as DeepSpeed and FSDP write them, is whole where it is not empty.
    """
    if path.is_dir():
        return any(path.iterdir())
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return False


def newest_checkpoint(work_dir: str | Path) -> tuple[Optional[Path], list[Path]]:
    """The checkpoint to go on from.

    Returns:
        tuple[Path | None, list[Path]]: The newest whole one of a work dir, and the newer ones that are missing or not
        whole. The one that ``last_checkpoint`` names counts as the newest.
    """
    work_dir = Path(os.path.abspath(work_dir))
    pointer = work_dir / 'last_checkpoint'
    text = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    # A work dir may have been copied or moved since: the file of that name in it goes first.
    named = next((p for p in (work_dir / Path(text).name, Path(text)) if text and p.exists()), Path(text))
    folders = {work_dir, *([Path(os.path.abspath(named.parent))] if text else [])}
    pattern = re.compile(r'(epoch|iter|interrupted_iter)_\d+(\.pth)?')
    candidates = [p for f in folders for p in f.glob('*') if pattern.fullmatch(p.name) and p.exists()]
    candidates.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    if text:
        candidates = [named, *(p for p in candidates if p.resolve() != named.resolve())]
    broken: list[Path] = []
    for path in candidates:
        if is_whole(path):
            return path, broken
        broken.append(path)
    return None, broken


def _last_good(runner) -> str:
    path, _ = newest_checkpoint(runner.work_dir)
    return f'the last good checkpoint is {path}' if path else 'no checkpoint was saved before'


class _RemovesLater:
    """A file backend that keeps files until ``finish`` is called."""

    def __init__(self, backend) -> None:
        self._backend = backend
        self._stale: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path) -> None:
        self._stale.append(path)

    rmtree = remove

    def finish(self, keep) -> None:
        for path in self._stale:
            if path not in keep:
                remove = self._backend.rmtree if self._backend.isdir(path) else self._backend.remove
                remove(path)
        self._stale.clear()


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's, which saves a checkpoint before it removes the one that it replaces; arguments as there.

    Raises:
        RuntimeError: A checkpoint cannot be written, for example because the disk is full; the message names the last
            good one.
    """

    file_backend: Any

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend)

    def _save(self, save, runner, *args, **kwargs) -> None:
        try:
            save(runner, *args, **kwargs)
        except OSError as error:
            raise RuntimeError(
                f'cannot save a checkpoint to {self.out_dir}: {error.strerror or error}; {_last_good(runner)}. Go on '
                'from it with --resume when there is room'
            ) from error
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        self.file_backend.finish(keep=[self.last_ckpt, *best])

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        self._save(super()._save_checkpoint_with_step, runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        self._save(super()._save_best_checkpoint, runner, metrics)


class _Stream:
    """The batches of an iteration-based loop from some iteration on; what the loop wants to skip is not loaded."""

    def __init__(self, loader, done: int, skips: int) -> None:
        self.loader, self.done, self.skips = loader, done, skips
        self.epoch = 0
        self.batches: Optional[Iterator] = None

    def __iter__(self) -> '_Stream':
        return self

    def skip_iter(self, num_iters: int) -> None:
        """How newer mmengine skips; older ones call ``next`` so many times."""
        self.skips = 0

    def __next__(self) -> Any:
        if self.skips:
            self.skips -= 1
            return None
        if self.batches is None:
            within = self.done
            if not isinstance(self.loader.batch_sampler.sampler, InfiniteSampler):  # it goes over the data many times
                self.epoch, within = divmod(self.done, len(self.loader))
            self.batches = self._from(within)
        try:
            return next(self.batches)
        except StopIteration:
            self.epoch += 1
            self.batches = self._from(0)
            return next(self.batches)

    def _from(self, batch: int) -> Iterator:
        self.loader.batch_sampler.sampler.set_epoch(self.epoch)
        self.loader.batch_sampler.start_at(batch)
        return iter(self.loader)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed run equal to an unbroken one: the random numbers and the place in the data.

    Before every iteration the global generators are seeded with the run's seed, the iteration and the rank (drop path,
    mixup); ``ResumableBatchSampler`` does the same for the augmentation, and begins where the checkpoint was saved.

    Raises:
        RuntimeError: The processes found different checkpoints.
    """

    priority = 'VERY_HIGH'

    saved_length: Optional[int] = None  # batches in an epoch of the run that is resumed

    def before_train(self, runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        self.seed = loader.batch_sampler.sampler.seed
        self.length = len(loader)
        places: list[int] = all_gather_object(runner.iter)
        if len(set(places)) > 1:
            raise RuntimeError(
                f'the processes would go on from different iterations, {", ".join(map(str, places))}: all need the '
                f'same checkpoint. Is {runner.work_dir} on a disk that all machines share?'
            )
        if not runner.iter:
            return
        if runner.iter >= runner.max_iters:
            runner.logger.warning(
                f'The run was at its end already, {runner.iter} iterations: nothing is left to train.'
            )
        if hasattr(loop, 'dataloader_iterator'):
            skips = 0 if getattr(loop, 'fast_forward_on_resume', False) else runner.iter
            loop.dataloader_iterator = _Stream(loader, runner.iter, skips)
        elif self.saved_length == self.length:
            loader.batch_sampler.start_at(runner.iter - runner.epoch * self.length)
        elif self.saved_length is None or runner.iter != runner.epoch * self.saved_length:
            runner.logger.warning(
                f'The checkpoint was saved with {self.saved_length} batches in an epoch, now there are {self.length} '
                f'(another number of processes or images in a batch?): epoch {runner.epoch + 1} begins at its start.'
            )

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        seed_everything(self.seed, runner.iter, get_rank())

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta'].update(sampler_seed=self.seed, epoch_length=self.length)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        # `train_loop` and `train_dataloader` would build the training data, which a run that only tests need not have.
        loader = getattr(runner._train_loop, 'dataloader', None)
        sampler = getattr(loader, 'batch_sampler', None)
        if runner._resume and isinstance(sampler, ResumableBatchSampler):
            sampler.sampler.seed = checkpoint['meta'].get('sampler_seed', sampler.sampler.seed)
            self.saved_length = checkpoint['meta'].get('epoch_length')


@HOOKS.register_module()
class StopAtNonFiniteHook(Hook):
    """Stops a run whose loss or weights are NaN or infinite, before they reach a checkpoint.

    Raises:
        RuntimeError: Naming the iteration, the images of the batch and the last good checkpoint.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        bad = [k for k, v in (outputs or {}).items() if 'loss' in k and not torch.isfinite(torch.as_tensor(v)).all()]
        if bad:
            samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
            images = [str(getattr(s, 'img_path', '')) for s in samples]
            raise RuntimeError(
                f'{", ".join(bad)} not finite at iteration {runner.iter + 1} (epoch {runner.epoch + 1}), on:\n  '
                + '\n  '.join(images or ['images without a path'])
                + f'\n{_last_good(runner)}. A lower learning rate, clip_grad or bfloat16 instead of float16 may help'
            )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        bad = [
            k
            for k, v in checkpoint['state_dict'].items()
            if torch.is_tensor(v) and v.is_floating_point() and not torch.isfinite(v).all()
        ]
        if bad:
            names = ', '.join(bad[:3]) + (f' and {len(bad) - 3} more' if len(bad) > 3 else '')
            raise RuntimeError(
                f'{names} not finite at iteration {runner.iter + 1}: nothing was saved; {_last_good(runner)}'
            )


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ctrl-C, or SIGUSR1 (Slurm's ``--signal=USR1@120``), saves after the current iteration and stops.

    A second Ctrl-C stops at once. All processes agree on the iteration. The exit status is 130.
    """

    priority = 'LOWEST'  # after everything that belongs to the iteration, such as the moving average

    def __init__(self) -> None:
        self.requested = False
        self.when = 0.0
        self.previous = {}
        # Here, because mmengine's loop over iterations starts the data workers before `before_train`: they inherit the
        # handlers, where without them the signals, which go to all processes, would end them.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGUSR1):
                self.previous[number] = signal.signal(number, self._request)

    def _request(self, number: int, frame) -> None:
        # torchrun passes a Ctrl-C on that its processes may have had from the terminal: that is not a second one.
        if self.requested and number == signal.SIGINT and time.monotonic() > self.when + 1:
            raise KeyboardInterrupt
        if not self.requested:
            self.when = time.monotonic()
        self.requested = True
        if is_main_process():
            print('\nSaving after this iteration, then stopping; Ctrl-C again stops at once.', file=sys.stderr)

    def after_train(self, runner) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        stop = self.requested
        if is_distributed():
            flag = torch.tensor(float(stop))
            all_reduce(flag, 'max')
            stop = bool(flag)
        if not stop or not runner.optim_wrapper.should_update():  # gathered gradients would be lost
            return
        self.after_train(runner)
        done = runner.iter + 1
        name = f'interrupted_iter_{done}.pth'
        runner.save_checkpoint(runner.work_dir, name, meta=dict(epoch=runner.epoch, iter=done), by_epoch=False)
        path = os.path.join(runner.work_dir, name)
        self._point_to(runner, path)
        raise SystemExit(130)

    @master_only
    def _point_to(self, runner, path: str) -> None:
        with written_whole(os.path.join(runner.work_dir, 'last_checkpoint')) as partial:
            partial.write_text(path)
        print(f'\nStopped after iteration {runner.iter + 1}: {path}. Go on with --resume.', file=sys.stderr, flush=True)


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the backbone with ``torch.compile``. mmengine's own ``compile`` takes the whole training step, in which
    detectors change their shapes all the time and torch 2.10 fails on mixup.
    """

    def before_train(self, runner) -> None:
        backbone = (runner.model.module if is_model_wrapper(runner.model) else runner.model).backbone
        backbone.forward = torch.compile(backbone.forward)
        runner.logger.info('The backbone is compiled: the first iterations take longer.')


@master_only
def remove_partial_files(work_dir: str | Path) -> None:
    """Remove what a killed process had begun to write into a work dir."""
    for path in Path(work_dir).glob(f'.*{PARTIAL}*'):
        path.unlink(missing_ok=True)
