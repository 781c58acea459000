"""Files of Hub repositories: found in the ordinary cache without a request, else downloaded and verified.

`huggingface_hub` does the transfers, so its cache, its environment variables (HF_HOME, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE, …) and what other programs have fetched all count. Only the look into the cache is written out here,
by the same variables: it is what every run does, and importing the library takes longer than labelling an image.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hiera_cli.checkpoints.published import LICENCE, REPOSITORIES, short_name
from hiera_cli.errors import CheckpointError
from hiera_cli.system.patience import told_if_slow
from hiera_cli.system.threads import apart

if TYPE_CHECKING:
    from huggingface_hub.file_download import HfFileMetadata

METADATA_TIMEOUT = 10  # seconds, for each wait on the network
FIRST_ANSWER = 25  # seconds, in all: names that nobody resolves and addresses that swallow packets add up
PATIENCE = 3  # seconds: a wait for an answer is told from here on
ATTEMPTS = 3  # for a file whose transfer fails in a way that may pass
RETRY_PAUSE = 2  # seconds, doubled each time


@dataclass(frozen=True)
class Progress:
    """Who is told of a download, be it from another thread. Without one it is silent.

    say: told, in a line each, what is fetched and under which licence, and what one is waiting for. bar: show one on
    stderr for each file, if that is a terminal.
    """

    say: Callable[[str], None]
    bar: bool = False


def is_repository_name(name: str) -> bool:
    """Whether a name has the form ORG/NAME of the Hub."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII)) and ".." not in name


def is_offline() -> bool:
    """Whether the environment forbids requests to the Hub (HF_HUB_OFFLINE)."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


def cache_folder() -> Path:
    """Where the Hub's files are kept on this machine (HF_HUB_CACHE, HF_HOME)."""
    base = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = _expanded(os.environ.get("HF_HOME", os.path.join(base, "huggingface")))
    legacy = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return Path(_expanded(os.environ.get("HF_HUB_CACHE", legacy)))


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def cached(repository: str, filenames: Sequence[str]) -> list[Path] | None:
    """The files of the repository's main revision if the cache holds every one of them. Makes no request.

    The layout is the documented one: refs/main names the commit, snapshots/COMMIT holds the files.
    """
    folder = cache_folder() / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    files = [folder / "snapshots" / commit / name for name in filenames]
    return files if commit and all(os.path.isfile(file) for file in files) else None


def cached_models() -> list[str]:
    """Repositories (ORG/NAME) with a Hiera in the cache, without those that have a name of their own, sorted.

    Makes no request, and opens no file but configurations: a shell waits for it.
    """
    try:
        folders = sorted(os.listdir(cache_folder()))
    except OSError:
        return []
    split = [folder.split("--") for folder in folders if folder.startswith("models--")]
    repositories = ["/".join(parts[1:]) for parts in split if len(parts) == 3]
    return [name for name in repositories if name not in REPOSITORIES and _looks_like_hiera(name)]


def _looks_like_hiera(repository: str) -> bool:
    files = cached(repository, ("config.json", "model.safetensors"))
    try:
        return files is not None and b"hiera" in files[0].read_bytes()
    except OSError:
        return False


def fetch(
    repository: str,
    filenames: Sequence[str],
    *,
    offline: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Paths of a repository's files, from the cache or else from the Hub.

    force: fetch them again although they are there. Raises CheckpointError if they are not available.
    """
    if not force and (files := cached(repository, filenames)):
        return files
    if offline or is_offline():
        why = "offline mode" if offline else "HF_HUB_OFFLINE"
        raise CheckpointError(
            f"the weights of {repository} are not on this machine ({cache_folder()}), and {why} forbids a download",
            remedy="offline" if offline else "weights",
            model=short_name(repository),
        )
    if str(cache_folder()).startswith("~"):
        raise CheckpointError(
            f"there is no home folder to keep the weights of {repository} in", "Set HF_HOME to a folder for them."
        )
    with _client(repository, filenames[0], progress):
        with _told_if_slow(progress):
            about = [_metadata(repository, name) for name in filenames]
            licence = _licence(repository) if progress is not None else ""
        if progress is not None:
            size = sum(each.size or 0 for each in about)
            progress.say(f"downloading {repository}, {size / 1e6:,.1f} MB; licence: {licence}")
        return [
            _download(repository, name, each.etag, force, progress) for name, each in zip(filenames, about, strict=True)
        ]


@contextmanager
def _client(repository: str, filename: str, progress: Progress | None) -> Iterator[None]:
    """Within it huggingface_hub can be used, and tells nobody but `progress` of transfers that it takes up again.

    Raises CheckpointError if it can't be imported.
    """
    try:
        import huggingface_hub.file_download  # noqa: F401 with which comes the handler that is put aside below
        from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars, tqdm
    except Exception as error:  # it reads its settings when it is imported, and trusts them
        raise CheckpointError(
            f"cannot download {filename} of {repository}: huggingface_hub does not start: {error}",
            "Its settings come from the environment: look at the variables that begin with HF_.",
        ) from error

    class Remarks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            remark = " ".join(record.getMessage().split())
            if progress is not None and not remark.endswith("Max retries exceeded."):  # that becomes the error
                with tqdm.external_write_mode():  # above its bars
                    progress.say(_without_address(remark))

    logger = logging.getLogger("huggingface_hub")
    handlers, logger.handlers = logger.handlers, [Remarks(logging.WARNING)]
    enable_progress_bars() if progress is not None and progress.bar else disable_progress_bars()
    try:
        yield
    finally:
        logger.handlers = handlers


def _without_address(remark: str) -> str:
    """What the client says of a transfer, but for the address, which is long and may hold a key."""
    text = re.sub(r" (from|(thrown )?while requesting [A-Z]+|requesting) https?://\S+?(?=:? |:?$)", "", remark)
    return re.sub(
        r"^Error while downloading: (.*) Trying to resume download\.*$",
        r"the transfer broke off: \1; trying again",
        text,
    )


@contextmanager
def _told_if_slow(progress: Progress | None) -> Iterator[None]:
    """Say what one is waiting for if it takes long."""
    from huggingface_hub.constants import ENDPOINT

    if progress is None:
        yield
        return
    with told_if_slow(PATIENCE, progress.say, f"waiting for an answer from {ENDPOINT}"):
        yield


def _metadata(repository: str, filename: str) -> HfFileMetadata:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        url = hf_hub_url(repository, filename)
        return apart(lambda: get_hf_file_metadata(url, timeout=METADATA_TIMEOUT), FIRST_ANSWER)
    except Exception as error:  # whatever the client or its transport raises: nothing was got
        raise _explained(repository, filename, error) from error


def _download(repository: str, filename: str, etag: str | None, force: bool, progress: Progress | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        for attempt in range(ATTEMPTS):
            try:
                file = Path(hf_hub_download(repository, filename, force_download=force))
                break
            except HfHubHTTPError as error:
                status, pause = error.response.status_code, RETRY_PAUSE << attempt
                if status < 500 or attempt == ATTEMPTS - 1:
                    raise
                if progress is not None:
                    progress.say(f"the Hub answers {status} for {filename}: trying again in {pause} s")
                time.sleep(pause)
    except Exception as error:
        raise _explained(repository, filename, error) from error
    _verify(repository, filename, file, etag)
    return file


def _explained(repository: str, filename: str, error: Exception) -> CheckpointError:
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"the Hub gives {repository} only to those who accepted its conditions",
            f"Accept them at {ENDPOINT}/{repository}, then set HF_TOKEN.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return CheckpointError(
            f"the Hub ({ENDPOINT}) has no repository {repository}, or keeps it private",
            "Check its name. For a private one, set HF_TOKEN.",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return CheckpointError(f"{repository} has no {filename}: it is not a Hiera in the transformers layout")
    if isinstance(error, OSError) and error.filename:
        return CheckpointError(
            f"cannot keep {filename} of {repository} in {cache_folder()}: {error.strerror}: {error.filename}",
            "Set HF_HOME to a folder that can be written.",
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"cannot download {filename} of {repository} from {ENDPOINT}: {reason}",
        remedy="weights",
        model=short_name(repository),
    )


def _licence(repository: str) -> str:
    if repository in REPOSITORIES:
        return LICENCE
    from huggingface_hub import HfApi

    try:
        tags = HfApi().model_info(repository, timeout=METADATA_TIMEOUT).tags or []
    except Exception:  # a courtesy: the download itself will say what is wrong
        tags = []
    stated = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    return stated[0] if stated else "see its model card"


def _verify(repository: str, filename: str, file: Path, etag: str | None) -> None:
    """Hold a file against the digest that the Hub states: sha256, or git's sha1 of a small file.

    The cache names a blob after what the Hub stated when it was fetched, which tells more than a request before it.
    """
    blob = Path(os.path.realpath(file))
    stated = blob.name if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name) else etag
    if stated is None or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", stated):
        return  # a mirror that states no digest; the sizes were held against each other by the client
    digest = hashlib.sha256() if len(stated) == 64 else hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
    with blob.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() == stated:
        return
    for path in {file, blob}:
        path.unlink(missing_ok=True)
    raise CheckpointError(
        f"{filename} of {repository} arrived altered: its digest is {digest.hexdigest()}, the Hub states {stated}",
        "The copy was removed. Try again; if it happens again, something between here and the Hub changes files.",
    )
