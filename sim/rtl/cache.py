"""A cache of built folders that several processes use at once.

An entry is a folder whose name is the hash of everything that went into it. It is built beside its place and moved
there whole, and carries the hashes of its files, so that a half-written or damaged entry is never used.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from bpfnic.spec.errors import BpfnicError

_MANIFEST = "manifest.json"
_KEPT = 32  # entries of a kind; a changed netlist leaves its predecessors behind


def cache_folder() -> Path:
    """Where this user's builds are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "bpfnic"


def digest(parts: Iterable[str | bytes]) -> str:
    """Hash of a sequence of texts, each with its length, so that no two sequences are confused."""
    total = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:32]


def entry(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `key` of the cache's `kind`; `build` fills a new folder where there is no sound one.

    One process builds, others that want the same entry wait for it.
    """
    shelf = cache_folder() / kind
    try:
        shelf.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BpfnicError(f"cache folder {shelf}: {error.strerror}") from None
    place = shelf / key
    if _sound(place):
        os.utime(place)
        return place
    with open(shelf / f"{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _sound(place):
            return place
        fresh = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".part", dir=shelf))
        try:
            build(fresh)
            files = sorted(path for path in fresh.iterdir() if path.is_file())
            (fresh / _MANIFEST).write_text(json.dumps({path.name: _hash(path) for path in files}))
            shutil.rmtree(place, ignore_errors=True)
            fresh.rename(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _forget_oldest(shelf)
    return place


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sound(place: Path) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
        return all(_hash(place / name) == value for name, value in manifest.items())
    except (OSError, ValueError, AttributeError):  # no manifest, no JSON, no dictionary
        return False


def _forget_oldest(shelf: Path) -> None:
    """What a build that died left behind goes the same way."""
    entries = sorted((path for path in shelf.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in entries[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)
        (shelf / f"{path.name}.lock").unlink(missing_ok=True)
