"""An import that fails names its cause, not the class that was asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
