"""Hiera image classification, for the command line and for Python.

    from hiera_cli import load_classifier
    classifier = load_classifier("tiny")
    for result in classifier.classify(["cat.jpg", "photos/"], top_k=5):
        print(result.path, result.predictions[0].label)

Importing this package alone imports no torch: `load_classifier` and `load_autoencoder` do.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = [
    "Autoencoder",
    "CheckpointError",
    "Classified",
    "Classifier",
    "DecodeError",
    "DeviceError",
    "Embedded",
    "Explained",
    "Explanation",
    "Failure",
    "FetchError",
    "HieraError",
    "InferenceError",
    "InputError",
    "NotFoundError",
    "Prediction",
    "ReadError",
    "Result",
    "TooLargeError",
    "UsageError",
    "__version__",
    "load_autoencoder",
    "load_classifier",
    "preprocess",
]

_WHERE = {  # but for the errors
    "Autoencoder": "autoencoder",
    "Classified": "tasks.classify",
    "Classifier": "classifier",
    "Embedded": "tasks.embed",
    "Explained": "tasks.explain",
    "Explanation": "tasks.terms",
    "Failure": "result",
    "Prediction": "tasks.classify",
    "Result": "result",
    "load_autoencoder": "autoencoder",
    "load_classifier": "classifier",
    "preprocess": "images.recipe",
}

TYPE_CHECKING = False  # without importing typing: the first milliseconds of the program are where Ctrl-C is a traceback
if TYPE_CHECKING:
    from hiera_cli.autoencoder import Autoencoder, load_autoencoder
    from hiera_cli.classifier import Classifier, load_classifier
    from hiera_cli.errors import (
        CheckpointError,
        DecodeError,
        DeviceError,
        FetchError,
        HieraError,
        InferenceError,
        InputError,
        NotFoundError,
        ReadError,
        TooLargeError,
        UsageError,
    )
    from hiera_cli.images.recipe import preprocess
    from hiera_cli.result import Failure, Result
    from hiera_cli.tasks.classify import Classified, Prediction
    from hiera_cli.tasks.embed import Embedded
    from hiera_cli.tasks.explain import Explained
    from hiera_cli.tasks.terms import Explanation


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "errors" if name.endswith("Error") else _WHERE[name]
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
