"""Constructor arguments that have no place there."""

import inspect
import random
import time
import traceback
from pathlib import Path

from .mutations import NUMBERS


def values() -> list:
    """Of every kind that has no place in an argument, and some that have."""
    import numpy as np
    import torch

    endless: list = []
    endless.append(endless)
    return [
        *(None, True, False, *NUMBERS, 3, 10**30, 0.5, -0.5, 1.5, 1e300, float('nan'), float('inf'), -float('inf'), 1j),
        *('', 'small', 'b224', '3', 'False', 'x' * 100_000, '²', '\ud800', b'3', bytearray(3), Ellipsis, object(),
        object, len),
        *((), [], {}, set(), [1], (1, 2, 3), (0, 1, 2, 3), [None], [[3]], ['3'], {1: 2}, {'type': 'BN'}, {3},
        range(3), range(10**9)),
        *(endless, {'a': endless}, [True], [1.5], (2, 2**40), [-1], [0] * 1000, iter([3]), map(int, '3')),
        *(np.int64(3), np.float32(0.5), np.array(3), np.array([1, 2]), np.array([]), np.bool_(True), np.nan),
        *(torch.tensor(3), torch.ones(2), torch.empty(0), torch.float32, torch.device('cpu'), torch.Size([3])),
    ]  # fmt: skip


SPECIAL = {
    'arch': ['ti16', 'S', 'big_24', 'T224', '24', 'L', 'no', 'small '],
    'img_size': [224, (224, 320), 223, (224,), (32, 32, 32), 32, (32, 10**9), 2**40, 10**6, (64.0, 64), 16, 8],
    'out_indices': [-1, (0, 0), (0, -4), (-5,), (4,), 99, -99, (1, 0), [3], (0, 1.0), (True,), (10**30,), 'abc', '0'],
    'frozen_stages': [-2, 4, 3, 0, 1.0, '1', 99],
    'drop_path_rate': [1, 0.999, -1e-9, 0.3, '0.1', [0.1]],
    'token_mixing': ['window', 'resize', 'fixed', 'Window', ('window',), ['window'], {'window': 1}],
    'norm_cfg': [
        dict(), dict(type='GN'), dict(type='GN', num_groups=0), dict(type='GN', num_groups=3), dict(type='GN',
        num_groups=-4),
        dict(type='GN', num_groups='4'), dict(type='GN', num_groups=4), dict(type='BN', eps='x'), dict(type='BN',
        eps=-1),
        dict(type='BN', momentum=None), dict(type='BN', bogus=1), dict(type='BN', num_features=3), dict(type='BN',
        requires_grad='no'),
        dict(type='BN', requires_grad=None), dict(type='LN'), dict(type=None), dict(type=[]), dict(type={}),
        dict(type='SyncBN'),
        dict(type='BN', track_running_stats=False), dict(type='BN', affine=False), dict(type='BN', device='hostile'),
        {1: 2}, {'type': 'BN', 1: 2},
        dict(type='BN', dtype='float'), dict(type='SyncBN', process_group='x'), dict(type='BN', affine='x'),
        [('type', 'BN')],
    ],
    # Of other kinds, mmengine refuses what it cannot use.
    'init_cfg': [
        dict(type='Pretrained', checkpoint=None), dict(type='Pretrained', checkpoint=3),
        dict(type='Pretrained', checkpoint=''), dict(type='Pretrained', checkpoint='no.pth'),
        dict(type='Pretrained', checkpoint='x' * 10_000), dict(type='Pretrained', checkpoint='a\0b'),
        dict(type='Pretrained', checkpoint='http://127.0.0.1:9/x.pth'),
        dict(type='Pretrained', checkpoint='hostile://x'),
    ],
    'out_strides': [(4,), (4, 8), (3,), (8, 4), (0,), (-4,), (4.0, 8), (2**40,), (4, 4), tuple(2**i for i in range(2,
    40)), (1,), (1, 2)],
    'in_stride': [0, -16, 16.0, 12, 1, 2**40],
}  # fmt: skip


SPECIAL.update({name: 10 * [True, False] for name in ('norm_eval', 'with_cp', 'final_norm', 'deploy', 'cross_window')})


class Arguments:
    """Constructor arguments, and pretrained weights that ``init_cfg`` asks for."""

    def __init__(self, folder: Path) -> None:
        from helpers.families import TINY

        from mlp_backbones import SimpleFeaturePyramid

        self.bases = {**TINY, SimpleFeaturePyramid: dict(in_channels=16, out_channels=4)}
        self.before = sorted(p.name for p in Path('.').iterdir())

    def make(self, case: int) -> tuple[type, dict, list[str]]:
        """A class, its arguments, and the names of those that were changed."""
        rng = random.Random(case)
        cls = rng.choice(list(self.bases))
        kwargs = {k: dict(v) if isinstance(v, dict) else v for k, v in self.bases[cls].items()}
        names = [name for base in cls.__mro__[:3] for name in inspect.signature(base).parameters]
        names += [name for name in ('arch', 'out_indices', 'norm_cfg', 'init_cfg') if name in names]
        changed = []
        for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
            name = rng.choice(names)
            if name == 'arch' and rng.random() < 0.8 and isinstance(kwargs['arch'], dict):
                arch = kwargs['arch']
                key = rng.choice(list(arch))
                kind = rng.choice(['drop', 'more', 'value', 'value', 'value', 'item', 'item', 'item', 'length'])
                if kind == 'drop':
                    del arch[key]
                elif kind == 'more':
                    arch[rng.choice(['hostile', 'Depth', '', '²', 3, None, ('a',)])] = rng.choice(values())
                elif kind == 'value':
                    arch[key] = rng.choice([*values(), 1, 2, 5, 63, 100, 1e-9])
                elif isinstance(arch[key], (tuple, list)) and arch[key]:
                    items = list(arch[key])
                    if kind == 'item':
                        items[rng.randrange(len(items))] = rng.choice([*values(), 1, 2, 5, 63, 100])
                    else:
                        items = rng.choice([items[:-1], items + items[:1], [], items * 50])
                    arch[key] = rng.choice([tuple, list])(items)
            elif rng.random() < 0.02:
                kwargs['hostile'] = name = 'hostile'
            else:
                own = 3 * SPECIAL.get(name, [])
                kwargs[name] = rng.choice(own if name == 'init_cfg' else [*values(), *own])
            changed.append(name)
        return cls, kwargs, changed

    def attempt(self, case: int) -> dict:
        cls, kwargs, changed = self.make(case)
        said = {k: f'{v!r:.80}' for k, v in kwargs.items() if k in changed}
        began = time.monotonic()
        report = dict(what=f'{cls.__name__} {said}', outcome=self.outcome(cls, kwargs, changed))
        report['seconds'] = time.monotonic() - began
        if report['outcome'].startswith('foreign'):
            report['failure'] = report['outcome']
        return report

    @staticmethod
    def outcome(cls: type, kwargs: dict, changed: list[str]) -> str:
        import torch

        from mlp_backbones.checkpoints import CheckpointError

        try:
            with torch.device('meta'):
                cls(**kwargs)
        except (TypeError, ValueError) as error:
            return judged(error, changed)
        except BaseException as error:
            return f'foreign: {located(error)}'
        cfgs = kwargs.get('init_cfg')
        cfgs = cfgs if isinstance(cfgs, list) else [cfgs]
        pretrained = any(cfg and cfg.get('type') == 'Pretrained' for cfg in cfgs)
        if not pretrained or set(changed) != {'init_cfg'} or 'arch' not in kwargs:  # a neck's are read by mmengine
            return 'built'
        try:
            cls(**kwargs).init_weights()
        except (CheckpointError, FileNotFoundError):
            return 'built, its weights refused'
        except (TypeError, ValueError) as error:
            return judged(error, changed)
        except BaseException as error:
            return f'foreign: {located(error)}'
        return 'built, its weights initialised'


def judged(error: Exception, changed: list[str]) -> str:
    """A refusal is the package's own when it names what was wrong and is short."""
    message = str(error)
    if 'mlp_backbones' not in located(error) and 'unexpected keyword' not in message:
        return f'foreign: {located(error)}'
    inner = {'arch': 'img_size', 'init_cfg': 'checkpoint'}  # RepMLP's arch has an img_size too
    named = [*changed, *(inner[name] for name in changed if name in inner)]
    if not any(name in message for name in named):
        return f'foreign: names none of {changed}: {located(error)}'
    if len(message) > 2_000:
        return f'foreign: a message of {len(message)} characters'
    return 'refused'


def located(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if 'mlp_backbones' in f.filename]
    through = f', through {Path(ours[-1].filename).name}:{ours[-1].lineno}' if ours and ours[-1] != frames[-1] else ''
    where = '/'.join(Path(frames[-1].filename).parts[-4:])
    return f'{type(error).__name__}: {str(error)[:200]!r} at {where}:{frames[-1].lineno}{through}'
