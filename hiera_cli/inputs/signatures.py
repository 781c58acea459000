"""What a file is, by its first bytes: a picture that is read here, or what is often taken for one."""

from __future__ import annotations

import re

START = 512  # bytes: enough for any answer here

# Of the formats in images.FORMATS, and HEIC. Where a signature is short, what always follows it is asked for as well:
# lists of paths, and files without a suffix, are told from pictures by it.
_PICTURE = (
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|RIFF.{4}WEBPVP8"
    rb"|GIF8[79]a.{6}\0"
    rb"|BM.{4}.{8}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"  # BMP: the size of its header
    rb"|II\*\0|MM\0\*|II\+\0|MM\0\+"  # TIFF, BigTIFF
    rb"|\0.{3}ftyp.{0,32}?(?:avif|avis|heic|heix|heim|heis|hevc|hevx|mif1|msf1)"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"  # JPEG 2000
    rb"|P[1-6]\s+(?:#[^\n]*\s+)*\d+\s+\d+\s"  # PPM
    rb"|qoif\0"
    rb"|\0\0\x01\0.\0.{3}\0"  # ICO
    rb"|icns\0"
    rb"|DDS \x7c\0\0\0"
    rb"|\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]"  # PCX
    rb"|8BPS\0\x01"
    rb"|\x01\xda[\x00\x01][\x01\x02]"  # SGI
)

RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw", ".orf", ".pef"}
    | {".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
RAW = "RAW photos are not read; convert them first, or take the previews in them: `exiftool -b -PreviewImage`"

_MARKUP = rb"(?:\xef\xbb\xbf)?\s*"  # what may stand before it

# Pictures, of formats that are not read.
_UNREAD = (
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL is not read; convert it to PNG or JPEG first"),
    (rb"FUJIFILMCCD-RAW|\0.{3}ftypcrx |IIU\0|IIR[OS]|MMOR|II\x1a\0\0\0HEAPCCDR", RAW),
    (_MARKUP + rb"<(?:svg|\?xml)", "vector graphics (SVG) are not read; render it to PNG first"),
)
_OTHERS = (
    (_MARKUP + rb"<(?:!doctype html|html)", "an HTML page", ""),
    (rb"%PDF", "a PDF", "`pdftoppm -png` makes images of its pages"),
    (rb"%!PS", "PostScript", "render it to PNG first"),
    (rb"PK(?:\x03\x04|\x05\x06)", "a ZIP archive", "unpack it first"),
    (rb".{257}ustar[\0 ]", "a tar archive", "unpack it first"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ\0|\x28\xb5\x2f\xfd", "compressed data", "unpack it first"),
    (
        rb"\0.{3}(?:ftyp|moov|mdat|wide)|\x1a\x45\xdf\xa3|RIFF.{4}AVI |FLV\x01|\0\0\x01[\xb3\xba]"
        rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        "a video",
        "`ffmpeg -i` makes images of it",
    ),
    (rb"RIFF.{4}WAVE|ID3[\x02-\x04]|fLaC|OggS", "a sound recording", ""),
)


def is_picture(start: bytes) -> bool:
    """Whether a file that begins with these bytes (64 are enough) is of a format that is read here."""
    return _begins(start, _PICTURE)


def other(start: bytes) -> tuple[str, str] | None:
    """(what it is, what to do with it or "") of a file that begins with these bytes (START) and is of another kind."""
    return next(((name, advice) for pattern, name, advice in _OTHERS if _begins(start, pattern)), None)


def is_archive(start: bytes) -> bool:
    """Whether a file that begins with these bytes (START) is an archive of a kind that is read as an input."""
    return (other(start) or ("", ""))[0] in ("a ZIP archive", "a tar archive")


def unread(start: bytes) -> str:
    """Why a file that begins with these bytes (START) is not read, as no decoder knows it."""
    if sentence := next((sentence for pattern, sentence in _UNREAD if _begins(start, pattern)), ""):
        return sentence
    if known := other(start):
        name, advice = known
        return f"it is {name}, not an image{'; ' if advice else ''}{advice}"
    return "not an image of a format that is read here"


def _begins(start: bytes, pattern: bytes) -> bool:
    return re.match(pattern, start, re.DOTALL | re.IGNORECASE if pattern.startswith(_MARKUP) else re.DOTALL) is not None
