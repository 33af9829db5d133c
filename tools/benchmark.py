#!/usr/bin/env python
"""Compare backbones side by side: multiply-adds, time, and memory.

  python tools/benchmark.py timm/resmlp_12_224 ResMLP:arch=12 ResMLP:arch=12@deploy --batch 8

A candidate is

  NAME:key=value,...             one of ours with its arguments, ConvMLP:arch=s
  timm/NAME:key=value,...        a model of timm, without its classifier
  mmpretrain/NAME:key=value,...  a backbone of mmpretrain
  MODULE:FUNCTION                whatever a function makes, in a module or a .py file
  CONFIG.py                      a whole model with one of our backbones, from the image to boxes, masks or classes,
                                 untrained, as tools/export.py exports it

and may end in @ and what is done with it, separated by commas: deploy (folded), channels_last, bf16 (weights and
images), autocast (bf16 where torch chooses), tf32 (products of float32, on a GPU), compile, cuda_graphs (compile,
replayed as CUDA graphs), max_autotune (that, with kernels chosen by measurement); or onnxruntime or openvino (in that
engine instead of torch, at this size only), with openvino also bf16, and with either int8 (calibrated on random
images: for its speed). {size} in an argument stands for the size being measured:

  python tools/benchmark.py GMLP:arch=s16 "GMLP:arch=s16,token_mixing=resize,img_size={size}" --sizes 448

Candidates take turns within every round of one process, so that a slow moment of the machine meets them all; the table
gives medians, and the ratio of each one's rate to the first one's. So does the rate of a large matrix product, in
turn with the rest: the share is what a candidate reaches of it. Memory is the peak of one step (of training: forward
and backward) above what the process held before the model was built: on a GPU by the allocator, on a CPU by Linux,
each in a process of its own, which gives back what it frees (by default, glibc keeps much of it).

--suite measures again what a file of results holds, docs/benchmark_engines.json and docs/benchmark.json, and prints
the tables of docs/benchmark.md.
"""

import argparse
import ast
import datetime
import functools
import gc
import importlib
import itertools
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.benchmark import timer

import mlp_backbones
from mlp_backbones.apis.zoo import build_model
from mlp_backbones.deploy import graph, heads, runtime
from mlp_backbones.deploy.description import describe
from mlp_backbones.deploy.export import TensorModel, parse_size, tensors_of
from mlp_backbones.engine.config import load_config
from mlp_backbones.models.backbones.base import BaseBackbone
from mlp_backbones.utils.cli import check_target, run_tool
from mlp_backbones.utils.errors import UserError
from mlp_backbones.utils.files import written_whole

OURS = [name for name in mlp_backbones.__all__ if name.endswith('MLP')]
ENGINES = ('onnxruntime', 'openvino')
COMPILED = {'compile': 'default', 'cuda_graphs': 'reduce-overhead', 'max_autotune': 'max-autotune'}  # torch's modes
MODIFIERS = ('deploy', 'channels_last', 'bf16', 'autocast', 'tf32', *COMPILED, *ENGINES, 'int8')
CLEAR_PEAK = Path('/proc/self/clear_refs')  # of Linux
MALLOC_SETTINGS = dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='0')  # of glibc, read as a process starts
ORIGINAL = 'original/'  # what the results call the functions of a .py file
PRODUCT = dict(cpu=2048, cuda=8192)  # side of the matrices whose product gives the machine's rate
REPEATS = dict(cpu=1, cuda=10)  # steps of one measurement: a GPU is waited for at its end


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
        return f'{ORIGINAL}{rest}' if source.endswith('.py') and colon else source + colon + rest

    @property
    def engine(self) -> str | None:
        """Of ``ENGINES``, or None for torch."""
        return next((name for name in ENGINES if name in self.modifiers), None)

    @property
    def inference_only(self) -> bool:
        return self.engine is not None or self.text.partition('@')[0].endswith('.py')

    def built(self, size: tuple[int, int]) -> torch.nn.Module:
        try:
            return self.build(size).eval()
        except (TypeError, ValueError) as error:
            raise UserError(f'{self.text!r} cannot be built: {error}') from error

    def prepared(self, size: tuple[int, int], batch: int, device: str, train: bool) -> Callable[[], None]:
        """One step as a function, with the model and its images."""
        model = self.built(size)
        if 'deploy' in self.modifiers:
            fold(model)
        if self.engine:
            return in_engine(model, images(model, batch, size, 'cpu'), self.engine, self.modifiers)
        model = model.to(
            device,
            torch.bfloat16 if 'bf16' in self.modifiers else None,
            memory_format=torch.channels_last if 'channels_last' in self.modifiers else torch.preserve_format,
        ).train(train)
        x = images(model, batch, size, device)
        mode = next((COMPILED[name] for name in self.modifiers if name in COMPILED), None)
        if mode:
            model = torch.compile(model, mode=mode)
        if 'bf16' in self.modifiers:
            x = x.bfloat16()
        if 'channels_last' in self.modifiers:
            x = x.contiguous(memory_format=torch.channels_last)
        without_grad = torch.no_grad if mode else torch.inference_mode

        def step() -> None:
            if device == 'cuda':
                for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
                    backend.allow_tf32 = 'tf32' in self.modifiers
            if mode:
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(device, torch.bfloat16, enabled='autocast' in self.modifiers):
                if not train:
                    with without_grad():
                        model(x)
                    return
                sum(y.float().mean() for y in tensors_of(model(x))).backward()
                model.zero_grad(set_to_none=True)

        return step


def images(model: torch.nn.Module, batch: int, size: tuple[int, int], device: str) -> torch.Tensor:
    """Random images for a model: uint8 for a whole one."""
    if isinstance(model, graph.Whole):
        return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, device=device)
    return torch.rand(batch, 3, *size, device=device)


def whole(config: str) -> graph.Whole:
    """The whole model of a config, untrained."""
    cfg = load_config(config)
    model = build_model(cfg).eval()
    return graph.Whole(model, describe(cfg, model, Path(config).stem))


def in_engine(model: torch.nn.Module, x: torch.Tensor, engine: str, modifiers: tuple[str, ...]) -> Callable[[], None]:
    """One step of a model in ONNX Runtime or OpenVINO."""
    from mlp_backbones.deploy import quantize

    if isinstance(model, graph.Whole) and isinstance(model.core, heads.Detector):
        model.core.suppress = heads.nms_operator()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ('model.xml' if engine == 'openvino' and 'int8' in modifiers else 'model.onnx')
        source = path.with_suffix('.onnx')
        load('onnx', 'save')(graph.to_onnx(graph.trace(model, x, ()), ['image'], None), source)
        if 'int8' in modifiers:
            nncf, made = importlib.import_module('nncf'), quantize.load(source, path.suffix)
            nncf.set_log_level('ERROR')
            data = nncf.Dataset([x.numpy()], lambda batch: {'image': batch})
            floats = list(itertools.chain(*quantize.float_operations(made)))
            quantize.save(nncf.quantize(made, data, **quantize.settings(1, floats)), '', path)
        precision = {'precision': 'bfloat16'} if 'bf16' in modifiers else {}
        run = runtime.ENGINES[engine](str(path), torch.get_num_threads(), **precision)[2]
    batch = x.numpy()
    return lambda: run(batch)


def fold(model: torch.nn.Module) -> None:
    """Switch to the deploy form: ours, or what the other implementation has for it."""
    if isinstance(model, (BaseBackbone, graph.Whole)):
        mlp_backbones.reparameterize(model, inplace=True)
    elif hasattr(model, 'switch_to_deploy'):
        model.switch_to_deploy()
    elif hasattr(model, 'locality_injection'):
        model.locality_injection()
    else:
        raise UserError(f'{type(model).__name__} has no deploy form: no switch_to_deploy or locality_injection')


def parse(text: str) -> Candidate:
    """A candidate from the command line; see the top of this file."""
    body, _, after = text.partition('@')
    modifiers = tuple(filter(None, after.split(',')))
    if unknown := set(modifiers) - set(MODIFIERS):
        raise UserError(f'{text!r}: unknown {", ".join(sorted(unknown))} after @; there is {", ".join(MODIFIERS)}')
    engines = set(ENGINES) & set(modifiers)
    if len(engines) > 1 or ('int8' in modifiers and not engines):
        raise UserError(f'{text!r}: one of {", ".join(ENGINES)} is needed after @, which runs the model')
    possible = engines | {'deploy', 'int8'} | ({'bf16'} if 'openvino' in engines else set())
    if engines and (ignored := set(modifiers) - possible):
        raise UserError(f'{text!r}: {", ".join(sorted(ignored))} cannot be used with {", ".join(engines)}')
    if body.endswith('.py') and 'bf16' in modifiers and not engines:
        raise UserError(f'{text!r}: the images of a whole model are uint8, use autocast instead of bf16')
    name, _, arguments = body.partition(':')
    library, _, model = name.partition('/')
    if name in OURS:
        make = getattr(mlp_backbones, name)
    elif library == 'timm' and model:
        if not load('timm', 'is_model')(model):
            raise UserError(f'{text!r}: timm has no model {model!r}')
        make = functools.partial(load('timm', 'create_model'), model, num_classes=0)
    elif library == 'mmpretrain' and model:
        make = load('mmpretrain.models', 'BACKBONES').get(model)
        if make is None:
            raise UserError(f'{text!r}: mmpretrain has no model {model!r}')
    elif name.endswith('.py') and not arguments:
        return Candidate(text, lambda size: whole(name), modifiers)
    elif arguments.isidentifier():
        return Candidate(text, lambda size: load(name, arguments)(), modifiers)
    else:
        raise UserError(
            f'{text!r} is not a candidate: {", ".join(OURS)}, timm/NAME, mmpretrain/NAME, each with :key=value,..., '
            f'or MODULE:FUNCTION'
        )
    return Candidate(text, lambda size: make(**keywords(arguments, size)), modifiers)


def load(module: str, name: str) -> Any:
    """A name of a module, or of a file whose folder is then importable too."""
    try:
        if module.endswith('.py'):
            sys.path.insert(0, str(Path(module).parent))
            return getattr(importlib.import_module(Path(module).stem), name)
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f'{module}:{name} cannot be loaded: {type(error).__name__}: {error}') from error


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
    """Parameters, and multiply-adds for one image, of the form that was trained.

    Those of a whole model are its backbone's, neck's and head's; of a two-stage detector without its second stage.
    """
    from fvcore.nn import FlopCountAnalysis

    model = candidate.built(size)
    if isinstance(model, graph.Whole):
        model = TensorModel(model.core.model)
    counted = FlopCountAnalysis(model, torch.zeros(1, 3, *size))
    parameters = sum(p.numel() for p in model.parameters())
    return parameters, counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def peak() -> int:
    """The most memory that this process has held, in bytes; getrusage would include the parent's."""
    return int(re.search(r'VmHWM:\s*(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024


def memory_of(text: str, size: tuple[int, int], batch: int, device: str, train: bool) -> float:
    """Peak bytes of one step, with the model's, in this process: call it in a fresh one."""
    torch.nn.Linear(8, 8)(torch.rand(1, 8)).sum().backward()  # what torch itself takes
    before = 0 if device == 'cuda' else peak()
    step = parse(text).prepared(size, batch, device, train)
    gc.collect()
    # Building or folding may have taken more than running does: the peak starts again from what is held now.
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    else:
        CLEAR_PEAK.write_text('5')
    step()
    return torch.cuda.max_memory_allocated() if device == 'cuda' else peak() - before


def timings(runs: list[Callable[[], object]], rounds: int, repeats: int) -> list[float]:
    """The median seconds of each run; all of them ``repeats`` times in every round."""

    def once(run: Callable[[], object]) -> float:
        start = timer()  # waits for the GPU
        for _ in range(repeats):
            run()
        return (timer() - start) / repeats

    for run in [*runs, *runs]:
        run()  # warm-up
    taken = [[once(run) for run in runs] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*taken)]


def product(dtype: torch.dtype, device: str) -> Callable[[], torch.Tensor]:
    side = PRODUCT[device]
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def measure(candidates: list[Candidate], size, batch: int, rounds: int, device: str, train: bool, memory: bool):
    """A row for each candidate: what it is, and its figures."""
    runs = [candidate.prepared(size, batch, device, train) for candidate in candidates]
    dtypes = [torch.bfloat16 if {'bf16', 'autocast'} & set(c.modifiers) else torch.float32 for c in candidates]
    products = {dtype: product(dtype, device) for dtype in dtypes}
    taken = timings([*runs, *products.values()], rounds, REPEATS[device])
    rates = {dtype: 2 * PRODUCT[device] ** 3 / seconds for dtype, seconds in zip(products, taken[len(runs) :])}
    rows = []
    for candidate, dtype, seconds in zip(candidates, dtypes, taken):
        parameters, count = counts(candidate, size)
        row = dict(
            backbone=candidate.name,
            step='training' if train else 'inference',
            size=f'{size[0]}x{size[1]}',
            batch=batch,
            parameters=parameters,
            macs=count * batch,
            seconds=seconds,
            rate=batch / seconds,
            ratio=taken[0] / seconds,
            share=2 * count * batch * (3 if train else 1) / seconds / rates[dtype],
            product=rates[dtype],
        )
        if memory and not candidate.engine:
            os.environ.update(MALLOC_SETTINGS)
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
    """Candidates that are measured together; ``table`` is the title of the table which their rows go to."""

    candidates: list[str]
    size: tuple[int, int]
    batch: int
    train: bool
    table: str = ''
    memory: bool = True


def suite(path: Path, originals: str | None) -> list[Group]:
    """The groups of a file of results, without the original implementations where no module with them is given."""
    rows = json.loads(path.read_text())['results']
    groups = []
    for _, members in itertools.groupby(rows, key=lambda row: row['group']):
        own = list(members)
        texts = [row['backbone'] for row in own if originals or not row['backbone'].startswith(ORIGINAL)]
        texts = [text.replace(ORIGINAL, f'{originals}:') for text in texts]
        first = own[0]
        train, memory = first['step'] == 'training', 'memory' in first
        groups.append(Group(texts, parse_size(first['size']), first['batch'], train, first['table'], memory))
    return groups


def place_of(device: str) -> str:
    name = f'{torch.get_num_threads()} threads of {platform.machine()}'
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    elif Path('/proc/cpuinfo').is_file():
        name += ' ' + re.search(r'model name\s*: (.*)|$', Path('/proc/cpuinfo').read_text()).expand(r'\1')
    return f'{name}, torch {torch.__version__}, {datetime.date.today():%-d %B %Y}'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('candidates', nargs='*', metavar='CANDIDATE', help='what to compare')
    parser.add_argument('--sizes', nargs='+', default=['224'], metavar='HxW', help='224 or 800x1216')
    parser.add_argument('--batch', type=int, nargs='+', default=[1], help='images (default: 1)')
    parser.add_argument('--rounds', type=int, default=5, help='measurements of each candidate (default: 5)')
    parser.add_argument(
        '--step', choices=['inference', 'training', 'both'], default='both', help='what to measure (default: both)'
    )
    parser.add_argument('--no-memory', action='store_true', help='leave out the memory')
    parser.add_argument('--suite', type=Path, metavar='FILE.json', help='the candidates of a file of results, as there')
    parser.add_argument('--originals', metavar='FILE.py', help="functions that make the authors' models, for --suite")
    parser.add_argument('--out', type=Path, help='JSON file to write the results to')
    args = parser.parse_args()
    if args.rounds < 1 or min(args.batch) < 1:
        raise UserError(f'--rounds and --batch must be positive, got {args.rounds} and {min(args.batch)}')
    if bool(args.candidates) == bool(args.suite):
        parser.error('give candidates, or --suite')
    if args.suite and not args.suite.is_file():
        raise UserError(f'{args.suite} does not exist')
    if args.out:
        check_target(args.out)
        if args.suite and args.out.resolve() == args.suite.resolve():
            raise UserError(f'{args.out} is the suite itself: write to another file')
    return args


def groups_of(args: argparse.Namespace) -> list[Group]:
    """What the options ask for."""
    if args.suite:
        return suite(args.suite, args.originals)
    sizes = [parse_size(size) for size in args.sizes]
    steps = ['inference', 'training'] if args.step == 'both' else [args.step]
    settings = itertools.product(sizes, args.batch, steps)
    return [Group(args.candidates, size, batch, step == 'training') for size, batch, step in settings]


def main() -> None:
    args = parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    place = place_of(device)
    groups = groups_of(args)
    parsed = [[parse(candidate) for candidate in group.candidates] for group in groups]
    for group, candidates in zip(groups, parsed):
        for candidate in candidates:
            if group.train and candidate.inference_only:
                raise UserError(f'{candidate.text!r} is for inference: --step inference')
    print(f'{place}, median of {args.rounds} rounds', flush=True)
    results: list[dict] = []
    table = None
    for number, (group, candidates) in enumerate(zip(groups, parsed)):
        memory = group.memory and not args.no_memory and (device == 'cuda' or CLEAR_PEAK.exists())
        rows = measure(candidates, group.size, group.batch, args.rounds, device, group.train, memory)
        if group.table != table:
            table = group.table
            print((f'\n## {table}\n' if table else '') + f'\n{HEAD}')
        print('\n'.join(map(line, rows)), flush=True)
        results += [dict(table=table, group=number, **row) for row in rows]
        torch.compiler.reset()
        if args.out:  # after every group: what was measured is kept, whatever happens later
            with written_whole(args.out) as partial:
                partial.write_text(json.dumps(dict(machine=place, rounds=args.rounds, results=results), indent=1))


if __name__ == '__main__':
    sys.exit(run_tool(main))
