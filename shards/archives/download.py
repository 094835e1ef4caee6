"""Download of the official COCO archives: plan what is missing, then fetch, check and unpack it.

The result is ``FOLDER/train2017/*.jpg``, ``FOLDER/val2017/*.jpg`` and ``FOLDER/annotations/captions_train2017.json``.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.archives.transfer import Progress, RemoteFile, check, fetch, part_path
from shards.archives.unpack import Part, is_unpacked, unpack_parts
from shards.storage.folders import refuse_foreign
from shards.storage.location import refuse_credentials

# COCO's other archives and splits may lie beside those of a download, and so may Karpathy's split file.
_COCO_NAMES = ("annotations", "*2014", "*2015", "*2017", "*.zip", "*.zip.*", "*.json")
OFFICIAL_URL = "http://images.cocodataset.org"  # not https: the server's certificate is for another host


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A zip file; ``path`` is relative to the base URL, ``md5`` is 32 hexadecimal digits."""

    path: str
    num_bytes: int
    md5: str
    parts: tuple[Part, ...]


def _images(target: str, num_bytes: int, md5: str) -> Archive:
    # JPEGs do not compress further, so they take about as much as their archive; 2 % is a margin.
    part = Part(split=target[:-4], target=target, num_bytes=num_bytes * 102 // 100)
    return Archive(path=f"zips/{target}.zip", num_bytes=num_bytes, md5=md5, parts=(part,))


def _captions(year: int, num_bytes: int, md5: str, *, train_bytes: int, val_bytes: int) -> Archive:
    train = Part(split="train", target=f"annotations/captions_train{year}.json", num_bytes=train_bytes)
    val = Part(split="val", target=f"annotations/captions_val{year}.json", num_bytes=val_bytes)
    return Archive(path=f"annotations/annotations_trainval{year}.zip", num_bytes=num_bytes, md5=md5, parts=(train, val))


# COCO publishes no checksums. The sizes are the official server's Content-Length in public download logs. The md5 are
# those that public downloaders check (PaddleDetection among others); for annotations, also the server's ETag.
DATASETS: dict[str, tuple[Archive, ...]] = {
    "coco2017": (
        _captions(2017, 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c", train_bytes=91_865_115, val_bytes=3_872_493),
        _images("val2017", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
        _images("train2017", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    ),
    "coco2014": (
        _captions(2014, 252_872_794, "0a379cfc70b0e71301e0f377548639bd", train_bytes=66_782_097, val_bytes=32_421_077),
        _images("val2014", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3"),
        _images("train2014", 13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88"),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivePlan:
    """The remaining work for one archive; ``parts`` are those still to unpack."""

    path: Path
    remote: RemoteFile
    parts: tuple[Part, ...]
    bytes_to_fetch: int
    bytes_to_unpack: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadPlan:
    """The remaining work of a download, in order; finished archives are not listed."""

    dataset: str
    folder: Path
    archives: tuple[ArchivePlan, ...]
    done: tuple[str, ...]
    """Parts that an earlier download finished, as paths below the folder."""
    free_bytes: int
    keep_archives: bool

    @property
    def bytes_to_fetch(self) -> int:
        """Return the number of bytes still to fetch."""
        return sum(step.bytes_to_fetch for step in self.archives)

    @property
    def bytes_needed(self) -> int:
        """Return the peak of additional disk space, in bytes."""
        # Unless archives are kept, each one is deleted before the next one is fetched.
        added, most = 0, 0
        for step in self.archives:
            most = max(most, added + step.bytes_to_fetch + step.bytes_to_unpack)
            added += step.bytes_to_unpack + (step.bytes_to_fetch if self.keep_archives else 0)
        return most


def plan_download(
    dataset: str,
    folder: Path,
    *,
    splits: Sequence[str] | None = None,
    base_url: str | None = None,
    keep_archives: bool = False,
) -> DownloadPlan:
    """Plan what to fetch and unpack, given what the folder holds; uses no network and writes nothing.

    Args:
        dataset: name of the dataset, a key of ``DATASETS``.
        folder: target folder, created if absent; a zip file already in it is checked and used, not fetched.
        splits: splits to fetch; all of the dataset if None or empty.
        base_url: http or https address of a mirror with the same paths as the official server.
        keep_archives: whether zip files stay in the folder; otherwise each is deleted once it is unpacked.

    Raises:
        ValueError: the dataset or a split is unknown, the address is not http or https, or contains credentials, or
            ``folder`` holds files that are not COCO's.
        NotADirectoryError: ``folder`` is a file.
    """
    base = (base_url or OFFICIAL_URL).rstrip("/")
    refuse_credentials(base, "base_url")
    if not base.startswith(("http://", "https://")):
        raise ValueError(f"base URL {base} is not http; give an address that starts with http:// or https://")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, not a folder; choose a folder to download into")
    refuse_foreign(folder, _COCO_NAMES)
    chosen = _chosen_parts(dataset, splits)
    plans = [_plan_archive(archive, folder, base=base, chosen=chosen) for archive in DATASETS[dataset]]
    return DownloadPlan(
        dataset=dataset,
        folder=folder,
        archives=tuple(plan for plan in plans if plan.parts),
        done=tuple(part.target for part in chosen if is_unpacked(part, folder)),
        free_bytes=shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free,
        keep_archives=keep_archives,
    )


def download(
    plan: DownloadPlan, *, progress: Callable[[Progress], None], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Carry out a plan; after a failure or a kill, plan and download again to resume.

    Args:
        plan: plan made from the present state of the folder.
        progress: callback, called for every chunk; an exception that it raises stops the download.
        sleep: function that waits the given number of seconds before a retry.

    Raises:
        RuntimeError: the disk is too small, the server refuses or keeps failing, or an archive is not the expected one.
        ValueError: a zip file in the folder is not the expected one, or an archive points outside the folder.
    """
    if plan.bytes_needed > plan.free_bytes:
        raise RuntimeError(
            f"{plan.dataset} needs {plan.bytes_needed:,} more bytes, but {plan.folder} has only {plan.free_bytes:,} "
            "free; free some space, choose another folder, or fetch fewer splits"
        )
    for step in plan.archives:
        if step.path.exists():
            check(step.path, step.remote, progress=progress, remedy="delete it and run again")
        else:
            fetch(step.remote, step.path, progress=progress, sleep=sleep)
        unpack_parts(step.path, step.parts, folder=plan.folder, progress=progress)
        if not plan.keep_archives:
            step.path.unlink()


def _chosen_parts(dataset: str, splits: Sequence[str] | None) -> list[Part]:
    if dataset not in DATASETS:
        raise ValueError(f"there is no dataset {dataset!r}; choose one of {', '.join(DATASETS)}")
    parts = [part for archive in DATASETS[dataset] for part in archive.parts]
    known = sorted({part.split for part in parts})
    if unknown := [split for split in splits or () if split not in known]:
        raise ValueError(f"{dataset} has no split {', '.join(map(repr, unknown))}; choose from {', '.join(known)}")
    return [part for part in parts if part.split in (splits or known)]


def _plan_archive(archive: Archive, folder: Path, *, base: str, chosen: Sequence[Part]) -> ArchivePlan:
    path = folder / archive.path.rpartition("/")[2]
    here = archive.num_bytes if path.exists() else _bytes_at(part_path(path))
    parts = tuple(part for part in archive.parts if part in chosen and not is_unpacked(part, folder))
    return ArchivePlan(
        path=path,
        remote=RemoteFile(url=f"{base}/{archive.path}", num_bytes=archive.num_bytes, md5=archive.md5),
        parts=parts,
        bytes_to_fetch=max(0, archive.num_bytes - here),
        bytes_to_unpack=sum(max(0, part.num_bytes - _bytes_at(folder / part.target)) for part in parts),
    )


def _bytes_at(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size if path.exists() else 0
