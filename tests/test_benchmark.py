"""The benchmark measures what it is told to, and refuses what it cannot measure. Nothing here asserts a time."""

import json
import runpy
from pathlib import Path

import pytest

PEER = """
import torch

def tiny():
    return torch.nn.Conv2d(3, 4, 4, 4)
"""


def test_ours_and_a_function(run_script, tmp_path):
    (tmp_path / 'peer.py').write_text(PEER)
    ours = 'ConvMLP:arch=s,out_indices=0'
    code, said = run_script(
        *('benchmark.py', f'{tmp_path}/peer.py:tiny', ours, f'{ours}@deploy,channels_last', f'{ours}@bf16'),
        *('--sizes', '64', '64x96', '--rounds', '1', '--step', 'inference', '--no-memory'),
        *('--out', tmp_path / 'x.json', '--plot', tmp_path / 'x.png'),
    )
    assert code == 0, said
    results = json.loads((tmp_path / 'x.json').read_text())['results']
    assert [r['size'] for r in results] == ['64x64'] * 4 + ['64x96'] * 4
    assert [r['backbone'] for r in results[:2]] == ['original/tiny', ours]
    assert results[0]['macs'] == 16 * 16 * 4 * 3 * 16 and results[0]['parameters'] == 3 * 16 * 4 + 4
    assert results[0]['ratio'] == 1 and all(r['seconds'] > 0 and 0 < r['share'] for r in results)
    assert said.count('| inference |') == 8
    assert (tmp_path / 'x.png').read_bytes().startswith(b'\x89PNG')


def test_page_of_the_suite(tmp_path):
    """From rows that are not measured here: every row is in the table of its group, and the picture is drawn."""
    tool = runpy.run_path(str(Path(__file__).parents[1] / 'tools/benchmark.py'))
    groups = tool['suite']({'ConvMLP-s': 'peers.py:convmlp_s'})
    figures = dict(batch=8, parameters=10**6, macs=10**9, seconds=0.1, rate=80.0, ratio=1.5, share=0.5)
    rows = [
        [dict(backbone=c.replace('peers.py:', 'original/'), step='x', size='1x1', **figures) for c in group.candidates]
        for group in groups
    ]
    (tmp_path / 'images').mkdir()
    tool['write_page'](tmp_path / 'page.md', groups, rows, 'some machine', 5)
    tables = (tmp_path / 'page.md').read_text().split('\n## ')[1:]
    assert [t.splitlines()[0] for t in tables] == list(dict.fromkeys(g.title for g in groups))
    assert sum(t.count('| x | 8 x 1x1 | 1.00 | 1.00 | 100.0 | 80.0 | 1.50 | 50% |') for t in tables) == sum(
        map(len, rows)
    )
    assert '| `original/convmlp_s` |' in tables[0] and '](images/page.png)' in (tmp_path / 'page.md').read_text()
    assert (tmp_path / 'images/page.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.slow
def test_training_memory_and_other_libraries(run_script, tmp_path):
    code, said = run_script(
        *(
            'benchmark.py',
            'timm/resmlp_12_224',
            'ResMLP:arch=12,final_norm=True',
            '--rounds',
            '1',
            '--step',
            'training',
        ),
        *('--out', tmp_path / 'x.json'),
    )
    assert code == 0, said
    theirs, ours = json.loads((tmp_path / 'x.json').read_text())['results']
    assert theirs['parameters'] == ours['parameters'] and theirs['memory'] > 2**24 and ours['memory'] > 2**24
    code, said = run_script(
        *('benchmark.py', 'mmpretrain/RepMLPNet:arch=b,img_size=224,reparam_conv_kernels=(1,3)@deploy'),
        *('RepMLP:arch=b224@deploy', '--rounds', '1', '--step', 'inference'),
    )
    assert code == 0 and said.count('| inference |') == 2, said


@pytest.mark.slow
def test_loading(run_script):
    code, said = run_script('benchmark.py', '--loading', '--rounds', '1')
    assert code == 0 and '| load_checkpoint (ours) |' in said, said


@pytest.mark.parametrize(
    'args, words',
    [
        (['ConvMPL'], "'ConvMPL' is no candidate: ConvMLP, ResMLP, GMLP, RepMLP, timm/NAME, mmpretrain/NAME"),
        (['ConvMLP@fast'], 'unknown fast after @; there is deploy, channels_last'),
        (['ConvMLP:arch'], "'arch' is not of the form key=value"),
        (['lost.py:tiny', 'ConvMLP:arch=huge'], "ConvMLP has no arch 'huge'"),
        (['timm/resmlp_13'], "timm has no model 'resmlp_13'"),
        (['mmpretrain/RepMPL'], "mmpretrain has no model 'RepMPL'"),
        (['lost.py:tiny'], 'lost.py:tiny cannot be had'),
        (['ConvMLP', '--rounds', '0'], '--rounds and --batch must be positive'),
        (['ConvMLP', '--out', 'no/x.json'], 'there is no folder no'),
        (['ConvMLP', '--plot', 'x.zzz'], 'ends in .png or .svg, got x.zzz'),
        (['ConvMLP:foo=1'], "'ConvMLP:foo=1' cannot be built"),
        (['ConvMLP', '--sizes', 'big'], 'a size is a number or HEIGHTxWIDTH'),
        (['--suite', '--peer', 'tiny'], '--peer takes NAME=MODULE:FUNCTION, got tiny'),
        ([], 'give candidates, --suite or --loading'),
    ],
)
def test_refusals(run_script, args, words):
    code, said = run_script('benchmark.py', *args)
    assert code and words in said and 'Traceback' not in said and '| backbone |' not in said, said
