"""The host side runs on whatever Python a host has, 3.9 at least, and needs nothing but its standard library."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import minicloud

SOURCES = sorted((Path(minicloud.__file__).parent / "hostside").glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_is_python_3_9_and_stands_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module or "")
    foreign = {
        name
        for name in imported
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("minicloud.hostside")
    }
    assert not foreign
