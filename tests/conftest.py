import pytest

from mlp_backbones.datasets import make_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A folder with a small set of each task: 6 training and 4 validation images."""
    root = tmp_path_factory.mktemp('shapes')
    for task, name in (('detection', 'coco'), ('segmentation', 'ade'), ('classification', 'imagenet')):
        make_shapes(root / name, task, num_train=6, num_val=5, verbose=False)
    return root
