"""Registered versions that were never saved as MLflow models, and gates with a given verdict."""

import shutil
from contextlib import suppress
from types import SimpleNamespace

from mlflow.exceptions import MlflowException

from captioning.training.checkpoint_description import inference_files
from cluster.registry.champion import read_champion_state
from cluster.registry.history import Change, claim


def servable(checkpoint, folder):
    """Copy a checkpoint into the layout of a registered model; return the source of its version."""
    target = folder / "artifacts" / "checkpoint"
    target.mkdir(parents=True)
    for name, path in inference_files(checkpoint).items():
        shutil.copyfile(path, target / name)
    return str(folder)


def add_version(name, client, source="nowhere"):
    with suppress(MlflowException):
        client.create_registered_model(name)
    version = client.create_model_version(name, source).version
    client.set_registered_model_alias(name, "challenger", version)
    return str(version)


def change_to(version, *, over=None, kind="promoted", source="nowhere", **fields):
    return Change(version=version, over=over, kind=kind, reason="because", source=source, **fields)


def claim_after(state, change, client):
    return claim(state.name, change, client, after=state.last, page="")


def make_champion(name, client, version=None, **fields):
    """Make a version the champion without a gate; add the version if none is given."""
    source = client.get_model_version(name, version).source if version else "nowhere"
    version = version or add_version(name, client)
    state = read_champion_state(name, client)
    counted = claim_after(state, change_to(version, over=state.champion, source=source, **fields), client)
    client.set_registered_model_alias(name, "champion", version)
    return counted


def alias_of(name, client):
    version = client.get_registered_model(name).aliases.get("champion")
    return None if version is None else str(version)


def judgement(is_passed, *reasons):
    """Return a gate's judgement with a given verdict."""
    check = {"name": "CIDEr-D", "challenger": "0.6", "champion": "0.5", "wanted": "> 0.5|", "is_passed": is_passed}
    evidence = {"is_passed": is_passed, "checks": [check]}
    return SimpleNamespace(is_passed=is_passed, reasons=reasons or ("said so",), evidence=evidence, rows=lambda: [])
