#!/usr/bin/env python
"""Compare backbones side by side: multiply-adds, time and memory.

Each candidate is a backbone with its arguments, ``NAME:key=value,...``:

  python tools/benchmark.py ResMLP:arch=12 ResMLP:arch=12,cross_window=True --sizes 224 448 800x1216

Candidates take turns within every round of one process, so that a slow moment of the machine meets them all; the table
gives medians and their ratios to the first candidate. Memory is the peak of one training step (forward and backward in
training mode) above what the process held before the model was built: on a GPU by the allocator, on a CPU by the
operating system, each in a process of its own. ``{size}`` in an argument stands for the size being measured:

  python tools/benchmark.py GMLP:arch=s16 "GMLP:arch=s16,token_mixing=resize,img_size={size}" --sizes 448
"""

import argparse
import ast
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

import mlp_backbones


def build(candidate: str, size: tuple[int, int]) -> torch.nn.Module:
    """The backbone that ``NAME:key=value,...`` describes, for images of ``size``."""
    name, _, arguments = candidate.replace('{size}', f'({size[0]}, {size[1]})').partition(':')
    families = [n for n in mlp_backbones.__all__ if n.endswith('MLP')]
    if name not in families:
        raise ValueError(f'{candidate!r}: there is no backbone {name!r}; choose from {", ".join(families)}')
    kwargs = {}
    if arguments:
        # Parsed as a call, so that tuples may hold commas; words without quotes are strings.
        for keyword in ast.parse(f'f({arguments})', mode='eval').body.keywords:
            value = keyword.value
            kwargs[keyword.arg] = value.id if isinstance(value, ast.Name) else ast.literal_eval(value)
        if 'arch' in kwargs:
            kwargs['arch'] = str(kwargs['arch'])
    return getattr(mlp_backbones, name)(**kwargs)


def macs(candidate: str, size: tuple[int, int]) -> float:
    from fvcore.nn import FlopCountAnalysis

    counted = FlopCountAnalysis(build(candidate, size).eval(), torch.zeros(1, 3, *size))
    return counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def step(model: torch.nn.Module, x: torch.Tensor) -> None:
    sum(feature.mean() for feature in model(x)).backward()


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path('/proc/self/status')
    if status.is_file():  # what getrusage says would include the parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def training_memory(candidate: str, size: tuple[int, int], batch: int, device: str) -> float:
    """Peak bytes of one training step, in this process: call it in a fresh one."""
    torch.nn.Linear(8, 8)(torch.rand(1, 8)).sum().backward()  # what torch itself takes
    before = peak()
    model = build(candidate, size).to(device).train()
    x = torch.rand(batch, 3, *size, device=device)
    step(model, x)
    if device == 'cuda':
        return torch.cuda.max_memory_allocated()
    return peak() - before


def timings(candidates: list[str], size: tuple[int, int], batch: int, device: str, train: bool, rounds: int):
    """Seconds of each candidate in each round; all of them once in every round."""
    models = [build(c, size).to(device).train(train) for c in candidates]
    x = torch.rand(batch, 3, *size, device=device)

    def once(model: torch.nn.Module) -> float:
        start = time.perf_counter()
        if train:
            step(model, x)
            model.zero_grad(set_to_none=True)
        else:
            with torch.no_grad():
                model(x)
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for model in models:
        once(model)  # warm-up
    taken = [[once(model) for model in models] for _ in range(rounds)]
    return list(zip(*taken))


def parse_size(text: str) -> tuple[int, int]:
    sides = [int(side) for side in text.lower().split('x')]
    return (sides[0], sides[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('candidates', nargs='+', metavar='NAME:key=value,...', help='backbones with their arguments')
    parser.add_argument('--sizes', nargs='+', type=parse_size, default=[(224, 224)], help='224 or HEIGHTxWIDTH')
    parser.add_argument('--batch', type=int, default=1, help='images (default: 1)')
    parser.add_argument('--rounds', type=int, default=5, help='measurements of each candidate (default: 5)')
    parser.add_argument('--out', help='write the results there as JSON too')
    args = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    for candidate in args.candidates:
        build(candidate, args.sizes[0])
    place = torch.cuda.get_device_name() if device == 'cuda' else f'{platform.machine()} CPU, {os.cpu_count()} cores'
    print(f'{place}, torch {torch.__version__}, float32, batch {args.batch}, median of {args.rounds} rounds\n')
    print(
        '| backbone | size | parameters (M) | MACs (G) | inference (ms) | ratio | training step (ms) | memory (MiB) |'
    )
    print('|---|---|---|---|---|---|---|---|')
    results = []
    context = multiprocessing.get_context('spawn')
    for size in args.sizes:
        inference = timings(args.candidates, size, args.batch, device, False, args.rounds)
        training = timings(args.candidates, size, args.batch, device, True, args.rounds)
        for i, candidate in enumerate(args.candidates):
            with context.Pool(1) as pool:
                memory = pool.apply(training_memory, (candidate, size, args.batch, device))
            row = dict(
                backbone=candidate,
                size=f'{size[0]}x{size[1]}',
                parameters=sum(p.numel() for p in build(candidate, size).parameters()),
                macs=macs(candidate, size) * args.batch,
                inference=statistics.median(inference[i]),
                training=statistics.median(training[i]),
                memory=memory,
            )
            results.append(row)
            ratio = statistics.median(inference[0]) / row['inference']
            print(
                f'| {candidate} | {row["size"]} | {row["parameters"] / 1e6:.2f} | {row["macs"] / 1e9:.2f} | '
                f'{row["inference"] * 1e3:.0f} | {ratio:.2f} | {row["training"] * 1e3:.0f} | {memory / 2**20:.0f} |',
                flush=True,
            )
    if args.out:
        Path(args.out).write_text(json.dumps(dict(machine=place, torch=torch.__version__, results=results), indent=1))


if __name__ == '__main__':
    try:
        main()
    except (TypeError, ValueError, SyntaxError) as error:
        sys.exit(f'error: {error}')
