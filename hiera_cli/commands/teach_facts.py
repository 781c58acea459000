"""What `hiera teach` tells, as records, and the card that goes with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hiera_cli.checkpoints.hub import is_repository_name
from hiera_cli.checkpoints.published import DEMO, REPOSITORIES
from hiera_cli.result import Failure
from hiera_cli.system.printable import printable
from hiera_cli.system.utf8 import name_fields
from hiera_cli.teaching.report import Taught, Twins

PUBLISHED_LICENCE = "cc-by-nc-4.0"


@dataclass(frozen=True)
class TeachFacts:
    """What was taught. base: the name of the model that the features are of. precision: theirs.

    failed: the paths of photos that could not be read, and why.
    """

    model: str
    base: str
    precision: str
    seed: int
    taught: Taught
    failed: tuple[tuple[str, Failure], ...]


def as_record(facts: TeachFacts) -> dict[str, Any]:
    """All of it, for JSON."""
    taught = facts.taught
    photos = {each.label: each.photos for each in taught.classes}
    return {
        "model": name_fields(facts.model)[0],
        "base": name_fields(facts.base)[0],
        "precision": facts.precision,
        "seed": facts.seed,
        "photos": taught.photos,
        "classes": [{"label": each.label, "photos": each.photos, "right": each.right} for each in taught.classes],
        "strength": taught.strength,
        "strengths": [
            {"strength": each.strength, "log_loss": _rounded(each.log_loss), "accuracy": _rounded(each.accuracy)}
            for each in taught.tried
        ],
        "searched": taught.searched,
        "cross_validation": {
            "folds": taught.folds,
            "right": taught.right,
            "accuracy": _rounded(taught.accuracy),
            "accuracy_interval": [_rounded(bound) for bound in taught.interval],
            "class_accuracy": _rounded(taught.class_accuracy),
            "log_loss": _rounded(taught.log_loss),
        },
        "confusions": [
            {
                "label": each.label,
                "taken_for": each.taken_for,
                "photos": each.photos,
                "of": photos[each.label],
            }
            for each in taught.confusions
        ],
        "mistrust": {
            "few_photos": [{"label": each.label, "photos": each.photos} for each in taught.few],
            "copies_of_one": [{"label": each.label, "photos": each.photos} for each in taught.repeated],
            "in_two_classes": list(map(_twins, taught.twins)),
            "copies": list(map(_twins, taught.copies)),
            "wrong_label": [
                {
                    **_path(each.path),
                    "label": each.label,
                    "looks_like": each.looks_like,
                    "score": _rounded(each.score),
                }
                for each in taught.doubtful
            ],
        },
        "failed": [
            {**_path(path), "error": {"type": failure.type, "message": failure.message}}
            for path, failure in facts.failed
        ],
    }


def _twins(twins: Twins) -> dict[str, Any]:
    photos = ((twins.path, twins.label), (twins.other_path, twins.other_label))
    return {"photos": [{**_path(path), "label": label} for path, label in photos], "same": twins.same}


def _rounded(number: float) -> float:
    return round(number, 6)


def _path(path: str) -> dict[str, str | None]:
    text, raw = name_fields(path)
    return {"path": text, "path_bytes": raw}


def card(facts: TeachFacts) -> str:
    """The README.md of a model: what it was made of, how good it is, whose licence it has. The same for the same model.

    It does not tell where the model or the photos lie.
    """
    taught = facts.taught
    low, high = taught.interval
    licence, about = _licence(facts.base)
    on_the_hub = facts.base in REPOSITORIES or is_repository_name(facts.base)
    front = [
        "---",
        *licence,
        *([f"base_model: {facts.base}"] if on_the_hub else []),
        "library_name: transformers",
        "pipeline_tag: image-classification",
        "---",
    ]
    rows = [f"| {_cell(each.label)} | {each.photos:,} | {each.right / each.photos:.1%} |" for each in taught.classes]
    base = printable(facts.base) if on_the_hub or facts.base == DEMO else "a Hiera from a file or folder"
    return "\n".join(
        [
            *front,
            "",
            f"# A Hiera that knows {len(taught.classes):,} classes",
            "",
            f"`hiera teach` has made it: a linear classifier of the features of {base}, computed in {facts.precision},"
            " which are as they were.",
            "",
            f"- Taught from {taught.photos:,} photos, each with its mirror image.",
            f"- Multinomial logistic regression with an L2 penalty, C = {taught.strength:g}, on standardised features,"
            f" seed {facts.seed}.",
            f"- Accuracy in {taught.folds}-fold cross-validation: {taught.accuracy:.1%}"
            f" ({low:.1%} to {high:.1%} with 95% confidence); the mean of the classes'"
            f" {taught.class_accuracy:.1%}; log loss {taught.log_loss:.3f}."
            " It says how right the model is on photos like these, and nothing of others.",
            "",
            "| class | photos | accuracy |",
            "|---|---|---|",
            *rows,
            "",
            "```console",
            "$ hiera classify -m FOLDER photo.jpg",
            "```",
            "",
            "```python",
            "from transformers import pipeline",
            'pipeline("image-classification", "FOLDER")("photo.jpg")',
            "```",
            "",
            f"Licence: {about}",
            "",
        ]
    )


def _licence(base: str) -> tuple[list[str], str]:
    """Lines of the card's front matter, and a sentence."""
    if base == DEMO:
        return ["license: apache-2.0"], "Apache 2.0, as that of the demo model."
    if base in REPOSITORIES or base.startswith("facebook/hiera-"):
        return [f"license: {PUBLISHED_LICENCE}"], f"CC BY-NC 4.0 (non-commercial use), as that of {base}."
    return (
        ["license: other", "license_name: that-of-the-base-model"],
        "that of the base model. The published weights of Hiera are under CC BY-NC 4.0 (non-commercial use), and so is"
        " what is made of them.",
    )


def _cell(text: str) -> str:
    """A class's name in a table of Markdown."""
    return "".join(f"\\{each}" if each in "\\`*_{}[]<>()#+-.!|~&" else each for each in printable(text))
