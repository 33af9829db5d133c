"""A resumed run that equals an unbroken one."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook

from ...datasets.samplers import ResumableBatchSampler, seed_everything
from ...registry import HOOKS
from ...utils.errors import InvalidState


class _Stream:
    """The batches of an iteration-based loop from some iteration on; what the loop wants to skip is not loaded."""

    def __init__(self, loader, done: int, skips: int) -> None:
        self.loader, self.done, self.skips = loader, done, skips
        self.epoch = 0
        self.batches: Iterator | None = None

    def __iter__(self) -> '_Stream':
        return self

    def skip_iter(self, num_iters: int) -> None:
        """Skip as newer mmengine does; older ones call ``next`` so many times."""
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
    """Make a resumed run equal to an unbroken one: the random numbers and the place in the data.

    Before every iteration the global generators are seeded with the run's seed, the iteration and the rank (drop path,
    mixup); ``ResumableBatchSampler`` does the same for the augmentation, and begins where the checkpoint was saved.
    With another batch sampler the data begins anew, with a warning.

    Raises:
        RuntimeError: The processes found different checkpoints.
    """

    priority = 'VERY_HIGH'

    saved_length: int | None = None  # batches in an epoch of the run that is resumed

    def before_train(self, runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        batches = loader.batch_sampler
        self.seed = getattr(getattr(batches, 'sampler', None), 'seed', runner.seed)
        self.length = len(loader)
        places: list[int] = all_gather_object(runner.iter)
        if len(set(places)) > 1:
            raise InvalidState(
                f'the processes would go on from different iterations, {", ".join(map(str, places))}: all need the '
                f'same checkpoint. Is {runner.work_dir} on a disk that all machines share?'
            )
        if not runner.iter:
            return
        if runner.iter >= runner.max_iters:
            runner.logger.warning(
                f'The run was at its end already, {runner.iter} iterations: nothing is left to train.'
            )
        if not isinstance(batches, ResumableBatchSampler):
            runner.logger.warning(
                'The training data has no mlp_backbones.ResumableBatchSampler: it begins anew, not where the '
                'checkpoint was saved.'
            )
        elif hasattr(loop, 'dataloader_iterator'):
            skips = 0 if getattr(loop, 'fast_forward_on_resume', False) else runner.iter
            loop.dataloader_iterator = _Stream(loader, runner.iter, skips)
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
