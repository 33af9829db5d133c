#!/usr/bin/env python
"""Compare backbones side by side: multiply-adds, time, and memory.

  python tools/benchmark.py timm/resmlp_12_224 ResMLP:arch=12 ResMLP:arch=12@deploy --batch 8

A candidate is

  NAME:key=value,...             one of ours with its arguments, ConvMLP:arch=s
  timm/NAME:key=value,...        a model of timm, without its classifier
  mmpretrain/NAME:key=value,...  a backbone of mmpretrain
  MODULE:FUNCTION                whatever a function makes, in a module or a .py file

and may end in @ and what is done with it, separated by commas: deploy (folded), channels_last, bf16 (weights and
images), autocast (bf16 where torch chooses), compile. {size} in an argument stands for the size being measured:

  python tools/benchmark.py GMLP:arch=s16 "GMLP:arch=s16,token_mixing=resize,img_size={size}" --sizes 448

Candidates take turns within every round of one process, so that a slow moment of the machine meets them all; the table
gives medians, and the ratio of each one's rate to the first one's. So does the rate of a large matrix product, in
turn with the rest: the share is what a candidate reaches of it. Memory is the peak of one step (of training: forward
and backward) above what the process held before the model was built: on a GPU by the allocator, on a CPU by the
operating system, each in a process of its own.

--suite measures the standard set of docs/benchmark.md, --loading how checkpoints are read.
"""

import argparse
import ast
import contextlib
import ctypes
import datetime
import functools
import gc
import importlib
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Union

import torch

import mlp_backbones
from mlp_backbones.deployment import parse_size, tensors_of
from mlp_backbones.launch import UserError, check_target, run_tool

MODIFIERS = ('deploy', 'channels_last', 'bf16', 'autocast', 'compile')
PRODUCT = 2048  # side of the matrices whose product gives the machine's rate


class Candidate(NamedTuple):
    """A model to be measured.

    Attributes:
        text (str): As it was given.
        build (Callable): (height, width) -> the model.
        modifiers (tuple[str, ...]): Of ``MODIFIERS``.
    """

    text: str
    build: Callable[[tuple[int, int]], torch.nn.Module]
    modifiers: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it was given, without the folder of a file."""
        source, colon, rest = self.text.partition(':')
        return f'original/{rest}' if source.endswith('.py') else source + colon + rest

    def built(self, size: tuple[int, int]) -> torch.nn.Module:
        try:
            return self.build(size).eval()
        except (TypeError, ValueError) as error:
            raise UserError(f'{self.text!r} cannot be built: {error}') from error

    def model(self, size: tuple[int, int], device: str, train: bool = False) -> torch.nn.Module:
        model = self.built(size)
        if 'deploy' in self.modifiers:
            fold(model)
        if 'bf16' in self.modifiers:
            model = model.bfloat16()
        if 'channels_last' in self.modifiers:
            model = model.to(memory_format=torch.channels_last)
        model = model.to(device).train(train)
        return torch.compile(model) if 'compile' in self.modifiers else model

    def images(self, size: tuple[int, int], batch: int, device: str) -> torch.Tensor:
        dtype = torch.bfloat16 if 'bf16' in self.modifiers else torch.float32
        x = torch.rand(batch, 3, *size, device=device, dtype=dtype)
        return x.contiguous(memory_format=torch.channels_last) if 'channels_last' in self.modifiers else x

    def context(self, device: str):
        half = 'autocast' in self.modifiers
        return torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext()


def fold(model: torch.nn.Module) -> None:
    """The deploy form: ours, or what the other implementation has for it."""
    if isinstance(model, mlp_backbones.backbones.base.BaseBackbone):
        mlp_backbones.reparameterize(model, inplace=True)
        return
    for name in ('switch_to_deploy', 'locality_injection'):
        if hasattr(model, name):
            getattr(model, name)()
            return
    raise UserError(f'{type(model).__name__} has no deploy form: no switch_to_deploy or locality_injection')


def parse(text: str) -> Candidate:
    """A candidate from the command line; see the top of this file."""
    body, _, after = text.partition('@')
    modifiers = tuple(filter(None, after.split(',')))
    if unknown := set(modifiers) - set(MODIFIERS):
        raise UserError(f'{text!r}: unknown {", ".join(sorted(unknown))} after @; there is {", ".join(MODIFIERS)}')
    name, _, arguments = body.partition(':')
    ours = [n for n in mlp_backbones.__all__ if n.endswith('MLP')]
    if name in ours:
        return Candidate(text, lambda size: getattr(mlp_backbones, name)(**keywords(arguments, size)), modifiers)
    library, _, model = name.partition('/')
    if library == 'timm' and model:
        timm = needed('timm')
        if not timm.is_model(model):
            raise UserError(f'{text!r}: timm has no model {model!r}')
        return Candidate(
            text, lambda size: timm.create_model(model, num_classes=0, **keywords(arguments, size)), modifiers
        )
    if library == 'mmpretrain' and model:
        registry = needed('mmpretrain.registry')
        importlib.import_module('mmpretrain.models')
        if registry.MODELS.get(model) is None:
            raise UserError(f'{text!r}: mmpretrain has no model {model!r}')
        return Candidate(
            text, lambda size: registry.MODELS.build(dict(type=model, **keywords(arguments, size))), modifiers
        )
    if arguments.isidentifier():
        return Candidate(text, lambda size: load(name, arguments)(), modifiers)
    raise UserError(
        f'{text!r} is no candidate: {", ".join(ours)}, timm/NAME, mmpretrain/NAME, each with :key=value,..., '
        f'or MODULE:FUNCTION'
    )


def needed(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f'{module.split(".")[0]} cannot be imported ({error}); install it') from error


@functools.cache
def load(name: str, function: str) -> Callable[[], torch.nn.Module]:
    """A function of a module, or of a file whose folder is then importable too."""
    try:
        if name.endswith('.py'):
            sys.path.insert(0, str(Path(name).parent))
            spec = importlib.util.spec_from_file_location(Path(name).stem, name)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(name)
        return getattr(module, function)
    except (ImportError, OSError, AttributeError) as error:
        raise UserError(f'{name}:{function} cannot be had: {type(error).__name__}: {error}') from error


def keywords(arguments: str, size: tuple[int, int]) -> dict:
    """``key=value,...``, parsed as those of a call, so that tuples may hold commas; bare words are strings."""
    arguments = arguments.replace('{size}', f'({size[0]}, {size[1]})')
    try:
        call = ast.parse(f'f({arguments})', mode='eval').body
        if call.args:
            raise ValueError('a value without a key')
        values = {k.arg: k.value for k in call.keywords}
        kwargs = {k: v.id if isinstance(v, ast.Name) else ast.literal_eval(v) for k, v in values.items()}
    except (SyntaxError, ValueError) as error:
        raise UserError(f'{arguments!r} is not of the form key=value,...') from error
    if isinstance(kwargs.get('arch'), int):
        kwargs['arch'] = str(kwargs['arch'])
    return kwargs


def counts(candidate: Candidate, size: tuple[int, int]) -> tuple[int, float]:
    """Parameters, and multiply-adds for one image, of the form that was trained."""
    from fvcore.nn import FlopCountAnalysis

    model = candidate.build(size).eval()
    counted = FlopCountAnalysis(model, torch.zeros(1, 3, *size))
    parameters = sum(p.numel() for p in model.parameters())
    return parameters, counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def step(model: torch.nn.Module, x: torch.Tensor) -> None:
    sum(y.float().mean() for y in tensors_of(model(x))).backward()


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path('/proc/self/status')
    if status.is_file():  # what getrusage says would include the parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def give_back_at_once() -> None:
    """Let the allocator return what is freed to the system at once, where it can (glibc), so that no gaps count."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: pages of its own for every larger block


def reset_peak() -> None:
    """Let the peak start again from what is held now, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def memory_of(text: str, size: tuple[int, int], batch: int, device: str, train: bool) -> float:
    """Peak bytes of one step, with the model's, in this process: call it in a fresh one."""
    give_back_at_once()
    candidate = parse(text)
    torch.nn.Linear(8, 8)(torch.rand(1, 8)).sum().backward()  # what torch itself takes
    before = peak()
    model = candidate.model(size, device, train)
    gc.collect()
    reset_peak()  # building or folding may have taken more than running does
    with candidate.context(device), contextlib.nullcontext() if train else torch.inference_mode():
        x = candidate.images(size, batch, device)
        step(model, x) if train else model(x)
    return torch.cuda.max_memory_allocated() if device == 'cuda' else peak() - before


def timings(runs: list[Callable[[], object]], rounds: int, device: str) -> list[float]:
    """The median seconds of each run; all of them once in every round."""

    def once(run: Callable[[], object]) -> float:
        if device == 'cuda':
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end) / 1e3
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    for run in runs:
        for _ in range(2):
            once(run)  # warm-up
    taken = [[once(run) for run in runs] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*taken)]


def product(dtype: torch.dtype, device: str) -> Callable[[], torch.Tensor]:
    a, b = (torch.rand(PRODUCT, PRODUCT, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def measure(candidates: list[Candidate], size, batch: int, rounds: int, device: str, train: bool, memory: bool):
    """A row for each candidate: what it is, and its figures."""
    runs = []
    for candidate in candidates:
        model, x = candidate.model(size, device, train), candidate.images(size, batch, device)

        def run(candidate=candidate, model=model, x=x):
            with candidate.context(device):
                if train:
                    step(model, x)
                    model.zero_grad(set_to_none=True)
                else:
                    with torch.inference_mode('compile' not in candidate.modifiers), torch.no_grad():
                        model(x)

        runs.append(run)
    halves = [bool({'bf16', 'autocast'} & set(c.modifiers)) for c in candidates]
    products = {half: product(torch.bfloat16 if half else torch.float32, device) for half in sorted(set(halves))}
    taken = timings([*runs, *products.values()], rounds, device)
    rates = {half: 2 * PRODUCT**3 / t for half, t in zip(products, taken[len(runs) :])}
    rows = []
    for candidate, half, seconds in zip(candidates, halves, taken):
        parameters, count = counts(candidate, size)
        count *= batch
        row = dict(
            backbone=candidate.name,
            step='training' if train else 'inference',
            size=f'{size[0]}x{size[1]}',
            batch=batch,
            parameters=parameters,
            macs=count,
            seconds=seconds,
            rate=batch / seconds,
            ratio=taken[0] / seconds,
            share=2 * count * (3 if train else 1) / seconds / rates[half],
            product=rates[half],
        )
        if memory:
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                row['memory'] = pool.apply(memory_of, (candidate.text, size, batch, device, train))
        rows.append(row)
    return rows


HEAD = (
    '| backbone | step | images | parameters (M) | MACs (G) | ms | images/s | ratio | share of the matrix rate '
    '| memory (MiB) |\n|---|---|---|---|---|---|---|---|---|---|'
)


def line(row: dict) -> str:
    memory = f'{row["memory"] / 2**20:.0f}' if 'memory' in row else ''
    return (
        f'| `{row["backbone"]}` | {row["step"]} | {row["batch"]} x {row["size"]} | {row["parameters"] / 1e6:.2f} '
        f'| {row["macs"] / 1e9:.2f} | {row["seconds"] * 1e3:.1f} | {row["rate"]:.1f} | {row["ratio"]:.2f} '
        f'| {row["share"]:.0%} | {memory} |'
    )


class Group(NamedTuple):
    """Candidates that are measured together; ``title`` is that of the table which their rows go to."""

    candidates: list[str]
    title: str = ''
    size: tuple[int, int] = (224, 224)
    batch: int = 8
    train: bool = False
    memory: bool = True


def suite(peers: dict[str, str]) -> list[Group]:
    """The standard set. ``peers``: name of a variant, such as ConvMLP-s -> its original, as MODULE:FUNCTION."""
    timm = {'ResMLP-12': 'resmlp_12_224', 'ResMLP-24': 'resmlp_24_224', 'ResMLP-36': 'resmlp_36_224'}
    timm['ResMLP-big_24'] = 'resmlp_big_24_224'
    timm.update({f'GMLP-{arch}': f'gmlp_{arch}_224' for arch in ('ti16', 's16', 'b16')})
    theirs = {name: [f'timm/{model}'] for name, model in timm.items()}
    theirs['RepMLP-b224'] = ['mmpretrain/RepMLPNet:arch=b,img_size=224,reparam_conv_kernels=(1,3)']
    theirs['RepMLP-b256'] = ['mmpretrain/RepMLPNet:arch=b,img_size=256,reparam_conv_kernels=(1,3)']
    for name, function in peers.items():
        theirs[name] = [function, *theirs.get(name, [])]
    names = [f'ConvMLP-{arch}' for arch in 'sml'] + list(timm)
    names += [f'RepMLP-{arch}' for arch in ('t224', 'b224', 't256', 'b256', 'd256', 'l256')]
    groups = []

    def group(title: str, name: str, *modifiers: str, fold: bool = False, **kwargs) -> None:
        family, arch = name.split('-')
        ours = f'{family}:arch={arch}' + (',out_indices=-1' if family in ('ConvMLP', 'RepMLP') else '')
        others = theirs.get(name, [])
        if fold:  # of the others, RepMLP alone has a deploy form
            others = [f'{other}@deploy' if family == 'RepMLP' else other for other in others]
        ours = [ours, f'{ours}@deploy'] if not kwargs.get('train') else [ours]
        candidates = [*others, *(ours[1:] if fold else ours)]
        join = [c + ('@' if '@' not in c else ',') + ','.join(modifiers) if modifiers else c for c in candidates]
        groups.append(Group(join, title, memory='compile' not in modifiers, **kwargs))

    for name in names:
        size = (256, 256) if name.endswith('256') else (224, 224)
        group('Inference, float32', name, size=size, batch=1 if name == 'ResMLP-big_24' else 8)
        if name.startswith('RepMLP') and name in theirs:
            group('Inference, float32', name, size=size, fold=True)
    for name in names[:3]:
        group('Inference, float32, the size of detection', name, size=(800, 1216), batch=1)
    smallest = ('ConvMLP-s', 'ResMLP-12', 'GMLP-s16', 'RepMLP-b224')
    for name in smallest:
        group('Inference, weights and images channels-last', name, 'channels_last')
    for name in smallest:
        group('Inference, bfloat16', name, 'bf16')
    for name in smallest:
        group('Training step, forward and backward, float32', name, train=True)
    for name in smallest:
        group('Inference, compiled', name, 'compile')
    return groups


PAGE = """# Benchmark

Written by `tools/benchmark.py --suite --page`: {place}.
Medians of {rounds} rounds in which the candidates of a group took turns; the ratio is the rate relative to the first
one of its group. The picture is of the first table.

- `timm/...` and `mmpretrain/...` are those libraries' models without classifiers, `original/...` is the code of the
  papers' authors, run from a copy of their repositories. `@deploy` is the folded form: ours by `reparameterize`,
  theirs (of RepMLP only) by their own conversion.
- The share is the rate of multiply-adds (three times as many for a training step) relative to that of a
  {product} x {product} x {product} matrix product of the same dtype, measured in turn with the candidates. It can
  exceed 100 %: that product does not reach the machine's peak either.
- Memory is the peak of one step above what the process held before, with the model's own.

![Rates of our models relative to other implementations]({image})

{tables}
"""


def write_page(path: Path, groups: list[Group], rows: list[list[dict]], place: str, rounds: int) -> None:
    """The page of the standard set, and its picture beside it, in ``images``."""
    image = path.parent / 'images' / f'{path.stem}.png'
    image.parent.mkdir(exist_ok=True)
    plot_beside_others(groups, rows, image, place)
    tables = {}
    for group, own in zip(groups, rows):
        tables.setdefault(group.title, []).extend(map(line, own))
    text = '\n\n'.join(f'## {title}\n\n{HEAD}\n' + '\n'.join(lines) for title, lines in tables.items())
    page = PAGE.format(place=place, rounds=rounds, product=PRODUCT, image=f'images/{image.name}', tables=text)
    path.write_text(page)


def plot_beside_others(groups: list[Group], rows: list[list[dict]], path: Path, place: str) -> None:
    """Bars of our models of the suite's first table, each form relative to the same one of the first of the others."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    forms = {'as trained': '#9ecae1', 'deploy form': '#1b6ca8'}
    ratios: dict[str, dict[str, float]] = {}
    for own in (own for group, own in zip(groups, rows) if group.title == groups[0].title):
        other, first = own[0]['backbone'], next(r['backbone'] for r in own if is_ours(r['backbone']))
        if is_ours(other):
            continue  # there is none to compare with
        family, _, arch = first.split(',')[0].partition(':arch=')
        name = f'{family} {arch.split("@")[0]}\nbeside {other.split("/")[0]}'
        for row in (r for r in own if is_ours(r['backbone'])):
            form = 'deploy form' if row['backbone'].endswith('@deploy') else 'as trained'
            ratios.setdefault(name, {})[form] = row['ratio']
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(ratios) + 1.2), layout='constrained')
    for i, (form, colour) in enumerate(forms.items()):
        places = [n + 0.38 * (i - 0.5) for n in range(len(ratios))]
        values = [ratio.get(form, 0) for ratio in ratios.values()]
        axes.barh(places, values, 0.36, color=colour, label=f'ours, {form}')
        for y, value in zip(places, values):
            axes.text(value, y, f' {value:.2f}', va='center', fontsize=8)
    axes.axvline(1, color='black', linewidth=0.8)
    axes.set_yticks(range(len(ratios)), list(ratios), fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.set_xlim(0, 1.1 * max(max(ratio.values()) for ratio in ratios.values()))
    axes.set_xlabel('images per second, relative to the other implementation (RepMLP: in the same form)', fontsize=9)
    axes.set_title(place, fontsize=8, loc='left', color='#555555')
    axes.legend(fontsize=8, loc='lower right', frameon=False)
    axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def is_ours(candidate: str) -> bool:
    """Whether a candidate is a backbone of this package."""
    return re.split('[:@]', candidate)[0] in mlp_backbones.__all__


def plot(rows: list[dict], path: Union[str, Path], place: str) -> None:
    """Bars of the rate of every candidate, relative to the first one of its group."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.28 * len(rows) + 1.2), layout='constrained')
    ours = [is_ours(row['backbone']) for row in rows]
    labels = [f'{r["backbone"]}  {r["step"]} {r["batch"]} x {r["size"]}' for r in rows]
    axes.barh(range(len(rows)), [r['ratio'] for r in rows], color=['#1b6ca8' if o else '#b0b0b0' for o in ours])
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    for i, row in enumerate(rows):
        axes.text(row['ratio'], i, f' {row["ratio"]:.2f}', va='center', fontsize=7)
    axes.axvline(1, color='black', linewidth=0.6)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 1.1 * max(r['ratio'] for r in rows))
    axes.set_title(place, fontsize=8, loc='right')
    axes.set_xlabel('images per second, relative to the first of each group', fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def loading(rounds: int) -> None:
    """Reading the largest checkpoint of the zoo, against torch.load and load_state_dict of a plain model."""
    timm = needed('timm')
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/resmlp_big_24.pth'
        torch.save(timm.create_model('resmlp_big_24_224', num_classes=0).state_dict(), path)
        size = os.path.getsize(path)
        print(f'{size / 2**20:.0f} MiB, {place_of("cpu")}, median of {rounds} rounds\n')
        print('| how | seconds | ratio | extra memory (of the file) |\n|---|---|---|---|')
        how = {'torch.load and load_state_dict (timm)': plain, 'load_checkpoint (ours)': ours}
        loads = [function(path) for function in how.values()]
        taken = timings(loads, rounds, 'cpu')
        for (name, function), seconds in zip(how.items(), taken):
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                memory = pool.apply(loading_memory, (function, path))
            print(f'| {name} | {seconds:.2f} | {seconds / taken[0]:.2f} | {memory / size:.2f} |')


def plain(path: str) -> Callable[[], object]:
    model = needed('timm').create_model('resmlp_big_24_224', num_classes=0)
    return lambda: model.load_state_dict(torch.load(path, map_location='cpu', weights_only=True))


def ours(path: str) -> Callable[[], object]:
    from mmengine.logging import MMLogger
    from mmengine.runner import load_checkpoint

    MMLogger.get_current_instance().setLevel('WARNING')
    model = mlp_backbones.ResMLP('big_24', final_norm=True)

    def run():
        with contextlib.redirect_stdout(io.StringIO()):  # mmengine says where it reads from
            load_checkpoint(model, path, map_location='cpu')

    return run


def loading_memory(function: Callable, path: str) -> int:
    """Peak bytes of a load above what the process held before, in this process: call it in a fresh one."""
    run = function(path)
    reset_peak()
    before = peak()
    run()
    return peak() - before


def place_of(device: str) -> str:
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    else:
        info = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').is_file() else ''
        model = next((x.split(':')[1].strip() for x in info.splitlines() if x.startswith('model name')), 'CPU')
        name = f'{torch.get_num_threads()} threads of {platform.machine()} {model}'
    return f'{name}, torch {torch.__version__}, {datetime.date.today():%-d %B %Y}'


def size_of(text: str) -> tuple[int, int]:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('candidates', nargs='*', metavar='CANDIDATE', help='what to compare')
    parser.add_argument('--sizes', nargs='+', type=size_of, default=[(224, 224)], help='224 or HEIGHTxWIDTH')
    parser.add_argument('--batch', type=int, default=1, help='images (default: 1)')
    parser.add_argument('--rounds', type=int, default=5, help='measurements of each candidate (default: 5)')
    parser.add_argument(
        '--step', choices=['inference', 'training', 'both'], default='both', help='what to measure (default: both)'
    )
    parser.add_argument('--no-memory', action='store_true', help='leave out the memory')
    parser.add_argument('--suite', action='store_true', help='the standard set instead of candidates')
    parser.add_argument(
        '--peer', nargs='+', default=[], metavar='NAME=MODULE:FUNCTION', help='originals for --suite, as ConvMLP-s=...'
    )
    parser.add_argument('--only', default='', help='of --suite, the groups that hold this text')
    parser.add_argument('--loading', action='store_true', help='how the largest checkpoint is read')
    parser.add_argument('--out', help='write the results there as JSON too')
    parser.add_argument('--plot', help='draw the ratios there, as .png or .svg')
    parser.add_argument('--page', help='write the page of --suite there, as .md, its picture, and .json')
    args = parser.parse_args()
    if args.rounds < 1 or args.batch < 1:
        raise UserError(f'--rounds and --batch must be positive, got {args.rounds} and {args.batch}')
    for path in filter(None, (args.out, args.plot, args.page)):
        check_target(path)
    if args.plot and Path(args.plot).suffix not in ('.png', '.svg'):
        raise UserError(f'--plot takes a file that ends in .png or .svg, got {args.plot}')
    if args.loading:
        return loading(args.rounds)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if args.suite:
        if bad := [p for p in args.peer if '=' not in p]:
            raise UserError(f'--peer takes NAME=MODULE:FUNCTION, got {", ".join(bad)}')
        groups = suite(dict(p.split('=', 1) for p in args.peer))
        groups = [g for g in groups if any(args.only.lower() in c.lower() for c in g.candidates)]
        if args.page and not args.out:
            args.out = str(Path(args.page).with_suffix('.json'))
    elif args.candidates:
        steps = ['inference', 'training'] if args.step == 'both' else [args.step]
        groups = [Group(args.candidates, '', s, args.batch, t == 'training') for s in args.sizes for t in steps]
    else:
        parser.error('give candidates, --suite or --loading')
    parsed = [[parse(c) for c in group.candidates] for group in groups]
    # Ours without memory first, so that a wrong argument is said before anything is measured.
    for group, candidates in [] if args.suite else zip(groups, parsed):
        for candidate in candidates:
            if is_ours(candidate.text):
                with torch.device('meta'):
                    candidate.built(group.size)
    place = place_of(device)
    print(f'{place}, median of {args.rounds} rounds\n', flush=True)
    rows = []
    for group, candidates in zip(groups, parsed):
        memory = group.memory and not args.no_memory
        rows.append(measure(candidates, group.size, group.batch, args.rounds, device, group.train, memory))
        if len(rows) == 1:
            print(HEAD)
        print('\n'.join(map(line, rows[-1])), flush=True)
        torch.compiler.reset()
        # After every group: what was measured is kept, whatever happens later.
        flat = [row for group in rows for row in group]
        if args.out:
            Path(args.out).write_text(json.dumps(dict(machine=place, rounds=args.rounds, results=flat), indent=1))
        if args.plot:
            plot(flat, args.plot, place.split(',')[0])
        if args.page:
            write_page(Path(args.page), groups, rows, place, args.rounds)


if __name__ == '__main__':
    sys.exit(run_tool(main))
