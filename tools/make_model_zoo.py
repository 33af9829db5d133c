"""Write docs/model_zoo.md from the metafiles; with --check only say whether it is stale."""

import argparse
import json
import sys
from pathlib import Path

from mlp_backbones import list_models
from mlp_backbones.apis.zoo import get_entry

DOCS = Path(__file__).parents[1] / 'docs'
TARGET = DOCS / 'model_zoo.md'
MEASURED = DOCS / 'benchmark.json'  # of `tools/benchmark.py --suite OLD.json --out NEW.json`
HEAD = """# Model zoo

Accuracies are as published, by the source that each row names; they were not measured here. Parameters and
multiply-adds (MACs, one image at the input size) are counted from our configs. This page is written by
`python tools/make_model_zoo.py` from `configs/*/metafile_*.yml` and [benchmark.json](benchmark.json).

```python
import mlp_backbones

mlp_backbones.list_models('resmlp*')
model = mlp_backbones.get_model('repmlp_b256', pretrained=True)  # a link marked "weights" leads to the file
model = mlp_backbones.get_model('convmlp_s', head=dict(num_classes=10))
cfg = mlp_backbones.get_config('retinanet_convmlp_s')
```

Names that the authors' or PaddleViT's zoo have for a model, in the second column, work as well. After
`mlp_backbones.register_with_mmpretrain()`, so do all of them in `mmpretrain.get_model` and its inferencers. Files that
you have already, of any of these libraries, go in as they are: `mlp_backbones.get_model('gmlp_s16',
pretrained='gmlp_s16.pdparams')`, or `mmpretrain.get_model('gmlp_s16', pretrained='mlp_backbones:gmlp_s16.pdparams')`
([weights.md](weights.md)).
"""
ARCHS = {
    'ConvMLP': ('convmlp_s', 'convmlp_m', 'convmlp_l'),
    'ResMLP': ('resmlp_12', 'resmlp_24', 'resmlp_36', 'resmlp_big_24'),
    'GMLP': ('gmlp_ti16', 'gmlp_s16', 'gmlp_b16'),
    'RepMLP': ('repmlp_t224', 'repmlp_b224', 'repmlp_t256', 'repmlp_b256', 'repmlp_d256', 'repmlp_l256'),
}
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


def published(name: str) -> str:
    """Top-1 and top-5 on ImageNet-1k of a model and of its other weights."""
    entries = {'': get_entry(name), 'distilled ': get_entry(f'{name}_distilled') if name.startswith('resmlp') else {}}
    parts = []
    for label, entry in entries.items():
        for result in entry.get('Results', []):
            scores = [result['Metrics'].get(f'Top {k} Accuracy') for k in (1, 5)]
            parts.append(label + ' / '.join(f'{score:.2f}' for score in scores if score is not None))
    return ', '.join(parts)


def at_a_glance() -> str:
    """A row for each architecture: counted, published and measured figures."""
    measured = json.loads(MEASURED.read_text())
    rows: dict[str, list[dict]] = {}
    for result in measured['results']:
        if result['step'] == 'inference' and result['size'] in ('224x224', '256x256'):
            rows.setdefault(result['backbone'], []).append(result)  # the first is contiguous, eager float32
    lines = []
    for family, names in ARCHS.items():
        for name in names:
            entry = get_entry(name)
            meta = entry['Metadata']
            ours = f'{family}:arch={name.partition("_")[2]}'
            ours += ',out_indices=-1' if family in ('ConvMLP', 'RepMLP') else ''
            figures = [rows[ours][0], rows[f'{ours}@deploy'][0]]
            rates = ' | '.join(f'{r["rate"]:.1f} | {r["memory"] / 2**20:.0f}' for r in figures)
            lines.append(
                f'| [`{name}`](../{entry["Config"]}) | {figures[0]["size"].split("x")[0]} '
                f'| {meta["Parameters"] / 1e6:.2f} | {meta["FLOPs"] / 1e9:.2f} | {published(name)} '
                f'| {figures[0]["batch"]} | {rates} |'
            )
    return (
        f'## At a glance\n\nPublished accuracy on ImageNet-1k (top-1 / top-5), and what we measured of the backbones: '
        f'{measured["machine"]} (RepMLP: 26 and 27 November, on a slower one), float32; images per second on that CPU, '
        'and the peak memory of a step with the model in MiB, in the form that was trained and in the '
        '[deploy form](deploy.md). More in '
        '[benchmark.md](benchmark.md).\n\n'
        '| | input | parameters (M) | MACs (G) | published | batch | images/s | memory | images/s, deploy '
        '| memory, deploy |\n|---|---|---|---|---|---|---|---|---|---|\n' + '\n'.join(lines) + '\n'
    )


def page() -> str:
    parts, left = [HEAD, at_a_glance()], list_models()
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
