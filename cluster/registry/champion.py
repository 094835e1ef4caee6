"""Who is champion of a model: its ledger decides, the alias follows.

An entry of the ledger is the change of champion, and is whole or absent: a process that is killed has changed the
champion or has not, and the next command moves the alias. Who has moved the alias reads the ledger once more before he
goes, so that among processes which live the last one to move it leaves it in line. Of one that is killed, a request
may still be on its way and move the alias late, which MLflow cannot refuse; the next command moves it back.

An alias that points elsewhere is set right, with a warning, even if a person moved it by hand. That looks the same as
what a killed process leaves behind; a change that no gate saw has no author, no reason and no evidence; and the warning
names the command that makes it in one line, with all three. A model without a ledger keeps the alias it has, which
becomes the champion that its first entry replaces.
"""

import logging
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.errors import one_line
from cluster.registry.history import Change, read_ledger

logger = logging.getLogger(__name__)

CHALLENGER, CHAMPION = "challenger", "champion"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionState:
    """What holds of a model's champion."""

    name: str
    changes: tuple[Change, ...]
    """Those that count, first to last."""
    last: int
    """The entry that decides, after which the next one must say that it comes; 0 if there is none."""
    alias: str | None
    """The version that the alias points to."""
    fault: str = ""
    """Why the alias is not in line, if so."""
    is_lost: bool = False
    """Whether the champion is no longer in the registry."""

    @property
    def champion(self) -> str | None:
        """Return the version that is the champion."""
        return self.changes[-1].version if self.changes else self.alias


def reconcile_alias(
    name: str, client: MlflowClient, *, is_dry_run: bool = False, is_quiet: bool = False
) -> ChampionState:
    """Read who is champion, and bring the alias in line with it; if that fails, what is returned tells why.

    Args:
        name: of the model.
        client: of the registry.
        is_dry_run: only say what would be moved.
        is_quiet: say nothing, for the caller has just changed the champion.

    Raises:
        ValueError: there is no such model.
    """
    has_failed = False
    while True:
        standing = read_champion_state(name, client)
        if standing.champion == standing.alias:
            return standing
        if fault := _loss_of(standing, client):
            return replace(standing, fault=fault, is_lost=True)
        if not is_quiet and not has_failed:
            _warn(standing, is_dry_run=is_dry_run)
        if is_dry_run:
            return standing
        try:
            client.set_registered_model_alias(name, CHAMPION, standing.champion or "")
        except MlflowException as error:
            # Of two processes that set an alias which there was not, MLflow refuses one; it finds the alias set.
            if error.error_code == "BAD_REQUEST" and not has_failed:
                has_failed = True
                continue
            fault = f"version {standing.champion} is the champion of {name}, and its alias cannot be moved there"
            return replace(
                standing, fault=f"{fault} ({one_line(error, with_kind=False)}); the next command tries again"
            )


def read_champion_state(name: str, client: MlflowClient) -> ChampionState:
    """Read the ledger, then the alias; in the other order, one could miss that the alias is behind.

    Raises:
        ValueError: there is no such model.
    """
    try:
        changes, last = read_ledger(name, client)
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        reason = one_line(error, with_kind=False)
        raise ValueError(
            f"model {name} cannot be read from the registry ({reason}); captioning models lists what can"
        ) from None
    alias = aliases.get(CHAMPION)
    return ChampionState(name=name, changes=changes, last=last, alias=None if alias is None else str(alias))


def _loss_of(standing: ChampionState, client: MlflowClient) -> str:
    """Say why the champion cannot be served, if so."""
    change = standing.changes[-1]
    champion = f"version {change.version} of {standing.name}, its champion by entry {change.entry} of its history,"
    try:
        found = client.get_model_version(standing.name, change.version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"{champion} was deleted from the registry"
    return f"{champion} was replaced by another under its number" if found.source != change.source else ""


def _warn(standing: ChampionState, *, is_dry_run: bool) -> None:
    change = standing.changes[-1]
    logger.warning(
        "the alias champion of %s %s, while its history says version %s (entry %d, %s by %s at %s); %s%s",
        standing.name,
        f"points to version {standing.alias}" if standing.alias else "is gone",
        change.version,
        change.entry,
        change.kind,
        change.by,
        change.at,
        "it would be set right" if is_dry_run else "it is set right",
        f"; captioning rollback {standing.name} --to {standing.alias} changes the champion" if standing.alias else "",
    )
