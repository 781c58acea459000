"""How `--help` is laid out: options in groups, with examples, and no summary cut off."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperGroup

# In the order in which a command shows those that it has. What is in none of them comes last.
OTHERS = "Options"
GROUPS = {
    "Search": ("--or", "--not", "--like"),
    "Index": ("--status", "--forget", "--check", "--no-update", "--index"),
    "Inputs": (
        "--truth",
        "--allow-unknown",
        "--test",
        "--files-from",
        "--files0-from",
        "--exclude",
        "--hidden",
        "--follow",
        "--archives",
        "--column",
    ),
    "Model": (
        "--model",
        "--models",
        "--engine",
        "--device",
        "--precision",
        "--batch-size",
        "--workers",
        "--full-decode",
    ),
    "Cluster": ("--ray", "--ship"),
    "Output": (
        "--top-k",
        "--min-score",
        "--rollup",
        "--among",
        "--explain",
        "--keywords",
        "--label",
        "--limit",
        "--tokens",
        "--normalize",
        "--mask-ratio",
        "--seed",
        "--format",
        "--json",
        "--null",
        "--schema",
        "--confusion",
        "--output",
        "--overwrite",
        "--resume",
        "--no-thumbnails",
        "--quiet",
        "--no-banner",
        "--verbose",
        "--progress",
    ),
    "Limits": ("--max-pixels", "--max-mib", "--url-timeout", "--offline"),
}

# Each fits on a line of 60 columns.
EXAMPLES = {
    "hiera": (
        "hiera classify cat.jpg",
        "hiera classify photos -o page.html",
        "hiera find dog photos",
        "hiera classify --help",
    ),
    "classify": (
        "hiera classify cat.jpg photos/",
        "hiera classify photos --rollup 0.8",
        "hiera classify photos -o labels.jsonl --resume",
        "find . -name '*.jpg' | hiera classify --files-from -",
    ),
    "embed": (
        "hiera embed photos -o features.npz",
        "hiera embed photos -o features.jsonl --resume",
        "hiera embed photos --ray auto -o features/",
        "hiera embed cat.jpg -f jsonl | jq '.features | length'",
    ),
    "explain": (
        "hiera explain cat.jpg -o map.png",
        "hiera explain cat.jpg --label dog --label cat",
        "hiera explain photos -k 3 -o maps",
    ),
    "reconstruct": (
        "hiera reconstruct cat.jpg -o painted.png",
        "hiera reconstruct photos -o pictures --seed 1",
    ),
    "find": (
        "hiera find dog photos",
        "hiera find dog photos -0 | xargs -0 cp -t dogs/",
        "hiera find -e dog -e cat --not poodle photos",
        "hiera find --like photo.jpg photos -n 5",
    ),
    "index": (
        "hiera index photos",
        "hiera index --status",
        "hiera index --forget photos/old",
    ),
    "evaluate": (
        "hiera evaluate photos",
        "hiera evaluate --truth truth.csv photos --json",
        "hiera evaluate photos -m small -o page.html",
        "hiera evaluate photos --models tiny,small,base",
    ),
    "teach": (
        "hiera teach birds -o my-birds",
        "hiera teach birds -o my-birds --test more-birds",
        "hiera teach birds -m base -o my-birds --overwrite",
        "hiera teach birds -o my-birds --json | jq .mistrust",
    ),
    "report": (
        "hiera report labels.jsonl -o page.html",
        "hiera report labels.jsonl -o page.html --no-thumbnails",
    ),
    "download": (
        "hiera download",
        "hiera download base --to /media/usb/hiera-base",
        "hiera download --force tiny",
        "hiera download base --mae",
    ),
    "models": (
        "hiera models",
        "hiera models --json | jq -r '.[].repository'",
    ),
    "labels": (
        "hiera labels",
        "hiera labels dog",
        "hiera labels --tree dog",
        "hiera labels -m ORG/NAME",
    ),
    "info": (
        "hiera info",
        "hiera info --device cuda",
        "hiera info --clear-compiled",
    ),
    "bench": (
        "hiera bench",
        "hiera bench -m base --seconds 20",
        "hiera bench --device cpu --json",
    ),
}


def group_of(parameter: Any) -> str:
    """The group of an option, or where an argument stands."""
    if parameter.param_type_name == "argument":
        return "Arguments"
    return next((group for group, names in GROUPS.items() if {*parameter.opts} & {*names}), OTHERS)


class HelpCommand(TyperCommand):
    """A command with its examples first, and its options in groups."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """The whole summary: lists of commands wrap it."""
        return super().get_short_help_str(limit=1000)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What the command does, and examples."""
        super().format_help_text(ctx, formatter)
        _write_examples(self.name, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options, group by group. Of a group with one option only, that option goes to the others."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *GROUPS, OTHERS)}
        shown = [(each, record) for each in self.get_params(ctx) if (record := each.get_help_record(ctx)) is not None]
        groups = Counter(group_of(each) for each, _ in shown)
        for each, record in shown:
            group = group_of(each)
            sections[group if groups[group] > 1 or group == "Arguments" else OTHERS].append(record)
        width = max(len(name) for _, (name, _) in shown)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl([(name.ljust(width), text) for name, text in records])


class HelpGroup(TyperGroup):
    """The program, with examples."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What the program does, and examples."""
        super().format_help_text(ctx, formatter)
        _write_examples("hiera", formatter)


def _write_examples(name: str | None, formatter: Any) -> None:
    if name in EXAMPLES:
        with formatter.section("Examples"):
            for line in EXAMPLES[name]:
                formatter.write(f"  {line}\n")
