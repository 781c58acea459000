"""What a user can do about an error, in the words of the command line. No module below this room names an option."""

from __future__ import annotations

import shlex

from hiera_cli.checkpoints.published import PUBLISHED
from hiera_cli.errors import HieraError

_AUTOENCODERS: dict[object, str] = {model.mae_repository: model.name for model in PUBLISHED.values()}

_WEIGHTS = """\
On a machine with a network: hiera download {model} --to DIR; then here: the same command with -m DIR
Behind a proxy or a mirror: set HTTPS_PROXY or HF_ENDPOINT (if a transfer hangs: HF_HUB_DISABLE_XET=1).
To try the program without weights: -m demo (it knows the sample images alone)."""

_ANOTHER_OUTPUT = "Name another --output, or --overwrite to begin anew."

# By the name that an error gives, with {what} the error tells about itself.
REMEDIES: dict[str, str] = {
    "as_an_input": "Name it as an input: `hiera classify {name}`.",
    "files_from": "Did you mean --files-from {name}? It reads a list of one path a line.",
    "files0_from": "Did you mean --files0-from {name}? It reads a list as `find -print0` writes it.",
    "address space": "Raise that limit, or run without it.",
    "another engine": "--engine {engine} does without it.",
    "device auto": "`--device auto` takes the best that is available.",
    "engine torch": "Use --engine torch for other devices.",
    "free memory": "Free some, or use a smaller model (-m tiny).",
    "free memory of the device": "Free some, or use a smaller model (-m tiny), or --device cpu.",
    "precision of the CPU": "Use --precision bf16 or fp32.",
    "the cluster's version": "Install that of the cluster here: `ray --version` on its head tells it.",
    "the CPU": "--device cpu does without it.",
    "another index": "Name another one: --index FILE, or HIERA_INDEX.",
    "damaged index": "Move it away: `hiera index PATH...` builds it anew. Or name another one: --index FILE.",
    "no index": "`hiera index PATH...` makes one.",
    "another model folder": "It is left as it is. Name another one: -o MODEL",
    "another output": _ANOTHER_OUTPUT,
    "another folder": "What its parts hold can be read. Name another folder, or --overwrite to begin anew.",
    "begin anew": "It holds what was done: move it away to keep that. --overwrite begins anew.",
    "keep the records before": (
        "To keep the {count:,} records before it, and go on with them in another file:\n"
        "  head -n {count} {file} > {kept}, then --resume -o {kept}\n" + _ANOTHER_OUTPUT
    ),
    "no room for arrays": "Nothing of it could be saved: free some space. Of jsonl each record is saved at once.",
    "picture or folder": "Name a picture (.png) for one input, or a folder.",
    "records of labels": "`hiera classify`, `hiera find` and `hiera evaluate` write such records: -o FILE.jsonl.",
    "go on": "What was done is kept. Of jsonl, and of a folder of parts, --resume goes on from there.",
    "become a node": "`ray start --address {address} --num-cpus 0` makes it one that does no work itself.",
    "name the head": "Name it as HOST:PORT, as `ray start --head` says it.",
    "ship": "Install the same version there: pip install hiera-cli. Or leave that to this machine: --ship.",
    "start a cluster": "The README says how to start one; --ray local does that for a single run.",
    "the head's address": "Is that the address of its head? --ray local starts a cluster for a single run.",
    "replace": "--overwrite replaces it.",
    "resume or begin anew": "--resume goes on with it; --overwrite begins anew.",
    "resume or replace": "--resume goes on with it; --overwrite replaces it.",
    "the same setting": "Use --{option} {value} again, another --output, or --overwrite to begin anew.",
    "with the option": "Use --{option} again, another --output, or --overwrite to begin anew.",
    "without the option": "Leave out --{option}, use another --output, or --overwrite to begin anew.",
    "weights": _WEIGHTS,
    "offline": f"To download them here: leave out --offline.\n{_WEIGHTS}",
    "damaged copy": "If the cached copy is damaged, fetch it again: hiera download --force {repository}",
    "model folder": "A model folder holds {config} and {weights}: `hiera download --to DIR` makes one.",
    "linked weights": "If that is meant, name the weights file itself: -m PATH/{weights}",
    "unknown classes": "--allow-unknown leaves their images out; `hiera labels -m {model}` lists the classes.",
    "truth file": "Of photos that are not in such folders: --truth FILE, a csv of their paths and labels.",
    "classes of its own": "Leave out what names concepts: --rollup, --among, --tree, --keywords concepts.",
    "features": "For its features: hiera embed -m {model} INPUT... -o FILE",
    "reconstruct": "`hiera reconstruct` shows what it paints in the places that are hidden from it.",
}

# Of an input that failed: behind the message, in brackets. {path}: the input's.
INPUT_REMEDIES: dict[str, str] = {
    "column": "--column names one",
    "files_from": "--files-from {path} reads it",
    "files0_from": "--files0-from {path} reads it",
    "max_mib": "--max-mib raises it",
    "max_pixels": "--max-pixels raises it",
    "offline": "leave out --offline",
    "url_timeout": "--url-timeout raises it",
    "wider_range": "--precision fp32 has a wider range",
}


def hint(error: HieraError) -> str:
    """What to do next, a line or several; "" if nothing is known."""
    about = {**error.about}
    if about.get("model") in _AUTOENCODERS:
        about["model"] = f"{_AUTOENCODERS[about['model']]} --mae"
    words = REMEDIES[error.remedy].format(**about) if error.remedy else ""
    return "\n".join(filter(None, (error.hint, words)))


def of_input(message: str, remedy: str, path: str = "") -> str:
    """Why an input failed, and what to do about it. path: the input's."""
    return f"{message} ({INPUT_REMEDIES[remedy].format(path=shlex.quote(path))})" if remedy else message
