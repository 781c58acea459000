"""Bytes → pixels."""

from hiera_cli.images.recipe import preprocess

__all__ = ["preprocess"]
