"""The document around the lines of a page.

Its script and its style stand within it, known to the browser by their hashes: the Content-Security-Policy has nothing
else run, and nothing come from anywhere but the disk.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from functools import cache
from importlib.resources import files

_LINES = "{# lines #}"
_META = re.compile(r'<meta name="hiera-thumbnails" content="([^"]*)">')


def head(title: str, thumbnails: str) -> str:
    """What stands before the lines. title: any text. thumbnails: the folder of those that are files, a relative URL."""
    script, style = _read("page.js"), _read("page.css")
    policy = (
        "default-src 'none'",
        "img-src 'self' file: data:",
        f"script-src {_hash(script)}",
        f"style-src {_hash(style)}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return _rendered(0, title=title, thumbnails=thumbnails, policy="; ".join(policy), script=script, style=style)


def tail(*, complete: bool) -> str:
    """What stands behind the lines. complete: whether the run came to its end, for the page to say."""
    return _rendered(1, end=json.dumps({"complete": complete}))


def thumbnails_of(head: str) -> str:
    """The folder that the begin of a page names; "" if it names none, or is no page of ours."""
    found = _META.search(head)
    return html.unescape(found[1]) if found else ""


def _rendered(part: int, **values: str) -> str:
    """A part of the template: 0 is before the lines, 1 behind them."""
    import jinja2  # a page alone has a use for it

    source = _read("page.html.j2").split(_LINES)[part]
    return jinja2.Environment(autoescape=True, keep_trailing_newline=True).from_string(source).render(values)


@cache
def _read(name: str) -> str:
    return files("hiera_cli.outputs.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
