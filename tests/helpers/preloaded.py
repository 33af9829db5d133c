# ruff: noqa: F401
"""What the server that forks the processes of tools imports once."""

import mmdet.apis
import mmengine.runner
import mmpretrain.apis
import mmseg.apis

import mlp_backbones.apis
import mlp_backbones.engine.launch
import mlp_backbones.engine.preflight
