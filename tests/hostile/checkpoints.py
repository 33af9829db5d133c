"""Mutated and malicious checkpoint files, given to everything in the package that loads one."""

import collections
import pickle
import random
import struct
import time
import traceback
from pathlib import Path

from .attacks import array, attacks, tensor, text
from .mutations import (
    mutate_archive,
    mutate_bytes,
    mutate_header,
    mutate_old,
    mutate_pickle,
    mutate_tensors,
    pack,
    whole,
)

MEMORY = 64 << 20  # bytes that reading a file may add to the process, beside 16 times the size of the file


def seeds() -> dict[str, bytes]:
    """Small files of every format and dialect that are read as they are."""
    import numpy as np
    import safetensors.torch
    from helpers.families import FAMILIES, TINY, tiny
    from helpers.goldens import FOLDER
    from mmengine.logging import MessageHub

    from mlp_backbones import RepMLP, ResMLP

    states = {cls.__name__: tiny(cls, final_norm=True).state_dict() for cls in FAMILIES}
    files = {f'{name}.pth': whole(state) for name, state in states.items()}
    resmlp = states['ResMLP']
    files['old.pth'] = whole(resmlp, old=True)
    names = {'stem.': 'patch_embed.', '.linear_tokens.': '.attn.', '.mlp_channels.': '.mlp.', '.ls': '.gamma_'}
    deit = {}
    for key, value in resmlp.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        deit[f'module.{key}'] = value
    files['deit.pth'] = whole({'model': deit, 'epoch': 3})
    host = {f'backbone.{k}': v for k, v in states['ConvMLP'].items()}
    hub = MessageHub('hostile')
    hub.update_scalar('train/loss', 0.5)
    hub.update_scalar('train/lr', np.float64(0.1))
    training = dict(meta=dict(epoch=1), state_dict=host, message_hub=hub.state_dict(), optimizer=dict(state={}))
    files['training.pth'], files['oldtraining.pth'] = whole(training), whole(training, old=True)
    deploy = RepMLP(**TINY[RepMLP]).eval()
    deploy.switch_to_deploy()
    files['deploy.pth'] = whole({'state_dict': deploy.state_dict()})
    for cls in FAMILIES:
        files[f'{cls.__name__}.pdparams'] = (FOLDER.parent / 'paddle' / f'{cls.__name__.lower()}.pdparams').read_bytes()
    arrays = {k: v.numpy() for k, v in tiny(ResMLP).state_dict().items()}
    for protocol in (2, 5):
        files[f'protocol{protocol}.pdparams'] = pickle.dumps(arrays, protocol)
    for name in ('ConvMLP', 'ResMLP'):
        files[f'{name}.safetensors'] = safetensors.torch.save(
            {k: v.contiguous() for k, v in states[name].items()}, {'format': 'pt'}
        )
    return files


def malicious(rng: random.Random, canary: Path) -> tuple[str, str, bytes]:
    """What it is, the suffix, and a file around one attack, as a value, as a key or all there is."""
    name, attack = rng.choice(list(attacks(canary).items()))
    weight, bias = text('blocks.0.linear_tokens.weight'), text('blocks.0.linear_tokens.bias')
    root = rng.choice(
        [
            b'}' + weight + attack + b's',
            b'}' + weight + tensor() + b's' + bias + attack + b's',
            b'}' + text('state_dict') + b'}' + weight + attack + b's' + text('a') + array() + b's' + b's',
            b'}' + attack + tensor() + b's',
            attack,
        ]
    )
    program = rng.choice([b'\x80\x02', b'\x80\x04', b'']) + root + b'.'
    form = rng.choice(['zip', 'zip', 'old', 'old', '.pdparams', '.pdparams', 'bare'])
    if form == 'zip':
        entries = [('a/data.pkl', program), ('a/byteorder', b'little'), ('a/data/0', bytes(16)), ('a/version', b'3\n')]
        return name, '.pth', pack(entries)
    if form == 'old':
        heads = [
            pickle.dumps(0x1950A86A20F9469CFC6C, 2),
            pickle.dumps(1001, 2),
            pickle.dumps({'little_endian': True}, 2),
        ]
        return name, '.pth', b''.join(heads) + program + pickle.dumps(['0'], 2) + struct.pack('<q', 4) + bytes(16)
    return name, '.pth' if form == 'bare' else form, program


class Checkpoints:
    """Mutated and malicious files, and everything in the package that loads one."""

    def __init__(self, folder: Path) -> None:
        import torch
        from helpers.families import FAMILIES, tiny
        from mmengine.model import BaseModel

        from mlp_backbones.checkpoints import read_checkpoint, state_dict_of

        class Host(BaseModel):
            def __init__(self, backbone):
                super().__init__()
                self.backbone, self.head = backbone, torch.nn.Module()
                self.head.fc = torch.nn.Linear(4, 3)

            def forward(self):
                """Of no use here."""

        self.folder, self.canary, self.files = folder, folder / 'canary', seeds()
        self.models = {cls.__name__: lambda cls=cls: tiny(cls, final_norm=True) for cls in FAMILIES}
        self.models['resized'] = lambda: tiny(FAMILIES[1], token_mixing='resize', img_size=(96, 64))
        self.models['deploy'] = lambda: tiny(FAMILIES[3], deploy=True)
        self.host = Host
        self.tensors = {}
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
            self.tensors[name] = state_dict_of(read_checkpoint(folder / name), name)
            (folder / name).unlink()
        self.before = self.attributes()

    @staticmethod
    def attributes() -> dict:
        """What a file could have written into the process."""
        import torch

        from mlp_backbones.checkpoints import files, pickles

        owners = [torch, torch.Tensor, torch._utils, torch._utils._rebuild_tensor_v2, torch.Size, collections]
        for module in (files, pickles):
            owners += [module, *(v for v in vars(module).values() if getattr(v, '__module__', '') == module.__name__)]
        return {str(owner): sorted(vars(owner)) for owner in owners if hasattr(owner, '__dict__')}

    def make(self, case: int) -> tuple[str, Path]:
        """What the case is, and its file."""
        rng = random.Random(case)
        dice = rng.random()
        if dice < 0.25:
            suffix = rng.choice(['.pth', '.pth', '.pdparams', '.safetensors'])
            name = rng.choice(list(self.tensors))
            what, content = f'{name} mutate_tensors', mutate_tensors(rng, self.tensors[name], suffix)
        elif dice < 0.45:
            what, suffix, content = malicious(rng, self.canary)
        else:
            name, content = rng.choice(list(self.files.items()))
            suffix = Path(name).suffix
            mutations = [mutate_bytes]
            if suffix == '.safetensors':
                mutations.append(mutate_header)
            elif suffix == '.pdparams':
                mutations.append(mutate_pickle)
            else:
                mutations += [mutate_old if name.startswith('old') else mutate_archive] * 2
            mutation = rng.choice(mutations)
            third = rng.choice(list(self.files.values())) if mutation is mutate_bytes else self.canary
            what, content = f'{name} {mutation.__name__}', mutation(rng, content, third)
        path = self.folder / f'x{suffix}'
        path.write_bytes(content)
        return what, path

    def attempt(self, case: int) -> dict:
        what, path = self.make(case)
        size = path.stat().st_size
        Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from here
        start, began = status('VmRSS'), time.monotonic()
        outcome = self.load(case, path)
        report = dict(what=what, size=size, seconds=time.monotonic() - began, outcome=outcome)
        report['memory'] = status('VmHWM') - start
        if report['memory'] > MEMORY + 16 * size:
            report['failure'] = f'{report["memory"] >> 20} MiB of memory for a file of {size} bytes'
        if self.canary.exists():
            self.canary.unlink() if self.canary.is_file() else self.canary.rmdir()
            report['failure'] = 'what is in the file was run'
        if self.attributes() != self.before:
            report['failure'], self.before = 'the file changed attributes of the process', self.attributes()
        if left := sorted(p.name for p in self.folder.iterdir() if p != path):
            report['failure'] = f'left behind: {left}'
        path.unlink()
        if outcome.startswith('foreign'):
            report['failure'] = outcome
        return report

    def load(self, case: int, path: Path) -> str:
        from mlp_backbones.checkpoints import convert, read_checkpoint, state_dict_of, write_checkpoint
        from mlp_backbones.checkpoints.runs import read_predictions, read_training_checkpoint
        from mlp_backbones.models.backbones.loading import fill_model, fit_model

        for read in (read_training_checkpoint, read_predictions):  # of mmengine's runner, and of a detector's results
            outcome = caught(lambda read=read: read(path))
            if isinstance(outcome, str) and outcome.startswith('foreign'):
                return outcome
        outcome = caught(lambda: state_dict_of(read_checkpoint(path), path))
        if not isinstance(outcome, dict):
            return outcome
        families = sorted(self.models)
        outcomes = []
        converted = caught(lambda: convert(outcome, backbone_only=case % 2 == 0))
        if isinstance(converted, str):
            outcomes.append(converted)
        else:
            families.insert(case % 2, converted.family)
            target = path.with_name('y.pth' if case % 3 else 'y.safetensors')
            outcomes.append(caught(lambda: write_checkpoint(converted.tensors, target, dict(a='b')) and 'written'))
            target.unlink(missing_ok=True)
        strict = case % 5 != 0
        ways = [
            lambda model: model.load_state_dict(dict(outcome), strict) and None,
            lambda model: self.host(model).load_state_dict(dict(outcome), strict) and None,
            lambda model: fit_model(self.host(model), dict(outcome), path) and None,
            lambda model: fill_model(self.host(model), read_checkpoint(path), path) and None,
            lambda model: self.pretrained(model, path),
        ]
        for i, family in enumerate(families[:3]):
            model = self.models[family]()
            way = ways[(case + i) % len(ways)]
            outcomes.append(caught(lambda model=model, way=way: way(model) or 'loaded'))
        return next((o for o in outcomes if o.startswith('foreign')), f'read; {outcomes[-1]}')

    @staticmethod
    def pretrained(model, path: Path) -> None:
        model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
        model.init_weights()


def caught(function):
    """What a function gives, or which error it ended with: 'refused', or 'foreign' for one that is not ours."""
    from mlp_backbones.checkpoints import CheckpointError

    try:
        return function()
    except CheckpointError as error:
        message = str(error)
        if len(message) > 10_000:
            return f'foreign: a message of {len(message)} characters'
        try:
            message.encode()
        except UnicodeEncodeError:
            return 'foreign: a message that cannot be printed'
        return 'refused'
    except BaseException as error:
        if isinstance(error, RuntimeError) and str(error).startswith('Error(s) in loading state_dict'):
            return 'refused'  # by torch, which says what does not fit
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if 'mlp_backbones' in f.filename] or frames
        where = f'{Path(ours[-1].filename).name}:{ours[-1].lineno}'
        return f'foreign: {type(error).__name__}: {str(error)[:200]} (at {where})'


def status(key: str) -> int:
    """A figure of this process, in bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f'{key}:'))
