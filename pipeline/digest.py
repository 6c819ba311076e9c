"""Digests of stages' code: what a stage is made of decides whether it is run again."""

import ast
import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def module_path(name: str) -> Path | None:
    """The file of a module or package of this repository; None for any other."""
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


@functools.cache
def parsed(path: Path) -> tuple[str, list[str]]:
    """(text of the syntax tree without docstrings, names of the modules that it imports) of a source file."""
    tree, modules = ast.parse(path.read_text()), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree), modules


def files(names: tuple[str, ...]) -> list[Path]:
    """The files of modules and of all that they import from this repository. ValueError for no module."""
    todo, paths = list(names), set()
    while todo:
        path = module_path(todo.pop())
        if path and path not in paths:
            paths.add(path)
            todo += parsed(path)[1]
    if not paths:
        raise ValueError(f"no module {' or '.join(names)} under {ROOT}")
    return sorted(paths)


@functools.cache
def code(*names: str) -> str:
    """Digest of modules and of their local imports; comments, docstrings and layout don't count."""
    text = "".join(f"{path.relative_to(ROOT)}{parsed(path)[0]}" for path in files(names))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
