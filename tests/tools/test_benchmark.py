"""The benchmark measures what it is told to, and refuses what it cannot measure. Nothing here asserts a time."""

import json
import runpy

import pytest
from helpers import CONFIGS, ROOT

RESULTS = [ROOT / f'docs/benchmark{part}.json' for part in ('_engines', '')]
PEER = """
import torch

def tiny():
    return torch.nn.Conv2d(3, 4, 4, 4)
"""


@pytest.mark.slow
def test_ours_and_a_function(run_script, tmp_path):
    (tmp_path / 'peer.py').write_text(PEER)
    ours = 'ConvMLP:arch=s,out_indices=0'
    code, said = run_script(
        *('benchmark.py', f'{tmp_path}/peer.py:tiny', ours, f'{ours}@deploy,channels_last'),
        *('--sizes', '64', '64x96', '--batch', '1', '2', '--rounds', '1', '--step', 'inference', '--no-memory'),
        *('--out', tmp_path / 'x.json'),
    )
    assert code == 0, said
    results = json.loads((tmp_path / 'x.json').read_text())['results']
    expected = [(size, batch) for size in ('64x64', '64x96') for batch in (1, 2) for _ in range(3)]
    assert [(r['size'], r['batch']) for r in results] == expected
    assert [r['backbone'] for r in results[:2]] == ['original/tiny', ours]
    assert results[0]['macs'] == 16 * 16 * 4 * 3 * 16 and results[0]['parameters'] == 3 * 16 * 4 + 4
    assert results[0]['ratio'] == 1 and all(r['seconds'] > 0 and 0 < r['share'] for r in results)
    assert said.count('| inference |') == 12


def test_the_page_has_the_tables_of_the_results():
    tool = runpy.run_path(str(ROOT / 'tools/benchmark.py'))
    titles, tables = zip(*(t.split('\n\n') for t in (ROOT / 'docs/benchmark.md').read_text().split('\n## ')[1:]))
    rows = [row for path in RESULTS for row in json.loads(path.read_text())['results']]
    assert list(titles) == list(dict.fromkeys(row['table'] for row in rows))
    assert all(table.startswith(tool['HEAD']) for table in tables)
    for title, table in zip(titles, tables):
        lines = [line for line in table.splitlines() if line.startswith('| `')]
        assert lines == [tool['line'](row) for row in rows if row['table'] == title]


def test_suite_is_what_the_results_hold():
    tool = runpy.run_path(str(ROOT / 'tools/benchmark.py'))
    ours = 'ConvMLP:arch=s,out_indices=-1'
    path = RESULTS[-1]
    first = tool['suite'](path, 'peers.py')[0]
    assert first.candidates == ['peers.py:convmlp_s', ours, f'{ours}@deploy']
    assert tool['parse']('peers.py:convmlp_s').name == 'original/convmlp_s'
    groups = tool['suite'](path, None)
    assert groups[0] == tool['Group']([ours, f'{ours}@deploy'], (224, 224), 8, False, 'Inference, float32', True)
    for group in groups:
        assert all(tool['parse'](candidate).name == candidate for candidate in group.candidates)
    assert {group.train for group in groups} == {group.memory for group in groups} == {True, False}


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
def test_engines_and_whole_models(run_script, tmp_path):
    for package in ('onnx', 'onnxruntime', 'openvino', 'nncf'):
        pytest.importorskip(package)
    ours = 'ConvMLP:arch=s,out_indices=0@deploy'
    config = str(CONFIGS / 'classification/convmlp_s_shapes.py')
    candidates = [ours, *(f'{ours},{engine}' for engine in ('onnxruntime', 'openvino', 'openvino,int8'))]
    candidates += [config, f'{config}@onnxruntime,int8']
    code, said = run_script(
        *('benchmark.py', *candidates, '--sizes', '64', '--rounds', '1', '--step', 'inference'),
        *('--out', tmp_path / 'x.json'),
    )
    assert code == 0, said
    rows = json.loads((tmp_path / 'x.json').read_text())['results']
    assert [row['backbone'] for row in rows] == candidates
    assert len({row['macs'] for row in rows[:4]}) == len({row['macs'] for row in rows[4:]}) == 1
    assert ['memory' in row for row in rows] == [True, False, False, False, True, False]


def test_bfloat16():
    tool = runpy.run_path(str(ROOT / 'tools/benchmark.py'))
    # A CPU without instructions for it takes minutes for the matrix product of the benchmark.
    tool['PRODUCT']['cpu'] = 64
    ours = 'ConvMLP:arch=s,out_indices=0'
    candidates = [tool['parse'](f'{ours}@{modifiers}') for modifiers in ('bf16', 'deploy,autocast')]
    rows = tool['measure'](candidates, (64, 64), 1, 1, 'cpu', train=False, memory=False)
    assert [row['backbone'] for row in rows] == [candidate.name for candidate in candidates]
    assert rows[0]['product'] == rows[1]['product'] > 0


@pytest.mark.parametrize(
    'args, words',
    [
        (['ConvMPL'], "'ConvMPL' is not a candidate: ConvMLP, ResMLP, GMLP, RepMLP, timm/NAME, mmpretrain/NAME"),
        (['ConvMLP@fast'], 'unknown fast after @; there is deploy, channels_last'),
        (['ConvMLP@int8'], "'ConvMLP@int8': one of onnxruntime, openvino is needed after @, which runs the model"),
        (['ConvMLP@onnxruntime,openvino'], 'one of onnxruntime, openvino is needed after @'),
        (['ConvMLP@onnxruntime,bf16'], "'ConvMLP@onnxruntime,bf16': bf16 cannot be used with onnxruntime"),
        (['ConvMLP@openvino,bf16,compile'], 'compile cannot be used with openvino'),
        (['lost.py@bf16'], "'lost.py@bf16': the images of a whole model are uint8"),
        (['ConvMLP', '--suite', str(RESULTS[0])], 'give candidates, or --suite'),
        (['--suite', str(RESULTS[0]), '--out', str(RESULTS[0])], 'write to another file'),
        (['ConvMLP@onnxruntime', '--step', 'training'], "'ConvMLP@onnxruntime' is for inference: --step inference"),
        (['lost.py', '--step', 'inference'], 'the config lost.py does not exist'),
        (['ConvMLP:arch'], "'arch' is not of the form key=value"),
        (['ConvMLP:arch=huge', 'lost.py:tiny'], "ConvMLP has no arch 'huge'"),
        (['timm/resmlp_13'], "timm has no model 'resmlp_13'"),
        (['mmpretrain/RepMPL'], "mmpretrain has no model 'RepMPL'"),
        (['lost.py:tiny'], 'lost.py:tiny cannot be loaded'),
        (['ConvMLP', '--rounds', '0'], '--rounds and --batch must be positive'),
        (['ConvMLP', '--out', 'no/x.json'], 'the folder no does not exist'),
        (['ConvMLP:foo=1'], "'ConvMLP:foo=1' cannot be built"),
        (['ConvMLP', '--sizes', 'big'], 'a size is a number or HEIGHTxWIDTH'),
        ([], 'give candidates, or --suite'),
        (['--suite', 'lost.json'], 'lost.json does not exist'),
    ],
)
def test_refusals(run_script, args, words):
    code, said = run_script('benchmark.py', *args)
    assert code and words in said and 'Traceback' not in said and '| backbone |' not in said, said
