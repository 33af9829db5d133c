"""Turn a checkpoint of another library into one of this package: a whole model, or its backbone alone.

Loading does not need this step: every backbone takes other libraries' names as they are.
"""

import argparse
import sys
from pathlib import Path

from mlp_backbones.launch import UserError, check_target, load_model_config, run_tool


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

    check_target(args.target)
    try:
        converted = convert(state_dict_of(read_checkpoint(args.source), args.source), args.backbone_only)
        print(f'{args.source}: {converted.family}, {len(converted.tensors)} tensors, names of {converted.dialect}')
        if args.check:
            check(args.check, converted.tensors)
        meta = dict(source=Path(args.source).name, family=converted.family, names=converted.dialect)
        written = write_checkpoint(converted.tensors, args.target, meta, args.hash, args.force)
    except OSError as error:
        raise UserError(str(error)) from error
    print(f'written: {written} ({written.stat().st_size / 2**20:.1f} MiB)')


def check(config: str, tensors: dict) -> None:
    """Build a config's model, load the weights, and say what was not filled."""
    from mlp_backbones.zoo import build_model

    cfg = load_model_config(config)
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg)
    whole = any(k.startswith('backbone.') for k in tensors)
    missing, unused = (model if whole else model.backbone).load_state_dict(dict(tensors), strict=False)
    if missing and not whole:
        raise UserError(f'{config}: these weights do not fill its backbone: {", ".join(missing)}')
    if missing or unused:
        print(f'not filled: {", ".join(missing) or "none"}\nnot used: {", ".join(unused) or "none"}')
    else:
        print(f'{config}: every tensor of the {"model" if whole else "backbone"} is filled')


if __name__ == '__main__':
    sys.exit(run_tool(main))
