"""What `classify -f exiftool` does beside labelling: it tells what the photos' metadata will not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hiera_cli import wordnet
from hiera_cli.checkpoints.labels import Label
from hiera_cli.commands import messages
from hiera_cli.commands.report import ExitStatus
from hiera_cli.outputs import exiftool

TOLD = 3  # names


class Tagging:
    """One run. concepts: whether those above a label become keywords too. quiet: as often as it was said."""

    def __init__(self, *, concepts: bool, quiet: int) -> None:
        self._concepts = concepts
        self._quiet = quiet
        self._left_out: list[str] = []

    def check(self, labels: Sequence[Label], model: str) -> None:
        """Raise UsageError if there are concepts to be, and a model's classes are under none."""
        if self._concepts:
            wordnet.check_classes(labels, model)

    def tell_of_iptc(self, labels: Sequence[Label]) -> None:
        """Say which of a model's labels can't be IPTC keywords."""
        names = [exiftool.keyword(label.text, label.wnid) for label in labels]
        unfit = [name for name in dict.fromkeys(names) if not exiftool.fits_iptc(name)]
        if unfit:
            messages.remarks_unless(self._quiet)(
                f"{_some(unfit)}: IPTC takes keywords of up to {exiftool.IPTC_BYTES} ASCII letters alone; "
                "it stands in XMP"
            )

    def write(self, results: Iterable[Any]) -> Iterator[str]:
        """The writer."""
        return exiftool.exiftool(results, concepts=self._concepts, left_out=self._left_out.append)

    def concluded(self, status: ExitStatus) -> ExitStatus:
        """The run's exit status, once it has said what has no entry."""
        if not self._left_out:
            return status
        if self._quiet < 2:
            messages.remark(f"left out, for there is no file to write into: {_some(self._left_out)}")
        return ExitStatus.SOME_FAILED if status is ExitStatus.OK else status


def _some(names: Sequence[str]) -> str:
    told = ", ".join(names[:TOLD])
    return told + (f" and {len(names) - TOLD:,} more" if len(names) > TOLD else "")
