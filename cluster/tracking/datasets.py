"""Datasets of MLflow: the splits of shard sets, and the feature sets, that a run reads; ``mlflow.data`` opens them."""

import json
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from mlflow.entities import Dataset, DatasetInput, InputTag, Run

from shards.manifest import MANIFEST_NAME, Manifest
from shards.storage.folders import ShardFolder
from shards.storage.location import local_folder

_CONTEXT_TAG = "mlflow.data.context"
_DIGEST_LENGTH = 36  # MLflow's own limit
_SCHEMES = {"https": "http", "gcs": "gs", "s3a": "s3"}
"""MLflow's name of a kind of source, by the URL's scheme; the others have the scheme's name."""


def split_inputs(folder: ShardFolder, manifest: Manifest, contexts: Iterable[tuple[str, str]]) -> list[DatasetInput]:
    """Return splits of a shard set as inputs of a run; a split that the set does not have is left out.

    Args:
        folder: location of the shard set.
        manifest: manifest of the shard set.
        contexts: name and use of each split, such as ``("val", "validation")``.
    """
    return [
        dataset_input(
            split_name(folder, split),
            f"{folder}",
            manifest.digest,
            context=context,
            index=MANIFEST_NAME,
            num_rows=manifest.splits[split],
            licenses=manifest.licenses,
        )
        for split, context in contexts
        if split in manifest.splits
    ]


def split_name(folder: ShardFolder, split: str) -> str:
    """Return the name of a split in MLflow."""
    return f"{folder.name}-{split}"


def dataset_input(
    name: str,
    location: str,
    digest: str,
    *,
    context: str,
    index: str,
    num_rows: int | None = None,
    licenses: Sequence[str] = (),
) -> DatasetInput:
    """Return a dataset as the input of a run.

    Args:
        name: name in MLflow.
        location: folder or URL of the shard set or feature set.
        digest: sha256 of the set; MLflow stores its first 36 digits.
        context: use of the dataset, such as ``training``.
        index: name of the set's file that lists the others, which MLflow opens if the set is on a web server.
        num_rows: number of samples; None if it is not known.
        licenses: licences of the data, as its source names them.
    """
    kind, source = _source(location, index)
    known = ({} if num_rows is None else {"num_rows": num_rows}) | ({"licenses": [*licenses]} if licenses else {})
    dataset = Dataset(
        name=name,
        digest=digest[:_DIGEST_LENGTH],
        source_type=kind,
        source=json.dumps(source),
        profile=json.dumps(known) if known else None,
    )
    return DatasetInput(dataset, [InputTag(_CONTEXT_TAG, context)])


def dataset_of(run: Run, split: str, digest: str) -> tuple[str, str]:
    """Return name and digest, as MLflow has them, of the split that scores are on.

    Args:
        run: run that the scores are logged to.
        split: name of the split.
        digest: sha256 of the shard set.
    """
    short = digest[:_DIGEST_LENGTH]
    known = (one.dataset for one in run.inputs.dataset_inputs) if run.inputs else ()
    names = [one.name for one in known if one.digest == short and one.name.endswith(f"-{split}")]
    return names[0] if names else split, short


def _source(location: str, index: str) -> tuple[str, dict[str, str]]:
    """Return MLflow's kind of a source, and its content."""
    if folder := local_folder(location):
        return "local", {"uri": str(folder)}
    parts = urlsplit(location)
    kind = _SCHEMES.get(parts.scheme, parts.scheme)
    if kind == "http":  # MLflow downloads a single file over HTTP
        return kind, {"url": parts._replace(path=f"{parts.path.rstrip('/')}/{index}").geturl()}
    return kind, {"uri": parts._replace(scheme=kind).geturl()}
