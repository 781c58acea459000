"""The index: one SQLite file, which any number of processes may read while one writes.

For each path and model it has the state of the file when it was read, and its features as fp16 with the log of the
softmax's denominator and the best class, or its error. Paths are bytes, absolute, a folder and a name. What a walk over
the folders needs is apart from the features, which take 95% of the room: `photos` is small and sorted by folder and
name, `vectors` has the features in the order in which they came, each under a number that is never used again.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from hiera_cli.checkpoints.checkpoint import Checkpoint
from hiera_cli.errors import OutputError
from hiera_cli.system import parts
from hiera_cli.tasks.index import Softmax

APPLICATION = 0x68696572  # "hier": PRAGMA application_id
VERSION = 1  # PRAGMA user_version
PAGE_BYTES = 1 << 16  # 41 rows of 768 features, with little left over
BUSY_SECONDS = 60.0  # to wait for another process that writes
MAGIC = b"SQLite format 3\0"

_SCHEMA = (
    """CREATE TABLE models (
        id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, channels INTEGER NOT NULL, stamp TEXT
    )""",
    # mounted: another file system begins here.
    """CREATE TABLE folders (
        id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, mounted INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE photos (
        model INTEGER NOT NULL, folder INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, vector INTEGER, error TEXT, message TEXT, PRIMARY KEY (model, folder, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE vectors (
        id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL, folder INTEGER NOT NULL, log_denominator REAL,
        label INTEGER, label_score REAL, features BLOB NOT NULL
    )""",
)


def default_path() -> str:
    """A file in the user's data folder (XDG_DATA_HOME moves it, on Linux)."""
    try:
        folder = platformdirs.user_data_dir("hiera-cli", appauthor=False)
    except RuntimeError:  # a user without a home, as in some containers
        folder = os.path.join(tempfile.gettempdir(), f"hiera-cli-{os.getuid()}")
    return os.path.join(folder, "index.sqlite")


# What the index has of a file: name, size, mtime_ns, number of its features, class of its error. Of the last two one is
# None. Tuples as SQLite gives them: a million are made in a second.
Row = tuple[bytes, int, int, "int | None", "str | None"]


# Number of the features, and of the folder, log of the softmax's denominator, best class, its score, features as fp16.
Stored = tuple[int, int, "float | None", "int | None", "float | None", bytes]


@dataclass(frozen=True)
class FolderStatus:
    """Of one folder: how many photos have features, how many an error."""

    path: bytes
    photos: int
    errors: int


@dataclass(frozen=True)
class ModelStatus:
    """Of one model: its name when it was last used, the digest of its weights."""

    name: str
    digest: str
    photos: int
    errors: int


class Index:
    """An index that is open. Close it, or use it as a context.

    create: make it if it is not there. Raises OutputError if it can't be opened, or is not an index, with what to do.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        _check(path, create=create)
        self._open(path, create=create)

    def again(self) -> Index:
        """The same index once more, for another thread.

        Without the look at the file that comes before the first time: to close a file that SQLite has open in this
        process would give up the locks that it holds, by the rules of POSIX.
        """
        other = Index.__new__(Index)
        other._open(self.path, create=False)
        return other

    def _open(self, path: str, *, create: bool) -> None:
        self.path = path
        self._folders: dict[bytes, int] = {}
        with self.trouble():
            if create and not os.path.exists(path):
                _create(path)
            # WAL needs files beside. On a medium that takes none nobody else writes either.
            beside = os.path.dirname(os.path.abspath(path))
            self.read_only = not (os.access(path, os.W_OK) and os.access(beside, os.W_OK))
            mode = "mode=ro&immutable=1" if self.read_only else "mode=rw"
            uri = f"{Path(os.path.abspath(path)).as_uri()}?{mode}"
            self._connection = sqlite3.connect(
                uri, BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
            )
            self._inode = os.stat(path).st_ino
            if not self.read_only:
                self._connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing, a power cut the latest

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """Within it, what goes wrong with the file is raised as OutputError."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise OutputError(f"the index {self.path} is in use by another run for too long") from error
            raise OutputError(f"cannot use the index {self.path}: {error}", remedy="another index") from error
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, str(error)) from error
        except OSError as error:
            raise OutputError(
                f"cannot use the index {self.path}: {error.strerror or error}", remedy="another index"
            ) from error

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is under way, and close it."""
        with suppress(sqlite3.Error, OutputError):
            self.commit()
        with suppress(sqlite3.Error):
            self._connection.close()

    # ---- models and folders

    def model(self, checkpoint: Checkpoint) -> int | None:
        """The number of the model with these weights; None if there is none yet.

        The weights are read only if their file has changed since they were last looked for. Raises CheckpointError.
        """
        stamp = repr([os.path.abspath(checkpoint.weights), *checkpoint.stamp()])
        with self.trouble():
            found = self._connection.execute("SELECT id FROM models WHERE stamp = ?", (stamp,)).fetchone()
            if found is None:
                digest = checkpoint.digest()
                found = self._connection.execute("SELECT id FROM models WHERE digest = ?", (digest,)).fetchone()
                if found is not None and not self.read_only:
                    self._connection.execute("UPDATE models SET stamp = ? WHERE id = ?", (stamp, found[0]))
        return None if found is None else int(found[0])

    def add_model(self, checkpoint: Checkpoint) -> int:
        """The number of the model with these weights, which it gets if it has none."""
        if (known := self.model(checkpoint)) is not None:
            return known
        stamp = repr([os.path.abspath(checkpoint.weights), *checkpoint.stamp()])
        row = (checkpoint.digest(), checkpoint.name, checkpoint.architecture.features, stamp)
        with self.trouble():
            self._connection.execute(
                "INSERT INTO models (digest, name, channels, stamp) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row
            )
        added = self.model(checkpoint)
        assert added is not None
        return added

    def folders(self, root: bytes) -> dict[int, bytes]:
        """The folders at or below one that the index knows, by their numbers."""
        below = root.rstrip(b"/") + b"/"
        with self.trouble():
            rows = self._connection.execute(
                "SELECT id, path FROM folders WHERE path = ? OR (path >= ? AND path < ?)",
                (root, below, below[:-1] + b"0"),  # "0" comes right after "/"
            )
            return {int(number): bytes(path) for number, path in rows}

    def is_mounted(self, path: bytes) -> bool:
        """Whether another file system began at a folder when it was last seen."""
        with self.trouble():
            row = self._connection.execute("SELECT mounted FROM folders WHERE path = ?", (path,)).fetchone()
            return bool(row and row[0])

    def _folder(self, path: bytes) -> int:
        number = self._folders.get(path)
        if number is None:
            self._connection.execute("INSERT INTO folders (path) VALUES (?) ON CONFLICT DO NOTHING", (path,))
            row = self._connection.execute("SELECT id FROM folders WHERE path = ?", (path,)).fetchone()
            number = self._folders[path] = int(row[0])
        return number

    def set_mounted(self, path: bytes, mounted: bool) -> None:
        """Remember whether another file system begins at a folder."""
        with self.trouble():
            self._connection.execute("UPDATE folders SET mounted = ? WHERE id = ?", (int(mounted), self._folder(path)))

    # ---- photos

    def photos(self, model: int, folder: bytes) -> dict[bytes, Row]:
        """What the index has of the files right in a folder, by name."""
        with self.trouble():
            rows = self._connection.execute(
                "SELECT name, size, mtime_ns, vector, error FROM photos "
                "WHERE model = ? AND folder = (SELECT id FROM folders WHERE path = ?)",
                (model, folder),
            )
            return {row[0]: row for row in rows}

    def begin(self) -> None:
        """Begin to write, unless that is under way: others can't until `commit`."""
        if not self._connection.in_transaction:
            with self.trouble():
                self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """What was written is there, whatever happens to this process from now on."""
        if self._connection.in_transaction:
            with self.trouble():
                self._connection.execute("COMMIT")
            if not self._is_there():
                raise OutputError(f"the index {self.path} was removed or replaced while it was written")

    def _is_there(self) -> bool:
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def put(self, model: int, path: bytes, size: int, mtime_ns: int, features: bytes, softmax: Softmax | None) -> None:
        """Take a photo in, in place of what the index had of it. features: fp16. softmax: None of a backbone."""
        folder, name = os.path.split(path)
        with self.trouble():
            number = self._folder(folder)
            self._drop_vector(model, number, name)
            vector = self._connection.execute(
                "INSERT INTO vectors (model, folder, log_denominator, label, label_score, features) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (model, number, *(softmax or (None, None, None)), features),
            ).lastrowid
            self._connection.execute(
                "INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                (model, number, name, size, mtime_ns, vector),
            )

    def put_error(self, model: int, path: bytes, size: int, mtime_ns: int, error: str, message: str) -> None:
        """Take a file in that has an error. error: its class."""
        folder, name = os.path.split(path)
        with self.trouble():
            number = self._folder(folder)
            self._drop_vector(model, number, name)
            self._connection.execute(
                "INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?, NULL, ?, ?)",
                (model, number, name, size, mtime_ns, error, message),
            )

    def _drop_vector(self, model: int, folder: int, name: bytes) -> None:
        self._connection.execute(
            "DELETE FROM vectors WHERE id = (SELECT vector FROM photos WHERE model = ? AND folder = ? AND name = ?)",
            (model, folder, name),
        )

    def remove(self, folder: bytes, names: Sequence[bytes] | None = None) -> int:
        """Remove files of a folder, of all models; None: all of them. Returns how many rows there were."""
        removed = 0
        with self.trouble():
            number = self._folder(folder)
            models = [row[0] for row in self._connection.execute("SELECT id FROM models").fetchall()]
            for model in models:
                if names is None:
                    self._connection.execute(
                        "DELETE FROM vectors WHERE id IN (SELECT vector FROM photos WHERE model = ? AND folder = ?)",
                        (model, number),
                    )
                    cursor = self._connection.execute(
                        "DELETE FROM photos WHERE model = ? AND folder = ?", (model, number)
                    )
                    removed += cursor.rowcount
                    continue
                for name in names:
                    self._drop_vector(model, number, name)
                    cursor = self._connection.execute(
                        "DELETE FROM photos WHERE model = ? AND folder = ? AND name = ?", (model, number, name)
                    )
                    removed += cursor.rowcount
            if names is None:
                self._connection.execute("DELETE FROM folders WHERE id = ?", (number,))
                self._folders.pop(folder, None)
        return removed

    def forget(self, path: bytes) -> int:
        """Remove a file, or all at or below a folder, of all models. Returns how many rows there were."""
        folder, name = os.path.split(path)
        self.begin()
        removed = self.remove(folder, [name]) if name else 0
        removed += sum(self.remove(each) for each in self.folders(path).values())
        self.commit()
        self.shrink()
        return removed

    def shrink(self) -> None:
        """Give the room of what was removed back to the disk."""
        with self.trouble():
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()

    # ---- what queries read

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within it the index reads as it was at the begin, whatever others write."""
        with self.trouble():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self.commit()

    def count(self, model: int) -> int:
        """How many photos of a model have features."""
        with self.trouble():
            query = "SELECT count(vector) FROM photos WHERE model = ?"
            return int(self._connection.execute(query, (model,)).fetchone()[0])

    def message(self, model: int, folder: bytes, name: bytes) -> str | None:
        """The error of a file; None if it has none."""
        with self.trouble():
            row = self._connection.execute(
                "SELECT message FROM photos WHERE model = ? AND name = ? "
                "AND folder = (SELECT id FROM folders WHERE path = ?)",
                (model, name, folder),
            ).fetchone()
            return row[0] if row else None

    def newest(self) -> int:
        """The number of the newest features; 0 if there are none."""
        with self.trouble():
            return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM vectors").fetchone()[0])

    def vectors(self, model: int, after: int, most: int) -> Iterator[list[Stored]]:
        """All features of a model in lists of up to `most`, by number. after: those with a higher number alone."""
        with self.trouble():
            cursor = self._connection.execute(
                "SELECT id, folder, log_denominator, label, label_score, features FROM vectors "
                "WHERE id > ? AND model = ?",
                (after, model),
            )
            while rows := cursor.fetchmany(most):
                yield rows

    def features(self, vector: int) -> bytes:
        """The features of a photo, fp16."""
        with self.trouble():
            row = self._connection.execute("SELECT features FROM vectors WHERE id = ?", (vector,)).fetchone()
            return bytes(row[0])

    def label(self, vector: int) -> tuple[int | None, float | None]:
        """The best class of a photo, and its score; None of a backbone."""
        with self.trouble():
            row = self._connection.execute("SELECT label, label_score FROM vectors WHERE id = ?", (vector,)).fetchone()
            return row or (None, None)

    def names(self, model: int, folder: int) -> list[tuple[bytes, int]]:
        """(name, number of its features) of the files right in a folder that have features."""
        with self.trouble():
            return self._connection.execute(
                "SELECT name, vector FROM photos WHERE model = ? AND folder = ? AND vector IS NOT NULL", (model, folder)
            ).fetchall()

    # ---- status

    def models(self) -> list[ModelStatus]:
        """All models, with how many photos and errors each has."""
        with self.trouble():
            rows = self._connection.execute(
                "SELECT m.name, m.digest, count(p.vector), count(p.error) FROM models m "
                "LEFT JOIN photos p ON p.model = m.id GROUP BY m.id ORDER BY m.id"
            )
            return [ModelStatus(*row) for row in rows]

    def by_folder(self) -> list[FolderStatus]:
        """Each folder with files in the index, by path."""
        with self.trouble():
            rows = self._connection.execute(
                "SELECT f.path, count(DISTINCT CASE WHEN p.vector IS NOT NULL THEN p.name END), "
                "count(DISTINCT CASE WHEN p.vector IS NULL THEN p.name END) "
                "FROM photos p JOIN folders f ON f.id = p.folder GROUP BY f.id ORDER BY f.path"
            )
            return [FolderStatus(*row) for row in rows]

    def failed(self) -> list[tuple[bytes, str, str]]:
        """Files that have an error: path, the error's class, what it says. Each once, in order."""
        with self.trouble():
            rows = self._connection.execute(
                "SELECT f.path, p.name, p.error, p.message FROM photos p JOIN folders f ON f.id = p.folder "
                "WHERE p.error IS NOT NULL GROUP BY f.path, p.name ORDER BY f.path, p.name"
            )
            return [(os.path.join(folder, name), error, message) for folder, name, error, message in rows]

    def bytes(self) -> int:
        """How much room it takes on the disk, in bytes, with what is still beside the file."""
        total = 0
        for suffix in ("", "-wal"):
            with suppress(OSError):
                total += os.path.getsize(self.path + suffix)
        return total

    def faults(self) -> list[str]:
        """What is wrong with it, a sentence each; none if all is well."""
        try:
            found = [row[0] for row in self._connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
            queries: tuple[tuple[str, str], ...] = (
                (
                    "photos whose features are missing",
                    "SELECT count(*) FROM photos p WHERE p.vector IS NOT NULL "
                    "AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.id = p.vector AND v.model = p.model "
                    "AND v.folder = p.folder)",
                ),
                (
                    "features without a photo",
                    "SELECT (SELECT count(*) FROM vectors) "
                    "- (SELECT count(*) FROM photos p JOIN vectors v ON v.id = p.vector)",
                ),
                (
                    "features of another length than their model's",
                    "SELECT count(*) FROM vectors v LEFT JOIN models m ON m.id = v.model "
                    "WHERE m.id IS NULL OR length(v.features) != 2 * m.channels",
                ),
                ("features of several photos", "SELECT count(vector) - count(DISTINCT vector) FROM photos"),
                ("photos of no model", "SELECT count(*) FROM photos WHERE model NOT IN (SELECT id FROM models)"),
                (
                    "features without scores",
                    "SELECT coalesce(sum(CASE WHEN count THEN missing END), 0) FROM (SELECT count(log_denominator) "
                    "AS count, count(*) - count(log_denominator) AS missing FROM vectors GROUP BY model)",
                ),
                (
                    "photos in no folder",
                    "SELECT count(*) FROM photos p WHERE NOT EXISTS (SELECT 1 FROM folders f WHERE f.id = p.folder)",
                ),
            )
            if not found:
                for what, query in queries:
                    count = self._connection.execute(query).fetchone()[0]
                    found += [f"{what}: {count:,}"] if count else []
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return found


def damaged(path: str, why: str) -> OutputError:
    """What to raise for an index that can't be read as one."""
    return OutputError(f"the index {path} is damaged: {why}", remedy="damaged index")


def _create(path: str) -> None:
    """Make an empty index, whole or not at all, also while others do."""
    where = Path(os.path.realpath(path))  # a link that leads to nothing yet is made to lead to it
    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hiera-cli-") as folder:
        made = os.path.join(folder, "index.sqlite")
        connection = sqlite3.connect(made, isolation_level=None)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("BEGIN")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        content = Path(made).read_bytes()
    parts.left_over(where.parent, f"{glob.escape(where.name)}.*", discard=True)
    with suppress(FileExistsError):  # another has come in before
        parts.write(where, [content], replace=False)


def _check(path: str, *, create: bool) -> None:
    """Refuse what is not an index, before anything opens it that could write, or could wait."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OutputError(f"{path} is not a file, and so no index", remedy="another index")
        with open(path, "rb") as stream:
            header = stream.read(100)
    except FileNotFoundError as error:
        if create:
            return
        raise OutputError(f"there is no index at {path}", remedy="no index") from error
    except OSError as error:
        raise OutputError(f"cannot read the index {path}: {error.strerror}", remedy="another index") from error
    application, version = (int.from_bytes(header[at : at + 4], "big") for at in (68, 60))
    if not header.startswith(MAGIC) or application != APPLICATION:
        why = "is empty, and so no index" if not header else "is not an index of hiera"
        raise OutputError(f"{path} {why}: it is left as it is", remedy="another index")
    if version > VERSION:
        raise OutputError(f"the index {path} was made by a later version of hiera", remedy="another index")
