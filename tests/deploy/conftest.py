import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from filelock import FileLock
from helpers.processes import tool
from helpers.whole_models import WHOLE, detector, small


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """Task -> a folder with config, weights, images and the exported files, made once for all processes."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base

    def export(task: str) -> Path:
        whole, folder = root / f'exported_{task}', root / f'partial_{task}'
        with FileLock(root / f'{task}.lock'):
            if not whole.exists():
                make(task, folder)
                folder.rename(whole)
        return whole

    def make(task: str, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        folder.mkdir()
        cfg = small(WHOLE[task])
        cfg.dump(folder / 'config.py')
        model = detector(cfg)
        torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
        for number, size in enumerate([(120, 160), (77, 201), (128, 128)]):
            image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
            cv2.imwrite(str(folder / f'{number}.png'), cv2.GaussianBlur(image, (0, 0), 5))
        for suffix in ('.onnx', '.xml') if task == 'classification' else ('.onnx',):
            tool('export.py', 'config.py', 'weights.pth', f'model{suffix}', cwd=folder)

    return export
