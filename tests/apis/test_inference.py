"""Predictions over the hosts' inferencers: what is found, drawn and written."""

import json
import re
import runpy
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import CONFIGS, ROOT, build
from helpers.pages import blocks
from helpers.processes import tool
from helpers.weights import CLASSIFICATION, MASK, PAGES, SEGMENTATION, image, own_data, publish, save_weights
from mmengine.registry import DefaultScope

from mlp_backbones.apis import images, inference
from mlp_backbones.apis.classes import describe_classes
from mlp_backbones.apis.images import Picture
from mlp_backbones.apis.inference import Predictor
from mlp_backbones.apis.zoo import get_entry
from mlp_backbones.datasets.validation.coco import category_ids, ids_of_classes, ids_of_images
from mlp_backbones.deploy import runtime
from mlp_backbones.engine.config import find_config, load_config
from mlp_backbones.engine.launch import prepare
from mlp_backbones.utils.errors import DataError, InvalidValue, UserError


@pytest.fixture(autouse=True)
def scopes():
    """The hosts' inferencers leave their scope behind."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three images of two sizes, whose order is not that of their letters."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for i, (name, size) in enumerate({'10.png': (96, 64), '9.png': (96, 64), '2.png': (64, 80)}.items()):
        cv2.imwrite(str(folder / name), image(i, *size))
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (160, 128))
    for i in range(3):
        writer.write(np.full((128, 160, 3), 80 * i, np.uint8))
    writer.release()
    return path


class TestSources:
    def test_folder_is_sorted_as_people_count(self, photos):
        paths = images.list_pictures(photos)
        assert [p.name for p in paths] == ['2.png', '9.png', '10.png']
        pictures = list(images.read_pictures(paths))
        assert [p.image.shape for p in pictures] == [(64, 80, 3), (96, 64, 3), (96, 64, 3)]
        assert np.array_equal(pictures[2].image, image(0, 96, 64)) and pictures[2].frame is None

    def test_video(self, video):
        frames = list(images.read_pictures([video]))
        assert [(f.name, f.file, f.frame) for f in frames] == [(f'clip_{i:06d}', 'clip.avi', i) for i in (1, 2, 3)]
        assert [round(f.image.mean() / 80) for f in frames] == [0, 1, 2]

    def test_names_are_told_apart(self, tmp_path):
        for name in ('a.png', 'a.jpg', 'a_png.jpg', 'b.png', 'broken.mp4'):
            cv2.imwrite(str(tmp_path / name), image(0)) if 'mp4' not in name else (tmp_path / name).write_text('x')
        paths = images.list_pictures(tmp_path)
        pictures = list(images.read_pictures(paths))
        assert [p.name for p in pictures] == ['a.jpg', 'a.png', 'a_png.jpg', 'b.png', 'broken.mp4']
        assert pictures[4].image is None
        assert [p.name for p in images.read_pictures(paths[1:4])] == ['a', 'a_png', 'b']

    def test_names_of_frames_are_told_apart_from_images(self, video):
        cv2.imwrite(str(video.with_name('clip_000001.jpg')), image(0))
        names = [p.name for p in images.read_pictures(images.list_pictures(video.parent))]
        assert names == ['clip.avi_000001', 'clip.avi_000002', 'clip.avi_000003', 'clip_000001.jpg']

    def test_truncated_image_is_unreadable(self, tmp_path):
        """As in training and in tools/check_data.py, though OpenCV fills it up with gray."""
        for suffix in ('.jpg', '.png'):
            whole = cv2.imencode(suffix, image(0))[1].tobytes()
            (tmp_path / f'cut{suffix}').write_bytes(whole[: len(whole) * 2 // 3])
            (tmp_path / f'whole{suffix}').write_bytes(whole)
        (tmp_path / 'other.png').write_text('hello')
        pictures = {p.file: p for p in images.read_pictures(images.list_pictures(tmp_path))}
        assert {name for name, picture in pictures.items() if picture.image is None} == {
            'cut.jpg',
            'cut.png',
            'other.png',
        }
        assert pictures['cut.jpg'].problem.startswith('cannot be decoded: image file is truncated')
        assert pictures['other.png'].problem == "is not an image; it starts with b'hello'"
        assert pictures['whole.jpg'].problem == ''

    def test_numbers_in_names(self):
        paths = [Path('a/000000000139.jpg'), Path('b/2.png')]
        assert runtime.numbers_of(paths) == {'000000000139.jpg': 139, '2.png': 2}
        for other in ('x.jpg', '3.mp4', '0002.jpg'):
            assert runtime.numbers_of([*paths, Path(other)]) == {}

    def test_batches(self):
        sizes = [(4, 4), (4, 4), (4, 4), (6, 4), (4, 4)]
        pictures = [Picture(str(i), '', np.zeros((*s, 3))) for i, s in enumerate(sizes)]
        groups = [[p.name for p in batch] for batch in images.batches(iter(pictures), 2, mixed=False)]
        assert groups == [['0', '1'], ['2'], ['3'], ['4']]
        groups = [[p.name for p in batch] for batch in images.batches(iter(pictures), 2, mixed=True)]
        assert groups == [['0', '1'], ['2', '3'], ['4']]

    def test_what_is_not_there(self, tmp_path, photos):
        with pytest.raises(UserError, match='the image, video or folder .*nowhere.jpg does not exist'):
            images.list_pictures(tmp_path / 'nowhere.jpg')
        with pytest.raises(UserError, match=r'has no images .*; its folders are photos$'):
            images.list_pictures(tmp_path)
        with pytest.raises(UserError, match=r'notes.txt is neither an image nor a video by its name.*\.jpg'):
            images.list_pictures(photos / 'notes.txt')


class TestModels:
    def test_names_and_paths(self):
        assert find_config('RepMLPNet-T224')[0].endswith('configs/classification/repmlp_t224_imagenet.py')
        assert find_config('RepMLPNet-T224')[1] == get_entry('repmlp_t224')
        assert find_config(MASK) == find_config(Path(MASK)) == (MASK, {})
        assert load_config(Path(MASK)).default_scope == 'mmdet'
        with pytest.raises(InvalidValue, match="no model 'convmlp_z'.*did you mean convmlp_"):
            find_config('convmlp_z')

    def test_weights(self):
        assert inference.find_weights('convmlp_s', get_entry('convmlp_s')).endswith('/convmlp_s_imagenet.pth')
        match = 'repmlp_t224 has no direct link to weights.*Google Drive.*--weights PATH'
        with pytest.raises(InvalidValue, match=match):
            inference.find_weights('repmlp_t224', get_entry('repmlp_t224'))
        path = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py')
        with pytest.raises(UserError, match='is a config.*--weights FILE_OR_URL.*--model retinanet_convmlp_s'):
            inference.find_weights(path, {})

    def test_what_is_not_an_image(self):
        predictor = Predictor.build(CLASSIFICATION, 'none', 'cpu')
        for given, words in (
            (None, 'got NoneType$'),
            (image(0) / 255.0, r'got float64 \('),
            (image(0)[..., 0], r'\(height, width, 3\), got uint8'),
        ):
            for use in (predictor, predictor.inputs):
                with pytest.raises(ValueError, match='an image must be an array of integers, .*' + words):
                    use(given)

    def test_device(self):
        assert inference.device_of('cpu') == torch.device('cpu')
        with pytest.raises(UserError, match="device 'gpu' cannot be used"):
            inference.device_of('gpu')


def meta_of(config: str, content: dict):
    cfg = load_config(config)
    with torch.device('meta'):
        model = build(cfg)
    about = describe_classes(cfg, model, content)
    return list(about['classes']), about['palette']


class TestClassNames:
    @pytest.mark.slow
    def test_of_the_checkpoint_first(self):
        saved = dict(meta=dict(dataset_meta=dict(classes=('a', 'b', 'c'), palette=[(1, 2, 3)] * 3)))
        assert meta_of(MASK, saved) == (['a', 'b', 'c'], [(1, 2, 3)] * 3)
        assert meta_of(MASK, dict(meta=dict(CLASSES=('a', 'b', 'c'))))[0] == ['a', 'b', 'c']
        # Those of another number of classes are of another head.
        assert meta_of(MASK, dict(meta=dict(CLASSES=('a', 'b'))))[0] == ['circle', 'square', 'triangle']

    @pytest.mark.slow
    def test_of_the_config_else(self):
        assert meta_of(CLASSIFICATION, {})[0] == ['circle', 'square', 'triangle']
        classes, palette = meta_of(SEGMENTATION, {})
        assert classes[0] == 'background' and palette[1] == (230, 25, 75)
        classes, palette = meta_of(str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py'), {})
        assert (len(classes), classes[0], len(palette)) == (80, 'person', 80)
        assert meta_of(str(CONFIGS / 'classification/convmlp_s_imagenet.py'), {})[0][1].startswith('goldfish')
        assert meta_of(str(CONFIGS / 'segmentation/fpn_convmlp_s_512x512_40k_ade20k.py'), {})[0][0] == 'wall'
        assert len(set(meta_of(MASK, {})[1])) == 3  # colors of COCO's eighty do not fit


class TestIds:
    """Where the ids of categories and images come from."""

    DATA = dict(
        categories=[dict(id=9, name='circle'), dict(id=3, name='square'), dict(id=7, name='triangle')],
        images=[dict(id=50, file_name='train/a.jpg'), dict(id=41, file_name='b.jpg'), dict(id=5, file_name='c/b.jpg')],
    )

    def test_categories_by_name(self):
        assert category_ids(self.DATA) == {'circle': 9, 'square': 3, 'triangle': 7}
        assert ids_of_classes(self.DATA, ['triangle', 'circle'], 'x.json') == [7, 9]
        with pytest.raises(
            DataError, match='^x.json has no category for the classes squares of the model, only circle'
        ):
            ids_of_classes(self.DATA, ['squares'], 'x.json')
        with pytest.raises(DataError, match="^x.json: the list 'categories' is missing$"):
            ids_of_classes({}, ['square'], 'x.json')

    def test_images_by_file_name(self):
        assert ids_of_images(self.DATA, ['a.jpg'], 'x.json') == {'a.jpg': 50}
        with pytest.raises(DataError, match=r'^x.json does not have 1 of the 2 files: lost.jpg$'):
            ids_of_images(self.DATA, ['a.jpg', 'lost.jpg'], 'x.json')
        with pytest.raises(
            DataError, match=r'^x.json has several images of the same name, in different folders: b.jpg$'
        ):
            ids_of_images(self.DATA, ['b.jpg'], 'x.json')
        for data in ([], dict(images=None), dict(images=[dict(id='a')])):
            with pytest.raises(DataError, match="^x.json needs a list 'images', each with an id and a file_name$"):
                ids_of_images(data, [], 'x.json')

    def test_of_the_checkpoint_then_of_the_config(self):
        cfg = load_config(MASK)
        with torch.device('meta'):
            model = build(cfg)

        def ids(content):
            return describe_classes(cfg, model, content)['category_ids']

        classes = ('circle', 'square', 'triangle')
        assert ids({}) == [1, 2, 3]
        saved = dict(meta=dict(dataset_meta=dict(classes=classes, category_ids=(3, 7, 9))))
        assert ids(saved) == [3, 7, 9]
        cfg.test_dataloader.dataset.metainfo = dict(classes=classes, category_ids=(1, 2, 4))
        assert ids({}) == [1, 2, 4]
        assert ids(saved) == [3, 7, 9]
        other = dict(meta=dict(dataset_meta=dict(classes=('square', 'circle', 'triangle'))))
        assert ids(other) == [1, 2, 3]  # those of the config are of another order


@pytest.mark.slow
def test_ids_are_kept_with_the_classes_of_own_data(shapes, tmp_path):
    """Where a run takes its classes from the data: in its config, and in what a dataset hands to its checkpoints."""
    from mmdet.registry import DATASETS

    own_data(shapes, tmp_path)
    (tmp_path / 'train2017').mkdir()
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        text = (tmp_path / 'own.json').read_text()
        (tmp_path / f'annotations/instances_{split}2017.json').write_text(text)
    options = {'data_root': str(tmp_path), 'model.backbone.init_cfg': None}
    config = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py')
    args = Namespace(config=config, work_dir=str(tmp_path / 'w'), cfg_options=options, launcher='none', local_rank=0)
    cfg = prepare(args, train=True)
    with torch.device('meta'):
        model = build(cfg)
    assert describe_classes(cfg, model, {})['category_ids'] == [3, 7, 9]
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': [], 'lazy_init': True})
    saved = dict(meta=dict(dataset_meta=dataset.metainfo))
    cfg.test_dataloader.dataset.pop('metainfo')
    assert describe_classes(cfg, model, saved)['category_ids'] == [3, 7, 9]


def test_tool_refuses_before_it_builds_a_model(run_script, photos, monkeypatch):
    monkeypatch.setattr(Predictor, 'build', lambda *args: pytest.fail('built'))
    photo, notes, ann = photos / '2.png', photos / 'notes.txt', photos / 'ann.json'
    ann.write_text(json.dumps(TestIds.DATA))
    for args, words in (
        (['--out', photos / 'x', '--score', 30], '--score must be from 0 to 1, got 30.0'),
        (['--out', photos / 'x', '--score', 'nan'], '--score must be from 0 to 1, got nan'),
        (['--out', photos / 'x', '--ann', notes], f'{notes} is not a COCO annotation file: JSONDecodeError'),
        (['--out', photos / 'x', '--ann', ann], f'{ann} does not have 1 of the 1 files: 2.png'),
        (['--out', notes], f'cannot write to the folder {notes}'),
        (['--out', notes / 'x/y'], f'cannot write to the folder {notes}'),
    ):
        code, said = run_script('infer.py', photo, '--model', MASK, '--weights', 'none', *args)
        assert code == 1 and words in said, said
    assert not (photos / 'x').exists()


def test_pictures_are_written_whole(tmp_path, monkeypatch):
    output = runpy.run_path(str(ROOT / 'tools/infer.py'))['Output'](Namespace(out=tmp_path), None, {})
    output.write('pictures', '1.png', image(0))
    before = (tmp_path / 'pictures/1.png').read_bytes()

    def full_disk(path, content):
        with path.open('wb') as file:
            file.write(content[:9])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full_disk)
    with pytest.raises(OSError, match='No space left on device'):
        output.write('pictures', '1.png', image(1))
    assert [p.read_bytes() for p in (tmp_path / 'pictures').iterdir()] == [before]


@pytest.mark.slow
class TestTool:
    def test_names_what_it_wrote(self, run_script, photos, tmp_path):
        (photos / 'broken.jpg').write_text('no image')
        args = ('--model', SEGMENTATION, '--weights', 'none', '--out', tmp_path / 'a')
        code, said = run_script('infer.py', photos / 'broken.jpg', *args)
        assert code == 1 and f'0 images; written: {tmp_path}/a/predictions.json\n' in said
        assert [p.name for p in (tmp_path / 'a').iterdir()] == ['predictions.json']
        code, said = run_script('infer.py', photos / '2.png', *args, '--force')
        assert code == 0 and 'random weights: the predictions mean nothing' in said
        assert all(f'{tmp_path}/a/{name}' in said for name in ('predictions.json', 'pictures', 'maps')), said

    def test_detection(self, run_script, shapes, tmp_path):
        from mmdet.apis import DetInferencer
        from pycocotools import mask
        from pycocotools.coco import COCO

        weights, folder, out = save_weights(MASK, tmp_path / 'x.pth'), shapes / 'coco/val2017', tmp_path / 'out'
        code, said = run_script(
            'infer.py', folder, '--model', MASK, '--weights', weights, '--out', out, '--batch-size', 2, '--score', 0.9
        )
        assert code == 0, said
        files = sorted(p.name for p in folder.iterdir())
        assert sorted(p.name for p in (out / 'pictures').iterdir()) == files
        picture = cv2.imread(str(out / 'pictures' / files[0]))
        assert min(picture.shape[:2]) >= 600 and picture.shape[1] % 160 == 0
        found = json.loads((out / 'predictions.json').read_text())
        truth = COCO(shapes / 'coco/annotations/instances_val2017.json')
        results = truth.loadRes(str(out / 'predictions.json'))  # in COCO's format
        assert set(results.getImgIds()) == set(truth.getImgIds())

        inferencer = DetInferencer(MASK, str(weights), device='cpu', show_progress=False)
        theirs = inferencer(str(folder / files[0]), return_datasamples=True)['predictions'][0].pred_instances
        ours = [f for f in found if f['file_name'] == files[0]]
        assert len(ours) == len(theirs) > 0
        boxes = np.array([f['bbox'] for f in ours])
        boxes[:, 2:] += boxes[:, :2]
        assert np.abs(boxes - theirs.bboxes.numpy()).max() < 0.01
        assert [f['category_id'] - 1 for f in ours] == theirs.labels.tolist()
        assert np.abs(np.array([f['score'] for f in ours]) - theirs.scores.numpy()).max() < 1e-4
        masks = np.stack([mask.decode(f['segmentation']) for f in ours])
        assert (masks == theirs.masks.numpy()).mean() > 0.999

    def test_own_data_is_evaluated(self, run_script, shapes, tmp_path):
        """Categories 3, 7, 9 and images called by names: COCO's own tools take the predictions."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        ann, out = own_data(shapes, tmp_path), tmp_path / 'out'
        args = ('infer.py', tmp_path / 'val2017', '--model', MASK, '--out', out, '--score', 0, '--no-pictures')
        weights = save_weights(MASK, tmp_path / 'x.pth')
        code, said = run_script(*args, '--weights', weights, '--ann', ann)
        assert code == 0, said
        truth = COCO(ann)
        found = json.loads((out / 'predictions.json').read_text())
        assert f'5 images, {len(found)} detections with a score of at least 0 ({len(found)} of any score)' in said
        ids = {i['file_name']: i['id'] for i in truth.dataset['images']}
        assert {f['image_id'] for f in found} == set(ids.values()) == {100, 101, 102, 103, 104}
        assert all(f['image_id'] == ids[f['file_name']] for f in found)
        named = {(f['category_name'], f['category_id']) for f in found}
        assert named <= {('circle', 3), ('square', 7), ('triangle', 9)} and named
        evaluation = COCOeval(truth, truth.loadRes(str(out / 'predictions.json')), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert 0 <= evaluation.stats[0] <= 1  # -1: nothing to measure

        # Ids that were kept with the weights serve without the file.
        meta = dict(dataset_meta=dict(classes=('circle', 'square', 'triangle'), category_ids=(3, 7, 9)))
        weights = save_weights(MASK, tmp_path / 'kept.pth', **meta)
        code, said = run_script(*args, '--weights', weights, '--force')
        again = json.loads((out / 'predictions.json').read_text())
        assert code == 0 and [f['category_id'] for f in again] == [f['category_id'] for f in found]

    def test_no_detections(self, run_script, photos, tmp_path):
        args = ('--model', MASK, '--weights', 'none', '--out', tmp_path / 'a', '--score', 1, '--no-pictures')
        code, said = run_script('infer.py', photos / '2.png', *args)
        results = json.loads((tmp_path / 'a/predictions.json').read_text())
        assert code == 0 and f'1 images, 0 detections with a score of at least 1 ({len(results)} of any score)' in said

    def test_annotations_are_for_detectors(self, run_script, photos, tmp_path):
        (tmp_path / 'ann.json').write_text(json.dumps(dict(images=[dict(id=1, file_name='2.png')])))
        args = ('--weights', 'none', '--out', tmp_path / 'a', '--ann', tmp_path / 'ann.json')
        code, said = run_script('infer.py', photos / '2.png', '--model', CLASSIFICATION, *args)
        assert code == 1 and f'--ann is for detectors, and {CLASSIFICATION} is for classification' in said
        code, said = run_script('infer.py', photos / '2.png', '--model', MASK, *args)
        assert code == 1 and "ann.json: the list 'categories' is missing" in said
        assert not (tmp_path / 'a').exists()

    def test_truncated_image(self, run_script, photos, tmp_path):
        whole = cv2.imencode('.jpg', image(0))[1].tobytes()
        (photos / '3.jpg').write_bytes(whole[: len(whole) // 2])
        args = ('--model', CLASSIFICATION, '--weights', 'none', '--out', tmp_path / 'a', '--no-pictures')
        code, said = run_script('infer.py', photos, *args)
        assert code == 1 and re.search(
            r'1 of 4 images could not be used: 3.jpg \(cannot be decoded: image file is trun', said
        )
        results = json.loads((tmp_path / 'a/predictions.json').read_text())
        assert [r['file_name'] for r in results] == ['2.png', '9.png', '10.png']

    def test_an_image_that_the_model_refuses(self, run_script, photos, tmp_path):
        cv2.imwrite(str(photos / '3.png'), image(0)[:20])
        args = (
            '--weights',
            'none',
            '--model',
            SEGMENTATION,
            '--out',
            tmp_path / 'a',
            '--no-pictures',
            '--batch-size',
            2,
        )
        code, said = run_script('infer.py', photos, *args)
        assert code == 1 and re.search(r'1 of 4 images could not be used: 3.png \(GMLP takes images', said), said
        results = json.loads((tmp_path / 'a/predictions.json').read_text())
        assert [r['file_name'] for r in results] == ['2.png', '9.png', '10.png']

    def test_images_of_four_bands(self, run_script, tmp_path):
        cfg = load_config(CLASSIFICATION)
        cfg.model.backbone.in_channels = 4
        cfg.model.data_preprocessor = dict(mean=[0.0] * 4, std=[255.0] * 4, to_rgb=False, num_classes=3)
        cfg.dump(tmp_path / 'bands.py')
        (tmp_path / 'photos').mkdir()
        cv2.imwrite(str(tmp_path / 'photos/a.png'), np.dstack([image(0), image(1)[..., :1]]))
        args = ('--model', tmp_path / 'bands.py', '--weights', 'none', '--out', tmp_path / 'out')
        code, said = run_script('infer.py', tmp_path / 'photos', *args)
        assert code == 0, said
        assert (tmp_path / 'out/pictures/a.jpg').is_file()

    def test_coco_numbers(self):
        config = str(CONFIGS / 'detection/retinanet_convmlp_s_fpn_1x_coco.py')
        predictor = Predictor.build(config, 'none', 'cpu')
        named = dict(zip(predictor.about['classes'], predictor.about['category_ids']))
        assert [named[n] for n in ('person', 'stop sign', 'dining table', 'toothbrush')] == [1, 13, 67, 90]

    def test_segmentation(self, run_script, shapes, tmp_path):
        from mmseg.apis import MMSegInferencer

        weights, folder = save_weights(SEGMENTATION, tmp_path / 'x.pth'), shapes / 'ade/images/validation'
        out = tmp_path / 'out'
        args = ('infer.py', folder, '--model', SEGMENTATION, '--weights', weights, '--out', out, '--batch-size', 3)
        code, said = run_script(*args)
        assert code == 0, said
        results = json.loads((out / 'predictions.json').read_text())
        theirs = MMSegInferencer(SEGMENTATION, str(weights), device='cpu')
        for result in results[:2]:
            labels = cv2.imread(str(out / result['map']), cv2.IMREAD_UNCHANGED)
            expected = theirs(str(folder / result['file_name']))['predictions']
            assert (labels == expected).mean() > 0.999
            shares = {a['label']: a['share'] for a in result['areas']}
            assert shares == {i: pytest.approx((labels == i).mean(), abs=1e-5) for i in np.unique(labels).tolist()}
        code, said = run_script(*args)
        assert code == 1 and 'predictions.json exists already; --force replaces it' in said

    def test_classification_of_images_and_videos(self, run_script, photos, video, tmp_path):
        from mmpretrain import ImageClassificationInferencer

        (photos / 'broken.jpg').write_text('no image')
        video.rename(photos / video.name)
        weights, out = save_weights(CLASSIFICATION, tmp_path / 'x.pth'), tmp_path / 'out'
        args = ('infer.py', photos, '--model', CLASSIFICATION, '--weights', weights, '--out', out)
        code, said = run_script(*args, '--no-pictures', '--batch-size', 4)
        assert code == 1 and '1 of 7 images could not be used: broken.jpg' in said
        assert [p.name for p in out.iterdir()] == ['predictions.json']  # and all of the rest in it
        results = json.loads((out / 'predictions.json').read_text())
        assert [r['file_name'] for r in results] == ['2.png', '9.png', '10.png'] + ['clip.avi'] * 3
        assert [r.get('frame') for r in results] == [None] * 3 + [1, 2, 3]
        theirs = ImageClassificationInferencer(CLASSIFICATION, pretrained=str(weights), device='cpu')
        for result in results[:3]:
            (expected,) = theirs(str(photos / result['file_name']))
            scores = np.zeros(3)
            for best in result['best']:
                scores[best['label']] = best['score']
            assert np.abs(scores - expected['pred_scores']).max() < 1e-5
            assert result['label'] == expected['pred_label']

    def test_bad_input(self, run_script, photos, tmp_path):
        out = tmp_path / 'out'
        weights = save_weights(CLASSIFICATION, tmp_path / 'x.pth')
        good = ['infer.py', photos, '--model', CLASSIFICATION, '--weights', weights, '--out', out]
        (tmp_path / 'file').write_text('')
        for change, words in (
            ({1: 'lost.jpg'}, 'the image, video or folder lost.jpg does not exist'),
            ({3: 'resmlp_25'}, 'did you mean resmlp_2'),
            ({3: MASK}, 'does not fill'),
            ({5: tmp_path / 'lost.pth'}, 'lost.pth'),
            ({7: tmp_path / 'file/out'}, f'cannot write to the folder {tmp_path / "file"}'),
        ):
            code, said = run_script(*[change.get(i, part) for i, part in enumerate(good)])
            assert code == 1 and re.search(words, said), said
        assert not out.exists()


@pytest.fixture(scope='module')
def home(tmp_path_factory, shapes):
    """What the pages speak of: a photo, configs, weights that were trained, and a cache with published ones."""
    home = tmp_path_factory.mktemp('home')
    (home / 'configs').symlink_to(CONFIGS)
    (home / 'photos').mkdir()
    for path in (home / 'photo.jpg', home / 'photos/1.jpg', home / 'photos/2.jpg'):
        cv2.imwrite(str(path), image(1))
    configs = dict(retinanet='detection/retinanet_convmlp_s_fpn', fpn='segmentation/fpn_convmlp_s')
    for name, config in dict(**configs, convmlp='classification/convmlp_s').items():
        meta = dict(dataset_meta=dict(classes=('circle', 'square', 'triangle'))) if name == 'convmlp' else {}
        save_weights(f'{CONFIGS}/{config}_shapes.py', home / f'{name}.pth', **meta)
    save_weights(MASK, home / 'work_dirs/maskrcnn_convmlp_s_fpn_shapes/epoch_5.pth')
    (home / 'data/mine/annotations').mkdir(parents=True)
    own_data(shapes, home / 'data/mine').rename(home / 'data/mine/annotations/instances_val2017.json')
    detector = home / 'work_dirs/my_detector/my_detector.py'
    detector.parent.mkdir()
    detector.write_text(f"_base_ = '{CONFIGS}/detection/retinanet_convmlp_s_fpn_shapes.py'\n")
    save_weights(str(detector), detector.with_name('epoch_12.pth'))
    for name in ('convmlp_s', 'retinanet_convmlp_s', 'maskrcnn_convmlp_s', 'fpn_convmlp_s'):
        publish(home, name)
    return home


@pytest.mark.slow
@pytest.mark.parametrize('host', ['mmdet', 'mmseg', 'mmpretrain', 'mlp_backbones.apis.inference'])
def test_python_of_the_page(host, home, monkeypatch):
    snippets = [code for code in blocks(PAGES[0], 'python') if f'from {host}' in code]
    assert snippets
    code = '\nprint("NEXT")\n'.join(snippets)
    before = {p for p in home.rglob('*') if p.is_file()}
    (home / 'page.py').write_text(code)
    before.add(home / 'page.py')
    monkeypatch.setenv('TORCH_HOME', str(home / 'cache'))
    _, said = tool(home / 'page.py', cwd=home)
    printed = said.strip().splitlines()[-1]
    if host == 'mmpretrain':
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

        assert re.sub(r'^Inference .* [\d:]{7}', '', printed) in IMAGENET_CATEGORIES  # after a progress bar
    elif 'inference' in host:
        assert re.fullmatch(r"\[\{'category_id': .*\}\]", printed)
    if host != 'mmpretrain':
        assert {p for p in home.rglob('*') if p.is_file()} - before


@pytest.mark.slow
@pytest.mark.parametrize(
    'command', re.findall(r'^python tools/infer.py .*?[^\\]$', '\n'.join(blocks(PAGES[0], 'bash')), re.M | re.S)
)
def test_commands_of_the_page(command, home, run_script, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(home / 'cache'))
    monkeypatch.chdir(home)
    words = command.replace('\\\n', ' ').split()
    code, said = run_script(words[1].removeprefix('tools/'), *words[2:], '--force')
    assert code == 0, said
    assert json.loads((home / words[words.index('--out') + 1] / 'predictions.json').read_text())
