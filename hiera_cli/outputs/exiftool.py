"""Labels as the JSON that ExifTool takes, to write them into the photos as keywords: `exiftool -json+=FILE -r photos`.

XMP:Subject and IPTC:Keywords are flat; lr:hierarchicalSubject, which Lightroom and digiKam read as a tree, has the
concepts above a keyword before it, with | between.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hiera_cli import wordnet
from hiera_cli.inputs.source import is_cloud
from hiera_cli.result import Result
from hiera_cli.system.utf8 import as_json, name_bytes, name_fields
from hiera_cli.tasks.classify import Classified, Prediction

MIN_SCORE = 0.5  # of what becomes a keyword, unless it is said
IPTC_BYTES = 64  # of a keyword: ExifTool cuts longer ones
BASE64 = "base64:"  # before what ExifTool is to decode


def exiftool(
    results: Iterable[Classified], *, concepts: bool = False, left_out: Callable[[str], None] = lambda path: None
) -> Iterator[str]:
    """One array, an entry a file, as soon as it is known. Where no label is sure enough an entry changes nothing.

    concepts: whether those above a label are keywords too. left_out: told of each input that is no file, and so has
    no entry. A failed input has none either.
    """
    separator = "[\n"
    for result in results:
        if result.error is not None:
            continue
        if result.stamp is None or is_cloud(result.path) or _is_in_archive(result.path):
            left_out(result.path)
            continue
        yield separator + as_json({"SourceFile": source_file(result), **tags(result.predictions, concepts=concepts)})
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _is_in_archive(path: str) -> bool:
    try:
        os.lstat(path)
    except NotADirectoryError:
        return True
    except (OSError, ValueError):
        return False
    return False


def source_file(result: Result) -> str:
    """A path as ExifTool finds it again, whichever way it is sent there: without `.`, `..` and `//`.

    Of a name that is not UTF-8 the bytes in base64, as ExifTool reads them.
    """
    path = result.path
    if os.pardir in path.split(os.sep):
        folder, name = os.path.split(path)
        path = os.path.join(os.path.realpath(folder), name)  # not the file's own: it may be a link
    path = os.path.normpath(path)
    if name_fields(path)[1] is None and not path.startswith(BASE64):
        return path
    return BASE64 + base64.b64encode(name_bytes(path)).decode()


def tags(predictions: Iterable[Prediction], *, concepts: bool = False) -> dict[str, list[str]]:
    """What is written into a file, by the tags' names; nothing without predictions."""
    keywords: dict[str, None] = {}
    trees: dict[str, None] = {}
    for each in predictions:
        name = keyword(each.label, each.wnid)
        keywords[name] = None
        lineage = _names(reversed(wordnet.lineage(each.wnid))) if concepts and each.wnid else []
        if concepts and each.wnid:
            keywords.update(dict.fromkeys(_names(wordnet.by_size(wordnet.above(each.wnid)))))
        trees["|".join(part.replace("|", "/") for part in (*lineage, name))] = None
    found: dict[str, list[str]] = {"XMP:Subject": [*keywords]}
    found["IPTC:Keywords"] = [name for name in keywords if fits_iptc(name)]
    found["XMP-lr:HierarchicalSubject"] = [*trees]
    return {tag: values for tag, values in found.items() if values}


def keyword(label: str, wnid: Any) -> str:
    """A label as a keyword: of one of ImageNet's, which are lists of synonyms, the first of them."""
    return label.split(", ")[0] if wnid else label


def fits_iptc(keyword: str) -> bool:
    """Whether IPTC:Keywords can have it: others would be cut, or depend on the file's encoding, mostly not stated."""
    return keyword.isascii() and len(keyword) <= IPTC_BYTES


def _names(wnids: Iterable[str]) -> list[str]:
    return [wordnet.synsets()[wnid].name for wnid in wnids if wnid not in wordnet.SAYING_NOTHING]
