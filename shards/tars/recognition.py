"""Recognition of a tar: where its samples have their captions."""

from collections import Counter
from collections.abc import Iterator

from shards.layout import CONVERTED, IMAGE_SUFFIXES, TEXT, captions_in, parse_description, split_name
from shards.tars.stream import HashedFile, TarError, read_members, with_tar

_NUM_RECOGNIZED = 100  # samples that are read
_CAPTION_FIELDS = ("caption", "captions", "text", "texts")


def recognize_captions(location: str) -> str | None:
    """Return where the first samples of a tar have their captions, as in ``TarSource``; None if it is not seen.

    A ``.json`` as ``convert`` writes it comes first, then a ``.txt``, then a field of the ``.json``.

    Raises:
        TarError: the captions may be in several fields, or as in ``read_members``.
        OSError: the tar cannot be read, even after retries.
    """
    return with_tar(location, _recognize)


def _recognize(file: HashedFile) -> str | None:
    found = Counter(_forms_in(file))
    for form in (CONVERTED, TEXT):
        if found[form]:
            return form
    if len(found) > 1:
        names = " and ".join(form.partition(".")[2] for form in sorted(found))
        raise TarError(f"its json has texts in {names}; choose one with --captions {min(found)}")
    return next(iter(found), None)


def _forms_in(file: HashedFile) -> Iterator[str]:
    """Yield a form for each file of captions of the first samples."""
    images: set[str] = set()
    for member in read_members(file):
        key, suffix = split_name(member.name) or ("", "")
        if suffix in IMAGE_SUFFIXES:
            images.add(key)
        elif suffix == TEXT:
            yield TEXT
        elif suffix == "json":
            yield from _forms_of_json(member.read())
        if len(images) > _NUM_RECOGNIZED:
            return


def _forms_of_json(content: bytes) -> list[str]:
    if _has_captions(content, CONVERTED):
        return [CONVERTED]
    forms = [f"json.{field}" for field in _CAPTION_FIELDS]
    return [form for form in forms if _has_captions(content, form)]


def _has_captions(content: bytes, form: str) -> bool:
    try:
        if form == CONVERTED:
            parse_description(content)
        return bool(captions_in(content, form))
    except (ValueError, RecursionError):
        return False
