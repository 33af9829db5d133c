"""The config examples of the docs load and build."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from test_configs import build

ROOT = Path(__file__).parents[1]
EXAMPLES = dict(re.findall(r'```python\n# (my_\w+\.py)\n(.*?)```', (ROOT / 'docs/training.md').read_text(), re.DOTALL))


def test_every_task_has_an_example():
    assert set(EXAMPLES) == {'my_detector.py', 'my_segmentor.py', 'my_classifier.py'}


@pytest.mark.parametrize('name', EXAMPLES)
def test_example(name, tmp_path):
    (tmp_path / name).write_text(EXAMPLES[name].replace("'configs/", f"'{ROOT}/configs/"))
    cfg = Config.fromfile(tmp_path / name)
    with torch.device('meta'):
        build(cfg)
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == 'data/mine/'
        assert cfg[f'{split}_dataloader'].dataset.pipeline
