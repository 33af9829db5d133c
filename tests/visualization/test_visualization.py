"""What figures and tables are made of, and that they are written."""

import json
import pickle
import re
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import CONFIGS, ROOT
from helpers.families import FAMILIES, ISOTROPIC, tiny
from helpers.pages import blocks
from helpers.processes import tool
from helpers.training import options
from helpers.weights import PAGES, image, publish, save_weights
from torch import nn

from mlp_backbones import ConvMLP, RepMLP, ResMLP
from mlp_backbones.apis.complexity import count, input_size
from mlp_backbones.apis.zoo import build_model, get_config, get_entry
from mlp_backbones.checkpoints import files
from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.errors import UserError
from mlp_backbones.visualization import explain, figures
from mlp_backbones.visualization.explain import class_activation, receptive_fields, stage_maps

CLASSIFIER = str(CONFIGS / 'classification/resmlp_p8_shapes.py')


class TestMaps:
    @pytest.mark.parametrize('cls', FAMILIES)
    def test_stages(self, cls):
        model, x = tiny(cls).eval(), torch.rand(1, 3, 64, 96)
        given = model.out_indices
        maps = stage_maps(model, x)
        expected = tiny(cls, out_indices=(0, 1, 2, 3)).eval()
        expected.load_state_dict(model.state_dict())
        assert len(maps) == 4 and model.out_indices == given
        for (a, stride), b, own in zip(maps.values(), expected(x), expected.out_strides):
            assert torch.equal(a, b) and stride == own
        kind = 'block' if cls in ISOTROPIC else 'stage'
        assert list(maps)[-1].startswith(f'{kind} 4, ')

    def test_only_what_is_built(self):
        assert list(stage_maps(tiny(ResMLP, out_indices=1).eval(), torch.rand(1, 3, 64, 64))) == [
            'block 1, 4x4',
            'block 2, 4x4',
        ]

    def test_telling_channels(self):
        base = torch.rand(2, 6, 8)
        # Of two channels that say the same, one; a constant one last.
        maps = torch.stack([base[0] * 5, base[0] * -4, torch.ones(6, 8), base[1]])
        picked = explain.telling_channels(maps, 2)
        assert picked.shape == (2, 6, 8) and picked.min() == 0 and picked.max() == 1
        for channel, value in zip((0, 3), picked):
            corr = np.corrcoef(maps[channel].flatten(), value.flatten())[0, 1]
            assert corr > 0.98
        assert len(explain.telling_channels(maps, 9)) == 4

    def test_mosaic(self):
        maps = torch.rand(3, 2, 4)
        large = explain.enlarged(maps, 2, (4, 7), 'nearest')  # an image that was padded by a column
        assert torch.equal(large[:, ::2, ::2], maps) and large.shape == (3, 4, 7)
        tiles = figures.mosaic(large)
        assert tiles.shape == (9, 15) and tiles.isnan().sum() == 9 * 15 - 3 * 28
        assert torch.equal(tiles[:4, 8:], large[1]) and torch.equal(tiles[5:, :7], large[2])
        assert torch.equal(figures.mosaic(maps[:1]), maps[0])


class Classifier(nn.Module):
    """As mmpretrain's, as far as class activation goes."""

    with_neck = True

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.out_channels[-1], 5)

    def neck(self, maps):
        return maps[-1].mean((2, 3))

    def head(self, x):
        return self.fc(x)


class TestClassActivation:
    @pytest.mark.parametrize('cls', FAMILIES)
    def test_is_that_of_a_linear_head(self, cls):
        model = Classifier(tiny(cls)).eval()
        x = torch.rand(1, 3, 64, 96)
        cams, scores = class_activation(model, x, [3, 1])
        last = model.backbone(x)[-1]
        assert torch.allclose(scores, model.fc(last.mean((2, 3)))[0].softmax(0), atol=1e-6)
        for cam, label in zip(cams, (3, 1)):
            # The gradient of a mean and a linear layer is the layer's row, everywhere.
            expected = torch.einsum('c,chw->hw', model.fc.weight[label], last[0]).relu()
            expected = nn.functional.interpolate(expected[None, None], (64, 96), mode='bilinear')[0, 0]
            assert torch.allclose(cam, expected / expected.max().clamp_min(1e-12), atol=1e-4)

    def test_is_in_its_place_where_the_image_is_padded(self):
        model = Classifier(tiny(ConvMLP)).eval()
        model.backbone.forward = lambda x: (evidence,)
        stride = model.backbone.out_strides[-1]
        evidence = torch.zeros(1, model.backbone.out_channels[-1], 4, 5)
        evidence[:, :, 1, 2] = 1
        model.fc.weight.data.fill_(1)
        for size in ((4 * stride, 5 * stride), (3 * stride + 1, 4 * stride + 1)):
            (cam,), _ = class_activation(model, torch.rand(1, 3, *size), [0])
            place = torch.nonzero(cam > 0.9).double().mean(0) + 0.5
            assert cam.shape == size and place.tolist() == pytest.approx([1.5 * stride, 2.5 * stride])


class TestTokenMixing:
    @pytest.mark.parametrize('cls', ISOTROPIC)
    def test_kernels(self, cls):
        model = tiny(cls, img_size=(32, 64)).eval()
        kernels = explain.token_kernels(model)
        assert len(kernels) == 4 and kernels[2].shape == (2, 4, 2, 4)
        block = model.blocks[2]
        weight = block.linear_tokens.weight if cls is ResMLP else block.mlp_channels.gate.proj.weight
        assert kernels[2][1, 3, 0, 2] == weight[7, 2]
        tiles = figures.tiled(kernels[2])
        assert tiles.shape == (2 * 3 - 1, 4 * 5 - 1)
        assert torch.equal(tiles[3:5, 5:9], kernels[2][1, 1])
        assert tiles[2].isnan().all() and tiles[:, 4].isnan().all()

    def test_other_families(self):
        with pytest.raises(ValueError, match='ConvMLP has no token mixing matrices; ResMLP and GMLP have'):
            explain.token_kernels(tiny(ConvMLP))


class TestReceptiveField:
    def test_is_what_changes_the_output(self):
        model = tiny(ResMLP).eval()
        fields = receptive_fields(model, [torch.rand(1, 3, 192, 192) for _ in range(2)])
        for field, center in fields.values():
            assert field.shape == (192, 192) and field.max() == 1 and center == (104, 104)
            inside = torch.zeros(192, 192, dtype=torch.bool)
            inside[64:128, 64:128] = True  # the window of the centre
            assert (field[~inside] == 0).all() and (field[inside] > 0).all()

    def test_convolutions_see_a_growing_square(self):
        fields = list(receptive_fields(tiny(ConvMLP).eval(), [torch.rand(1, 3, 128, 128)]).values())
        sides = [explain.side_of(field, center, 1.0) for field, center in fields]
        assert sides == sorted(sides) and sides[0] < 20 < sides[3]

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_final_norms_leave_a_field(self, cls):
        """The sum of what a LayerNorm returns is constant."""
        model = tiny(cls, final_norm=True).eval()
        *_, (field, _) = receptive_fields(model, [torch.rand(1, 3, 64, 64)]).values()
        x = torch.rand(1, 3, 64, 64, requires_grad=True)
        model(x)[-1][:, :, 0, 0].relu().sum().backward()
        assert x.grad.abs().max() > 1e-3 and (field > 0).sum() > 32

    def test_tiles_and_the_global_perceptron(self):
        field, _ = list(receptive_fields(tiny(RepMLP).eval(), [torch.rand(1, 3, 192, 192)]).values())[0]
        assert (field > 0).all()
        assert field[64:128, 64:128].mean() > 5 * field[:64].mean()

    def test_side(self):
        field = torch.zeros(9, 12)
        field[3:5, 5:7], field[3, 8] = 0.75, 1
        assert [explain.side_of(field, (4, 6), share) for share in (0.5, 0.75, 0.8)] == [2, 2, 6]


class TestComplexity:
    @pytest.mark.parametrize(
        'name', ['convmlp_s', 'resmlp_12', 'gmlp_ti16', pytest.param('repmlp_t224', marks=pytest.mark.slow)]
    )
    def test_is_that_of_the_zoo(self, name):
        meta = get_entry(name)['Metadata']
        cfg = get_config(name)
        counted = count(build_model(cfg), input_size(cfg))
        assert counted[''] == (meta['Parameters'], meta['FLOPs'])
        parts = [counted[part] for part in ('backbone', 'neck', 'head') if part in counted]
        assert tuple(map(sum, zip(*parts))) == counted['']

    def test_sizes(self):
        sizes = {
            'classification/repmlp_b256_imagenet': (256, 256),
            'classification/convmlp_s_shapes': (64, 64),
            'detection/retinanet_convmlp_s_fpn_1x_coco': (800, 1344),  # padded to 32
            'detection/maskrcnn_convmlp_s_fpn_ms_3x_coco': (800, 1344),  # trained on crops
            'segmentation/fpn_convmlp_s_512x512_40k_ade20k': (512, 512),
        }
        for config, size in sizes.items():
            assert input_size(load_config(f'{CONFIGS}/{config}.py')) == size

    @pytest.mark.slow
    def test_second_stage(self, run_script):
        config = 'detection/maskrcnn_convmlp_s_fpn_shapes.py'
        code, said = run_script('get_flops.py', CONFIGS / config, '--shape', 64, 96, '--depth', 1)
        rows = {w[0]: w[1:] for line in said.splitlines() if len(w := line.split()) == 4 and '%' in line}
        assert code == 0 and list(rows) == ['MaskRCNN', 'backbone', 'neck', 'rpn_head', 'roi_head']
        # By hand: two linear layers, classes and boxes for 100 regions; masks of 14x14 and, deconvolved, 28x28.
        box = 100 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (4 + 12))
        mask = 100 * (14 * 14 * (4 * 256 * 256 * 9 + 256 * 256 * 4) + 28 * 28 * 256 * 3)
        assert float(rows['roi_head'][1]) == pytest.approx((box + mask) / 1e9, rel=0.01)

    @pytest.mark.slow
    def test_shapes(self, run_script):
        for shape, words in ((['64x96'], '64x96'), ([64, 96], '64x96'), ([64], '64x64')):
            code, said = run_script('get_flops.py', CLASSIFIER, '--depth', 0, '--shape', *shape)
            assert code == 0 and f'one image of {words}\n' in said

    def test_bad_input(self, run_script):
        for args, words in (
            (['convmlp_s', '--shape', 0, 4], 'a size is a number or HEIGHTxWIDTH'),
            (['nothing.py', '--shape', 1, 2, 3], "such as 224 or 800x1216, got '1x2x3'"),
            (['convmlp_s', '--depth', -1], 'must not be negative'),
            (['nothing.py'], 'the config nothing.py does not exist'),
            (['resmlp_12', '--shape', 16], 'at least 32x32 pixels, got 16x16'),
        ):
            code, said = run_script('get_flops.py', *args)
            assert code == 1 and words in said


class TestCurves:
    def write(self, folder: Path, rows: list[dict]) -> None:
        path = folder / 'vis_data/scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(map(json.dumps, rows)))

    def part(self, first: int, last: int, loss: float) -> list[dict]:
        """Rows of every fifth iteration, 10 an epoch, with an evaluation after each epoch."""
        rows = []
        for step in range(first, last + 1, 5):
            rows.append(dict(lr=0.1, loss=loss, epoch=-(-step // 10), iter=step, step=step))
            if step % 10 == 0:
                rows.append({'accuracy/top1': 50.0 + loss, 'time': 1.0, 'step': step // 10})
        return rows

    @pytest.fixture
    def run(self, tmp_path):
        self.write(tmp_path / 'run/20260101_000000', self.part(5, 30, 1.0))
        self.write(tmp_path / 'run/20260101_000100', [])  # stopped before anything was logged
        self.write(tmp_path / 'run/20260102_000000', self.part(25, 40, 2.0))  # resumed after epoch 2
        with (tmp_path / 'run/20260102_000000/vis_data/scalars.json').open('a') as file:
            file.write('\n{"lr": 0.1, "lo')  # killed while it wrote
        return tmp_path / 'run'

    def test_parts_are_joined(self, run):
        read = runpy.run_path(str(CONFIGS.parent / 'tools/plot_logs.py'))['read_run'](run, 'x')
        assert [r['step'] for r in read.training] == list(range(5, 41, 5))
        assert [r['loss'] for r in read.training] == [1.0] * 4 + [2.0] * 4
        assert [(r['step'], r['accuracy/top1']) for r in read.tests] == [(10, 51), (20, 51), (30, 52), (40, 52)]
        assert read.metrics() == ['accuracy/top1']

    def test_evaluations_stay_where_they_were_after_a_resume(self, tmp_path):
        """With rows that do not end an epoch: of 10 iterations, each third is logged."""
        for folder, parts in (('whole', [(3, 30, 1)]), ('resumed', [(3, 9, 1), (12, 30, 2)])):
            for number, (first, last, epoch) in enumerate(parts):
                rows = [dict(lr=1, loss=1, epoch=-(-i // 10), iter=i, step=i) for i in range(first, last + 1, 3)]
                tests = [{'mIoU': 1.0, 'step': i} for i in range(epoch, -(-last // 10) + 1)]
                self.write(tmp_path / folder / str(number), rows + tests)
        read = runpy.run_path(str(ROOT / 'tools/plot_logs.py'))['read_run']
        steps = [[row['step'] for row in read(tmp_path / name, name).tests] for name in ('whole', 'resumed')]
        assert steps[0] == steps[1] and len(steps[0]) == 3

    def test_tool(self, run, run_script, tmp_path):
        self.write(tmp_path / 'other/1', [dict(lr=1, loss=1, step=1, iter=1), dict(mIoU=3, step=1)])
        code, said = run_script(
            'plot_logs.py', run, tmp_path / 'other', '--out', tmp_path / 'x.png', '--names', 'a', 'r$_x_$'
        )
        assert code == 0, said
        picture = cv2.imread(str(tmp_path / 'x.png'))
        assert picture.shape[1] > 4 * 400 and picture.std() > 10  # four panels
        (tmp_path / 'empty').mkdir()
        for args, words in (
            (['lost', '--out', 'x.png'], 'the work dir lost does not exist'),
            ([tmp_path / 'empty', '--out', 'x.png'], 'has no log of a training run'),
            ([run, '--out', 'x.bmp'], 'must end in .png, .svg, .pdf'),
            ([run, '--out', 'lost/x.png'], 'the folder lost does not exist'),
            ([run, '--out', tmp_path / 'y.png', '--metric', 'mAP'], 'no run has mAP; there is accuracy/top1'),
            ([run, '--out', tmp_path / 'y.png', '--names', 'a', 'b'], '2 names for 1 runs'),
        ):
            code, said = run_script('plot_logs.py', *args)
            assert code == 1 and words in said
        assert not list(tmp_path.glob('y.png')) and not list(tmp_path.glob('.*'))
        log = run / '20260101_000000/vis_data/scalars.json'
        log.write_text('{\n' + log.read_text())
        code, said = run_script('plot_logs.py', run, '--out', tmp_path / 'x.png')
        assert code == 1 and 'scalars.json, line 1 is not JSON' in said


def test_classes_by_name_and_number():
    number = runpy.run_path(str(ROOT / 'tools/visualize.py'))['class_number']
    classes = ['tench, Tinca tinca', 'goldfish, Carassius auratus', 'great white shark']
    assert [number(c, classes) for c in ('tench', 'Carassius auratus', classes[0], '2')] == [0, 1, 0, 2]
    with pytest.raises(UserError, match="the classes 0, 2 are called 'crane': give a number"):
        number('crane', ['crane', 'goldfish', 'crane'])
    with pytest.raises(
        UserError, match="the class 'goldfsh' does not exist; there is 'goldfish'.* or a number from 0 to 2$"
    ):
        number('goldfsh', classes)
    with pytest.raises(UserError, match="the class '3' does not exist; there is 'tench', 'Tinca tinca', 'goldfish'"):
        number('3', classes)


class TestDetections:
    """``tools/draw_detections.py``."""

    @pytest.fixture
    def given(self, shapes, tmp_path):
        """Its arguments, with predictions of the first four images: one that is sure, and one that is not."""
        coco = shapes / 'coco'
        found = dict(bboxes=torch.tensor([[10.0, 20, 90, 80], [5, 5, 30, 30]]), labels=torch.tensor([0, 2]))
        found['scores'] = torch.tensor([0.9, 0.2])
        truth = json.loads((coco / 'annotations/instances_val2017.json').read_text())
        predictions = [dict(img_id=i['id'], pred_instances=found) for i in truth['images'][:4]]
        (tmp_path / 'found.pkl').write_bytes(pickle.dumps(predictions))
        out = tmp_path / 'out.png'
        return [tmp_path / 'found.pkl', coco / 'annotations/instances_val2017.json', coco / 'val2017', out]

    def test_picture(self, given, run_script):
        pictures = []
        for score in ([], ['--score', 0], ['--score', 0.3]):
            code, said = run_script('draw_detections.py', *given, *score)
            assert code == 0 and f'{given[3]}: 4 images' in said
            pictures.append(cv2.imread(str(given[3])))
        # Rows of three pairs, each image 320 wide and 256 high, with 12 pixels around each pair.
        assert pictures[0].shape == (2 * (256 + 12) + 12, 3 * (2 * 320 + 4 + 12) + 12, 3)
        assert np.array_equal(pictures[0], pictures[2])
        differs = (pictures[0] != pictures[1]).any(2)[:280, :668]
        assert differs[:, 336:].any() and not differs[:, :336].any()  # the ground truth is the same
        assert {p.name for p in given[3].parent.iterdir()} == {'found.pkl', 'out.png'}

    def test_bad_input(self, given, run_script, tmp_path):
        (tmp_path / 'x.pkl').write_text('no pickle')
        (tmp_path / 'classes.pkl').write_bytes(pickle.dumps([dict(pred_score=1)]))
        prediction = pickle.loads(given[0].read_bytes())[0]
        (tmp_path / 'other.pkl').write_bytes(pickle.dumps([dict(prediction, img_id=10**6)]))
        (tmp_path / 'x.json').write_text('{"images": []}')
        (tmp_path / 'empty').mkdir()
        before = {p.name for p in tmp_path.iterdir()}
        lost = tmp_path / 'lost'
        for change, words in (
            ({0: lost}, 'lost does not exist'),
            ({0: tmp_path / 'x.pkl'}, 'x.pkl is not a pickle, or is truncated'),
            ({0: tmp_path / 'classes.pkl'}, 'classes.pkl holds no detections; tools/test.py --out writes them'),
            ({0: tmp_path / 'other.pkl'}, 'other.pkl is not of the images and classes of'),
            ({1: lost}, 'lost is not a COCO annotation file'),
            ({1: tmp_path / 'x.pkl'}, 'x.pkl is not a COCO annotation file'),
            ({1: tmp_path / 'x.json'}, "x.json is not a COCO annotation file: the list 'categories' is missing"),
            ({2: lost}, f'the folder {lost} does not exist'),
            ({2: tmp_path / 'empty'}, '.jpg: does not exist'),
            ({0: lost, 3: tmp_path / 'out.xyz'}, 'must end in .png, .jpg, .jpeg, got'),
            ({0: lost, 3: lost / 'out.png'}, 'does not exist: '),
            ({0: lost, 3: 'x.png --score 3'}, '--score must be from 0 to 1, got 3.0'),
            ({0: lost, 3: 'x.png --num 0'}, '--num must be positive, got 0'),
        ):
            args = ' '.join(str(change.get(i, part)) for i, part in enumerate(given)).split()
            code, said = run_script('draw_detections.py', *args)
            assert code == 1 and words in said and 'Traceback' not in said, (change, said)
        assert {p.name for p in tmp_path.iterdir()} == before


def test_a_figure_is_written_whole(tmp_path):
    path = tmp_path / 'x.png'
    path.write_text('before')
    with pytest.raises(RuntimeError), figures.drawn(path, 1, 1):
        raise RuntimeError
    assert path.read_text() == 'before' and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match='must end in .png'):
        figures.check_figure(tmp_path / 'x.jpg')


def test_tensorboard_that_is_not_installed(run_script, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == 'tensorboard' else find(name, *a))
    code, said = run_script('train.py', CLASSIFIER, '--tensorboard')
    assert code == 1 and 'pip install tensorboard' in said


@pytest.mark.slow
def test_tensorboard(shapes, tmp_path, run_script):
    pytest.importorskip('tensorboard')
    config = ROOT / 'configs/classification/gmlp_p8_shapes.py'
    settings = ['--cfg-options', *options('classification/gmlp_p8_shapes.py', shapes)]
    tool('train.py', config, '--work-dir', 'work', '--tensorboard', *settings, cwd=tmp_path)
    (events,) = (tmp_path / 'work').rglob('events.out.tfevents*')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(events)).Reload()
    log = next((tmp_path / 'work').rglob('scalars.json')).read_text().splitlines()
    losses = [row['loss'] for row in map(json.loads, log) if 'loss' in row]
    assert [e.value for e in curves.Scalars('loss')] == pytest.approx(losses)
    assert 'accuracy/top1' in curves.Tags()['scalars']
    code, said = run_script('plot_logs.py', tmp_path / 'work', '--out', tmp_path / 'x.svg')
    assert code == 0 and 'accuracy/top1' in log[-1] and '<svg' in (tmp_path / 'x.svg').read_text()


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp('figures')
    (home / 'configs').symlink_to(CONFIGS)
    (home / 'photos').mkdir()
    for path in (home / 'photo.jpg', home / 'photos/1.jpg'):
        cv2.imwrite(str(path), image(1))
    for name in ('convmlp_s', 'resmlp_24_distilled', 'gmlp_s16'):
        publish(home, name)
    return home


@pytest.mark.slow
class TestTool:
    @pytest.mark.parametrize(
        'command', re.findall(r'^python tools/(?:vis|get).*', '\n'.join(blocks(PAGES[1], 'bash')), re.M)
    )
    def test_commands_of_the_page(self, command, home, run_script, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(home / 'cache'))
        monkeypatch.setattr(files, 'check_hash', lambda *args: None)  # these are not the published weights
        monkeypatch.chdir(home)
        words = command.split()
        code, said = run_script(words[1].removeprefix('tools/'), *words[2:])
        assert code == 0, said
        if '--out' in words:
            picture = cv2.imread(words[words.index('--out') + 1])
            assert min(picture.shape[:2]) > 200 and picture.std() > 10
        else:
            assert '100.0%' in said
        assert ('random weights' in said) == ('configs/classification' in command)

    @pytest.mark.parametrize('channels', [1, 4])
    def test_other_channels(self, channels, run_script, tmp_path):
        cfg = load_config(CLASSIFIER)
        cfg.model.backbone.in_channels = channels
        cfg.model.data_preprocessor = dict(mean=[0.0] * channels, std=[255.0] * channels, to_rgb=False, num_classes=3)
        cfg.dump(tmp_path / 'own.py')
        cv2.imwrite(str(tmp_path / 'x.png'), np.dstack([image(0, 64, 64), image(1, 64, 64)[..., :1]]))
        model = ['--model', tmp_path / 'own.py', '--size', '65x97', '--out', tmp_path / 'y.PNG']
        for command in (['features', tmp_path / 'x.png'], ['cam', tmp_path / 'x.png'], ['erf', '--num', 1]):
            code, said = run_script('visualize.py', *command, *model)
            assert code == 0, said
        code, said = run_script('visualize.py', 'erf', '--images', tmp_path / 'x.png', *model)
        assert code == 0 and 'over 1 images, which are all that can be read' in said

    def test_bad_input(self, run_script, tmp_path):
        cv2.imwrite(str(tmp_path / 'x.png'), image(1, 64, 64))
        (tmp_path / 'broken.png').write_bytes(b'')
        good = [tmp_path / 'x.png', '--model', CLASSIFIER, '--out', tmp_path / 'y.png']
        weights = save_weights(CLASSIFIER, tmp_path / 'x.pth')
        detector = str(CONFIGS / 'detection/retinanet_resmlp_p8_sfp_shapes.py')
        for command, args, words in (
            ('features', ['lost.png', *good[1:]], 'lost.png: does not exist'),
            ('features', [weights, *good[1:]], 'is not an image; it starts with'),
            ('features', [*good, '--weights', 'a', 'b'], '--weights: 2 for 1 models'),
            ('features', [*good, '--channels', 0], '--channels must be positive'),
            ('features', [*good, '--size', '5by5'], 'a size is a number or HEIGHTxWIDTH'),
            ('cam', [*good, '--classes', 'circl'], "the class 'circl' does not exist; there is 'circle'"),
            ('cam', [good[0], '--model', detector, *good[3:]], 'cam takes classifiers'),
            ('mixing', ['--model', str(CONFIGS / 'classification/convmlp_s_shapes.py'), *good[3:]], 'ResMLP and GMLP'),
            ('erf', [*good[1:], '--images', tmp_path / 'lost'], 'lost does not exist'),
            ('erf', [*good[1:3], '--out', 'y.gif'], 'must end in .png'),
            ('erf', [*good[1:], '--images', tmp_path / 'broken.png'], 'broken.png can be read'),
        ):
            code, said = run_script('visualize.py', command, *args)
            assert code == 1 and words in said, (command, args, said)
        assert not (tmp_path / 'y.png').exists()
