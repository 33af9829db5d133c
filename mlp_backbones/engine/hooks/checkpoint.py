"""Checkpoints that are whole, or do not exist."""

import os
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from ...registry import HOOKS
from ...utils.cli import say
from ...utils.errors import CheckpointError, InvalidState
from ...utils.files import PARTIAL, written_whole

CHECKPOINT = re.compile(r'(epoch|iter|interrupted_iter)_\d+(\.pth)?')  # names in a work dir


class Writer:
    """One thread that writes files while training goes on, one after the other."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.job: Future[None] | None = None

    def start(self, write: Callable[..., None], *args: Any) -> None:
        self.wait()
        self.job = self.pool.submit(write, *args)

    def wait(self) -> None:
        """Wait until the last file is whole, and raise what went wrong with it."""
        job, self.job = self.job, None
        if job:
            job.result()


WRITER = Writer()  # of this process: mmengine makes backends as it likes, from settings that JSON can hold


class WholeFileBackend(LocalBackend):
    """mmengine's files on local disks, each written beside its place and moved there when it is whole.

    mmengine removes a checkpoint before it saves the one that replaces it; here it goes when that one is whole.

    Args:
        asynchronous (bool): ``WRITER`` writes them. Defaults to False: ``put`` ends when the file is whole.
    """

    outdated: list[Path] = []  # of this process, as ``WRITER``

    def __init__(self, asynchronous: bool = False) -> None:
        self.asynchronous = asynchronous

    def put(self, obj: bytes, filepath) -> None:
        if self.asynchronous:
            WRITER.start(self.write, obj, filepath)
        else:
            self.write(obj, filepath)

    def remove(self, filepath) -> None:
        self.outdated.append(Path(filepath))

    @classmethod
    def write(cls, obj: bytes, filepath) -> None:
        os.makedirs(os.path.dirname(filepath) or '.', exist_ok=True)
        with written_whole(filepath) as partial, partial.open('wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        while cls.outdated:
            if (path := cls.outdated.pop()) != Path(filepath):
                path.unlink(missing_ok=True)


def whole_files(asynchronous: bool = False) -> dict[str, Any]:
    """Return the ``backend_args`` with which mmengine writes whole files."""
    register_backend('mlp_backbones', WholeFileBackend, force=True)
    return dict(backend='mlp_backbones', asynchronous=asynchronous)


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint was written to its end: every record of the archive is there and matches its CRC-32.

    A folder, as DeepSpeed and FSDP write them, is whole where it is not empty.
    """
    if path.is_dir():
        return any(path.iterdir())
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive may raise anything
        return False


def newest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[Path]]:
    """Return the checkpoint to go on from.

    Returns:
        tuple[Path | None, list[Path]]: The newest whole one of a work dir, and the newer ones that are missing or not
        whole. The one that ``last_checkpoint`` names counts as the newest; where the work dir has none, they are
        looked for beside that one (``CheckpointHook(out_dir=...)``).
    """
    work_dir = Path(work_dir).absolute()
    pointer = work_dir / 'last_checkpoint'
    text = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    candidates = _checkpoints_in(work_dir)
    if text:  # a work dir may have been copied or moved since: the file of that name in it goes first
        own, named = work_dir / Path(text).name, Path(text).absolute()
        candidates = [own if own.exists() else named, *(candidates or _checkpoints_in(named.parent))]
    broken: list[Path] = []
    for path in dict.fromkeys(candidates):
        if is_whole(path):
            return path, broken
        broken.append(path)
    return None, broken


def _checkpoints_in(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob('*') if CHECKPOINT.fullmatch(path.name) and path.exists()]
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def choose_checkpoint(work_dir: str, source: str) -> str | None:
    """Return the checkpoint that a run goes on from, and say so; None where the work dir has none.

    Args:
        work_dir (str): Of the run. What a killed process had begun to write into it is removed.
        source (str): A file or URL, or 'auto' for the newest of the work dir.

    Raises:
        CheckpointError: The file does not exist or is damaged.
    """
    for path in Path(work_dir).glob(f'.*{PARTIAL}*'):
        path.unlink(missing_ok=True)
    if source != 'auto' and ('://' in source or is_whole(Path(source))):
        return source
    newest, broken = newest_checkpoint(work_dir)
    if source != 'auto':
        other = f'; the newest whole one in {work_dir} is {newest}' if newest else ''
        raise CheckpointError(f'--resume {source}: the checkpoint does not exist, or is truncated{other}')
    if broken:
        say(f'missing or not whole, so passed over: {", ".join(map(str, broken))}')
    say(f'Resuming from {newest}' if newest else f'No checkpoint in {work_dir}: starting anew')
    return str(newest) if newest else None


def last_good(runner) -> str:
    """Say which checkpoint of a run can be gone on from."""
    path, _ = newest_checkpoint(runner.work_dir)
    return f'the last good checkpoint is {path}' if path else 'no checkpoint was saved before'


def save_after_last(runner, folder: str, save: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Save a checkpoint when the last one is written.

    Raises:
        InvalidState: One of them cannot be written; the message names the last good one.
    """
    try:
        WRITER.wait()  # before an older one is removed
        save(*args, **kwargs)
    except OSError as error:
        raise InvalidState(
            f'cannot save a checkpoint to {folder}: {error.strerror or error}; {last_good(runner)}. Go on from it with '
            '--resume when there is space'
        ) from error


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's, which writes checkpoints whole, and keeps the last one and the best one until the next is there.

    A run that goes on in another work dir, or in a copy, removes nothing where it came from. What FlexibleRunner (FSDP)
    or another backend writes comes behind the removal: there two are kept where it is to be one.

    Args:
        *args (Any): As of mmengine's hook.
        asynchronous (bool): Write files while training goes on, from a copy in memory; one that could not be written
            stops the run at the next one. Only on local disks. Defaults to False.
        **kwargs (Any): As of mmengine's hook.

    Raises:
        RuntimeError: A checkpoint cannot be written, for example because the disk is full; the message names the last
            good one.
    """

    backend_args: dict | None
    max_keep_ckpts: int

    def __init__(self, *args: Any, asynchronous: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asynchronous = asynchronous
        self.local = self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir)

    def before_train(self, runner) -> None:
        if self.local and not hasattr(runner, 'strategy'):
            self.backend_args = whole_files(self.asynchronous)
        elif self.max_keep_ckpts == 1:
            self.max_keep_ckpts = 2
        WholeFileBackend.outdated.clear()  # what a run before this one in the same process failed to replace
        super().before_train(runner)
        # mmengine would remove whatever path the checkpoint that is resumed calls the best.
        if best := getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = self._own(best)
        paths = getattr(self, 'best_ckpt_path_dict', {})
        paths.update((key, self._own(path)) for key, path in paths.items() if path)

    def _own(self, best: str) -> str | None:
        """Return the best checkpoint of that name which is in the run's own folder, or None."""
        path = self.file_backend.join_path(self.out_dir, os.path.basename(best))
        return path if os.path.basename(best).startswith('best_') and self.file_backend.exists(path) else None

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        save_after_last(runner, self.out_dir, super()._save_checkpoint_with_step, runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        save_after_last(runner, self.out_dir, super()._save_best_checkpoint, runner, metrics)

    def after_train(self, runner) -> None:
        save_after_last(runner, self.out_dir, super().after_train, runner)
