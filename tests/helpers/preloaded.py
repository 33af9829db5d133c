"""What the server that forks training processes imports once."""

import mmengine.runner  # noqa: F401
import mmpretrain.datasets  # noqa: F401
import mmpretrain.models  # noqa: F401

import mlp_backbones.engine.launch  # noqa: F401
