"""Records → the lines of JSON that a page holds, and that its script reads.

A line is a photo, or what photos refer to: a label, which gets the next number from 0, a concept of WordNet's above
one, the model of those that follow, the colours of maps. Each stands before the first photo that has a use for it.

    {"model": "demo"}
    {"colours": "AwM1…"}
    {"concept": "n02121808", "name": "domestic cat", "above": ["n02121620"]}
    {"label": "tabby, tabby cat", "wnid": "n02123045", "above": ["n02121808"]}
    {"path": "photos/cat.jpg", "href": "photos/cat.jpg", "labels": [[0, 0.8731]], "thumbnail": 1}

What a photo has of these, and nothing else: `href` (percent-encoded, of the file), `url` (of a photo from the web),
`shell` (how a shell takes a name that is not UTF-8), `labels` (number, score, and the map of one that is explained),
`match` (the score of a search), `error` (type, message), `remarks`, `truth` (number), `correct`, `rank`, `missing` (why
there is no thumbnail), `thumbnail` (base64 of a JPEG, or the number of its file).

A map is [logit, constant, lowest term, highest term, terms]: the 7 × 7 as bytes in base64, 0 for the lowest of them and
255 for the highest. `colours` are 256 of three bytes, RGB, in base64.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from hiera_cli import wordnet
from hiera_cli.inputs.source import STDIN, is_url
from hiera_cli.system.utf8 import as_json, escaped, from_fields, raw_name

SCORE_DIGITS = 4  # which are 0.01 %
TERM_DIGITS = 4

Line = dict[str, Any]


class Lines:
    """The lines of one page. folder: the absolute path of the one that it lies in."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, "")
        self._model = ""
        self._labels: dict[object, int] = {}
        self._concepts: set[str] = set()
        self._has_colours = False

    def of(self, record: Mapping[str, Any]) -> list[Line]:
        """What a record comes to: its photo last, before it what is new in it.

        record: of classify, evaluate, find or explain, as JSON has it.
        """
        new: list[Line] = []
        if record.get("model") and record["model"] != self._model:
            self._model = record["model"]
            new.append({"model": self._model})
        photo = self._named(record)
        explanations = record.get("explanations") or ()
        predictions = record.get("predictions")
        if predictions is None and explanations:
            predictions = explanations
        if predictions is None and None not in (record.get("label"), record.get("label_score")):  # of find
            predictions = [{**record, "score": record["label_score"]}]
        maps = {_key(each): _map(each) for each in explanations}
        if maps and not self._has_colours:
            self._has_colours = True
            new.append({"colours": _colours()})
        labels: list[list[Any]] = [
            [self._number(each, each["label"], new), round(each["score"], SCORE_DIGITS)]
            + ([maps[_key(each)]] if _key(each) in maps else [])
            for each in predictions or ()
        ]
        if labels:
            photo["labels"] = labels
        if "label_score" in record:
            photo["match"] = round(record["score"], SCORE_DIGITS)
        if record.get("error"):
            photo["error"] = [record["error"]["type"], record["error"]["message"]]
        if record.get("remarks"):
            photo["remarks"] = record["remarks"]
        if record.get("truth"):
            truth = record["truth"]  # by the name of the class, and not by what its folder is called
            photo["truth"] = self._number(truth, truth.get("label") or truth["name"], new)
            photo["correct"] = record.get("correct")
            photo["rank"] = record.get("rank")
        return [*new, photo]

    def _named(self, record: Mapping[str, Any]) -> Line:
        """The photo by its name, and where it is."""
        photo: Line = {"path": record["path"]}
        name = os.fsdecode(from_fields(record["path"], record.get("path_bytes")))
        if record.get("path_bytes") is not None:
            photo["shell"] = "$'{}'".format(escaped(raw_name(name)).replace("'", "\\'"))
        if is_url(name):
            if name.lower().startswith(("http://", "https://")):
                photo["url"] = record["path"]
        elif name not in ("", STDIN) and not name.startswith("/dev/"):
            photo["href"] = self._href(name)
        return photo

    def _href(self, name: str) -> str:
        """Of a file: relative where it lies below the page, so that both can be moved together."""
        path = os.path.abspath(name)
        if path.startswith(self._folder):
            return quote_from_bytes(os.fsencode(path[len(self._folder) :].replace(os.sep, "/")))
        return Path(path).as_uri()

    def _number(self, label: Mapping[str, Any], text: str, new: list[Line]) -> int:
        """Of a label: with a WordNet id it is one whatever the model, else it is its model's, by its index."""
        wnid, index = label.get("wnid"), label.get("index")
        key = wnid or ((self._model, index) if index is not None else text)
        if key not in self._labels:
            self._labels[key] = len(self._labels)
            line: Line = {"label": text}
            if wnid:
                line["wnid"] = wnid
            if wnid in wordnet.synsets():
                line["above"] = self._above(wnid, new)
            new.append(line)
        return self._labels[key]

    def _above(self, wnid: str, new: list[Line]) -> list[str]:
        """The concepts right above one that say something of a picture; they and those further up are made known."""
        parents = [parent for parent in wordnet.synsets()[wnid].parents if parent not in wordnet.SAYING_NOTHING]
        for parent in parents:
            if parent not in self._concepts:
                self._concepts.add(parent)
                above = self._above(parent, new)
                new.append({"concept": parent, "name": wordnet.synsets()[parent].name, "above": above})
        return parents


def _key(label: Mapping[str, Any]) -> tuple[object, ...]:
    """By which a prediction and its explanation know one another."""
    return label.get("index"), label.get("wnid"), label["label"]


def _map(explanation: Mapping[str, Any]) -> list[Any]:
    """Of an explanation, as a page draws it."""
    terms = [float(term) for row in explanation["terms"] for term in row]
    low, high = min(terms), max(terms)
    shares = bytes(round(255 * (term - low) / ((high - low) or 1)) for term in terms)
    numbers = (explanation["logit"], explanation["constant"], low, high)
    return [*(round(number, TERM_DIGITS) for number in numbers), b64encode(shares).decode()]


def _colours() -> str:
    """Of a map, from low to high."""
    from hiera_cli.outputs.maps import scale  # a page of explanations alone has a use for it

    return b64encode(scale().tobytes()).decode()


def text_of(line: Line) -> str:
    """A line as it stands in the page: whatever its names hold, nothing in it ends the script element it is in."""
    text = as_json(line)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e") + "\n"
