"""Tensors that many runs need and one has made: kept on disk under an address that says all they depend on.

The address of an entry is the sha256 of its kind and key, so nothing is ever out of date: what differs in anything
that matters has another address. Entries are safetensors files whose metadata hold a sha256 of the content, checked at
every reading. Several processes, also on several hosts that share the folder, may ask at once: one makes the entry,
the others wait for it. That one alone does is economy, not a promise: files appear by a rename, whole, and whoever
makes an entry makes the same one, so even two owners of one lock do no harm.
"""

import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease
from torch import Tensor

from mindseye.files import NotPlain, open_plain
from mindseye.leases import take
from mindseye.tensors import packed, read_header, read_whole, tensors_sha256, unpacked
from mindseye.words import on_one_line, readable_size

log = logging.getLogger(__name__)

FORMAT = 2  # of the files: part of every address, so entries of another are not found
LEASE_S = 20.0  # without a sign of life for so long the maker of an entry counts as dead, also on another host
BEATS = 10  # signs of life in that time; who waits looks ten times as often
IN_USE_S = 10.0  # an entry read or made so recently is not evicted: others may be about to read it
LEFT_BEHIND_S = 3600.0  # scratch files and locks untouched for so long belong to nobody

_STEM = r"mindseye-[0-9a-f]{64}"
_ENTRY = re.compile(_STEM + r"\.safetensors")
_SCRATCH = re.compile(_STEM + r"\.[0-9a-f]{16}\.part")
_LOCK = re.compile(_STEM + r"\.lock(\.[\w.]+)?")  # and what lies beside a lock while it is taken over


def default_folder() -> Path:
    """$MINDSEYE_CACHE, else `mindseye` in the user's cache folder ($XDG_CACHE_HOME, ~/.cache; the system's own)."""
    import platformdirs

    named = os.environ.get("MINDSEYE_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("mindseye", appauthor=False)


def address(kind: str, key: Mapping[str, object]) -> str:
    """sha256 (64 hex digits) of kind and key, whatever the order of its names. TypeError where the key is no JSON."""
    return hashlib.sha256(f"{FORMAT}\0{kind}\0{_canonical(key)}".encode()).hexdigest()


@dataclass(frozen=True)
class Fetched:
    """What `Cache.fetch` gives."""

    tensors: dict[str, Tensor]
    made: bool  # by this call; False: it was there


@dataclass(frozen=True)
class Entry:
    """One entry as it lies in the folder; `kind` and `key` are empty where its file is damaged."""

    path: Path
    size: int  # bytes
    used: float  # seconds since the epoch: when it was last read or made
    kind: str
    key: Mapping[str, object]


@dataclass
class Cache:
    """Named tensors in `folder`, at most `limit_bytes` of them: what was used last stays.

    A folder that cannot be read or written costs one warning and nothing else. `lease_s`: see LEASE_S; all processes
    that share a folder must have the same.
    """

    folder: Path
    limit_bytes: int
    lease_s: float = LEASE_S
    _warned: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).expanduser().absolute()

    def fetch(
        self,
        kind: str,
        key: Mapping[str, object],
        make: Callable[[], dict[str, Tensor]],
        keep: Callable[[], bool] = lambda: True,
    ) -> Fetched:
        """The tensors that `make` makes of what `key` says: read where they are kept, else made and kept.

        `kind` and `key` must say everything that the tensors depend on; `key` is JSON. The tensors lie on the CPU and
        share no memory. Whatever `make` raises goes through, and nothing is kept. `keep` is asked after it: where it
        says no, because what the key says has changed meanwhile, nothing is kept either.
        """
        path = self._path(kind, key)
        kept = self._read(path)
        if kept is not None:
            return Fetched(kept, made=False)
        with self._turn(path):
            kept = self._read(path)  # made by another process meanwhile
            if kept is not None:
                return Fetched(kept, made=False)
            tensors = make()
            if keep():
                self._write(path, kind, key, tensors)
        return Fetched(tensors, made=True)

    def fill(
        self,
        kind: str,
        keys: Mapping[str, Mapping[str, object]],
        make: Callable[[list[str]], Iterable[tuple[str, dict[str, Tensor]]]],
    ) -> None:
        """See to it that all these entries are kept, by one `make` of those that are not.

        `keys` are the entries' keys by any names. `make` is told the names that are missing and gives each one's
        tensors, one after the other, so that all need not be held at once; what it does not give is not kept. Whatever
        it raises goes through, and what it gave before is kept. Who asks for one of these entries meanwhile, by `fetch`
        or among others here, waits for it. In a folder that cannot be used nothing is made.

        Of what is there only the outside is looked at: who sees to many entries wants few of them himself. `fetch`
        reads them, and makes again what is damaged within.
        """
        paths = {name: self._path(kind, key) for name, key in keys.items()}
        with ExitStack() as turns:
            held: dict[Path, ExitStack] = {}
            # All take their turns in one order, so that no two can wait for each other.
            for path in sorted({path for path in paths.values() if not self._is_whole(path)}):
                held[path] = turns.enter_context(ExitStack())
                held[path].enter_context(self._turn(path))
            missing = [name for name, path in paths.items() if not self._is_whole(path)]
            if not missing or self._warned:
                return
            for name, tensors in make(missing):
                self._write(paths[name], kind, keys[name], tensors)
                if self._warned:
                    return
                if paths[name] in held:  # else it was there a moment ago
                    held[paths[name]].close()

    def discard(self, kind: str, key: Mapping[str, object]) -> None:
        """Throw one entry away, if it is there."""
        with suppress(OSError):
            self._path(kind, key).unlink()

    def entries(self) -> list[Entry]:
        """All entries, the one used last first. Raises OSError where the folder cannot be read."""
        known = []
        for path, status in self._files(_ENTRY):
            kind, key = _described(path)
            known.append(Entry(path, status.st_size, status.st_mtime, kind, key))
        return sorted(known, key=lambda entry: entry.used, reverse=True)

    def clear(self) -> tuple[int, int]:
        """Delete every entry and what killed processes left: (entries, bytes) freed. Other files stay as they are.

        Raises OSError where the folder cannot be read or an entry not be deleted.
        """
        count = freed = 0
        for path, status in self._files(_ENTRY):
            path.unlink(missing_ok=True)
            count, freed = count + 1, freed + status.st_size
        for path, status in self._files(_SCRATCH):
            path.unlink(missing_ok=True)
            freed += status.st_size
        for path, status in self._files(_LOCK):
            if time.time() - status.st_mtime > 3 * self.lease_s:  # else somebody is at work under it
                path.unlink(missing_ok=True)
        return count, freed

    # ---- one entry ---------------------------------------------------------------------------------------------

    def _path(self, kind: str, key: Mapping[str, object]) -> Path:
        return self.folder / f"mindseye-{address(kind, key)}.safetensors"

    def _is_whole(self, path: Path) -> bool:
        """Whether an entry of this address lies there, as long as it says; it then counts as used, else is deleted."""
        try:
            with open_plain(path) as file:
                length, header = read_header(file)
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return False
        except (NotPlain, ValueError):  # no JSON
            length, header, size = 0, {}, 0
        except OSError as error:
            self._complain(error)
            return False
        try:
            about = header.pop("__metadata__")
            ends = [tensor["data_offsets"][1] for tensor in header.values()]
            whole = size == 8 + length + max(ends, default=0)
            whole = whole and path == self._path(about["kind"], json.loads(about["key"]))
        except Exception:  # whatever a damaged file makes a parser raise
            whole = False
        with suppress(OSError):
            if whole:
                os.utime(path)
            else:
                log.warning("cache entry %s is damaged (it is not whole): made again", path.name)
                path.unlink()
        return whole

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        """The tensors, if they are there and whole. The whole file is read at once: another host may delete it."""
        try:
            content = read_whole(path)
        except FileNotFoundError:
            return None
        except (NotPlain, ValueError) as error:
            self._throw_away(path, error)
            return None
        except OSError as error:
            self._complain(error)
            return None
        try:
            tensors, metadata = unpacked(content)
            if metadata["sha256"] != tensors_sha256(tensors, _about(metadata["kind"], metadata["key"])):
                raise ValueError("its content is not what its hash says")
            if path.name != f"mindseye-{address(metadata['kind'], json.loads(metadata['key']))}.safetensors":
                raise ValueError("it belongs to another address")
        except MemoryError:
            raise
        except Exception as error:  # whatever a damaged file makes a parser raise
            self._throw_away(path, error)
            return None
        with suppress(OSError):  # a folder that may only be read serves as well
            os.utime(path)
        return tensors

    def _throw_away(self, path: Path, error: Exception) -> None:
        log.warning("cache entry %s is damaged (%s): made again", path.name, on_one_line(error))
        with suppress(OSError):
            path.unlink()

    def _write(self, path: Path, kind: str, key: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        if size > self.limit_bytes:
            log.info(
                "cache: %s of %s is larger than the limit of %s and not kept",
                kind, readable_size(size), readable_size(self.limit_bytes),
            )  # fmt: skip
            return
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        metadata = {"kind": kind, "key": _canonical(key)}
        metadata["sha256"] = tensors_sha256(whole, _about(kind, metadata["key"]))
        scratch = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(scratch, "xb") as file:
                for part in packed(whole, metadata):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
            self._make_room(path)
        except OSError as error:
            self._complain(error)
        finally:
            with suppress(OSError):
                scratch.unlink()

    # ---- one at a time -----------------------------------------------------------------------------------------

    @contextmanager
    def _turn(self, path: Path) -> Iterator[None]:
        """Wait until nobody else makes this entry, or until it is there: see `mindseye.leases`.

        Not in a folder that cannot be used: there everyone computes alone, and what cannot be removed is waited for
        once.
        """
        if self._warned:
            yield
            return
        beat_s = self.lease_s / BEATS
        lock = SoftFileLease(path.with_suffix(".lock"), lease_duration=self.lease_s, heartbeat_interval=beat_s)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            take(lock, beat_s, wait=True, unless=path.exists, waiting=lambda: _say_who_works(lock))
        except (OSError, LeaseSettingsMismatch) as error:  # no locks here: everyone computes alone
            self._complain(error)
        try:
            if lock.is_locked:
                self._sweep(path.stem)
            yield
        finally:
            try:
                lock.release()
            except OSError as error:
                self._complain(error)

    # ---- the folder --------------------------------------------------------------------------------------------

    def _files(self, names: re.Pattern[str]) -> list[tuple[Path, os.stat_result]]:
        """The cache's own files of one sort. Anything else in the folder, and links, are not ours."""
        files = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as listing:
            for entry in listing:
                if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        files.append((Path(entry.path), entry.stat(follow_symlinks=False)))
        return files

    def _make_room(self, newest: Path) -> None:
        """Delete what was not used for longest until the limit is kept; never `newest` nor what is in use."""
        files = sorted(self._files(_ENTRY), key=lambda file: file[1].st_mtime)
        # The file server's clock, by the file it has just stamped: this host's own may differ.
        now = max((status.st_mtime for path, status in files if path == newest), default=time.time())
        total = sum(status.st_size for _, status in files)
        for path, status in files:
            if total <= self.limit_bytes:
                break
            if path != newest and now - status.st_mtime >= IN_USE_S:
                path.unlink(missing_ok=True)
                total -= status.st_size
                log.info("cache: %s deleted, unused for longest", path.name)
        for pattern in (_SCRATCH, _LOCK):
            for path, status in self._files(pattern):
                if now - status.st_mtime > LEFT_BEHIND_S:
                    path.unlink(missing_ok=True)

    def _sweep(self, stem: str) -> None:
        """Under the lock nobody else writes this entry: its scratch files are dead processes'."""
        for path, _ in self._files(_SCRATCH):
            if path.name.startswith(stem):
                with suppress(OSError):
                    path.unlink()

    def _complain(self, error: Exception) -> None:
        """Once: a run without a cache is a slower run, no worse."""
        if not self._warned:
            reason = on_one_line(error)
            log.warning("the cache folder %s cannot be used (%s): going on without it", self.folder, reason)
        self._warned = True


def _say_who_works(lock: SoftFileLease) -> None:
    owner = lock.owner
    who = f" (pid {owner.pid}, {owner.hostname.partition('?')[0]})" if owner else ""
    log.warning("waiting for another process%s that computes the same", who)


def _canonical(key: Mapping[str, object]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _about(kind: str, key: str) -> str:
    return f"{kind}\0{key}"


def _described(path: Path) -> tuple[str, Mapping[str, object]]:
    """The kind and key of an entry, without reading its tensors."""
    try:
        with open_plain(path) as file:
            metadata = read_header(file)[1]["__metadata__"]
        return metadata["kind"], json.loads(metadata["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", {}
