"""The change that importing this package makes to mmengine, with its reason.

Hooks of a run add entries of their own: ``CheckpointHook`` a file backend, and ``AdaptCheckpointHook`` a loader for the
file in ``load_from``.
"""

from mmengine.config import Config
from mmengine.config import utils as config_utils


def find_our_configs() -> None:
    """Let mmengine find our configs under ``mlp_backbones::``, in ``_base_`` and in ``mmengine.hub``; twice is as once.

    mmengine keeps its list of packages with configs in ``MODULE2PACKAGE``, which nobody else can enter. To every part
    of a config from another package it adds the scope of that package, in which ours would not be built: they name
    their framework in ``default_scope``, as a config inherited by its path does. So the scope is left out of ours, and
    of ours only. Seen with mmengine 0.10.7 and onedl-mmengine 0.10.12.
    """
    if 'mlp_backbones' in config_utils.MODULE2PACKAGE:
        return
    config_utils.MODULE2PACKAGE['mlp_backbones'] = 'mlp_backbones'
    find = Config._get_cfg_path

    def find_without_our_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = find(cfg_path, filename)
        return path, None if scope == 'mlp_backbones' else scope

    Config._get_cfg_path = staticmethod(find_without_our_scope)
