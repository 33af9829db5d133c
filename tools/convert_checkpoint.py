"""Turn a checkpoint of another library into one of this package: a whole model, or its backbone alone.

Loading does not need this step: every backbone takes other libraries' names as they are.
"""

import argparse
import sys
from pathlib import Path

from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.cli import check_target, run_tool
from mlp_backbones.utils.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='.pth, .pdparams or .safetensors file, or a URL')
    parser.add_argument('target', type=Path, help='.pth or .safetensors file to write')
    parser.add_argument('--backbone-only', action='store_true', help='leave out heads and necks')
    parser.add_argument('--hash', action='store_true', help='name the file TARGET-<first 8 digits of its SHA-256>')
    parser.add_argument('--force', action='store_true', help='replace a file that is there already')
    parser.add_argument('--check', metavar='CONFIG', help="load the weights into this config's model before writing")
    args = parser.parse_args()

    from mlp_backbones.checkpoints import convert, read_checkpoint, state_dict_of, write_checkpoint
    from mlp_backbones.checkpoints.runs import classes_of

    check_target(args.target, args.force or args.hash)
    try:
        content = read_checkpoint(args.source)
        converted = convert(state_dict_of(content, args.source), args.backbone_only)
        print(f'{args.source}: {converted.family}, {len(converted.tensors)} tensors, names of {converted.dialect}')
        if args.check:
            check(args.check, converted.tensors, args.source)
        meta = dict(source=Path(args.source).name, family=converted.family, names=converted.dialect)
        meta |= {} if args.backbone_only else classes_of(content)
        written = write_checkpoint(converted.tensors, args.target, meta, args.hash, args.force)
    except OSError as error:
        raise UserError(str(error)) from error
    print(f'written: {written} ({written.stat().st_size / 2**20:.1f} MiB)')


def check(config: str, tensors: dict, source: str) -> None:
    """Build a config's model, fit the weights to it, and say what was not filled."""
    from mlp_backbones.apis.zoo import build_model
    from mlp_backbones.models.backbones.loading import fit_model

    cfg = load_config(config)
    model = build_model(cfg)
    whole = any(k.startswith('backbone.') for k in tensors)
    if whole:
        fitted = fit_model(model, tensors, source)
        missing, unused = model.load_state_dict(fitted, strict=False)
        unused = [*unused, *(name for name in tensors if name not in fitted)]
    else:
        missing, unused = [], [*model.backbone.fit(tensors, source)[1]]
    if missing or unused:
        print(f'not filled: {", ".join(missing) or "none"}\nnot used: {", ".join(unused) or "none"}')
    else:
        print(f'{config}: every tensor of the {"model" if whole else "backbone"} is filled')


if __name__ == '__main__':
    sys.exit(run_tool(main))
