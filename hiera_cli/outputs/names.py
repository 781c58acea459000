"""Results → text, one writer a format, and the file that the text goes to.

A writer takes the Results as they come and yields text as soon as it is known. Whenever the Results end, be it early,
what was yielded is a valid document of its format.
"""

from __future__ import annotations

SUFFIXES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "plain",
}

FORMATS = ("table", "plain", "json", "jsonl", "csv", "tsv")
