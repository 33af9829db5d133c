# ruff: noqa: F401
"""What the server that forks the processes of tools imports once."""

import mmdet.apis
import mmengine.config.config
import mmengine.runner
import mmpretrain.apis
import mmseg.apis

import mlp_backbones.apis
import mlp_backbones.engine.launch
import mlp_backbones.engine.preflight

# A run writes its config into logs and every checkpoint: laying it out takes half a second each time.
mmengine.config.config.FormatCode = lambda text, **settings: (text, True)
