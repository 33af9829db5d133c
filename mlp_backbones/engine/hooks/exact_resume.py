"""A resumed run that equals an unbroken one."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from ...datasets.samplers import Part, ResumableBatchSampler, seed_everything
from ...registry import HOOKS


class Batches:
    """The batches of a loop over iterations, which goes over the data endlessly.

    mmengine advances them by what was done already, with ``skip_iter`` or ``next``: here without loading it.

    Args:
        loader (DataLoader): With a ``ResumableBatchSampler``.
        epoch (int): How often the data was gone over before.
        parts (list[Part]): What was taken of it in this epoch.
        done (int): Iterations that mmengine skips.
    """

    def __init__(self, loader, epoch: int, parts: list[Part], done: int = 0) -> None:
        self.loader, self.epoch, self.parts, self.skips = loader, epoch, parts, done
        self.batches, self.taken = self._all(), 0

    def _all(self) -> Iterator:
        self.loader.batch_sampler.start_at(self.parts)
        while True:
            self.loader.batch_sampler.sampler.set_epoch(self.epoch)
            for batch in self.loader:
                self.taken += 1
                yield batch
            self.epoch, self.parts, self.taken = self.epoch + 1, [], 0

    def skip_iter(self, number: int) -> None:
        """Skip as newer mmengine does; older ones call ``next`` so many times."""
        self.skips -= number

    def __next__(self) -> Any:
        if self.skips:
            self.skips -= 1
            return None
        return next(self.batches)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed run equal to an unbroken one: the random numbers and the place in the data.

    Before every iteration the global generators are seeded with the run's seed, the iteration and the rank (drop path,
    mixup); ``ResumableBatchSampler`` does the same for the augmentation, and begins where the checkpoint was saved:
    with another number of processes or images in a batch too, where the rest of the epoch is shared among them anew.
    With another batch sampler the data begins anew, with a warning.
    """

    priority = 'VERY_HIGH'

    saved: tuple[int, list[Part]] | None = None  # epoch of the data in the checkpoint, and what was taken of it
    parts: list[Part] = []  # what earlier runs have taken of the epoch

    def before_train(self, runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        batches = loader.batch_sampler
        self.seed = getattr(getattr(batches, 'sampler', None), 'seed', runner.seed)
        self.first = runner.iter
        if not runner.iter:
            return
        if not isinstance(batches, ResumableBatchSampler):
            runner.logger.warning(
                'The training data has no mlp_backbones.ResumableBatchSampler: it begins anew, not where the '
                'checkpoint was saved.'
            )
            return
        by_iteration = hasattr(loop, 'dataloader_iterator')
        if self.saved is None and not by_iteration:
            runner.logger.warning(
                'The checkpoint does not say what was taken of the training data: '
                f'epoch {runner.epoch + 1} begins at its start.'
            )
            return
        epoch, self.parts = self.saved or self._counted(runner, runner.iter)
        if others := [part for part in self.parts if part != batches.part(part.batches)]:
            runner.logger.warning(
                f'The checkpoint was saved by {others[-1].world_size} processes with {others[-1].batch_size} images in '
                f'a batch, now there are {batches.world_size} with {batches.batch_size}: they go on with what is left '
                f'of the data, and schedules at iteration {runner.iter}.'
            )
        if by_iteration:
            loop.fast_forward_on_resume = False
            loop.dataloader_iterator = Batches(loader, epoch, self.parts, runner.iter)
        else:
            batches.start_at(self.parts)
            if runner.iter != runner.epoch * len(batches) + sum(part.batches for part in self.parts):
                # Other batches: by their number this iteration may be behind the last one, where mmengine scales the
                # loss by the gradients that are left to accumulate.
                runner.optim_wrapper._max_counts = -1

    def _counted(self, runner, iteration: int) -> tuple[int, list[Part]]:
        """Return how often a loop over iterations of one size has gone over the data, and what it took since."""
        batches = runner.train_dataloader.batch_sampler
        endless = isinstance(batches.sampler, InfiniteSampler)  # which goes over the data by itself
        epoch, done = (0, iteration) if endless else divmod(iteration, len(batches))
        return epoch, [batches.part(done)]

    def after_train_epoch(self, runner) -> None:
        self.first, self.parts = runner.iter, []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        seed_everything(self.seed, runner.iter, get_rank())

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        meta, stream = checkpoint['meta'], getattr(runner.train_loop, 'dataloader_iterator', None)
        batches = runner.train_dataloader.batch_sampler
        meta['sampler_seed'] = self.seed
        if not isinstance(batches, ResumableBatchSampler):
            return
        if isinstance(stream, Batches):
            epoch, parts = stream.epoch, [*stream.parts, batches.part(stream.taken)]
        elif stream is not None:
            epoch, parts = self._counted(runner, meta['iter'])
        else:
            epoch, parts = meta['epoch'], [*self.parts, batches.part(meta['iter'] - self.first)]
        meta['data'] = epoch, [tuple(part) for part in parts if part.batches]

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        # `train_loop` and `train_dataloader` would build the training data, which a run that only tests need not have.
        loader = getattr(runner._train_loop, 'dataloader', None)
        sampler = getattr(loader, 'batch_sampler', None)
        meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
        if runner._resume and isinstance(sampler, ResumableBatchSampler) and isinstance(meta, dict):
            sampler.sampler.seed = meta.get('sampler_seed', sampler.sampler.seed)
            if 'data' in meta:
                epoch, parts = meta['data']
                self.saved = epoch, [Part(*part) for part in parts]
