"""Any dialect -> a checkpoint of this package."""

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.errors import CheckpointError
from ..utils.files import written_whole
from .dialects import FAMILIES, HEAD


class Converted(NamedTuple):
    """A checkpoint under our names.

    Attributes:
        tensors (dict[str, Tensor]): The whole model's (``backbone.``, ``head.fc.`` and so on) or a bare backbone's.
        family (str): The class that takes them.
        dialect (str): Whose names they had.
    """

    tensors: dict[str, Tensor]
    family: str
    dialect: str


def convert(tensors: Mapping[str, Tensor], backbone_only: bool = False) -> Converted:
    """Give a checkpoint our names.

    Args:
        tensors (Mapping[str, Tensor]): Of a backbone, an original classifier or a framework's model, from
            ``state_dict_of``.
        backbone_only (bool): Leave out everything but the backbone, and its prefix. Defaults to False.

    Returns:
        Converted: The tensors under our names, the family, and whose names they had.

    Raises:
        CheckpointError: The names are those of none of the families.
    """
    rest: dict[str, Tensor] = {}
    if any(key.startswith('backbone.') for key in tensors):
        rest = {key: value for key, value in tensors.items() if not key.startswith('backbone.')}
    body = {key.removeprefix('backbone.'): value for key, value in tensors.items() if key not in rest}
    family = next((f for f in FAMILIES.values() if any(re.search(f.mark, key) for key in body)), None)
    if family is None:
        raise CheckpointError(
            f'these are not weights of {", ".join(FAMILIES)}: the names are {", ".join(sorted(body)[:4])}, ...'
        )
    body, dialect = family.translate(body)
    if backbone_only:
        made = {key: value for key, value in body.items() if key not in HEAD}
    else:
        made = {HEAD.get(key, f'backbone.{key}'): value for key, value in body.items()} | rest
    return Converted(made, family.name, dialect)


def write_checkpoint(
    tensors: Mapping[str, Tensor], target: Path, meta: Mapping, add_hash: bool = False, force: bool = False
) -> Path:
    """Write tensors as ``.pth`` (in mmengine's layout) or ``.safetensors``, whole or not at all.

    Args:
        tensors (Mapping[str, Tensor]): What to write.
        target (Path): Where to.
        meta (Mapping): Kept beside the tensors; in a .safetensors file, strings alone.
        add_hash (bool): Put the first eight digits of the SHA-256 into the name, ``NAME-7c5a91ce.pth``.
        force (bool): Replace a file that exists.

    Returns:
        Path: The file written.

    Raises:
        FileExistsError: The file exists, and ``force`` is not set.
        CheckpointError: Another suffix, or safetensors is not installed or does not know a tensor's dtype.
    """
    if target.suffix not in ('.pth', '.safetensors'):
        raise CheckpointError(f'cannot write {target}: the suffix must be .pth or .safetensors')
    # Copies: a view would take all that it is a view of along, and safetensors refuses tensors that share memory.
    tensors = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    if target.suffix == '.pth':
        file = io.BytesIO()
        torch.save(dict(meta=dict(meta), state_dict=tensors), file)
        content = file.getvalue()
    else:
        try:
            from safetensors.torch import save
        except ImportError as error:
            raise CheckpointError(f'{target} needs the package safetensors: pip install safetensors') from error
        try:
            content = save(tensors, {key: value for key, value in meta.items() if isinstance(value, str)})
        except Exception as error:  # its errors have no common class
            raise CheckpointError(f'{target} cannot hold these tensors: {error}') from error
    if add_hash:
        target = target.with_name(f'{target.stem}-{hashlib.sha256(content).hexdigest()[:8]}{target.suffix}')
    if target.exists() and not force:
        raise FileExistsError(f'{target} already exists; --force replaces it')
    with written_whole(target) as partial:
        partial.write_bytes(content)
    return target
