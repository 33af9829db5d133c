"""Nothing in a file or an argument runs, crashes, hangs or fills the memory; `python tests/hostile` tries more."""

import gc
import io
import os
import pickle
import struct
import tracemalloc
import weakref
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES, TINY, tiny
from hostile.attacks import array, attacks, doubled, name_of, number, several, storage, tensor, text
from hostile.checkpoints import Checkpoints
from hostile.mutations import pack, whole
from hostile.workers import run
from mmengine.logging import MessageHub

from mlp_backbones import ConvMLP, RepMLP, ResMLP, SimpleFeaturePyramid
from mlp_backbones.checkpoints import CheckpointError, convert, read_checkpoint, state_dict_of, write_checkpoint
from mlp_backbones.checkpoints.pickles import SafeUnpickler

CASES = int(os.environ.get('FUZZ_CASES', 0))


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='memory is measured as Linux does it')
@pytest.mark.parametrize(
    ('kind', 'count'),
    [('checkpoints', max(120, CASES)), ('arguments', max(200, CASES // 2))],
)
def test_hostile_inputs(kind, count):
    """The first of those of ``python tests/hostile``; ``FUZZ_CASES`` asks for more."""
    outcomes, failures, _ = run(kind, range(count), say=False)
    assert not failures
    assert sum(outcomes.values()) == count
    assert len(outcomes) >= 2 and 'refused' in outcomes  # some are good enough to be read, built or run


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='memory is measured as Linux does it')
@pytest.mark.parametrize('attack', ['os.system', 'builtins.eval', 'getattr chain'])
def test_a_reader_that_runs_what_it_reads_is_found_out(attack, tmp_path, monkeypatch):
    """Else a run without failures says nothing."""

    class Unsafe(Checkpoints):
        def __init__(self):
            self.folder, self.canary, self.models, self.before = tmp_path, tmp_path / 'canary', {}, self.attributes()

        def make(self, case):
            (tmp_path / 'x.pth').write_bytes(b'\x80\x02' + attacks(self.canary)[attack] + b'.')
            return attack, tmp_path / 'x.pth'

    monkeypatch.setattr('mlp_backbones.checkpoints.read_checkpoint', lambda path: pickle.loads(path.read_bytes()))
    assert Unsafe().attempt(0)['failure'] == 'what is in the file was run'


def old(program):
    """A file of torch before 1.6 with a program of one's own."""
    heads = [pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True})]
    tail = pickle.dumps(['0'], 2) + struct.pack('<q', 4) + bytes(16)
    return b''.join(heads) + program + tail


FORMS = {
    'zip.pth': lambda program: pack([('a/data.pkl', program), ('a/data/0', bytes(16))]),
    'old.pth': old,
    'x.pdparams': lambda program: program,
}


@pytest.mark.parametrize('form', [pytest.param('zip.pth', marks=pytest.mark.slow), 'old.pth', 'x.pdparams'])
def test_no_attack_runs(form, tmp_path):
    """Each is refused, or makes nothing but containers and numbers."""
    canary, path = tmp_path / 'canary', tmp_path / form
    kept = {owner: set(vars(owner)) for owner in (torch, torch.Tensor, torch._utils._rebuild_tensor_v2, SafeUnpickler)}
    for name, attack in attacks(canary).items():
        if name in ('nested lists', 'many empty dicts', 'nested tuples', 'a deep key'):  # a second each
            continue
        path.write_bytes(FORMS[form](b'\x80\x02}' + text('a') + attack + b's.'))
        try:
            made = read_checkpoint(path)['a']
        except (CheckpointError, KeyError):  # an array that cannot be made is no entry
            made = None
        assert not canary.exists(), name
        assert (
            made is None
            or isinstance(made, (int, str, tuple, list, dict, torch.Tensor))
            or 'mlp_backbones' in str(type(made))
        ), name
    assert all(set(vars(owner)) == names for owner, names in kept.items())


class TestReader:
    """What the readers before this one let pass."""

    @pytest.mark.parametrize(
        ('program', 'message'),
        [
            (b'}' + doubled(60) + number(1) + b's', 'a dict with a key of type tuple'),  # hashed for ever
            (number(1) + b'r' + struct.pack('<I', 2**31 - 1), None),  # 32 GiB for the memo
            (name_of('torch', 'Tensor') + several(number(2**40)) + b'R', 'asks for torch.Tensor, which'),
            (tensor() + several(b'N', b'}' + text('x') + number(1) + b's') + b'b', 'sets attributes of a Tensor'),
            (name_of('torch', 'Size') + b'}' + text('x') + number(1) + b's' + b'b', 'sets attributes of a function'),
            (tensor(storage_=storage(kind='QInt8Storage')), 'asks for torch.QInt8Storage, which'),
            (tensor((2**20, 2**20), (0, 0)), 'more memory than the file is large'),
            (tensor((2**40,), (1,)), 'is not a checkpoint'),
            (tensor(storage_=storage(count=2**40)), None),
            (tensor((-2, 2)), 'a tensor of an impossible shape'),
            (
                b'\x8a\xff' + b'\x7f' * 255 + b'0' + b'}' + b'\x8a\xff' + b'\x7f' * 255 + number(1) + b's',
                'a dict with a key of type int',
            ),
            (b'\x82\x01', 'an operation that no checkpoint needs'),
        ],
    )
    @pytest.mark.parametrize('form', ['zip.pth', 'old.pth'])
    def test_refused(self, form, program, message, tmp_path):
        (tmp_path / form).write_bytes(FORMS[form](b'\x80\x02}' + text('a') + program + b's.'))
        if message:
            with pytest.raises(CheckpointError, match=message):
                read_checkpoint(tmp_path / form)
            return
        try:
            assert set(read_checkpoint(tmp_path / form)) == {'a'}
        except CheckpointError as error:
            assert 'fewer numbers' in str(error) or 'its storages' in str(error)

    def test_one_array_under_many_names(self, tmp_path):
        many = b''.join(text(str(i)) + b'h\xfe' for i in range(3_000))
        program = array('f4', (25_000,), bytes(100_000)) + b'q\xfe0}(' + many + b'u.'
        (tmp_path / 'x.pdparams').write_bytes(b'\x80\x02' + program)
        with pytest.raises(CheckpointError, match='more memory than the file is large'):
            read_checkpoint(tmp_path / 'x.pdparams')

    def test_one_tensor_made_again_and_again(self, tmp_path):
        made = tensor().removesuffix(b'R')
        name, arguments = made[: made.index(b'(')], made[made.index(b'(') :]
        program = name + b'q\x01' + arguments + b'q\x0200(' + 20_000 * b'h\x01h\x02R' + b't.'
        (tmp_path / 'x.pth').write_bytes(FORMS['zip.pth'](b'\x80\x02' + program))
        with pytest.raises(CheckpointError, match='more memory than the file is large'):
            read_checkpoint(tmp_path / 'x.pth')

    def test_a_bytearray_that_is_not_there_takes_no_memory(self, tmp_path):
        (tmp_path / 'x.pdparams').write_bytes(b'\x80\x05\x96' + struct.pack('<Q', 2**26))
        tracemalloc.start()
        with pytest.raises(CheckpointError, match='is not a checkpoint, or is truncated: EOFError'):
            read_checkpoint(tmp_path / 'x.pdparams')
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20

    @pytest.mark.parametrize('form', ['zip.pth', 'old.pth'])
    def test_what_was_read_is_freed_without_the_garbage_collector(self, form, tmp_path):
        torch.save({'a': torch.ones(3)}, tmp_path / form, _use_new_zipfile_serialization=form == 'zip.pth')
        gc.collect()
        gc.disable()
        try:
            made = weakref.ref(read_checkpoint(tmp_path / form)['a'])
            assert made() is None
        finally:
            gc.enable()

    def test_tied_weights_stay_tied(self, tmp_path):
        weight = torch.randn(100, 100)
        torch.save({str(i): weight[i] for i in range(100)} | {'whole': weight}, tmp_path / 'x.pth')
        read = read_checkpoint(tmp_path / 'x.pth')
        assert torch.equal(read['whole'][7], read['7'])
        assert read['7'].untyped_storage().data_ptr() == read['whole'].untyped_storage().data_ptr()

    @pytest.mark.parametrize('new', [True, False])
    def test_everything_that_torch_saves(self, new, tmp_path):
        dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
        content = {str(dtype): torch.randn(3, 4).to(dtype) for dtype in dtypes}
        content |= {'view': torch.randn(4, 6)[1:, ::2].T, 'scalar': torch.tensor(2.5), 'empty': torch.empty(0, 3)}
        content |= {'parameter': torch.nn.Parameter(torch.randn(2)), 'size': torch.Size([2, 3]), 'dtype': torch.float16}
        content |= {'ordered': OrderedDict(a=[1, (2.5, None)], b={3: b'x'}), 'set': {1}, 'counter': Counter([8, 11])}
        torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=new)
        read = read_checkpoint(tmp_path / 'x.pth')
        assert read.keys() == content.keys()
        for key, value in content.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(read[key], value) and read[key].dtype == value.dtype, key
                assert read[key].stride() == value.stride(), key
        assert (read['ordered'], read['size'], read['dtype']) == (dict(content['ordered']), (2, 3), torch.float16)
        assert (read['set'], read['counter']) == ([1], {8: 1, 11: 1})

    def test_training_checkpoints_with_a_step_schedule(self, tmp_path):
        hub = MessageHub('steps')
        hub.update_scalar('train/loss', np.float64(0.5))
        content = dict(state_dict={'a': torch.ones(2)}, message_hub=hub.state_dict())
        content['param_schedulers'] = [dict(milestones=Counter([8, 11]))]
        torch.save(content, tmp_path / 'x.pth')
        assert torch.equal(state_dict_of(read_checkpoint(tmp_path / 'x.pth'))['a'], torch.ones(2))

    def test_flipped_weights_are_seen(self, tmp_path):
        content = bytearray(whole({'a': torch.zeros(1000)}))
        content[content.index(bytes(1000)) + 500] = 1
        (tmp_path / 'x.pth').write_bytes(content)
        with pytest.raises(CheckpointError, match='x.pth is not a checkpoint, or is truncated: BadZipFile: Bad CRC-32'):
            read_checkpoint(tmp_path / 'x.pth')

    def test_compressed_archives_are_refused(self, tmp_path):
        with zipfile.ZipFile(io.BytesIO(whole({'a': torch.zeros(1 << 20)}))) as archive:
            entries = [(name, archive.read(name)) for name in archive.namelist()]
        (tmp_path / 'x.pth').write_bytes(pack(entries, compress=True))
        with pytest.raises(CheckpointError, match='x.pth was refused: it is compressed'):
            read_checkpoint(tmp_path / 'x.pth')

    @pytest.mark.parametrize('name', ['', '\x1b[31m', 'x' * 501, '\ud800'])
    def test_names_that_are_none(self, name):
        with pytest.raises(CheckpointError, match='is not a valid name of a tensor') as raised:
            state_dict_of({'a': torch.ones(1), name + '\n': torch.ones(1)})
        assert len(str(raised.value)) < 200 and str(raised.value).isascii()

    def test_dtypes_that_torch_has_not(self, tmp_path):
        (tmp_path / 'x.pdparams').write_bytes(pickle.dumps({'a': np.ones(2, np.longdouble)}))
        with pytest.raises(CheckpointError, match='x.pdparams is not a checkpoint.*longdouble'):
            read_checkpoint(tmp_path / 'x.pdparams')

    @pytest.mark.parametrize('source', [None, 3, [], {}])
    def test_sources_that_are_no_path(self, source):
        with pytest.raises(TypeError, match='a checkpoint must be a path or a URL'):
            read_checkpoint(source)

    @pytest.mark.parametrize('source', ['x' * 5000, 'a\0b', '', '/'])
    def test_paths_that_are_no_file(self, source):
        problem = 'is a folder' if source == '/' else 'does not exist'
        with pytest.raises(FileNotFoundError, match=f'the checkpoint .*{problem}'):
            read_checkpoint(source)


class TestConversion:
    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_views_and_tied_tensors_are_written(self, suffix, tmp_path):
        large = torch.randn(1000, 100)
        tensors = {'a': large[:2], 'b': large[:2], 'c': large.T[:3]}
        path = write_checkpoint(tensors, tmp_path / f'x{suffix}', {})
        read = state_dict_of(read_checkpoint(path))
        assert all(torch.equal(read[k], v) for k, v in tensors.items())
        assert path.stat().st_size < 20_000

    def test_a_dtype_that_safetensors_has_not(self, tmp_path):
        with pytest.raises(CheckpointError, match='x.safetensors cannot hold these tensors'):
            write_checkpoint({'a': torch.ones(2, dtype=torch.complex128)}, tmp_path / 'x.safetensors', {})
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize('weight', [(), (0, 0), (9,), (3, 3), (9, 9, 1)])
    def test_token_mixing_weights_of_any_shape(self, weight):
        state = tiny(ResMLP).state_dict() | {'blocks.0.linear_tokens.weight': torch.ones(weight)}
        with pytest.raises(CheckpointError, match='linear_tokens'):
            tiny(ResMLP, token_mixing='resize').load_state_dict(state)

    @pytest.mark.parametrize('bias', [(), (0, 0), (8,), (9, 1, 1)])
    def test_token_mixing_biases_of_any_shape(self, bias):
        state = tiny(ResMLP).state_dict() | {'blocks.0.linear_tokens.weight': torch.ones(9, 9)}
        state['blocks.0.linear_tokens.bias'] = torch.ones(bias)
        with pytest.raises(CheckpointError, match='linear_tokens'):
            tiny(ResMLP, token_mixing='resize').load_state_dict(state)

    @pytest.mark.parametrize('part', ['²', '٣', '99', '-1', ''])
    @pytest.mark.parametrize('cls', FAMILIES)
    def test_blocks_by_odd_numbers(self, cls, part):
        state = tiny(cls).state_dict()
        name = next(k for k in state if k.startswith(('blocks.0', 'stages.0')))
        state[name.replace('.0', f'.{part}', 1)] = state.pop(name)
        with pytest.raises(CheckpointError, match=f'does not fill this {cls.__name__}'):
            tiny(cls).fit(state, 'x')

    def test_families_are_not_guessed_from_scraps(self):
        with pytest.raises(CheckpointError, match='these are not weights'):
            convert({'a': torch.ones(1)})


class TestArguments:
    @pytest.mark.parametrize(
        ('cls', 'kwargs', 'error', 'message'),
        [
            (ResMLP, dict(cross_window='False'), TypeError, "cross_window must be True or False, got 'False'"),
            (ResMLP, dict(norm_eval=None), TypeError, 'norm_eval must be True or False'),
            (ConvMLP, dict(deploy=1), TypeError, 'deploy must be True or False'),
            (ResMLP, dict(token_mixing=['window']), ValueError, r"no token_mixing \['window'\]; choose from"),
            (ResMLP, dict(img_size=2**40), ValueError, 'img_size must be up to 4096 pixels'),
            (ResMLP, dict(out_indices=range(10**9)), ValueError, 'out_indices must name at least one stage'),
            (ConvMLP, dict(in_channels=2**40), ValueError, 'in_channels must be a positive int up to 65536'),
            (ConvMLP, dict(norm_cfg=dict(type=[])), ValueError, 'norm_cfg must be a dict whose type is one of'),
            (
                ConvMLP,
                dict(norm_cfg=dict(type='BN', bogus=1)),
                ValueError,
                "norm_cfg .*'bogus'.* does not fit 4 channels",
            ),
            (ConvMLP, dict(norm_cfg=dict(type='GN', num_groups=0)), ValueError, 'norm_cfg .* does not fit 4 channels'),
            (SimpleFeaturePyramid, dict(in_channels='16'), ValueError, 'in_channels must be a positive int'),
            (SimpleFeaturePyramid, dict(in_channels=16, in_stride=0), ValueError, 'in_stride must be a positive int'),
            (SimpleFeaturePyramid, dict(in_channels=16, out_channels=None), ValueError, 'out_channels must be'),
            (SimpleFeaturePyramid, dict(in_channels=16, out_strides=(True,)), ValueError, 'out_strides must be'),
        ],
    )
    def test_named(self, cls, kwargs, error, message):
        with pytest.raises(error, match=message):
            cls(**{**TINY.get(cls, {}), **kwargs})

    @pytest.mark.parametrize(
        ('cls', 'changes', 'error', 'message'),
        [
            (ConvMLP, dict(dims='abc'), TypeError, r"arch\['dims'\] must be a sequence of 3"),
            (ConvMLP, dict(dims=(8, None, 24)), ValueError, r"arch\['dims'\]\[1\] must be a positive int, got None"),
            (
                ConvMLP,
                dict(depths=(1, 10**9, 1)),
                ValueError,
                r"arch\['depths'\]\[1\] must be a positive int up to 1024",
            ),
            (ConvMLP, dict(mlp_ratios=(1, float('nan'), 1)), ValueError, r"arch\['mlp_ratios'\]\[1\] must be from 0"),
            (ConvMLP, dict(mlp_ratios=(1, 0, 1)), ValueError, 'mlp_ratio, must be a positive multiple of 1'),
            (ConvMLP, dict(channels=7), ValueError, r"arch\['channels'\] must be even"),
            (ResMLP, dict(patch_size=0), ValueError, r"arch\['patch_size'\] must be a positive int"),
            (ResMLP, dict(layer_scale='x'), TypeError, r"arch\['layer_scale'\] must be a number"),
            (RepMLP, dict(share_sets=(0, 2, 4, 8)), ValueError, r"arch\['share_sets'\]\[0\] must be a positive int"),
            (RepMLP, dict(channels=(2, 16, 16, 32)), ValueError, r"arch\['channels'\] must be from 4 up"),
            (RepMLP, {None: 1}, ValueError, r'unknown \[None\]'),
        ],
    )
    def test_of_an_arch(self, cls, changes, error, message):
        arch = {**TINY[cls]['arch'], **changes}
        with pytest.raises(error, match=message):
            cls(**{**TINY[cls], 'arch': arch})
