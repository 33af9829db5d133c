"""Any dialect -> a checkpoint of this package."""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.errors import CheckpointError
from ..utils.files import sha256
from .dialects import FAMILIES


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
    whole = any(k.startswith('backbone.') for k in tensors)
    rest = {k: v for k, v in tensors.items() if whole and not k.startswith('backbone.')}
    body = {k.removeprefix('backbone.'): v for k, v in tensors.items() if k not in rest}
    family = next((f for f in FAMILIES.values() if any(re.search(f.mark, k) for k in body)), None)
    if family is None:
        raise CheckpointError(
            f'these are not weights of {", ".join(FAMILIES)}: the names are {", ".join(sorted(body)[:4])}, ...'
        )
    dialect = family.dialect_of(body)
    body = dialect.convert(body) if dialect else body
    heads = {k: v for k, v in body.items() if k in ('head.weight', 'head.bias')}
    body = {k: v for k, v in body.items() if k not in heads}
    if not backbone_only:
        body = {f'backbone.{k}': v for k, v in body.items()}
        body.update({f'head.fc.{k.removeprefix("head.")}': v for k, v in heads.items()})
        body.update(rest)
    return Converted(body, family.name, dialect.name if dialect else family.native)


def write_checkpoint(
    tensors: Mapping[str, Tensor], target: Path, meta: Mapping, add_hash: bool = False, force: bool = False
) -> Path:
    """Write tensors as ``.pth`` (in mmengine's layout) or ``.safetensors``, whole or not at all.

    Args:
        tensors (Mapping[str, Tensor]): What to write.
        target (Path): Where to.
        meta (Mapping[str, str]): Kept beside the tensors.
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
    if not add_hash and target.exists() and not force:
        raise FileExistsError(f'{target} already exists; --force replaces it')
    # Copies: a view would take all that it is a view of along, and safetensors refuses tensors that share memory.
    tensors = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    with tempfile.TemporaryDirectory(prefix=f'.{target.stem}-', dir=target.parent) as folder:
        partial = Path(folder) / 'partial'
        if target.suffix == '.pth':
            with partial.open('wb') as file:
                torch.save(dict(meta=dict(meta), state_dict=tensors), file)
        else:
            try:
                from safetensors.torch import save_file
            except ImportError as error:
                raise CheckpointError(f'{target} needs the package safetensors: pip install safetensors') from error
            try:
                save_file(tensors, partial, metadata=dict(meta))
            except Exception as error:  # its errors have no common class
                raise CheckpointError(f'{target} cannot hold these tensors: {error}') from error
        if add_hash:
            target = target.with_name(f'{target.stem}-{sha256(partial)[:8]}{target.suffix}')
            if target.exists() and not force:
                raise FileExistsError(f'{target} already exists; --force replaces it')
        os.replace(partial, target)
    return target
