"""What is found before a run starts, and what a config takes over from its data."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import CONFIGS
from helpers.training import ready

from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.config import class_heads, nodes
from mlp_backbones.utils.errors import UserError

RETINANET = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py')
MASKRCNN = str(CONFIGS / 'detection/maskrcnn_convmlp_s_fpn_1x_coco.py')
SHAPES = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_shapes.py')
SCRATCH = {'model.backbone.init_cfg': None}


@pytest.mark.parametrize('config', [RETINANET, MASKRCNN])
@pytest.mark.parametrize('scope', ['', 'mmdet.'])
def test_data_root_is_set_in_one_place(shapes, tmp_path, config, scope):
    root = str(shapes / 'coco')
    kinds = {f'{split}_dataloader.dataset.type': f'{scope}CocoDataset' for split in ('train', 'val', 'test')}
    cfg = ready(config, tmp_path, data_root=root, **kinds, **SCRATCH)
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == root
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.ann_file == os.path.join(root, 'annotations/instances_val2017.json')
    # The folder has classes of its own, and nothing else had to be said.
    assert cfg.train_dataloader.dataset.metainfo.classes == ('circle', 'square', 'triangle')
    heads = [n['num_classes'] for n in nodes(cfg.model) if 'num_classes' in n]
    assert set(heads) == {3} and len(heads) == (2 if config == MASKRCNN else 1)


def cascade(**changes):
    """A Mask R-CNN of three stages; the RPN says what mmdet would set by itself."""
    cfg = load_config(MASKRCNN)
    box = cfg.model.roi_head.bbox_head.to_dict()
    return dict(
        rpn_head=dict(num_classes=1),
        roi_head=dict(type='CascadeRoIHead', bbox_head=[{**box, 'reg_class_agnostic': True} for _ in range(3)]),
        **changes,
    )


@pytest.mark.parametrize(
    ('config', 'model', 'counts'),
    [
        (RETINANET, {}, {'bbox_head': 3}),
        (MASKRCNN, dict(rpn_head=dict(num_classes=1)), {'roi_head.bbox_head': 3, 'roi_head.mask_head': 3}),
        (MASKRCNN, dict(roi_head=dict(mask_head=None)), {'roi_head.bbox_head': 3}),
        (MASKRCNN, cascade(), {**{f'roi_head.bbox_head.{i}': 3 for i in range(3)}, 'roi_head.mask_head': 3}),
        (
            MASKRCNN,
            dict(roi_head=dict(mask_head=dict(class_agnostic=True), semantic_head=dict(num_classes=80))),
            {'roi_head.bbox_head': 3},
        ),
    ],
)
def test_own_categories_change_the_heads_that_count_them(shapes, tmp_path, config, model, counts):
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = {config!r}\nmodel = {model!r}\n')
    cfg = ready(str(child), tmp_path / 'w', data_root=str(shapes / 'coco'), **SCRATCH)
    assert {place: head['num_classes'] for place, head in class_heads(cfg.model, 'model')} == {
        f'model.{place}': number for place, number in counts.items()
    }
    untouched = {'rpn_head': 1, 'semantic_head': 80}
    for part in (cfg.model, cfg.model.get('roi_head', {})):
        for key, number in untouched.items():
            assert part.get(key, {}).get('num_classes', number) == number
    if model.get('roi_head', {}).get('mask_head'):
        assert cfg.model.roi_head.mask_head.num_classes == 80


def test_a_number_that_was_chosen_is_not_adopted(shapes, tmp_path):
    options = {'data_root': str(shapes / 'coco'), **SCRATCH}
    with pytest.raises(UserError, match=r'has 3 classes \(circle, .*model.bbox_head.num_classes is 2: set --cfg-opt'):
        ready(RETINANET, tmp_path, **options, **{'model.bbox_head.num_classes': 2})
    cfg = ready(RETINANET, tmp_path, **options, **{'model.bbox_head.num_classes': 4})
    assert cfg.model.bbox_head.num_classes == 4


def coco_with_names(shapes, tmp_path, *names):
    """A copy of the shapes whose categories have other names."""
    root = tmp_path / 'coco'
    shutil.copytree(shapes / 'coco', root)
    for path in (root / 'annotations').iterdir():
        truth = json.loads(path.read_text())
        for category, name in zip(truth['categories'], names, strict=True):
            category['name'] = name
        path.write_text(json.dumps(truth))
    return str(root)


def test_a_category_that_coco_does_not_have_is_named(shapes, tmp_path, capsys):
    """Its annotations are left out."""
    root = coco_with_names(shapes, tmp_path, 'person', 'car', 'helmet')
    ready(RETINANET, tmp_path / 'w', data_root=root, **SCRATCH)
    said = capsys.readouterr().out
    path = 'instances_train2017.json'
    assert f'{path}: categories that the dataset does not ask for (1: helmet)' in said
    assert f"{path}: no category exists for 78 of the dataset's 80 classes: labels follow the file, names the" in said


def test_segmentation_heads_of_fewer_classes(shapes, tmp_path):
    config = str(CONFIGS / 'segmentation/fpn_convmlp_s_shapes.py')
    root = dict(data_root=f'{shapes / "ade"}/')
    with pytest.raises(
        UserError, match=r'has 4 classes \(background, .*model.decode_head.num_classes is 3: set --cfg-opt'
    ):
        ready(config, tmp_path / 'w', **root, **{'model.decode_head.num_classes': 3})
    ready(config, tmp_path / 'w', **root, **{'model.decode_head.num_classes': 5})
    # mmseg's STDCHead beside it tells borders apart.
    beside = dict(type='STDCHead', num_classes=2)
    cfg = ready(config, tmp_path / 'w', **root, **{'model.auxiliary_head': [beside]})
    assert [place for place, _ in class_heads(cfg.model)] == ['model.decode_head']
    # A head of one class tells two apart.
    two = dict(classes=('no', 'yes'), palette=[[0, 0, 0], [9, 9, 9]])
    names = {f'{s}_dataloader.dataset.metainfo': two for s in ('train', 'val', 'test')}
    ready(config, tmp_path / 'w', **root, **names, **{'model.decode_head.num_classes': 1})


def test_coco_classes_stay(shapes, tmp_path):
    root = coco_with_names(shapes, tmp_path, 'person', 'car', 'dog')
    cfg = ready(RETINANET, tmp_path / 'w', data_root=root, **SCRATCH)
    assert cfg.model.bbox_head.num_classes == 80 and 'metainfo' not in cfg.train_dataloader.dataset


def test_shapes_are_drawn_on_first_use(tmp_path, monkeypatch, capsys):
    from mlp_backbones.datasets import shapes as module

    small = {k: module.Task(v.size, v.objects, v.radius, (2, 2)) for k, v in module.TASKS.items()}
    monkeypatch.setattr(module, 'TASKS', small)
    monkeypatch.chdir(tmp_path)
    ready(SHAPES, 'work')
    assert 'Drawing the synthetic detection set' in capsys.readouterr().out
    assert len(list(Path('data/shapes/coco/train2017').iterdir())) == 2
    # A folder that the user names is never made up.
    with pytest.raises(UserError, match='missing  nowhere'):
        ready(SHAPES, 'work', data_root='nowhere')


def test_accuracies_that_a_few_classes_cannot_have(shapes, tmp_path):
    config = tmp_path / 'c.py'
    mine = "dict(dataset=dict(_delete_=True, type='CustomDataset', data_root=data_root, data_prefix='{}', pipeline=[]))"
    config.write_text(
        f"_base_ = '{CONFIGS / 'classification/convmlp_s_imagenet.py'}'\n"
        f"data_root = '{shapes / 'imagenet'}'\n"
        f'train_dataloader = {mine.format("train")}\nval_dataloader = {mine.format("val")}\n'
        f'data_preprocessor = dict(num_classes=3)\nmodel = dict(head=dict(num_classes=3))\n'
    )
    with pytest.raises(UserError, match=r'val_evaluator.topk is \(1, 5\), but there are 3 classes: set .*topk=\(1,\)'):
        ready(str(config), tmp_path / 'w')
    with pytest.raises(UserError, match=r'test_evaluator.topk is \(1, 5\), but there are 3 classes'):
        ready(str(config), tmp_path / 'w', train=False)
    ready(str(config), tmp_path / 'w', **{'val_evaluator.topk': (1,)})


def test_settings_without_an_effect_are_named(shapes, tmp_path, capsys):
    options = {'data_root': str(shapes / 'coco'), **SCRATCH}
    ready(RETINANET, tmp_path, **options)
    assert 'warning' not in capsys.readouterr().out
    config = tmp_path / 'c.py'
    config.write_text(f"_base_ = '{RETINANET}'\ntrain_pipeline = [dict(type='LoadImageFromFile')]\n")
    ready(str(config), tmp_path, **{'train_cfg.max_epochs': 3}, **options)
    said = capsys.readouterr().out
    assert 'warning: no dataset has the train_pipeline' in said and 'train_dataloader = dict(dataset=dict(' in said
    assert 'the run ends after epoch 3, the learning rate of MultiStepLR is scheduled up to 12.' in said
    ready(RETINANET, tmp_path, **{'train_pipeline.1.with_mask': True}, **options)
    assert 'warning: no dataset has the train_pipeline' in capsys.readouterr().out
    # The base's own, which this config's datasets do not use, is nobody's mistake.
    config.write_text(
        f"_base_ = '{RETINANET}'\ntrain_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))\n"
    )
    ready(str(config), tmp_path, **options)
    assert 'warning' not in capsys.readouterr().out


@pytest.mark.parametrize('prefix', ['train', dict(_delete_=True, img_path='train')])
def test_more_folders_than_classes(shapes, tmp_path, prefix):
    options = {'model.head.num_classes': 2, 'data_root': str(shapes / 'imagenet')}
    options['train_dataloader.dataset.data_prefix'] = prefix
    match = r'the data has 3 classes \(circle, square, triangle\), but model.head.num_classes is 2'
    with pytest.raises(UserError, match=match):
        ready(str(CONFIGS / 'classification/gmlp_p8_shapes.py'), tmp_path, **options)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r'missing  .*nowhere\n.*missing .*train2017.json[\s\S]*data_root=FOLDER'):
        ready(RETINANET, tmp_path, data_root=str(tmp_path / 'nowhere'))
    assert not list(tmp_path.iterdir())


def test_missing_annotations(shapes, tmp_path):
    root = tmp_path / 'coco'
    shutil.copytree(shapes / 'coco', root)
    (root / 'annotations/instances_val2017.json').unlink()
    with pytest.raises(UserError) as error:
        ready(RETINANET, tmp_path / 'w', data_root=str(root))
    said = str(error.value)
    assert said.startswith('the data of val_dataloader (CocoDataset) does not exist:\n')
    assert f'  exists   {root}/val2017/\n' in said
    assert f'  missing  {root}/annotations/instances_val2017.json\n' in said


@pytest.mark.parametrize(
    'text, words',
    [
        ('not json', 'is not a COCO annotation file: JSONDecodeError'),
        ('[]', "the list 'images' is missing"),
    ],
)
def test_damaged_annotations(shapes, tmp_path, text, words):
    root = tmp_path / 'coco'
    shutil.copytree(shapes / 'coco', root)
    (root / 'annotations/instances_train2017.json').write_text(text)
    with pytest.raises(UserError, match=rf'(?s)instances_train2017.json cannot be used:\n.*{words}'):
        ready(RETINANET, tmp_path / 'w', data_root=str(root))


def test_missing_imagenet(tmp_path):
    with pytest.raises(UserError, match='train_dataloader.*ImageNet.*does not exist'):
        ready(str(CONFIGS / 'classification/convmlp_s_imagenet.py'), tmp_path, data_root='nowhere')
