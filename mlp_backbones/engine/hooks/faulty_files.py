"""What a run does about files that cannot be read."""

import math
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator

from ...datasets.faults import HELP, FaultList, GuardedPipeline, check_ends, labeled_heads, leaf_datasets, local_files
from ...datasets.validation.files import listed
from ...registry import HOOKS
from ...utils.errors import DataError, UserError

MOST = 100  # different files passed over, and
SHARE = 0.1  # at most this part of the images


@HOOKS.register_module()
class FaultyFilesHook(Hook):
    """Pass over files that cannot be read in training, up to a limit, and refuse them in evaluation.

    The files passed over are in ``faulty_files.txt`` beside the run's log, and each is named in the log once. The
    pipeline of each training dataset is wrapped for that, and a file that was loaded is looked at once more, at both of
    its ends, since OpenCV fills in what is missing of an image. The images and label maps of an evaluation are looked
    at before the run starts. Labels that a segmentation head does not have, and classes of the config that a COCO file
    does not have, stop the run.

    Args:
        max_faulty_files (int, optional): How many different files training may pass over, in all processes that share
            the work dir; 0 stops at the first. Defaults to None: 100, or a tenth of the images where that is less.

    Raises:
        DataError: Naming the files.
    """

    priority = 'VERY_HIGH'

    def __init__(self, max_faulty_files: int | None = None) -> None:
        if max_faulty_files is not None and (type(max_faulty_files) is not int or max_faulty_files < 0):
            raise UserError(f'max_faulty_files must be an integer of 0 or more, or None, got {max_faulty_files!r}')
        self.limit = max_faulty_files
        self.faults: FaultList | None = None
        self.size = self.told = 0

    def before_run(self, runner) -> None:
        train, val, test = (getattr(runner, f'_{name}_loop', None) for name in ('train', 'val', 'test'))
        for loop in (val, test):
            if isinstance(loop, BaseLoop):
                self._guard_evaluation(runner, loop.dataloader)
        if isinstance(train, BaseLoop):
            self._guard_training(runner, train)

    def _guard_training(self, runner, loop) -> None:
        loader = loop.dataloader
        leaves = leaf_datasets(loader.dataset)
        number = sum(map(len, leaves))
        most = min(MOST, math.ceil(number * SHARE)) if self.limit is None else self.limit
        self.faults = FaultList(Path(runner.log_dir) / 'faulty_files.txt', max(min(most, number - 1), 0))
        _guard(leaves, self.faults, labeled_heads(runner.cfg))
        if loader.num_workers and hasattr(loop, 'dataloader_iterator'):
            # mmengine's loop over iterations has started workers already, with copies of the unguarded datasets.
            loader._iterator = None
            loop.dataloader_iterator = _InfiniteDataloaderIterator(loader)

    def _guard_evaluation(self, runner, loader) -> None:
        leaves = leaf_datasets(loader.dataset)
        path = Path(runner.log_dir) / 'faulty_files.txt'
        _guard(leaves, FaultList(path, 0, 'Evaluation passes over nothing. '))
        files = local_files(leaves)[get_rank() :: get_world_size()]  # the processes share them
        runner.logger.info(f'Looking at the first and last bytes of {len(files)} files of the evaluation ...')
        check_ends(files)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Name what was passed over since the last time; only the list's size is asked for as a rule."""
        if self.faults is None or runner.rank or not self.faults.path.exists():
            return
        size = self.faults.path.stat().st_size
        if size == self.size:
            return
        found = list(self.faults.read().items())
        for name, reason in found[self.told :]:
            runner.logger.warning(f'{name}: {reason}; passed over, another image is taken')
        self.size, self.told = size, len(found)

    def after_train(self, runner) -> None:
        self.after_train_iter(runner, 0)
        if self.faults is not None and self.told:
            runner.logger.warning(f'{self.told} files could not be read and were passed over, see {self.faults.path}')


def _guard(leaves: list, faults: FaultList, heads=()) -> None:
    """Put the guard around datasets, whose COCO file must have the classes of a config: labels would be shifted."""
    for leaf in leaves:
        names, ids = leaf.metainfo.get('classes') or (), getattr(leaf, 'cat_ids', ())
        if 0 < len(ids) < len(names) and names != type(leaf).METAINFO.get('classes'):
            shown = f'{len(ids)} of the {len(names)} classes {listed(names)}'
            raise DataError(f'{leaf.ann_file} has categories for only {shown}. {HELP}')
        leaf.pipeline = GuardedPipeline(leaf.pipeline.transforms, faults, heads)
