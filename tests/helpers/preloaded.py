# ruff: noqa: E402, F401
"""What the server that forks the processes of tools imports once."""

import yapf.yapflib.yapf_api

# A run writes its config into logs and every checkpoint: laying it out takes half a second each time.
yapf.yapflib.yapf_api.FormatCode = lambda text, **settings: (text, True)

import mmdet.apis
import mmengine.runner
import mmpretrain.apis
import mmseg.apis

import mlp_backbones.apis
import mlp_backbones.engine.launch
import mlp_backbones.engine.preflight
