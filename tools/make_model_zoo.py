"""Write docs/model_zoo.md from the metafiles; with --check only say whether it is stale."""

import argparse
import sys
from pathlib import Path

from mlp_backbones import list_models
from mlp_backbones.zoo import get_entry

TARGET = Path(__file__).parents[1] / 'docs/model_zoo.md'
HEAD = """# Model zoo

Accuracies are as published, by the source that each row names; they were not measured here. Parameters and
multiply-adds (MACs, one image at the input size) are counted from our configs. This page is written by
`python tools/make_model_zoo.py` from `configs/*/metafile_*.yml`.

```python
import mlp_backbones

mlp_backbones.list_models('resmlp*')
model = mlp_backbones.get_model('repmlp_b256', pretrained=True)  # a link marked "weights" leads to the file
model = mlp_backbones.get_model('convmlp_s', head=dict(num_classes=10))
cfg = mlp_backbones.get_config('retinanet_convmlp_s')
```

Names that the authors' or PaddleViT's zoo have for a model, in the second column, work as well. After
`mlp_backbones.register_with_mmpretrain()`, so do all of them in `mmpretrain.get_model` and its inferencers. Files that
you have already, of any of these libraries, go in as they are: `get_model('gmlp_s16', pretrained='gmlp_s16.pdparams')`;
see [weights.md](weights.md).
"""
TASKS = {
    'ImageNet-1k, classification': ('configs/classification/', '_imagenet.py'),
    'Transfer': ('configs/classification/convmlp', ''),
    'COCO, 1x': ('configs/detection/', ''),
    'ADE20K, 40k': ('configs/segmentation/', ''),
}


def row(name: str) -> str:
    entry = get_entry(name)
    meta, deploy = entry['Metadata'], entry.get('Deploy')
    parameters = f'{meta["Parameters"] / 1e6:.2f}'
    macs = f'{meta["FLOPs"] / 1e9:.2f}' if 'FLOPs' in meta else ''
    if deploy:
        parameters += f' ({deploy["Parameters"] / 1e6:.2f})'
        macs += f' ({deploy["FLOPs"] / 1e9:.2f})'
    results = '; '.join(
        f'{r["Dataset"]}: ' + ', '.join(f'{k.replace(" Accuracy", "")} {v}' for k, v in r['Metrics'].items())
        for r in entry.get('Results', [])
    )
    size = entry['Input']['Size']
    size = f'{size[0]}x{size[1]}' if isinstance(size, list) else str(size)
    where = f'[weights]({entry["Weights"]})' if 'Weights' in entry else entry['Get']
    trained = f' {meta["Training Data"]}.' if 'Training Data' in meta else ''
    links = f'[config](../{entry["Config"]}), [source]({entry["Source"]}), {where}'
    aliases = ', '.join(f'`{alias}`' for alias in entry.get('Alias', []))
    return f'| `{name}` | {aliases} | {size} | {parameters} | {macs} | {results}{trained} | {links} |'


def page() -> str:
    parts, left = [HEAD], list_models()
    for title, (start, end) in TASKS.items():
        names = [n for n in left if (c := get_entry(n)['Config']).startswith(start) and c.endswith(end)]
        left = [n for n in left if n not in names]
        parts.append(
            f'## {title}\n\n| model | also called | input | parameters (M) | MACs (G) | published | |\n'
            f'|---|---|---|---|---|---|---|\n' + '\n'.join(row(n) for n in names) + '\n'
        )
    assert not left, left
    return '\n'.join(parts) + '\nOf RepMLP, figures in brackets are of the deploy form.\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='do not write; exit 1 if the page is stale')
    args = parser.parse_args()
    text = page()
    if args.check:
        stale = not TARGET.is_file() or TARGET.read_text() != text
        print(f'{TARGET.name} is {"stale: run python tools/make_model_zoo.py" if stale else "up to date"}')
        return int(stale)
    TARGET.write_text(text)
    print(f'written: {TARGET}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
