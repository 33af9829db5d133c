"""Signals that save and stop a run."""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from mmengine.dist import all_reduce, barrier, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from ...datasets.samplers import INTERRUPTS, leave_interrupts_to_the_run
from ...registry import HOOKS
from .checkpoint import save_after_last, whole_files


def _initialize_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    leave_interrupts_to_the_run(os.getpid())
    if initialize is not None:
        initialize(worker_id)


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ctrl-C, SIGTERM or SIGUSR1 (Slurm's ``--signal=USR1@120``) saves after the current iteration, or the validation
    that is under way, and stops.

    SIGTERM is what preemption sends, and torchrun when another process has failed; SIGKILL follows, of torchrun and
    Slurm after 30 seconds. How long saving took is printed. A second Ctrl-C stops at once. All processes agree on the
    iteration. The exit status is 130. The signals have their handlers while the training loop runs, and their former
    ones again however it ends.
    """

    priority = 'LOWEST'  # after everything that belongs to the iteration, such as the moving average

    requested = False
    when = 0.0

    def before_run(self, runner) -> None:
        loop = runner._train_loop
        if isinstance(loop, BaseLoop):  # else the settings of one that a run without training never builds
            loop.run = self._handlers()(loop.run)
        if isinstance(runner._val_loop, BaseLoop):  # the workers of training do so by themselves
            loader = runner._val_loop.dataloader
            loader.worker_init_fn = functools.partial(_initialize_worker, loader.worker_init_fn)

    @contextlib.contextmanager
    def _handlers(self) -> Iterator[None]:
        self.requested = False
        previous = {}
        if threading.current_thread() is threading.main_thread():  # in others Python takes no handlers
            previous = {number: signal.signal(number, self._request) for number in INTERRUPTS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame) -> None:
        # torchrun passes a Ctrl-C on that its processes may have had from the terminal: that is not a second one.
        if self.requested and number == signal.SIGINT and time.monotonic() > self.when + 1:
            raise KeyboardInterrupt
        if not self.requested:
            self.when = time.monotonic()
        self.requested = True
        if is_main_process():
            print('\nSaving after this iteration or validation; Ctrl-C again stops at once.', file=sys.stderr)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._stop_if_requested(runner, runner.iter + 1)

    def after_val(self, runner) -> None:
        self._stop_if_requested(runner, runner.iter)

    def _stop_if_requested(self, runner, done: int) -> None:
        stop = self.requested
        if is_distributed():
            flag = torch.tensor(float(stop))
            all_reduce(flag, 'max')
            stop = bool(flag)
        if not stop or not runner.optim_wrapper.should_update():  # gathered gradients would be lost
            return
        began, name = time.monotonic(), f'interrupted_iter_{done}.pth'
        path = os.path.join(runner.work_dir, name)

        def save() -> None:
            meta = dict(epoch=runner.epoch, iter=done)
            runner.save_checkpoint(runner.work_dir, name, meta=meta, by_epoch=False, backend_args=whole_files())
            if is_main_process():
                Path(runner.work_dir, 'last_checkpoint').write_text(path)

        save_after_last(runner, runner.work_dir, save)
        if is_main_process():
            seconds = time.monotonic() - began
            print(
                f'\nStopped after iteration {done}: {path}, saved in {seconds:.1f} s. Go on with --resume.',
                file=sys.stderr,
                flush=True,
            )
        barrier()  # launchers kill the process that writes when another one has left
        raise SystemExit(130)
