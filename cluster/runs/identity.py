"""Identity of a run: the settings and data that determine its weights. A run resumes only under the same identity."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from captioning.model.weights import weights_identity
from cluster.config import TrainRun
from cluster.errors import Refusal
from cluster.runs.record import RunRecord
from cluster.settings import as_plain, differences
from shards.manifest import Manifest

CONFIG_NAME = "config.yaml"
_SELF_CRITICAL = "self_critical"


def identity_of(run: TrainRun, manifest: Manifest, features_digest: str | None = None) -> dict[str, Any]:
    """Return what determines the trained weights, flat: model, optimizer, training, and the digests of the data."""
    model = run.model.resolved() | {"weights": weights_identity(run.model.weights)}
    nested = {"model": model, "optimizer": asdict(run.optimizer), "training": asdict(run.training)}
    # How many checkpoints are kept does not change the weights. A run that stopped at a bad sample may resume with
    # on_bad_sample set to skip.
    for name in ("keep_best", "keep_last", "on_bad_sample"):
        del nested["training"][name]
    # Runs of earlier releases have no such settings: where they change nothing, they are no part of the identity.
    if not run.training.self_critical_epochs:
        nested["training"] = {key: one for key, one in nested["training"].items() if _SELF_CRITICAL not in key}
    elif run.training.self_critical_captions == "sampled":
        del nested["training"]["self_critical_captions"]
    if not run.training.ema_decay:
        del nested["training"]["ema_decay"]
    flat = {f"{section}.{name}": value for section, values in nested.items() for name, value in values.items()}
    return flat | {
        "data.shards": manifest.digest,
        "data.vocabulary": manifest.vocabulary_digest,
        "data.train_split": run.train_split,
        "data.validation_split": run.validation_split,
        **({"data.features": features_digest} if features_digest else {}),
    }


def adds_self_critical(record: RunRecord, identity: Mapping[str, Any]) -> bool:
    """Return whether an identity is a run's own with self-critical training added, which changes none of its steps."""
    added = {name: value for name, value in identity.items() if _SELF_CRITICAL in name and name not in record.identity}
    return bool(added) and {**record.identity, **added} == identity


def check_identity(record: RunRecord, identity: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other settings, but for self-critical training that is added to it.

    Raises:
        Refusal: the identity differs; the message lists the differences.
    """
    changes = differences(record.identity, identity)
    if changes and not adds_self_critical(record, identity):
        remedy = "restore them, or choose another --name"
        if record.latest is None:
            remedy = f"{remedy}; nothing was trained yet, so removing the run's folder loses nothing"
        raise Refusal(f"run {record.name} was started with other settings ({'; '.join(changes)})", remedy)


def config_text(run: TrainRun) -> str:
    """Return the resolved configuration as YAML without credentials; it is a valid ``--config`` file."""
    settings = as_plain(run)
    del settings["storage"]["take_over"]  # meant for one start: a later one from this file would take over as well
    return yaml.safe_dump(settings, sort_keys=False)
