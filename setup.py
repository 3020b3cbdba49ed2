"""Everything is declared in pyproject.toml; this file lets `python setup.py ...` and older pip versions work."""

from setuptools import setup

setup()
