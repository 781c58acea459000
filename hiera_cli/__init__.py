"""Hiera image classification, for the command line and for Python.

    from hiera_cli import load_classifier
    classifier = load_classifier("tiny")
    for result in classifier.classify(["cat.jpg", "photos/"], top_k=5):
        print(result.path, result.predictions[0].label)

Importing this package alone imports no torch: `load_classifier` does, when it is called.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__", "load_classifier"]

TYPE_CHECKING = False  # without importing typing: the first milliseconds of the program are where Ctrl-C is a traceback
if TYPE_CHECKING:
    from hiera_cli.classifier import load_classifier


def __getattr__(name: str) -> object:
    if name == "load_classifier":
        from hiera_cli.classifier import load_classifier

        return load_classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
