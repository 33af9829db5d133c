"""The study of docs/shapes.md in miniature: runs, their repetition, and the table."""

import re
import runpy

import pytest
from helpers import CONFIGS, ROOT
from helpers.processes import tool

SHORT = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
SHORT += [f'{s}_dataloader.{k}' for s in ('train', 'val') for k in ('num_workers=0', 'persistent_workers=False')]
SHORT += ['default_hooks.checkpoint.interval=1', 'train_dataloader.batch_size=3']


@pytest.mark.slow
@pytest.mark.parametrize('family, model', [('gmlp', 'gmlp_p8'), ('convmlp', 'convmlp_s')])
def test_a_classifier_s_weights_go_into_its_detector(family, model, shapes, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/shapes').symlink_to(shapes)
    command = ['shapes_study.py', '--out', 'study', '--tasks', 'classification', 'maskrcnn', '--seeds', '0', '1']
    command += ['--families', family, '--pretrained', '--cfg-options', *SHORT]
    _, said = tool(*command, cwd=tmp_path)
    runs = [f'classification_{family}/seed_0', f'maskrcnn_{family}_pretrained/seed_0']
    runs += [run.replace('seed_0', 'seed_1') for run in runs]
    assert re.findall(r'^study/(\S+) \.\.\.$', said, re.MULTILINE) == runs
    (row,) = re.findall(rf'^\| {model} \| (.*) \|$', said.split('\n\n')[-1], re.MULTILINE)[-1:]
    assert re.fullmatch(r'[\d.]+ ± [\d.]+( \| [\d.]+ ± [\d.]+){4}', row)
    log = (tmp_path / f'study/maskrcnn_{family}_pretrained/seed_0.log').read_text()
    assert f'study/classification_{family}/seed_0/epoch_1.pth' in log
    assert ('cross_window=True' in log) is (family == 'gmlp')
    (tmp_path / f'study/maskrcnn_{family}_pretrained/seed_1.finished').unlink()  # interrupted after an evaluation
    _, said = tool(*command, cwd=tmp_path)
    assert re.findall(r'^study/(\S+) \.\.\.$', said, re.MULTILINE) == runs[3:] and f'| {model} | {row} |' in said
    _, said = tool(*command, cwd=tmp_path)
    assert '...' not in said and f'| {model} | {row} |' in said  # nothing is trained twice


def test_every_config_of_the_study_is_there():
    study = runpy.run_path(str(ROOT / 'tools/shapes_study.py'))
    named = {study['config_of'](task, family) for task in study['TASKS'] for family in study['FAMILIES']}
    assert named == set(CONFIGS.glob('*/*_shapes.py')) and len(named) == 16
