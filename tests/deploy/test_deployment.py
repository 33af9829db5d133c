"""The folded form has the same outputs, in every family and in the hosts' models, and so have exported files."""

import copy
import importlib
import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from helpers import CONFIGS
from helpers.families import FAMILIES, ISOTROPIC, TINY, VARIANTS, randomise, tiny
from helpers.goldens import load
from helpers.whole_models import WHOLE, small
from mmengine.config import Config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP, SimpleFeaturePyramid, reparameterize
from mlp_backbones.apis.inference import load_model
from mlp_backbones.apis.zoo import build_model
from mlp_backbones.checkpoints import CheckpointError, read_checkpoint
from mlp_backbones.deploy.export import TensorModel, parse_size
from mlp_backbones.deploy.reparameterize import relative_difference
from mlp_backbones.deploy.runtime import Runtime
from mlp_backbones.utils.errors import FoldingError

needs_half = pytest.mark.skipif(
    not hasattr(torch, 'get_autocast_dtype'), reason='torch before 2.4 has no float16 convolutions on a CPU'
)


def outputs(model, x):
    with torch.no_grad():
        return TensorModel(model)(x)


@pytest.mark.slow
@pytest.mark.parametrize('cls, arch', VARIANTS, ids=lambda v: getattr(v, '__name__', v))
def test_every_variant_folds_exactly(cls, arch):
    torch.manual_seed(0)
    model = randomise(cls(arch, final_norm=True)).eval()
    x = torch.randn(1, 3, 224, 320)
    folded = reparameterize(model)
    assert relative_difference(outputs(folded, x), outputs(model, x)) < 1e-5
    assert not torch.equal(outputs(folded, x)[-1], outputs(model, x)[-1])  # it is another form, not the same one


@pytest.mark.parametrize('cls', FAMILIES)
class TestFolding:
    def test_exact_in_double(self, cls):
        model = tiny(cls, final_norm=True).eval().double()
        x = torch.randn(2, 3, 96, 160, dtype=torch.float64)
        assert relative_difference(outputs(reparameterize(model), x), outputs(model, x)) < 1e-12

    def test_a_copy_by_default(self, cls):
        model = tiny(cls).eval()
        before = copy.deepcopy(model.state_dict())
        folded = reparameterize(model)
        assert folded is not model and folded.deploy and not model.deploy
        assert model.state_dict().keys() == before.keys()
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert reparameterize(model, inplace=True) is model and model.deploy
        assert all(torch.equal(v, folded.state_dict()[k]) for k, v in model.state_dict().items())

    def test_folded_twice_is_folded_once(self, cls):
        once = reparameterize(tiny(cls).eval())
        twice = reparameterize(once)
        for module in twice.modules():
            if hasattr(module, 'switch_to_deploy'):  # as mmpretrain's converter calls it
                module.switch_to_deploy()
        assert twice.state_dict().keys() == once.state_dict().keys()
        assert all(torch.equal(v, once.state_dict()[k]) for k, v in twice.state_dict().items())

    def test_built_folded_it_takes_a_folded_checkpoint(self, cls, tmp_path):
        model = tiny(cls, final_norm=True).eval()
        folded = reparameterize(model)
        torch.save(folded.state_dict(), tmp_path / 'x.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
        built = tiny(cls, seed=1, final_norm=True, deploy=True, init_cfg=init_cfg).eval()
        built.init_weights()
        x = torch.randn(1, 3, 64, 96)
        assert all(torch.equal(a, b) for a, b in zip(built(x), folded(x)))

    def test_the_deploy_form_is_built_not_folded(self, cls, monkeypatch):
        calls = []
        for part in {type(module) for module in tiny(cls).modules() if hasattr(module, 'switch_to_deploy')}:
            monkeypatch.setattr(part, 'switch_to_deploy', calls.append)
        assert tiny(cls, deploy=True).deploy and not calls

    def test_forms_do_not_mix(self, cls, tmp_path):
        trained, built = tiny(cls).eval(), tiny(cls, deploy=True)
        before = copy.deepcopy(built.state_dict())
        with pytest.raises(CheckpointError, match='in deploy form, this backbone is in training form.*deploy=True'):
            tiny(cls).load_state_dict(reparameterize(trained).state_dict())
        message = 'in training form, this backbone is in deploy form.*switch_to_deploy'
        with pytest.raises(CheckpointError, match=message):
            built.load_state_dict(trained.state_dict())
        torch.save(trained.state_dict(), tmp_path / 'x.pth')
        built.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
        with pytest.raises(CheckpointError, match=message):
            built.init_weights()
        assert all(torch.equal(v, before[k]) for k, v in built.state_dict().items())

    def test_training_mode(self, cls):
        for fold in (reparameterize, cls.switch_to_deploy):
            with pytest.raises(FoldingError, match=rf'{cls.__name__} in training mode.*call .eval\(\) first'):
                fold(tiny(cls).train())

    def test_frozen_stays_frozen(self, cls):
        model = reparameterize(tiny(cls, frozen_stages=0).eval())
        frozen = {id(p) for m in model.stage_modules(0) for p in m.parameters()}
        assert all(p.requires_grad == (id(p) not in frozen) for p in model.parameters())

    @pytest.mark.parametrize(
        'dtype, bound', [(torch.bfloat16, 0.1), pytest.param(torch.float16, 0.02, marks=needs_half)]
    )
    def test_half_precision_stays_close(self, cls, dtype, bound):
        model = tiny(cls).eval()
        x = torch.randn(1, 3, 64, 64)
        folded = reparameterize(model).to(dtype)
        assert relative_difference(outputs(folded, x.to(dtype)), outputs(model, x)) < bound


@pytest.mark.parametrize('cls', ISOTROPIC)
def test_resized_after_folding(cls):
    folded = reparameterize(tiny(cls).eval())
    resized = tiny(cls, img_size=96, token_mixing='resize', deploy=True).eval()
    resized.load_state_dict(folded.state_dict())
    trained = tiny(cls, img_size=96, token_mixing='resize').eval()
    trained.load_state_dict(tiny(cls).state_dict())
    x = torch.randn(1, 3, 96, 96)
    assert relative_difference(outputs(resized, x), outputs(trained, x)) < 1e-5


@pytest.mark.parametrize('every', [1, 3])
@pytest.mark.parametrize('cls', ISOTROPIC)
def test_scales_of_zero(cls, every):
    model = tiny(cls).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(('alpha', 'gate.norm.weight')):
                parameter.view(-1)[::every] = 0
    x = torch.randn(1, 3, 64, 64)
    folded = reparameterize(model)
    assert relative_difference(outputs(folded, x), outputs(model, x)) < 1e-5
    assert relative_difference(outputs(folded.bfloat16(), x.bfloat16()), outputs(model, x)) < 0.1


def test_a_norm_without_weights_or_statistics():
    x = torch.randn(1, 3, 64, 64)
    for norm_cfg, left in [(dict(type='BN', affine=False), False), (dict(type='BN', track_running_stats=False), True)]:
        model = ConvMLP(**TINY[ConvMLP], norm_cfg=norm_cfg).eval()
        folded = reparameterize(model)
        assert any(isinstance(m, _BatchNorm) for m in folded.modules()) == left
        assert relative_difference(outputs(folded, x), outputs(model, x)) < 1e-5
    with pytest.raises(ValueError, match='with running statistics'):
        tiny(RepMLP, norm_cfg=dict(type='BN', track_running_stats=False))


def test_after_mmcv_has_fused():
    from mmcv.cnn import fuse_conv_bn

    x = torch.randn(1, 3, 64, 96)
    for cls in (ConvMLP, RepMLP):
        model = tiny(cls).eval()
        folded = reparameterize(fuse_conv_bn(copy.deepcopy(model)))
        assert relative_difference(outputs(folded, x), outputs(model, x)) < 1e-5


def test_folded_without_gradients_it_can_still_be_loaded_into():
    with torch.inference_mode():
        folded = reparameterize(tiny(ResMLP).eval())
    folded.load_state_dict(reparameterize(tiny(ResMLP, seed=1).eval()).state_dict())
    assert not any(m.training for m in folded.modules())


def test_forms_of_the_neck_do_not_mix():
    neck = SimpleFeaturePyramid(16).eval()
    folded = copy.deepcopy(neck)
    folded.switch_to_deploy()
    assert not any(isinstance(m, _BatchNorm) for m in folded.modules())
    with pytest.raises(RuntimeError, match='in deploy form, this neck is in training form: build it with deploy=True'):
        neck.load_state_dict(folded.state_dict())
    with pytest.raises(RuntimeError, match='in training form, this neck is in deploy form: build it with deploy=False'):
        folded.load_state_dict(neck.state_dict(), strict=False)
    SimpleFeaturePyramid(16, deploy=True).load_state_dict(folded.state_dict())
    folded.load_state_dict({'scales.0.0.weight': folded.scales[0][0].weight}, strict=False)  # a part has no form
    with pytest.raises(RuntimeError, match=r'training mode.*call .eval\(\) first'):
        SimpleFeaturePyramid(16).switch_to_deploy()


class TestWhatCannotBeFolded:
    """A layer that computes something else than its weights say is refused by its name, and nothing is changed."""

    # A layer that is folded, in each family.
    LAYERS = {
        ConvMLP: 'stages.1.blocks.0.channel_mlp1.fc1',
        ResMLP: 'blocks.2.mlp_channels.fc2',
        GMLP: 'blocks.2.mlp_channels.fc1',
        RepMLP: 'stages.1.0.ffn_block.ffn_fc1.conv',
    }

    @staticmethod
    def replace(model, name, layer):
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, layer)

    def refused(self, model, words):
        before = copy.deepcopy(model.state_dict())
        for fold in (lambda: reparameterize(model, inplace=True), model.switch_to_deploy):
            with pytest.raises(FoldingError, match=words + '.*Merge adapters .* remove parametrizations'):
                fold()
        assert not model.deploy and model.state_dict().keys() == before.keys()
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    @pytest.mark.parametrize('cls', FAMILIES)
    @pytest.mark.parametrize('norm', [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
    @pytest.mark.filterwarnings('ignore:.*weight_norm.* is deprecated')
    def test_weight_norm(self, cls, norm):
        model = tiny(cls).eval()
        norm(model.get_submodule(self.LAYERS[cls]))
        self.refused(model, re.escape(self.LAYERS[cls]))

    @pytest.mark.parametrize('cls', [ConvMLP, ResMLP, GMLP])
    def test_a_subclass_of_linear(self, cls):
        class LoRA(nn.Linear):
            def forward(self, x):
                return super().forward(x) + x @ self.update.T

        model = tiny(cls).eval()
        plain = model.get_submodule(self.LAYERS[cls])
        layer = LoRA(plain.in_features, plain.out_features)
        layer.load_state_dict(plain.state_dict())
        layer.update = nn.Parameter(torch.ones_like(plain.weight))
        self.replace(model, self.LAYERS[cls], layer)
        self.refused(model, rf'{re.escape(self.LAYERS[cls])} is a .*LoRA')

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_a_wrapper(self, cls):
        model = tiny(cls).eval()
        name = self.LAYERS[cls]
        self.replace(model, name, nn.Sequential(model.get_submodule(name)))
        self.refused(model, rf'{re.escape(name)} is a torch.nn.modules.container.Sequential')

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_hooks_and_forwards(self, cls):
        model = tiny(cls).eval()
        layer = model.get_submodule(self.LAYERS[cls])
        handle = layer.register_forward_hook(lambda module, inputs, output: output * 2)
        self.refused(model, rf'{re.escape(self.LAYERS[cls])} \(\w+\) has hooks or a forward of its own')
        handle.remove()
        layer.forward = lambda x: type(layer).forward(layer, x) * 2
        self.refused(model, rf'{re.escape(self.LAYERS[cls])} \(\w+\) has hooks or a forward of its own')
        del layer.forward
        assert reparameterize(model).deploy

    def test_in_the_neck_of_a_model(self):
        model = nn.Module()
        model.backbone, model.neck = tiny(ResMLP).eval(), SimpleFeaturePyramid(16).eval()
        model.neck.scales[0][-2].register_forward_pre_hook(lambda module, inputs: None)
        with pytest.raises(FoldingError, match=r'cannot fold: scales\.0\.\d+ \(Conv2d\) has hooks'):
            reparameterize(model.eval())

    def test_a_layer_that_is_not_folded_may_be_anything(self):
        model = tiny(ConvMLP).eval()
        model.stages[0].blocks[0].connect = nn.Sequential(model.stages[0].blocks[0].connect)
        x = torch.randn(1, 3, 64, 64)
        assert relative_difference(outputs(reparameterize(model), x), outputs(model, x)) < 1e-5

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_what_only_the_comparison_shows(self, cls):
        model = tiny(cls).eval()
        first, other = (model.get_submodule(n) for n in self.shared(model, self.LAYERS[cls]))
        other.weight = first.weight  # one tensor in two layers: folding the one changes the other
        with pytest.raises(FoldingError, match=rf'the folded {cls.__name__} differs by .* of its largest output'):
            reparameterize(model)
        assert reparameterize(model, check=False).deploy

    @staticmethod
    def shared(model, name):
        """Two layers of one shape, of which the first is folded."""
        shape = model.get_submodule(name).weight.shape
        leaf = name.rpartition('.')[2]
        same = [
            n for n, m in model.named_modules() if n.endswith(f'.{leaf}') and getattr(m, 'weight', None) is not None
        ]
        return [n for n in same if model.get_submodule(n).weight.shape == shape][:2]

    def test_no_random_number_is_drawn(self):
        model = tiny(ConvMLP).eval()
        before = torch.get_rng_state()
        reparameterize(model)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_the_original_deploy_form_of_repmlp():
    """Its checkpoints keep BatchNorms; they are folded as tensors, and the backbone they are loaded into is not."""
    _, checkpoint, _ = load('repmlpnet_t224_deploy')
    # The parameters of the original's deploy form, as counted with its code.
    assert sum(v.numel() for k, v in checkpoint.items() if 'running' not in k and 'tracked' not in k) == 38_331_720
    model = RepMLP('t224', deploy=True, final_norm=True).eval()
    modules = dict(model.named_modules())
    model.load_state_dict({k: v for k, v in checkpoint.items() if not k.startswith('head.')})
    assert dict(model.named_modules()) == modules
    left = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    assert all(name.endswith('.prebn1') or name == 'head_norm' for name in left)
    embedding = 'conv_embedding.conv.weight'
    scale = checkpoint['conv_embedding.bn.weight'] / (checkpoint['conv_embedding.bn.running_var'] + 1e-5).sqrt()
    torch.testing.assert_close(model.state_dict()[embedding], checkpoint[embedding] * scale.view(-1, 1, 1, 1))
    # A part of such a file, as of any other.
    part = {k: v for k, v in checkpoint.items() if k.startswith('stages.1.0.')}
    other = RepMLP('t224', deploy=True)
    assert other.load_state_dict(part, strict=False).unexpected_keys == []
    assert all(torch.equal(v, model.stages[1][0].state_dict()[k]) for k, v in other.stages[1][0].state_dict().items())


def test_group_norm_stays():
    model = tiny(ConvMLP, norm_cfg=dict(type='GN', num_groups=2)).eval()
    x = torch.randn(1, 3, 64, 64)
    folded = reparameterize(model)
    with pytest.raises(RuntimeError, match='Missing key.* "stages.0.blocks.0.norm1.weight"'):
        copy.deepcopy(model).load_state_dict(folded.state_dict())
    assert any(isinstance(m, nn.GroupNorm) for m in folded.modules())
    assert relative_difference(outputs(folded, x), outputs(model, x)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [
        'classification/convmlp_s_shapes.py',
        'detection/retinanet_gmlp_p8_sfp_shapes.py',
        'detection/maskrcnn_repmlp_t224_fpn_shapes.py',
        'segmentation/sfp_resmlp_p8_shapes.py',
    ],
)
def test_models_of_the_hosts(config):
    model = randomise(build_model(Config.fromfile(CONFIGS / config)))
    x = torch.randn(1, 3, 128, 192)
    folded = reparameterize(model)
    assert folded.backbone.deploy and not model.backbone.deploy
    assert relative_difference(outputs(folded, x), outputs(model, x)) < 1e-5
    if isinstance(folded.neck, SimpleFeaturePyramid):
        assert not any(isinstance(m, _BatchNorm) for m in folded.neck.modules())


def test_a_model_without_our_backbones():
    with pytest.raises(ValueError, match='Sequential holds no backbone of mlp_backbones.*nothing to fold'):
        reparameterize(nn.Sequential(nn.Linear(2, 2)).eval())


def test_relative_difference():
    a = [torch.tensor([1.0, 4.0]), (torch.tensor([0.0]),)]
    assert relative_difference(a, a) == 0
    for bad in (float('nan'), float('inf')):
        assert relative_difference(torch.tensor([bad]), torch.tensor([bad])) == float('inf')
    assert relative_difference([torch.tensor([1.0, 4.4]), (torch.tensor([0.0]),)], a) == pytest.approx(0.1)
    assert relative_difference(torch.tensor([float('nan')]), torch.tensor([1.0])) == float('inf')
    with pytest.raises(ValueError, match=r'outputs of shapes \[\(1,\)\], expected \[\(2,\)\]'):
        relative_difference(torch.zeros(1), torch.zeros(2))


def test_parse_size():
    assert parse_size('224') == (224, 224) and parse_size('800x1216') == (800, 1216)
    for bad in ('', '0', '224x', '1x2x3', '-1', 'big'):
        with pytest.raises(ValueError, match='a size is a number or HEIGHTxWIDTH'):
            parse_size(bad)


CLASSES = dict(classes=('cat', 'dog', 'emu'), palette=np.arange(9).reshape(3, 3))


def written(tmp_path, task='classification', family=ConvMLP, **meta):
    """A config of a small model, and a checkpoint of it."""
    cfg = small(WHOLE[task], family)
    cfg.dump(tmp_path / 'small.py')
    model = randomise(build_model(cfg))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), tmp_path / 'small.pth')
    return tmp_path / 'small.py', tmp_path / 'small.pth', model


class TestReparameterizeTool:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        'task, name',
        [('classification', 'folded.pth'), ('detection', 'folded.safetensors'), ('segmentation', 'folded.pth')],
    )
    def test_writes_checkpoint_and_config(self, run_script, tmp_path, shapes, task, name):
        config, checkpoint, model = written(tmp_path, task, dataset_meta=CLASSES)
        image = next((shapes / 'coco/val2017').iterdir())
        out = tmp_path / name
        code, said = run_script('reparameterize.py', config, checkpoint, out, '--images', image, '--size', '64x96')
        assert code == 0, said
        assert 'random input of 64x96: largest difference' in said and f'{image}: largest difference' in said
        built = build_model(Config.fromfile(out.with_suffix('.py')), out, strict=True)
        assert built.backbone.deploy
        if out.suffix == '.pth':  # .safetensors holds tensors alone
            about = load_model(Config.fromfile(out.with_suffix('.py')), out)[1]
            if task == 'classification':  # of as many classes
                assert about['classes'] == CLASSES['classes'] and about['palette'][1] == (3, 4, 5)
        x = torch.randn(1, 3, 96, 64)
        assert relative_difference(outputs(built, x), outputs(model, x)) < 1e-5
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, 'folded.py', 'small.pth', 'small.py'])

    @pytest.mark.slow
    def test_refusals(self, run_script, tmp_path):
        config, checkpoint, model = written(tmp_path)
        (tmp_path / 'there.py').write_text('mine')
        folded = tmp_path / 'folded.pth'
        torch.save(reparameterize(model).state_dict(), folded)
        before = sorted(tmp_path.iterdir())
        for args, words in [
            ((config, checkpoint, tmp_path / 'x.onnx'), 'must end in .pth or .safetensors'),
            ((config, checkpoint, tmp_path / 'no/x.pth'), 'does not exist: '),
            ((config, checkpoint, tmp_path / 'there.pth'), 'there.py already exists; --force replaces it'),
            ((config, checkpoint, tmp_path / 'small.pth', '--force'), 'small.pth is what is read'),
            ((config, folded, config.with_suffix('.pth'), '--force'), 'small.py is what is read'),
            ((config, folded, tmp_path / 'x.pth'), 'in deploy form, this backbone is in training form'),
            ((config, tmp_path / 'lost.pth', tmp_path / 'x.pth'), 'lost.pth does not exist'),
            ((tmp_path / 'lost.py', checkpoint, tmp_path / 'x.pth'), 'lost.py does not exist'),
            ((config, checkpoint, tmp_path / 'x.pth', '--images', 'lost.jpg'), 'lost.jpg: does not exist'),
            (
                (tmp_path / 'lost.py', checkpoint, tmp_path / 'x.pth', '--size', 'big'),
                'a size is a number or HEIGHTxWIDTH',
            ),
        ]:
            code, said = run_script('reparameterize.py', *args)
            assert code == 1 and words in said and 'Traceback' not in said, (args, said)
        assert sorted(tmp_path.iterdir()) == before and (tmp_path / 'there.py').read_text() == 'mine'

    def test_weights_of_a_part_are_refused(self, run_script, tmp_path):
        config, checkpoint, _ = written(tmp_path)
        state = read_checkpoint(checkpoint)['state_dict']
        torch.save({k: v for k, v in state.items() if not k.startswith('head.')}, checkpoint)
        code, said = run_script('reparameterize.py', config, checkpoint, tmp_path / 'x.pth')
        assert code == 1 and 'does not fill the model' in said and 'head.fc.weight' in said
        assert not (tmp_path / 'x.pth').exists()


needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(n) for n in ('onnx', 'onnxscript', 'onnxruntime')), reason='needs onnx'
)


def test_export_refuses_an_older_torch(run_script, tmp_path, monkeypatch):
    if hasattr(torch.export, 'Dim'):
        monkeypatch.delattr(torch.export, 'Dim')
    config, checkpoint, _ = written(tmp_path)
    code, said = run_script('export.py', config, checkpoint, tmp_path / 'x.pt2')
    assert code == 1 and f'export needs torch 2.6 or later, this is {torch.__version__}' in said
    assert not (tmp_path / 'x.pt2').exists()


@pytest.mark.skipif(not hasattr(getattr(torch.export, 'Dim', None), 'AUTO'), reason='needs torch 2.6')
class TestExportTool:
    @pytest.mark.slow
    @pytest.mark.parametrize('suffix', ['pt2', pytest.param('onnx', marks=needs_onnx)])
    @pytest.mark.parametrize('family', FAMILIES)
    def test_classifiers(self, run_script, tmp_path, family, suffix):
        config, checkpoint, _ = written(tmp_path, family=family)
        code, said = run_script('export.py', config, checkpoint, tmp_path / f'x.{suffix}', '--raw', '--size', 64)
        assert code == 0, said
        assert 'dynamic batch, height and width' in said
        assert said.count('largest difference') == 3
        assert (tmp_path / f'x.{suffix}').is_file()

    @pytest.mark.slow
    @pytest.mark.parametrize('suffix', ['pt2', pytest.param('onnx', marks=needs_onnx)])
    @pytest.mark.parametrize('task', ['detection', 'instances', 'segmentation'])
    def test_models_of_the_hosts(self, run_script, tmp_path, task, suffix):
        config, checkpoint, _ = written(tmp_path, task)
        out = tmp_path / f'x.{suffix}'
        code, said = run_script('export.py', config, checkpoint, out, '--raw')
        assert code == 0 and 'written' in said, said
        if suffix == 'pt2':
            files = {'mlp_backbones.json': ''}
            torch.export.load(out, extra_files=files)
            about = json.loads(files['mlp_backbones.json'])
        else:
            (about,) = (json.loads(item.value) for item in importlib.import_module('onnx').load(out).metadata_props)
            with pytest.raises(ValueError, match='x.onnx has raw outputs: export it without --raw'):
                Runtime(out)
        assert about['raw'] and {'circle', 'square', 'triangle'} <= set(about['classes'])
        if task != 'segmentation':
            assert [len(level) for level in about['anchors']] == [9 if task == 'detection' else 3] * 5
            assert about['strides'][0] == [8, 8] if task == 'detection' else [4, 4]

    @pytest.mark.slow
    def test_backbone_without_folding(self, run_script, tmp_path):
        config, checkpoint, model = written(tmp_path, 'detection')
        out = tmp_path / 'x.pt2'
        code, said = run_script('export.py', config, checkpoint, out, '--backbone-only', '--no-fold', '--static')
        assert code == 0 and 'height and width are fixed: --static' in said
        x = torch.randn(4, 3, 224, 224)
        answers = torch.export.load(out).module()(x)
        assert relative_difference(answers, outputs(model.backbone, x)) < 1e-5 and len(answers) == 4

    @pytest.mark.slow
    def test_refusals(self, run_script, tmp_path, monkeypatch):
        config, checkpoint, _ = written(tmp_path, family=ResMLP)
        (tmp_path / 'there.pt2').write_text('mine')
        (tmp_path / 'weights.bin').write_text('mine')
        torch.save({}, tmp_path / 'empty.pth')
        torch.save(torch.rand(3), tmp_path / 'tensor.pth')
        before = sorted(tmp_path.iterdir())
        fixed = tmp_path / 'fixed.py'
        for args, words in [
            ((config, checkpoint, tmp_path / 'x.pth'), 'must end in .onnx, .xml, .pt2, got'),
            ((config, checkpoint, tmp_path / 'x.xml', '--raw'), '--raw writes .onnx or .pt2'),
            ((config, checkpoint, tmp_path / 'x.onnx', '--size', '64'), '--size and --static are for --raw'),
            ((config, checkpoint, tmp_path / 'no/x.pt2'), 'does not exist: '),
            ((config, tmp_path / 'empty.pth', tmp_path / 'x.pt2'), 'empty.pth is not a checkpoint'),
            ((config, tmp_path / 'tensor.pth', tmp_path / 'x.pt2'), 'tensor.pth is not a checkpoint'),
            ((config, checkpoint, tmp_path / 'there.pt2'), 'already exists; --force replaces it'),
            ((config, checkpoint, tmp_path / 'weights.xml'), 'weights.bin already exists; --force replaces it'),
            ((config, checkpoint, tmp_path / 'x.pt2', '--raw', '--scores'), '--scores is for whole models'),
            ((config, checkpoint, tmp_path / 'x.pt2', '--scores'), '--scores is for segmentors, and'),
            ((config, checkpoint, tmp_path / 'x.pt2', '--opset', '18'), '--opset is for .onnx and .xml files'),
            (
                (tmp_path / 'lost.py', checkpoint, tmp_path / 'x.pt2', '--raw', '--size', 'abc'),
                'a size is a number or HEIGHTxWIDTH',
            ),
            ((config, checkpoint, tmp_path / 'x.pt2', '--raw', '--size', '16'), 'at least 32x32 pixels, got 16x16'),
        ]:
            code, said = run_script('export.py', *args)
            assert code == 1 and words in said and 'Traceback' not in said, (args, said)
        fixed.write_text(f"_base_ = {str(config)!r}\nmodel = dict(backbone=dict(token_mixing='fixed'))\n")
        code, said = run_script('export.py', fixed, checkpoint, tmp_path / 'x.pt2', '--raw', '--size', '128')
        assert code == 1 and "token_mixing='fixed'" in said
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, 'find_spec', lambda n, *a: None if n == 'onnxruntime' else find(n, *a))
        code, said = run_script('export.py', config, checkpoint, tmp_path / 'x.onnx')
        assert code == 1 and 'export to .onnx needs onnxruntime: pip install onnxruntime' in said
        fixed.unlink()
        assert sorted(tmp_path.iterdir()) == before and (tmp_path / 'there.pt2').read_text() == 'mine'
