"""A resumed run that equals an unbroken one."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from ...datasets.samplers import ResumableBatchSampler, seed_everything
from ...registry import HOOKS


def batches_from(loader, done: int) -> Iterator:
    """Yield the batches of an iteration-based loop that has done some iterations; the data is gone over endlessly."""
    epoch, batch = divmod(done, len(loader))
    if isinstance(loader.batch_sampler.sampler, InfiniteSampler):  # it goes over the data many times by itself
        epoch, batch = 0, done
    while True:
        loader.batch_sampler.sampler.set_epoch(epoch)
        loader.batch_sampler.start_at(batch)
        yield from loader
        epoch, batch = epoch + 1, 0


class _Advanced:
    """The batches of a resumed loop, which mmengine advances by what was done already: here without loading it."""

    def __init__(self, loader, done: int) -> None:
        self.skips, self.batches = done, batches_from(loader, done)

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
    mixup); ``ResumableBatchSampler`` does the same for the augmentation, and begins where the checkpoint was saved.
    With another batch sampler the data begins anew, with a warning.
    """

    priority = 'VERY_HIGH'

    saved_length: int | None = None  # batches in an epoch of the run that is resumed

    def before_train(self, runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        batches = loader.batch_sampler
        self.seed = getattr(getattr(batches, 'sampler', None), 'seed', runner.seed)
        self.length = len(loader)
        if not runner.iter:
            return
        if not isinstance(batches, ResumableBatchSampler):
            runner.logger.warning(
                'The training data has no mlp_backbones.ResumableBatchSampler: it begins anew, not where the '
                'checkpoint was saved.'
            )
        elif hasattr(loop, 'dataloader_iterator'):
            loop.fast_forward_on_resume = False
            loop.dataloader_iterator = _Advanced(loader, runner.iter)
        elif self.saved_length == self.length:
            batches.start_at(runner.iter - runner.epoch * self.length)
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
