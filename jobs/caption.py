"""Caption images, folders or shard sets.

Prints one line per image: its path, or its key in a shard set, a tab, its caption.

MODEL is models:/NAME@alias, models:/NAME/VERSION, runs:/ID (that run's best checkpoint), or the folder of a checkpoint
or run.

Examples:
    captioning caption photo.jpg holidays/ --model models:/captioner@champion --html page.html
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from captioning.bounds import outside, raise_mistakes
from captioning.config import BATCH_SIZES, Precision
from captioning.generation.config import GenerationConfig
from cluster.config import CacheConfig, TrackerConfig
from cluster.errors import one_line
from cluster.locations import Location
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json, write_line
from jobs.console.output_files import require_output_files
from shards.storage.files import require_listable

if TYPE_CHECKING:
    from captioning.evaluation.captioner import Captioner, ImageCaptions
    from cluster.evaluation.pictures import Picture

logger = logging.getLogger(__name__)

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionJob:
    """The images to caption, and the model."""

    inputs: Annotated[tyro.conf.Positional[tuple[Location, ...]], tyro.conf.arg(metavar="IMAGE|FOLDER|URL ...")]
    """Image files, folders of images, or shard sets (folders, or any URL that fsspec supports)."""
    model: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """Model that writes the captions, in one of the forms above."""
    html: Path | None = None
    """HTML file for a page of the images with their captions; not written if not given."""
    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)
    batch_size: int = 32
    """Images per batch."""
    precision: Precision | None = None
    """Precision of the computation; if not given, the one in which a registered version serves, else fp32."""
    split: str = "val"
    """Split of a shard set to caption."""
    storage: Annotated[CacheConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=CacheConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Check the bounds, and that there is something to caption."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        if self.inputs == ():
            yield "no inputs were given; give image files, folders of images or shard sets"
        yield from outside(self, batch_size=BATCH_SIZES)


def main(invocation: Invocation[CaptionJob]) -> None:
    """Caption every image that can be decoded; raise an error for the others at the end."""
    job = invocation.settings
    from captioning.pages.gallery import MOST_PICTURES
    from cluster.evaluation.evaluate import load_captioner
    from cluster.registry.models import resolve_to_read
    from cluster.tracking.client import connect

    require_output_files(html=job.html)
    for path in job.inputs:
        if isinstance(path, Path) and not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give image files, folders of images or shard sets")
    model = resolve_to_read(job.model, lambda: connect(job.tracking, job.storage, only_reads=True))
    logger.info("model %s: %s", job.model, model)
    faults: list[str] = []
    if invocation.dry_run:
        names = [picture.name for picture in _pictures(job, faults)]
        logger.info("would caption %d images", len(names))
        if invocation.json:
            write_json(names)
        _name_faults(faults, len(names))
        return
    precision = job.precision or model.precision
    captioner = load_captioner(model.folder, generation=job.generation, batch_size=job.batch_size, precision=precision)
    done = []
    for picture, written in _captioned(captioner, _pictures(job, faults)):
        # Only the page needs the JPEG data again, of as many images as it shows; more would fill the memory.
        is_shown = job.html and len(done) < MOST_PICTURES
        done.append((picture if is_shown else picture._replace(jpeg=b""), written))
        if not invocation.json:
            write_line(picture.name, written.captions[0])
    if invocation.json:
        write_json([{"name": picture.name, **written._asdict()} for picture, written in done])
    if job.html:
        _write_page(job.html, done, str(model), faults, job.generation.describe())
    _name_faults(faults, len(done))
    if not job.model.startswith("models:/"):
        log_next("register", job.model, "NAME")


def _name_faults(faults: Sequence[str], num_good: int) -> None:
    if faults:
        count = f"{len(faults)} of {num_good + len(faults)}"
        raise ValueError(f"could not caption {count} inputs: {'; '.join(faults[:3])}")


def _pictures(job: CaptionJob, faults: list[str]) -> "Iterator[Picture]":
    """Yield the pictures that can be decoded; append a message for each of the others to ``faults``."""
    from cluster.evaluation.pictures import read_picture

    for path in job.inputs:
        if isinstance(path, str) or (path / "manifest.json").is_file():
            yield from _shard_set_pictures(path, job)
            continue
        files = _images_below(path) if path.is_dir() else [path]
        if not files:
            faults.append(f"{path} contains no image file")
        for file in files:
            if file != path and not file.is_file():
                faults.append(f"{file}: it is a link that leads nowhere, or no ordinary file")
                continue
            try:
                yield read_picture(file)
            except (ValueError, OSError) as error:
                faults.append(f"{file}: {one_line(error, with_kind=False, longest=None)}")


def _images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and its folders, without hidden ones, such as a Mac's ``._photo.jpg``."""
    require_listable(folder)
    found = [path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES and not path.is_dir()]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _shard_set_pictures(location: Path | str, job: CaptionJob) -> "Iterator[Picture]":
    from cluster.data.shard_set import ShardSet
    from cluster.evaluation.pictures import Picture
    from shards.verification import verify_shards

    shard_set = ShardSet(location, cache_gib=job.storage.cache_gib)
    verify_shards(shard_set.folder, shard_set.manifest.of_split(job.split))
    reader = shard_set.reader(job.split)
    for number in range(len(reader)):
        sample = reader.read(number)
        yield Picture(sample.key, sample.jpeg, sample.captions)


def _captioned(captioner: "Captioner", pictures: "Iterator[Picture]") -> "Iterator[tuple[Picture, ImageCaptions]]":
    """Yield each picture with its captions, keeping only as many pictures in memory as the captioner reads ahead."""
    waiting: list[Picture] = []

    def jpegs() -> Iterator[bytes]:
        for picture in pictures:
            waiting.append(picture)
            yield picture.jpeg

    for written in captioner.caption(jpegs()):
        yield waiting.pop(0), written


def _write_page(
    path: Path, done: "Sequence[tuple[Picture, ImageCaptions]]", model: str, faults: Sequence[str], search: str
) -> None:
    from captioning.pages.gallery import GalleryItem, GalleryPage, write_gallery

    items = [
        GalleryItem(
            name=picture.name,
            jpeg=picture.jpeg,
            captions=written.captions,
            log_probability_nats=written.log_probability,
            references=picture.references,
        )
        for picture, written in done
        if picture.jpeg
    ]
    summary = [("images", f"{len(done):,}"), ("without a caption", f"{len(faults):,}"), ("search", search)]
    page = GalleryPage(
        title="Captions", kicker="Captions", lead=f"By {model}.", summary=summary, num_pictures=len(done), faults=faults
    )
    write_gallery(path, items, page)
    shown = f" with {len(items):,} of {len(done):,} images" if len(items) < len(done) else ""
    logger.info("wrote %s%s", path, shown)


JOB = Job(name="caption", settings=CaptionJob, run=main, description=__doc__, loads=("torch", "mlflow"))
