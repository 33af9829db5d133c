"""Checkpoints that are whole, or do not exist."""

import contextlib
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.backends import backends, prefix_to_backends
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from ...registry import HOOKS
from ...utils.errors import InvalidState
from ...utils.files import PARTIAL, written_whole


class WholeFileBackend(LocalBackend):
    """mmengine's files on local disks, each written beside its place and moved there when it is whole."""

    def put(self, obj: bytes, filepath) -> None:
        os.makedirs(os.path.dirname(filepath) or '.', exist_ok=True)
        with written_whole(filepath) as partial, partial.open('wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def whole_files() -> Iterator[None]:
    """Let mmengine write its local files with ``WholeFileBackend``, within the block only.

    ``backend_args`` would say so for Runner alone: FlexibleRunner's strategies do not take any.
    """
    local, default = backends['local'], prefix_to_backends['']
    register_backend('local', WholeFileBackend, force=True, prefixes='')
    try:
        yield
    finally:
        backends['local'], prefix_to_backends[''] = local, default


def is_whole(path: Path) -> bool:
    """Return whether a checkpoint was written to its end: every record of the archive is there and matches its CRC-32.

    A folder, as DeepSpeed and FSDP write them, is whole where it is not empty.
    """
    if path.is_dir():
        return any(path.iterdir())
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return False


def newest_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[Path]]:
    """Return the checkpoint to go on from.

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


def last_good(runner) -> str:
    """Say which checkpoint of a run can be gone on from."""
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
            with whole_files():
                save(runner, *args, **kwargs)
        except OSError as error:
            raise InvalidState(
                f'cannot save a checkpoint to {self.out_dir}: {error.strerror or error}; {last_good(runner)}. Go on '
                'from it with --resume when there is room'
            ) from error
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        self.file_backend.finish(keep=[self.last_ckpt, *best])

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        self._save(super()._save_checkpoint_with_step, runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        self._save(super()._save_best_checkpoint, runner, metrics)


def remove_partial_files(work_dir: str | Path) -> None:
    """Remove what a killed process had begun to write into a work dir; of several processes the first does it."""
    if os.environ.get('RANK', '0') != '0':  # before torch.distributed is started
        return
    for path in Path(work_dir).glob(f'.*{PARTIAL}*'):
        path.unlink(missing_ok=True)
