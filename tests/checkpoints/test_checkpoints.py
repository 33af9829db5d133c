"""Weights under any names, in every way of loading, are the same weights; files that are not weights are refused."""

import copy
import functools
import hashlib
import http.server
import pickle
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.families import TINY, tiny
from helpers.goldens import FOLDER, GOLDENS, difference, image, load
from mmengine.model import PretrainedInit
from mmengine.runner import Runner, load_checkpoint
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP
from mlp_backbones.checkpoints import FAMILIES, CheckpointError, convert, read_checkpoint, state_dict_of
from mlp_backbones.checkpoints.runs import read_training_checkpoint
from mlp_backbones.models.backbones.loading import fill_model
from mlp_backbones.utils.files import sha256

PADDLE = FOLDER.parent / 'paddle'  # written by paddlepaddle 2.6.2 from small models of PaddleViT's code
NAMES = {ConvMLP: 'convmlp', ResMLP: 'resmlp', GMLP: 'gmlp', RepMLP: 'repmlp'}


def classifier(backbone, channels, num_classes=1000):
    from mmpretrain.registry import MODELS

    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone={**backbone, 'type': f'mlp_backbones.{backbone["type"]}', 'final_norm': True},
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=channels),
        )
    ).eval()


def scores(model, x):
    with torch.no_grad():
        return model(x, mode='tensor')


def whole(name):
    """A classifier for a golden, and the channels of its head."""
    checkpoint = load(name)[1]
    return classifier(GOLDENS[name], checkpoint['head.weight'].shape[1])


def load_from(model, path):
    """As a runner with our configs' hooks loads ``load_from``, within this test's folder."""
    hooks = dict(adapt_checkpoint=dict(type='mlp_backbones.AdaptCheckpointHook'))
    name = f'{path.stem}-{time.monotonic_ns()}'
    runner = Runner(
        model,
        str(path.parent / 'work'),
        load_from=str(path),
        default_hooks=hooks,
        experiment_name=name,
        default_scope='mmpretrain',
    )
    runner.call_hook('before_run')
    runner.load_or_resume()


BACKBONE = {
    'init_cfg': lambda model, path: initialize(model, path),
    'load_state_dict': lambda model, path: model.load_state_dict(read_checkpoint(path), strict=False),
    'load_checkpoint': lambda model, path: load_checkpoint(model, str(path), map_location='cpu'),
}
"""Ways to load a file into a bare backbone; the first one insists on every tensor."""
MODEL = {'load_from': load_from, 'fill_model': lambda model, path: fill_model(model, read_checkpoint(path), path)}
"""Ways to load an original's file into a host's model: a runner's, and that of ``get_model`` and the tools."""


def initialize(backbone, path):
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone.init_weights()


WRAPS = {
    'bare': lambda s: s,
    'module': lambda s: {f'module.{k}': v for k, v in s.items()},
    'model': lambda s: {'model': s, 'epoch': 3},
    'state_dict_ema': lambda s: {'state_dict_ema': {f'module.{k}': v for k, v in s.items()}},
}


@pytest.mark.slow
@pytest.mark.parametrize('way', MODEL)
@pytest.mark.parametrize('name', GOLDENS)
def test_whole_classifiers_of_the_originals(name, way, tmp_path):
    facts, checkpoint, answers = load(name)
    torch.save({'model': checkpoint}, tmp_path / 'x.pth')
    model = whole(name)
    MODEL[way](model, tmp_path / 'x.pth')
    x = image(*facts['input'][:1], *facts['input'][2:], seed=0)
    assert difference(scores(model, x), answers['logits']) < 1e-4


@pytest.mark.parametrize('wrap', WRAPS)
@pytest.mark.parametrize('name', ['convmlp_s', pytest.param('deit_resmlp_12', marks=pytest.mark.slow)])
def test_wrappers(name, wrap, tmp_path):
    _, checkpoint, _ = load(name)
    path = tmp_path / 'x.pth'
    torch.save(WRAPS[wrap](checkpoint), path)
    expected = whole(name).backbone
    assert expected.load_state_dict(checkpoint, strict=False).missing_keys == []
    expected = expected.state_dict()
    for way, load_into in BACKBONE.items():
        backbone = whole(name).backbone
        load_into(backbone, path)
        assert all(torch.equal(v, expected[k]) for k, v in backbone.state_dict().items()), way


@pytest.mark.parametrize('way', ['init_cfg', *MODEL])
@pytest.mark.parametrize('cls', NAMES)
def test_files_of_paddle(cls, way, tmp_path):
    path = shutil.copy(PADDLE / f'{NAMES[cls]}.pdparams', tmp_path)
    path = Path(path)
    settings = dict(TINY[cls], type=cls.__name__, out_indices=-1)
    model = classifier(settings, tiny(cls, out_indices=-1).out_channels[-1], 10)
    if way == 'init_cfg':
        initialize(model.backbone, path)
        head = read_checkpoint(path)
        model.head.fc.load_state_dict({'weight': head['head.weight'].T, 'bias': head['head.bias']})
    else:
        MODEL[way](model, path)
    x = torch.from_numpy(np.random.RandomState(1).randn(2, 3, 64, 64).astype(np.float32))
    with np.load(PADDLE / 'answers.npz') as answers:
        # PaddleViT's gMLP adds another epsilon in the gate's LayerNorm: 1e-6 instead of timm's 1e-5.
        assert difference(scores(model, x), torch.from_numpy(answers[NAMES[cls]])) < (1e-4 if cls is GMLP else 1e-5)


@pytest.mark.parametrize('cls', NAMES)
def test_files_that_paddle_writes_now(cls, tmp_path):
    paddle = pytest.importorskip('paddle')
    from helpers import paddle_models

    theirs = paddle_models.build(NAMES[cls], TINY[cls]['arch'], classes=10)
    paddle.save(theirs.state_dict(), str(tmp_path / 'x.pdparams'))
    x = np.random.RandomState(1).randn(2, 3, 64, 64).astype(np.float32)
    expected = torch.from_numpy(theirs(paddle.to_tensor(x)).numpy())
    model = classifier(dict(TINY[cls], type=cls.__name__, out_indices=-1), theirs.head.weight.shape[0], 10)
    load_from(model, tmp_path / 'x.pdparams')
    assert difference(scores(model, torch.from_numpy(x)), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('deploy', [False, True])
def test_repmlp_of_mmpretrain(deploy, tmp_path):
    from mmpretrain.models import RepMLPNet

    torch.manual_seed(0)
    theirs = RepMLPNet(arch='B', img_size=224, out_indices=(3,), reparam_conv_kernels=(1, 3), final_norm=True)
    for module in theirs.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    theirs.eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(x)[-1]
    if deploy:
        theirs.switch_to_deploy()
    state = {f'backbone.{k}': v for k, v in theirs.state_dict().items()}
    torch.save({'state_dict': {**state, 'head.fc.weight': torch.zeros(1000, 768)}}, tmp_path / 'x.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    ours = RepMLP('b224', out_indices=(3,), final_norm=True, deploy=deploy, init_cfg=init_cfg)
    ours.init_weights()
    with torch.no_grad():
        assert difference(ours.eval()(x)[-1], expected) < 1e-4
    # mmpretrain's own model takes its own file as before.
    load_checkpoint(theirs, str(tmp_path / 'x.pth'), revise_keys=[(r'^backbone\.', '')])


@pytest.mark.parametrize('cls', NAMES)
def test_own_names_are_no_dialect_and_conversion_touches_nothing(cls):
    state = tiny(cls, final_norm=True).state_dict()
    assert not any(dialect.recognises(state) for dialect in FAMILIES[cls.__name__].dialects)
    foreign = read_checkpoint(PADDLE / f'{NAMES[cls]}.pdparams')
    before = {k: v.clone() for k, v in foreign.items()}
    assert [d.name for d in FAMILIES[cls.__name__].dialects if d.recognises(foreign)] == ['PaddleViT']
    tiny(cls, final_norm=True).adapt(foreign)
    assert foreign.keys() == before.keys() and all(torch.equal(v, before[k]) for k, v in foreign.items())


@pytest.mark.parametrize(
    'config',
    [
        'detection/retinanet_convmlp_s_fpn_shapes.py',
        'detection/maskrcnn_convmlp_s_fpn_shapes.py',
        'segmentation/fpn_convmlp_s_shapes.py',
    ],
)
def test_detectors_and_segmentors_of_old_versions(config, tmp_path):
    """mmdet 2 and mmseg 0 named a model's parts as today: every tensor is used."""
    from helpers import CONFIGS, build
    from mmengine.config import Config

    cfg = Config.fromfile(CONFIGS / config)
    source, model = build(cfg), build(cfg)
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    torch.save(dict(meta=dict(mmdet_version='2.14.0', CLASSES=('a', 'b')), state_dict=state), tmp_path / 'x.pth')
    load_checkpoint(model, str(tmp_path / 'x.pth'), map_location='cpu')
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.fixture
def logged(monkeypatch):
    """What loading says in the log."""
    lines = []
    monkeypatch.setattr('mlp_backbones.models.backbones.loading.print_log', lambda text, **_: lines.append(text))
    return lines


def test_head_for_another_number_of_classes_is_dropped(tmp_path, logged):
    model = classifier(dict(TINY[ConvMLP], type='ConvMLP', out_indices=(3,)), 24, 10)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'x.pth')
    other = classifier(dict(TINY[ConvMLP], type='ConvMLP', out_indices=(3,)), 24, 3)
    head = other.head.fc.weight.clone()
    load_from(other, tmp_path / 'x.pth')
    assert torch.equal(other.head.fc.weight, head)
    assert all(torch.equal(v, model.backbone.state_dict()[k]) for k, v in other.backbone.state_dict().items())
    filled, dropped = logged
    assert filled.endswith('tensors filled from ' + str(tmp_path / 'x.pth') + ', names of SHI-Labs')
    assert dropped == (
        f'dropped from {tmp_path / "x.pth"}: head.fc.weight (10, 24) for (3, 24), head.fc.bias (10,) for (3,)'
    )


def test_the_head_of_a_classifier_is_dropped_from_a_detector_and_named(tmp_path, logged):
    from helpers import CONFIGS, build
    from mmengine.config import Config

    source = tiny(ConvMLP, out_indices=(3,), final_norm=True)
    tensors = {**source.state_dict(), 'head.weight': torch.zeros(5, 24), 'head.bias': torch.zeros(5)}
    torch.save({'model': tensors}, tmp_path / 'x.pth')
    cfg = Config.fromfile(CONFIGS / 'detection/retinanet_convmlp_s_fpn_shapes.py')
    cfg.model.backbone.update(TINY[ConvMLP])
    cfg.model.neck.in_channels = list(tiny(ConvMLP).out_channels)
    model = build(cfg)
    load_from(model, tmp_path / 'x.pth')
    assert all(torch.equal(v, tensors[k]) for k, v in model.backbone.state_dict().items())
    absent = 'which the model does not have'
    assert logged[-1] == (
        f'dropped from {tmp_path / "x.pth"}: norm.weight (24,) {absent}, norm.bias (24,) {absent}, '
        f'head.weight (5, 24) {absent}, head.bias (5,) {absent}'
    )


class TestWhatDoesNotFit:
    """Where weights are asked for, every tensor of the backbone is filled, or nothing is."""

    @pytest.mark.parametrize('way', ['init_cfg', *MODEL])
    def test_another_family_or_arch_raises_and_changes_nothing(self, way, tmp_path):
        wide = dict(channels=8, conv_blocks=1, dims=(8, 16, 32), depths=(1, 2, 2), mlp_ratios=(2, 2, 2))
        for name, source in (('other family', tiny(ResMLP)), ('other arch', ConvMLP(wide))):
            path = tmp_path / f'{name}.pth'
            torch.save(source.state_dict(), path)
            model = tiny(ConvMLP) if way == 'init_cfg' else classifier(dict(TINY[ConvMLP], type='ConvMLP'), 24, 3)
            before = copy.deepcopy(model.state_dict())
            with pytest.raises(CheckpointError, match=r'does not fill this ConvMLP.*\n +missing \(\d+\)'):
                (initialize if way == 'init_cfg' else MODEL[way])(model, path)
            assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    @pytest.mark.parametrize('cls, key', [(ResMLP, 'depth'), (GMLP, 'depth'), (ConvMLP, 'depths'), (RepMLP, 'depths')])
    def test_a_deeper_model_raises(self, cls, key):
        arch = dict(TINY[cls]['arch'])
        deeper = {**arch, key: arch[key] + 1 if key == 'depth' else (*arch[key][:-1], arch[key][-1] + 1)}
        source = cls(**{**TINY[cls], 'arch': deeper})
        with pytest.raises(CheckpointError, match='beyond the depth of the model'):
            tiny(cls).fit(source.state_dict(), 'x')
        # A part of the same arch is no other arch.
        tiny(cls, out_indices=(1,)).fit(tiny(cls, out_indices=(0, 1, 2, 3)).state_dict(), 'x')

    @pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', PretrainedInit])
    def test_every_way_to_name_pretrained_weights(self, kind, tmp_path):
        part = tiny(ConvMLP).state_dict()
        part.pop('tokenizer.block.0.weight')
        torch.save(part, tmp_path / 'x.pth')
        model = tiny(ConvMLP, init_cfg=dict(type=kind, checkpoint=str(tmp_path / 'x.pth')))
        with pytest.raises(CheckpointError, match=r'tokenizer\.block\.0\.weight'):
            model.init_weights()

    def test_a_list_of_init_cfg_is_read_safely_too(self, tmp_path):
        torch.save({'a': Payload(tmp_path / 'ran')}, tmp_path / 'x.pth')
        kaiming = dict(type='Kaiming', layer='Conv2d')
        init_cfg = [kaiming, dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))]
        model = tiny(ConvMLP, init_cfg=init_cfg)
        with pytest.raises(CheckpointError, match='was refused'):
            model.init_weights()
        assert not (tmp_path / 'ran').exists()
        source = tiny(ConvMLP)
        torch.save(source.state_dict(), tmp_path / 'x.pth')
        model.init_weights()
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())
        assert model.init_cfg == init_cfg

    def test_a_part_is_refused(self, tmp_path):
        state = tiny(ConvMLP).state_dict()
        state.pop('tokenizer.block.0.weight')
        torch.save(state, tmp_path / 'x.pth')
        with pytest.raises(CheckpointError, match=r'missing \(1\): tokenizer.block.0.weight'):
            initialize(tiny(ConvMLP), tmp_path / 'x.pth')

    def test_what_changes_nothing_may_be_missing(self, tmp_path):
        torch.save(tiny(GMLP).state_dict(), tmp_path / 'x.pth')
        model = GMLP(**TINY[GMLP], cross_window=True)
        initialize(model, tmp_path / 'x.pth')
        assert not any(p.any() for p in model.propagations.parameters())
        state = {k: v for k, v in tiny(ConvMLP).state_dict().items() if not k.endswith('num_batches_tracked')}
        assert tiny(ConvMLP).fit(state, 'x')[0].keys() == tiny(ConvMLP).state_dict().keys()


ARRAY = (
    b"(dS'a'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(%stR"
    b"I00\nS'AAAAAAAA'\ntbs."
)  # a dict of one array, of the dtype that is put in


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), 'w'))  # leaves a file behind if it is run


class TestFiles:
    @pytest.mark.parametrize('name', ['x.pth', 'old.pth', 'x.pdparams'])
    def test_code_is_refused_before_it_runs(self, name, tmp_path):
        ran, path = tmp_path / 'ran', tmp_path / name
        content = {'a': torch.ones(1) if name.endswith('.pth') else np.ones(1), 'b': Payload(ran)}
        if name == 'x.pdparams':
            path.write_bytes(pickle.dumps(content, protocol=4))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=name == 'x.pth')
        with pytest.raises(CheckpointError, match=f'{name} was refused: it asks for .*open, which no checkpoint needs'):
            read_checkpoint(path)
        assert not ran.exists()

    @pytest.mark.parametrize(
        'content, message',
        [
            # bytes taken for object pointers
            (ARRAY % b"S'O8'\n", 'refused: it contains an array of something other than numbers'),
            (ARRAY % b"(S'f'\nS'O'\nt", 'refused: it contains an array of something other than numbers'),
            (pickle.dumps({'a': np.array([{}], dtype=object)}, 4), 'an array of something other than numbers'),
            (b"cnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(S'O8'\ntRS'AAAAAAAA'\ntR.", 'not a dict of arrays'),
        ],
    )
    def test_arrays_of_anything_but_numbers_are_refused(self, content, message, tmp_path):
        (tmp_path / 'x.pdparams').write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / 'x.pdparams')

    def test_torchscript_is_refused(self, tmp_path):
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / 'x.pth'))
        with pytest.raises(CheckpointError, match='x.pth was refused: it is a TorchScript program'):
            read_checkpoint(tmp_path / 'x.pth')

    @pytest.mark.parametrize('protocol', [2, 3, 4, 5])
    def test_arrays_of_every_protocol(self, protocol, tmp_path):
        arrays = {
            'a': np.random.randn(2, 3).astype('f4'),
            'b': np.asfortranarray(np.random.randn(3, 4)),
            'c': np.arange(5, dtype='>i8'),
            'd': np.array(True),
        }
        (tmp_path / 'x.pdparams').write_bytes(
            pickle.dumps({**arrays, 'StructuredToParameterName@@': {'a': 'b'}}, protocol)
        )
        read = read_checkpoint(tmp_path / 'x.pdparams')
        assert read.keys() == arrays.keys()
        assert all(np.array_equal(v.numpy(), arrays[k]) for k, v in read.items())

    @pytest.mark.parametrize('suffix', ['.pth', '.pdparams', '.safetensors'])
    @pytest.mark.parametrize(
        'content, message',
        [(b'', 'is empty'), (b'\n<!DOCTYPE html><html>', 'is a web page'), (b'garbage' * 99, 'is not a checkpoint')],
    )
    def test_no_checkpoint(self, suffix, content, message, tmp_path):
        path = tmp_path / f'x{suffix}'
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f'x{suffix} {message}'):
            read_checkpoint(path)

    @pytest.mark.parametrize('keep', [0.1, 0.5, 0.99])
    def test_truncated(self, keep, tmp_path):
        torch.save(tiny(ConvMLP).state_dict(), tmp_path / 'x.pth')
        shutil.copy(PADDLE / 'resmlp.pdparams', tmp_path / 'x.pdparams')
        safetensors = pytest.importorskip('safetensors.torch')
        safetensors.save_file(tiny(ResMLP).state_dict(), tmp_path / 'x.safetensors')
        for suffix in ('pth', 'pdparams', 'safetensors'):
            path = tmp_path / f'x.{suffix}'
            path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
            with pytest.raises(CheckpointError, match=f'x.{suffix} is not a checkpoint, or is truncated'):
                read_checkpoint(path)

    def test_hash_in_the_name(self, tmp_path):
        torch.save({'a': torch.ones(2)}, tmp_path / 'x.pth')
        digest = sha256(tmp_path / 'x.pth')
        good = shutil.copy(tmp_path / 'x.pth', tmp_path / f'x-{digest[:8]}.pth')
        assert torch.equal(read_checkpoint(good)['a'], torch.ones(2))
        bad = shutil.copy(tmp_path / 'x.pth', tmp_path / 'x-00112233.pth')
        with pytest.raises(CheckpointError, match=f'its SHA-256 starts with {digest[:8]}, not 00112233'):
            read_checkpoint(bad)

    def test_missing_file_and_unreachable_host(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        with pytest.raises(FileNotFoundError, match='the checkpoint .*lost.pth does not exist'):
            read_checkpoint(tmp_path / 'lost.pth')
        with pytest.raises(CheckpointError, match='cannot download http://127.0.0.1:9/x.pth'):
            read_checkpoint('http://127.0.0.1:9/x.pth')
        assert not [p for p in tmp_path.rglob('*') if p.is_file()]

    @pytest.fixture
    def url(self, tmp_path, monkeypatch):
        """Of a folder ``served`` on a local host; torch's cache is the folder ``cache``."""
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
        (tmp_path / 'served').mkdir()
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / 'served'))
        with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f'http://127.0.0.1:{server.server_port}'
            server.shutdown()

    def test_downloads_are_kept_in_torchs_cache(self, url, tmp_path):
        torch.save({'a': torch.ones(2)}, tmp_path / 'served/x.pth')
        name = f'y-{sha256(tmp_path / "served/x.pth")[:8]}.pth'
        for served in (name, 'model.pth', 'epoch_12.pth', 'best_bbox_mAP.pth'):
            shutil.copy(tmp_path / 'served/x.pth', tmp_path / 'served' / served)
            for _ in range(2):  # the second time without the host's file
                assert torch.equal(read_checkpoint(f'{url}/{served}?download=1')['a'], torch.ones(2))
                (tmp_path / 'served' / served).unlink(missing_ok=True)
        common = {
            f'hub/checkpoints/{hashlib.sha256(f"{url}/{n}?download=1".encode()).hexdigest()[:16]}_{n}'
            for n in ('model.pth', 'epoch_12.pth', 'best_bbox_mAP.pth')
        }
        kept = {str(p.relative_to(tmp_path / 'cache')) for p in (tmp_path / 'cache').rglob('*') if p.is_file()}
        assert kept == {f'hub/checkpoints/{name}', *common}

    @pytest.mark.parametrize(
        ('name', 'message'),
        [('x-00112233.pth', 'invalid hash value .expected "00112233"'), ('lost.pth', 'HTTP Error 404')],
    )
    def test_failed_downloads_leave_nothing_behind(self, name, message, url, tmp_path):
        torch.save({'a': torch.ones(2)}, tmp_path / 'served/x-00112233.pth')
        with pytest.raises(CheckpointError, match=f'cannot download {url}/{name}: {message}'):
            read_checkpoint(f'{url}/{name}')
        assert not [p for p in (tmp_path / 'cache').rglob('*') if p.is_file()]

    def test_downloads_that_their_query_tells_apart(self, url, tmp_path):
        for number in (1, 2):  # as Google Drive's
            torch.save({'a': torch.full((2,), number)}, tmp_path / 'served/uc')
            assert read_checkpoint(f'{url}/uc?export=download&id={number}')['a'].tolist() == [number] * 2
        assert read_checkpoint(f'{url}/uc?export=download&id=1')['a'].tolist() == [1, 1]

    @pytest.mark.parametrize('broken', [lambda whole: whole[: len(whole) // 2], lambda _: b'<!DOCTYPE html>Sign in'])
    def test_a_broken_download_does_not_stay(self, broken, url, tmp_path):
        served = tmp_path / 'served/net.pth'
        torch.save({'a': torch.ones(2)}, served)
        whole = served.read_bytes()
        served.write_bytes(broken(whole))
        with pytest.raises(CheckpointError, match='net.pth is'):
            read_checkpoint(f'{url}/net.pth')
        served.write_bytes(whole)
        assert read_checkpoint(f'{url}/net.pth')['a'].tolist() == [1, 1]
        # A file that was there already is the user's.
        (kept,) = (tmp_path / 'cache').rglob('net.pth')
        kept.write_bytes(b'<html>')
        with pytest.raises(CheckpointError, match='web page'):
            read_checkpoint(f'{url}/net.pth')
        assert kept.exists()

    def test_safetensors(self, tmp_path):
        safetensors = pytest.importorskip('safetensors.torch')
        source, model = tiny(ResMLP), tiny(ResMLP, seed=1)
        safetensors.save_file(source.state_dict(), tmp_path / 'x.safetensors')
        model.load_state_dict(read_checkpoint(tmp_path / 'x.safetensors'))
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())

    def test_no_tensors(self):
        for content in ([1, 2], {'epoch': 3}, {'state_dict': {}}):
            with pytest.raises(CheckpointError, match='x.pth is not a checkpoint'):
                state_dict_of(content, 'x.pth')

    def test_training_checkpoints_of_mmengine(self, tmp_path):
        from mmengine.logging import MessageHub

        hub = MessageHub('test')
        hub.update_scalar('train/loss', 0.5)
        hub.update_scalar('train/lr', np.float64(0.1))
        torch.save(dict(state_dict=tiny(ResMLP).state_dict(), message_hub=hub.state_dict()), tmp_path / 'x.pth')
        assert state_dict_of(read_checkpoint(tmp_path / 'x.pth')).keys() == tiny(ResMLP).state_dict().keys()


class TestConversion:
    @pytest.fixture
    def run(self, run_script):
        def run(*args, code=0):
            status, said = run_script('convert_checkpoint.py', *args)
            assert status == code, said
            return said

        return run

    @pytest.mark.parametrize('name, family', [(n, s['type']) for n, s in GOLDENS.items()])
    def test_families_are_recognised(self, name, family):
        checkpoint = load(name)[1]
        converted = convert(checkpoint)
        assert converted.family == family
        assert {k for k in converted.tensors if not k.startswith('backbone.')} == {'head.fc.weight', 'head.fc.bias'}
        again = convert(converted.tensors)
        assert again.tensors.keys() == converted.tensors.keys()
        bare = convert(converted.tensors, backbone_only=True).tensors
        assert len(bare) == len(checkpoint) - 2 and not any(k.startswith(('backbone.', 'head.')) for k in bare)

    @pytest.mark.parametrize('cls', NAMES)
    def test_paddle_files(self, cls):
        converted = convert(read_checkpoint(PADDLE / f'{NAMES[cls]}.pdparams'), backbone_only=True)
        assert (converted.family, converted.dialect) == (cls.__name__, 'PaddleViT')
        assert tiny(cls, final_norm=True).load_state_dict(converted.tensors, strict=True)

    def test_classes_stay_with_the_weights(self, run, tmp_path):
        meta = dict(dataset_meta=dict(classes=('cat', 'dog'), palette=np.arange(6).reshape(2, 3)))
        state = convert(read_checkpoint(PADDLE / 'resmlp.pdparams')).tensors
        torch.save(dict(meta=meta, state_dict=state), tmp_path / 'x.pth')
        for name, options, classes in (('y.pth', (), ('cat', 'dog')), ('z.pth', ('--backbone-only',), None)):
            run(tmp_path / 'x.pth', tmp_path / name, *options)
            found = read_training_checkpoint(tmp_path / name)['meta'].get('dataset_meta') or {}
            assert found.get('classes') == classes
        run(tmp_path / 'x.pth', tmp_path / 'y.safetensors')  # tensors alone
        odd = dict(dataset_meta=dict(classes=('cat', 'dog'), names=np.array(['a', 'b'])))
        torch.save(dict(meta=odd, state_dict=state), tmp_path / 'odd.pth')
        run(tmp_path / 'odd.pth', tmp_path / 'w.pth')
        assert 'dataset_meta' not in read_checkpoint(tmp_path / 'w.pth')['meta']

    def test_the_tool(self, run, tmp_path):
        source = PADDLE / 'resmlp.pdparams'
        said = run(source, tmp_path / 'x.pth')
        assert 'ResMLP' in said and 'PaddleViT' in said and str(tmp_path / 'x.pth') in said
        state = state_dict_of(read_checkpoint(tmp_path / 'x.pth'))
        assert {k.split('.')[0] for k in state} == {'backbone', 'head'}
        before = (tmp_path / 'x.pth').read_bytes()
        assert 'x.pth already exists; --force replaces it' in run(source, tmp_path / 'x.pth', code=1)
        assert (tmp_path / 'x.pth').read_bytes() == before
        run(source, tmp_path / 'x.pth', '--force', '--backbone-only')
        assert not any(k.startswith('backbone.') for k in state_dict_of(read_checkpoint(tmp_path / 'x.pth')))
        run(source, tmp_path / 'y.safetensors', '--hash')
        (hashed,) = tmp_path.glob('y-????????.safetensors')
        assert read_checkpoint(hashed).keys() == state.keys()
        assert sorted(p.name for p in tmp_path.iterdir()) == ['x.pth', hashed.name]

    @pytest.mark.slow
    def test_check(self, run, tmp_path):
        torch.save(load('convmlp_s')[1], tmp_path / 'x.pth')
        config = ROOT / 'configs/classification/convmlp_s_imagenet.py'
        said = run(tmp_path / 'x.pth', tmp_path / 'y.pth', '--check', config)
        assert 'every tensor of the model is filled' in said and (tmp_path / 'y.pth').is_file()
        config = ROOT / 'configs/classification/convmlp_m_imagenet.py'
        said = run(tmp_path / 'x.pth', tmp_path / 'z.pth', '--check', config, code=1)
        assert f'{tmp_path / "x.pth"} does not fill this ConvMLP' in said and not (tmp_path / 'z.pth').exists()

    @pytest.mark.parametrize(
        'content, target, message',
        [
            ({'layer4.weight': torch.ones(2)}, 'y.pth', 'these are not weights of ConvMLP, ResMLP, GMLP, RepMLP'),
            ({'tokenizer.block.0.weight': torch.ones(2)}, 'y.bin', 'the suffix must be .pth or .safetensors'),
            ({'tokenizer.block.0.weight': torch.ones(2)}, 'no/y.pth', 'does not exist: '),
            (None, 'y.pth', 'x.pth does not exist'),
        ],
    )
    def test_refusals(self, run, content, target, message, tmp_path):
        if content:
            torch.save(content, tmp_path / 'x.pth')
        assert 'error: ' in (said := run(tmp_path / 'x.pth', tmp_path / target, code=1)) and message in said
        assert not (tmp_path / target).exists()
