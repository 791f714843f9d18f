"""Nothing is built here yet; setup.cfg carries the metadata."""

from setuptools import setup

setup()
