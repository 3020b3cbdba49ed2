"""All is declared in pyproject.toml; this file serves `python setup.py ...` and older versions of pip."""

from setuptools import setup

setup()
