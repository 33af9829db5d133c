"""Checkpoints of whole models, under any names, for the hosts' models that hold one of our backbones."""

from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.runner.checkpoint import CheckpointLoader

from ..checkpoints import read_checkpoint, state_dict_of
from .base import BaseBackbone


def _adapt_whole_model(model: BaseModel, state_dict: dict) -> None:
    """Let a checkpoint of a whole model fit ``model``, which holds one of our backbones, in place.

    A bare backbone or an original classifier (no ``backbone.`` in its names, ``head.weight``) becomes one of a host;
    tensors of a head for another number of classes are dropped, with a line in the log.
    """
    prefix = next((f'{n}.' for n, m in model.named_modules() if n and isinstance(m, BaseBackbone)), None)
    if prefix is None or not state_dict:
        return
    tensors = state_dict_of(state_dict)
    if tensors.keys() != state_dict.keys():
        state_dict.clear()
        state_dict.update(tensors)
    own = model.state_dict()
    if not any(k.startswith(prefix) for k in state_dict):
        backbone = model.get_submodule(prefix[:-1])
        adapted = backbone.adapt(state_dict).tensors
        heads = {'head.weight': 'head.fc.weight', 'head.bias': 'head.fc.bias'}
        state_dict.clear()
        state_dict.update(
            {heads.get(k, prefix + k): v for k, v in adapted.items() if k not in heads or heads[k] in own}
        )
    other = [
        f'{k} {tuple(v.shape)}, here {tuple(own[k].shape)}'
        for k, v in state_dict.items()
        if not k.startswith(prefix) and k in own and own[k].shape != v.shape
    ]
    if other:
        for line in other:
            state_dict.pop(line.split(' ')[0])
        print_log(f'dropped, for another number of classes: {"; ".join(other)}', logger='current')


def _load_base_model(self: BaseModel, state_dict: dict, prefix: str, *args) -> None:
    if not prefix:
        _adapt_whole_model(self, state_dict)
    super(BaseModel, self)._load_from_state_dict(state_dict, prefix, *args)


# The hosts' models know nothing of dialects, and a backbone sees only the tensors that already have its prefix. This is
# the one place that torch's load_state_dict, mmengine's load_checkpoint and a runner's load_from all pass. A model
# without one of our backbones is left alone.
BaseModel._load_from_state_dict = _load_base_model

# mmengine reads .pth files by itself. Schemes are matched as regular expressions from the start of the path, in reverse
# alphabetical order: the first of these goes before mmengine's own 'https://'.
CheckpointLoader.register_scheme(
    prefixes=[r'https?://.*\.(pdparams|safetensors)(\?.*)?$', r'.*\.(pdparams|safetensors)$'],
    loader=lambda filename, map_location=None: read_checkpoint(filename),
    force=True,
)
