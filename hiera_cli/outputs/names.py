"""What formats are called, and the file suffixes that ask for them."""

from __future__ import annotations

SUFFIXES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "plain",
    ".html": "html",
    ".htm": "html",
}

FORMATS = ("table", "plain", "json", "jsonl", "csv", "tsv", "parquet", "html")

LABEL_FORMATS = (*FORMATS, "exiftool")  # of `hiera classify`

KEYWORDS = ("labels", "concepts")  # what becomes a keyword

FEATURE_SUFFIXES = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

FEATURE_FORMATS = ("npz", "safetensors", "parquet", "json", "jsonl")
PARTS = ("parquet", "jsonl")  # what a folder of parts is made of
ARRAYS = ("npz", "safetensors")  # written once more at the end: files alone
