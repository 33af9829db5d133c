"""The public names: listed in one place, documented, typed, and importing one way."""

import ast
import importlib
import inspect
import re

import pytest
import torch
from helpers import ROOT

import mlp_backbones

PACKAGE = ROOT / 'mlp_backbones'
LISTED = re.findall(r'^::: (\S+)', (ROOT / 'docs/api.md').read_text(), re.MULTILINE)
# The package's folders, from the top down: each imports from its own row and those below.
LAYERS = [
    {'apis', 'engine', 'visualization'},
    {'deploy'},
    {'models'},
    {'checkpoints', 'datasets'},
    {'registry', 'utils'},
]


def resolve(name: str):
    module, _, attribute = name.rpartition('.')
    return getattr(importlib.import_module(module), attribute)


def test_all_names_are_listed():
    assert {f'mlp_backbones.{name}' for name in mlp_backbones.__all__} - set(LISTED) == {'mlp_backbones.__version__'}
    assert len(LISTED) == len(set(LISTED))


def test_names_for_type_checkers_are_those_of_run_time():
    (block,) = [n for n in ast.parse((PACKAGE / '__init__.py').read_text()).body if isinstance(n, ast.If)][:1]
    typed = {alias.asname: f'mlp_backbones.{n.module}' for n in block.body for alias in n.names}
    assert typed == mlp_backbones._PUBLIC


def documented(function, text: str, owner: str) -> None:
    """Every argument is described where there are some, and so is what comes back."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ('self', 'cls')]
    for parameter in parameters:
        entry = rf'^ *(\*{{0,2}}\w+, )*\*{{0,2}}{parameter.name}(, \w+)* ?(\(.*\))?:'
        assert re.search(entry, text, re.MULTILINE), f'{owner}: {parameter.name} is not described'
        assert parameter.annotation is not parameter.empty or parameter.name in UNTYPED, f'{owner}: {parameter.name}'
    returns = inspect.signature(function).return_annotation
    assert returns in (None, 'None') or re.search('^(Returns|Yields):', text, re.MULTILINE), f'{owner}: what it returns'


UNTYPED = {'cfg', 'sampler', 'sample', 'args', 'kwargs'}  # of classes that come without types, or handed on


@pytest.mark.parametrize('name', LISTED)
def test_docstrings(name):
    thing = resolve(name)
    if not callable(thing) or name == 'mlp_backbones.MODELS':
        return
    text = inspect.getdoc(thing)
    assert text, name
    if not inspect.isclass(thing):
        documented(thing, text, name)
        return
    if '__init__' in vars(thing):
        documented(thing.__init__, text, name)
    for attribute, method in vars(thing).items():
        method = getattr(method, '__func__', method)  # of a static method
        # What a method is for that comes from above is said there.
        own = inspect.isfunction(method) and not any(hasattr(base, attribute) for base in thing.__mro__[1:])
        if attribute.startswith('_') or not own:
            continue
        assert inspect.getdoc(method), f'{name}.{attribute}'
        if len(inspect.signature(method).parameters) > 2:
            documented(method, inspect.getdoc(method), f'{name}.{attribute}')


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    rows = {folder: row for row, folders in enumerate(LAYERS) for folder in folders}
    here = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    if here == '__init__':
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            inside = len(path.relative_to(PACKAGE).parts) - node.level  # how deep the folder is that is meant
            there = (node.module or '').split('.')[0] if inside == 0 else here
            assert rows[there] >= rows[here], f'{here} imports {there}'


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch, 'accelerator'), reason='the type hints are of the default stack')
def test_types():
    api = pytest.importorskip('mypy.api')
    output, errors, status = api.run(['--config-file', str(ROOT / 'pyproject.toml'), str(PACKAGE)])
    assert status == 0, output + errors
