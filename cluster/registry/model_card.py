"""Model card of a registered version, in Markdown, for MLflow's pages."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cluster.registry.evaluations import search_text
from cluster.tracking.markdown import escaped

CARD_END = "_Written by captioning. A text without this line is yours, and stays as it is._"
LONGEST_CARD = 5_000
"""Width of MLflow's column, in characters; PostgreSQL refuses longer text."""
_LONGEST_FACT, _MOST_SPLITS, _MOST_DATASETS, _MOST_SCORES = 120, 4, 6, 12
_MOST_LICENSES = 8  # COCO names as many
_GAP = "&nbsp; "  # MLflow's pages leave no space between the columns of a table
_DECODER_SETTING, _MOST_SETTINGS = "decoder.", 12


class CardDataset(NamedTuple):
    """A dataset that the model was trained or scored on."""

    name: str
    digest: str
    use: str
    """Use of the dataset, such as ``training``."""
    num_rows: int | None
    """Number of images; None if it is not recorded."""
    source: str
    """Location of the dataset."""
    licenses: tuple[str, ...] = ()
    """Licences of its data, as its source names them."""


def version_card(
    title: str,
    address: str,
    record: Mapping[str, str],
    evaluations: Mapping[str, Mapping[str, Any]],
    datasets: Sequence[CardDataset],
    *,
    page: str = "",
) -> str:
    """Return the card of a version.

    Args:
        title: what the card is of, such as ``captioner version 3``.
        address: address of the model, such as ``models:/captioner/3``.
        record: settings and lineage of the version, by name; what is missing is left out.
        evaluations: evaluations by split.
        datasets: data of the training run.
        page: address of the version's page; empty if it has none.
    """
    scores, data = _scores(evaluations), _data(datasets, record)
    rest = [_calls(address), _limits(record), _lineage(record), CARD_END]
    links = [f"[Its page: curves, captions and scores of each picture]({page})"] if page else []
    text = ""
    for middle in ([*scores, *data], [*scores[:1], *data], scores[:1], []):
        text = "\n\n".join([_introduction(title, record), *links, *middle, *rest])
        if len(text) <= LONGEST_CARD:
            break
    return text


def is_card(text: str | None) -> bool:
    """Return whether a description may be replaced by a card: it is one, or empty."""
    return not (text or "").strip() or (text or "").rstrip().endswith(CARD_END)


def _introduction(title: str, record: Mapping[str, str]) -> str:
    network = f": {_fact(record, 'encoder')} encoder, {_decoder(record)}" if "encoder" in record else ""
    size = f", {_fact(record, 'image_size_px')} px" if "image_size_px" in record else ""
    return (
        f"{escaped(title)} writes a sentence about a photograph{network}{size}. "
        f"Step {_fact(record, 'step')} of run {_fact(record, 'run')}."
    )


def _decoder(record: Mapping[str, str]) -> str:
    """Return the name of the decoder and its settings, if the version was registered with them."""
    names = [name for name in record if name.startswith(_DECODER_SETTING)][:_MOST_SETTINGS]
    settings = ", ".join(f"{escaped(name.removeprefix(_DECODER_SETTING))} {_fact(record, name)}" for name in names)
    return f"{_fact(record, 'decoder')} decoder" + (f" ({settings})" if settings else "")


def _scores(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [_table(split, found) for split, found in [*evaluations.items()][:_MOST_SPLITS]]


def _table(split: str, found: Mapping[str, Any]) -> str:
    intervals, confidence = found.get("intervals") or {}, found.get("confidence")
    share = f"{confidence:.0%} interval" if isinstance(confidence, float) else "interval"
    lines = [f"| score | {_GAP}value | {_GAP}{share} |", "| --- | --- | --- |"]
    for name, value in [*found["scores"].items()][:_MOST_SCORES]:
        ends = intervals.get(name)
        lines.append(
            f"| {escaped(name[:_LONGEST_FACT])} | {_GAP}{value:.4f} | "
            f"{f'{_GAP}{ends[0]:.4f} to {ends[1]:.4f}' if ends else ''} |"
        )
    named = escaped(split[:_LONGEST_FACT])
    search = escaped(search_text(found)[:_LONGEST_FACT])
    about = f"{found.get('num_images', 'unknown')} images of split {named}, {search}"
    return f"### Scores on {about}\n\n" + "\n".join(lines) + f"\n\nShard set `{_code(found.get('shards_digest', ''))}`."


def _data(datasets: Sequence[CardDataset], record: Mapping[str, str]) -> list[str]:
    digest = record.get("shards_digest")
    lines = [
        f"- {escaped(one.use[:_LONGEST_FACT])}: {escaped(one.name[:_LONGEST_FACT])}"
        + (f", {one.num_rows:,} images" if one.num_rows is not None else "")
        + f", `{_code(one.digest)}`, from `{_code(one.source)}`"
        for one in datasets[:_MOST_DATASETS]
    ] or ([f"- shard set `{_code(digest)}`"] if digest else [])
    if not lines:
        return []
    return ["### Data\n\n" + "\n".join([*lines, "", _licence(datasets)])]


def _licence(datasets: Sequence[CardDataset]) -> str:
    named = dict.fromkeys(text for one in datasets for text in one.licenses)
    if not named:
        return "Licence: that of the photographs and captions, which the shard set does not record."
    shown = ", ".join(escaped(text[:_LONGEST_FACT]) for text in [*named][:_MOST_LICENSES])
    return (
        f"Licences that the source of the data names: {shown}{', and others' if len(named) > _MOST_LICENSES else ''}."
    )


def _calls(address: str) -> str:
    return f"""### Use

```python
# with MLFLOW_TRACKING_URI set to the address of this tracker
import base64, mlflow, pandas

model = mlflow.pyfunc.load_model("{address}")
image = base64.b64encode(open("photo.jpg", "rb").read()).decode()
print(model.predict(pandas.DataFrame({{"image": [image]}}))["caption"][0])
```

```sh
captioning caption photo.jpg --model '{address}'
```"""


def _limits(record: Mapping[str, str]) -> str:
    words = (
        f"the {_fact(record, 'vocabulary_words')} words of its vocabulary" if "vocabulary_words" in record else "words"
    )
    longest = f", at most {_fact(record, 'max_caption_words')} in a caption" if "max_caption_words" in record else ""
    return (
        f"### Limits\n\nIt knows only {words}{longest}. It describes what its training photographs show, may "
        "name things that are not in the picture, and repeats the habits of the people who wrote the captions. Do not "
        "use it to identify people, or where a wrong sentence does harm."
    )


def _lineage(record: Mapping[str, str]) -> str:
    dirty = ", with uncommitted changes" if record.get("git_dirty") == "true" else ""
    features = f", features `{_code(record['features_digest'])}`" if "features_digest" in record else ""
    return f"""### Lineage

- run: {_fact(record, "run")}, step {_fact(record, "step")}
- shard set: `{_code(record.get("shards_digest", "unknown"))}`{features}
- vocabulary: `{_code(record.get("vocabulary_digest", "unknown"))}`
- commit: `{_code(record.get("git_commit", "unknown"))}`{dirty}
- registered by {_fact(record, "registered_by")}, with torch {_fact(record, "package.torch")}"""


def _fact(record: Mapping[str, str], name: str) -> str:
    return escaped(record.get(name, "unknown")[:_LONGEST_FACT])


def _code(text: object) -> str:
    """Return a text for a code span, which a backtick would end."""
    return " ".join(f"{text}".split())[:_LONGEST_FACT].replace("`", "'")
