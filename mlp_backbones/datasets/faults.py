"""Files that cannot be read while a run goes on: passed over in training up to a limit, never in evaluation.

The guards sit around the loading transforms of the datasets that a runner builds, so the config stays as it is.
"""

import contextlib
import fcntl
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from .files import DataError, cut_short, file_problem

MOST = 100  # different files passed over, and
SHARE = 0.1  # at most this part of the images
HELP = 'tools/check_data.py CONFIG finds all such files.'


class FaultList:
    """The files passed over, in a file that the workers of all processes add to.

    Args:
        path (str | PathLike): The list, a line for each file: name, tab, reason. It is made with the first entry.
        limit (int): How many different files may be passed over. 0 refuses the first.
        hint (str): What to say beside the error.
    """

    def __init__(self, path: str | os.PathLike, limit: int, hint: str = ''):
        self.path, self.limit, self.hint = Path(path), limit, hint

    def lines(self) -> list[str]:
        return self.path.read_text(errors='replace').splitlines() if self.path.exists() else []

    def add(self, name: str, reason: str) -> None:
        """Note a file, once.

        Raises:
            DataError: The limit is passed; the message names the files.
        """
        name, reason = (' '.join(str(s).split()) for s in (name, reason))
        if self.limit == 0:
            raise DataError(f'{name}: {reason}. {self.hint}{HELP}')
        with self.path.open('a+', errors='replace') as file:
            with contextlib.suppress(OSError):  # a file system without locks: at worst a name is there twice
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            lines = file.read().splitlines()
            if name not in {line.split('\t')[0] for line in lines}:
                lines.append(f'{name}\t{reason}')
                file.write(lines[-1] + '\n')
        count = len({line.split('\t')[0] for line in lines})
        if count > self.limit:
            shown = '\n'.join('  ' + line.replace('\t', ': ') for line in lines[:10])
            more = f'\n  ... all {count} in {self.path}' if count > 10 else ''
            raise DataError(
                f'{count} files could not be read, and at most {self.limit} may be passed over:\n{shown}{more}\n'
                f'{HELP} max_faulty_files=N in the config or under --cfg-options is the limit.'
            )


class Guard:
    """A loading transform, and what happens to a sample that it cannot load.

    The answer is then None, for which mmengine's datasets take another sample at random.
    """

    def __init__(self, transform, faults: FaultList):
        self.transform, self.faults = transform, faults

    def __call__(self, results: dict) -> dict | None:
        path: Any = results.get('img_path' if 'img' not in results else 'seg_map_path')
        reason = None
        try:
            out = self.transform(results)
        except (MemoryError, ImportError):
            raise
        except Exception as error:
            local = path and (os.path.exists(path) or isinstance(error, FileNotFoundError))
            out, reason = None, file_problem(path) if local else None
            reason = reason or f'{_name(self.transform)}: {type(error).__name__}: {error}'
        else:
            if out is None:
                reason = f'{_name(self.transform)} gave nothing'
            elif path and cut_short(path):
                reason = 'is cut short'
            elif 'gt_seg_map' in out and 'ori_shape' in out and out['gt_seg_map'].shape[:2] != tuple(out['ori_shape']):
                (h, w), (height, width) = out['gt_seg_map'].shape[:2], out['ori_shape']
                reason = f'is {w}x{h} pixels; its image is {width}x{height}'
        if reason is None:
            return out
        self.faults.add(path or results.get('img_path', ''), reason)
        return None

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transform!r})'


class FaultyFilesHook(Hook):
    """Tell of the files that were passed over, each once, from whatever process; and how many in the end."""

    def __init__(self, faults: FaultList):
        self.faults = faults
        self.size = self.told = 0

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.rank != 0:
            return
        try:
            size = self.faults.path.stat().st_size
        except OSError:
            return
        if size == self.size:
            return
        self.size, lines = size, self.faults.lines()
        for line in lines[self.told :]:
            runner.logger.warning(f'{line.replace(chr(9), ": ", 1)}; passed over, another image is taken')
        self.told = len(lines)

    def after_train(self, runner) -> None:
        self.after_train_iter(runner, 0)
        if self.told:
            runner.logger.warning(f'{self.told} files could not be read and were passed over, see {self.faults.path}')


def guard(runner, limit: int | None = None, explain: Callable[[Any], str] | None = None) -> None:
    """Guard the datasets that a runner is going to build.

    Args:
        runner (mmengine.Runner): As built from its config; FlexibleRunner too.
        limit (int, optional): How many different files training may pass over, in all processes that share the work
            dir. Defaults to 100, or a tenth of the images where that is less. In evaluation it is always 0.
        explain (Callable, optional): Given the settings of a dataloader that cannot be built, why; '' where unknown.
    """
    build, build_train_loop = runner.build_dataloader, runner.build_train_loop
    training = False

    def guarded(dataloader, *args, **kwargs):
        try:
            loader = build(dataloader, *args, **kwargs)
        except (DataError, ImportError, MemoryError):
            raise
        except Exception as error:
            why = explain(dataloader) if explain else ''
            raise DataError(why or f'the data cannot be loaded: {type(error).__name__}: {error}') from error
        faults = FaultList(Path(runner.log_dir) / 'faulty_files.txt', 0)
        leaves = _leaves(loader.dataset)
        if training:
            number = sum(len(leaf) for leaf in leaves)
            most = min(MOST, math.ceil(number * SHARE)) if limit is None else limit
            faults.limit = max(min(most, number - 1), 0)
            runner.register_hook(FaultyFilesHook(faults))
        else:
            faults.hint = 'Evaluation passes over nothing. '
        for leaf in leaves:
            transforms = leaf.pipeline.transforms
            transforms[:] = [Guard(t, faults) if _name(t).startswith('Load') else t for t in transforms]
        return loader

    def train_loop(*args, **kwargs):
        nonlocal training
        training = True
        try:
            return build_train_loop(*args, **kwargs)
        finally:
            training = False

    runner.build_dataloader, runner.build_train_loop = guarded, train_loop


def _name(transform) -> str:
    return type(transform).__name__


def _leaves(dataset) -> list:
    """The datasets that load files, inside any wrappers (repeated, concatenated, class-balanced, ...), each once."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner[0] is not None:
        return list({id(leaf): leaf for d in inner for leaf in _leaves(d)}.values())
    return [dataset] if hasattr(getattr(dataset, 'pipeline', None), 'transforms') else []
