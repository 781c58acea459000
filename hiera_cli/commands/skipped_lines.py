"""What is said at the end of a run of what its folder walks passed over."""

from __future__ import annotations

from hiera_cli.inputs.signatures import RAW, RAW_SUFFIXES
from hiera_cli.inputs.skipped import Skipped

TOLD_KINDS = 5


def skipped_lines(skipped: Skipped) -> list[str]:
    """Such as `skipped 6 files that are not known as images (5 .nef, 1 without suffix), 3 links (--follow)`."""
    parts = []
    if files := sum(skipped.suffixes.values()) + skipped.others:
        are = "file that is not known as an image" if files == 1 else "files that are not known as images"
        parts.append(f"{files:,} {are} ({_kinds(skipped, files)})")
    if skipped.links:
        parts.append(f"{skipped.links:,} link{'s' * (skipped.links > 1)} (--follow)")
    if links := skipped.links_in_archives:
        parts.append(f"{links:,} {'link or device' if links == 1 else 'links and devices'} in archives")
    if archives := skipped.archives_in_archives:
        are = "archive in an archive" if archives == 1 else "archives in archives"
        parts.append(f"{archives:,} {are} (unpack the outer one first)")
    if skipped.hidden:
        parts.append(f"{skipped.hidden:,} hidden (--hidden)")
    lines = [f"skipped {', '.join(parts)}"] if parts else []
    if any(suffix in RAW_SUFFIXES for suffix in skipped.suffixes):
        lines.append(RAW)
    return lines


def _kinds(skipped: Skipped, files: int) -> str:
    most = sorted(skipped.suffixes.items(), key=lambda item: (-item[1], item[0]))[:TOLD_KINDS]
    kinds = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in most]
    if rest := files - sum(count for _, count in most):
        kinds.append(f"{rest:,} other")
    return ", ".join(kinds)
