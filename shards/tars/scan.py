"""Scan of a tar: one pass over its bytes, from a disk or a URL, that keeps ids, captions and checksum, but no image."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from shards.layout import (
    CONVERTED,
    IMAGE_SUFFIXES,
    caption_suffix,
    captions_in,
    is_sample,
    parse_description,
    split_name,
)
from shards.samples import ImageId, SetAside
from shards.tars.stream import HashedFile, Member, read_members, stamp_of, with_tar


@dataclass(frozen=True, kw_only=True, slots=True)
class TarScan:
    """What a scan found in a tar."""

    location: str
    stamp: str
    """What ``stamp_of`` returned when the scan began."""
    num_bytes: int
    sha256: str
    ids: tuple[ImageId, ...]
    """Keys of the samples, or their image ids where ``convert`` wrote them."""
    set_aside: tuple[SetAside, ...] = ()
    """Samples that cannot be used, and why."""
    others: dict[str, int] = field(default_factory=dict)
    """Number of other files and keys, by what they are."""


class _Sample:
    """What is known of a key while the tar is read."""

    def __init__(self) -> None:
        self.suffixes: list[str] = []
        self.captions: tuple[str, ...] = ()
        self.image_id: ImageId | None = None
        self.fault = ""


class _Contents:
    """The samples of a tar, by key, and the number of files that belong to none."""

    def __init__(self, file: HashedFile, captions: str, has_word: Callable[[str], bool]) -> None:
        self.file, self._captions, self._has_word = file, captions, has_word
        self.samples: dict[str, _Sample] = {}
        self.num_outside = 0
        for member in read_members(file):
            self._add(member)

    def _add(self, member: Member) -> None:
        name = split_name(member.name)
        if name is None:
            self.num_outside += 1
            return
        key, suffix = name
        sample = self.samples.setdefault(key, _Sample())
        sample.suffixes.append(suffix)
        if suffix in IMAGE_SUFFIXES and not member.num_bytes:
            sample.fault = f"its {suffix} is empty"
        elif suffix == caption_suffix(self._captions):
            try:
                self._read_captions(sample, member.read())
            except (ValueError, RecursionError) as error:
                sample.fault = " ".join(str(error).split())[:200]

    def _read_captions(self, sample: _Sample, content: bytes) -> None:
        sample.captions = captions_in(content, self._captions)
        if self._captions == CONVERTED:
            sample.image_id = parse_description(content)[0]
        if not any(map(self._has_word, sample.captions)):
            raise ValueError(f"its {caption_suffix(self._captions)} has no caption with a word")

    def others(self) -> Iterator[tuple[str, int]]:
        """Yield what is no sample, and how often."""
        rest = [one.suffixes for one in self.samples.values() if not is_sample(one.suffixes, self._captions)]
        without_image = [one for one in rest if not set(IMAGE_SUFFIXES) & set(one)]
        if without_image:
            kinds = Counter(f".{suffix}" for one in without_image for suffix in one)
            yield f"keys without an image ({', '.join(sorted(kinds)[:3])})", len(without_image)
        if len(rest) > len(without_image):
            yield f"images without a .{caption_suffix(self._captions)}", len(rest) - len(without_image)
        if self.num_outside:
            yield "files that belong to no key", self.num_outside


def scan_tar(
    location: str,
    captions: str,
    *,
    has_word: Callable[[str], bool],
    add_captions: Callable[[Sequence[str]], None],
) -> TarScan:
    """Read a tar once and return what is in it.

    Args:
        location: path or URL of the tar.
        captions: where the captions are, as in ``shards.layout.TarSource``.
        has_word: function that returns whether a caption has a word.
        add_captions: function that is called once, with the captions of all samples.

    Raises:
        TarError: it is no tar, is compressed, or was cut off.
        OSError: it cannot be read, even after retries.
    """
    stamp = stamp_of(location)  # before it is read: a tar that changes meanwhile is noticed by the next run
    found = with_tar(location, lambda file: _Contents(file, captions, has_word))
    usable = {key: one for key, one in found.samples.items() if is_sample(one.suffixes, captions)}
    set_aside = {key: fault for key, one in usable.items() if (fault := one.fault or _repeated(one))}
    good = {key: one for key, one in usable.items() if key not in set_aside}
    add_captions([text for one in good.values() for text in one.captions])
    return TarScan(
        location=location,
        stamp=stamp,
        num_bytes=found.file.num_bytes,
        sha256=found.file.sha256.hexdigest(),
        ids=tuple(key if one.image_id is None else one.image_id for key, one in good.items()),
        set_aside=tuple(SetAside(key=key, reason=reason) for key, reason in set_aside.items()),
        others=dict(found.others()),
    )


def _repeated(sample: _Sample) -> str:
    """Return the fault of a key that has two files of a kind, so that it is not known which belong together."""
    twice = [suffix for suffix, count in Counter(sample.suffixes).items() if count > 1]
    return f"its {twice[0]} is in the tar more than once" if twice else ""
