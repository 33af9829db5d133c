"""Signals that save and stop a run."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from ...datasets.samplers import INTERRUPTS
from ...registry import HOOKS
from ...utils.files import written_whole
from .checkpoint import whole_files


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ctrl-C, or SIGUSR1 (Slurm's ``--signal=USR1@120``), saves after the current iteration and stops.

    A second Ctrl-C stops at once. All processes agree on the iteration. The exit status is 130. The signals have their
    handlers while the training loop runs, and their former ones again however it ends.
    """

    priority = 'LOWEST'  # after everything that belongs to the iteration, such as the moving average

    def __init__(self) -> None:
        self.requested = False
        self.when = 0.0

    def before_run(self, runner) -> None:
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop):  # the settings of one that a run without training never builds
            return
        run = loop.run

        def run_with_handlers() -> Any:
            with self._handlers():
                return run()

        loop.run = run_with_handlers

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
            print('\nSaving after this iteration, then stopping; Ctrl-C again stops at once.', file=sys.stderr)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        stop = self.requested
        if is_distributed():
            flag = torch.tensor(float(stop))
            all_reduce(flag, 'max')
            stop = bool(flag)
        if not stop or not runner.optim_wrapper.should_update():  # gathered gradients would be lost
            return
        done = runner.iter + 1
        name = f'interrupted_iter_{done}.pth'
        with whole_files():
            runner.save_checkpoint(runner.work_dir, name, meta=dict(epoch=runner.epoch, iter=done), by_epoch=False)
        path = os.path.join(runner.work_dir, name)
        self._point_to(runner, path)
        raise SystemExit(130)

    @master_only
    def _point_to(self, runner, path: str) -> None:
        with written_whole(os.path.join(runner.work_dir, 'last_checkpoint')) as partial:
            partial.write_text(path)
        print(f'\nStopped after iteration {runner.iter + 1}: {path}. Go on with --resume.', file=sys.stderr, flush=True)
