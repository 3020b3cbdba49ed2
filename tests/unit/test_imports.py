"""What packages export: an import that fails names its cause, and no module takes the place of a function."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import llava
import regap_patch

BROKEN = """
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "transformers":
            raise ImportError("libcudart.so.12: undefined symbol")

sys.meta_path.insert(0, Broken())
try:
    from {package} import LlavaLlamaForCausalLM
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["llava", "llava.model"])
def test_a_broken_dependency_is_named(package: str):
    done = subprocess.run(
        [sys.executable, "-c", BROKEN.format(package=package)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "libcudart.so.12: undefined symbol\n", done.stderr


@pytest.mark.parametrize("root", [llava, regap_patch], ids=lambda root: root.__name__)
def test_no_export_has_the_name_of_a_module(root: ModuleType):
    """Importing a module binds it to its package, over what the package exported by that name."""
    packages = [
        found.name for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}.") if found.ispkg
    ]
    for name in (root.__name__, *packages):
        package = import_module(name)
        modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
        assert not modules & set(getattr(package, "__all__", ())), name
