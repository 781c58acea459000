"""The rooms of the package: imports run downwards only, and nowhere in a circle."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import hiera_cli

PACKAGE = Path(hiera_cli.__file__).parent

# From the ground up. A module at the root is a room of its own; each room may import what stands before it.
ROOMS = (
    *("__init__", "errors", "limits", "system", "result"),
    *("model", "inputs", "images", "checkpoints", "wordnet", "engines", "tasks", "pipeline", "index"),
    *("evaluation", "teaching", "outputs"),
    *("classifier", "autoencoder", "cluster", "bench", "commands", "__main__"),
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


@cache
def imports(module: str) -> frozenset[str]:
    """The package's own modules that a module imports, at its top, within functions, or for its types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.removeprefix("hiera_cli.") for name in node.names if name.name.startswith("hiera_cli.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hiera_cli":
            package = (node.module or "").removeprefix("hiera_cli").removeprefix(".")
            for name in node.names:
                whole = f"{package}.{name.name}".removeprefix(".")
                found.add(whole if whole in MODULES else package or "__init__")
    return frozenset(found - {module})


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_stands_in_a_room() -> None:
    assert {room(module) for module in MODULES} == set(ROOMS)


def test_imports_run_downwards_only() -> None:
    upwards = [
        f"{module} imports {other}"
        for module in MODULES
        if module != "__init__"  # it hands names on when they are asked for
        for other in imports(module)
        if ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]
    assert upwards == []


def test_no_imports_run_in_a_circle() -> None:
    graph = {module: imports(module) for module in MODULES if module != "__init__"}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, with the circle
    assert set(order) >= set(graph)
