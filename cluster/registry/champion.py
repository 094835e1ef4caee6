"""Champion of a model: the history decides, and the alias follows.

Every command first moves the alias to the version that the history names. If a process is killed after it has written
the history and before it has moved the alias, the next command restores the alias. After moving the alias, a process
reads the history again; so, of several processes at once, the last one leaves the alias at the champion. A request of a
killed process may arrive late and move the alias; MLflow cannot refuse it, and the next command moves the alias back.

An alias that a user moved by hand is moved back too, with a warning: it looks the same as one that a killed process
leaves behind, and it has no author, reason or evidence. The warning names the command that makes the same change with
all three. A model without a history keeps its alias; that version is the champion that the first entry of the history
replaces.
"""

import logging
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.errors import one_line
from cluster.registry.history import Change, read_history
from cluster.tracking.access import is_about_the_request

logger = logging.getLogger(__name__)

CHALLENGER, CHAMPION = "challenger", "champion"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionState:
    """A model's champion according to its history, and the version that its alias points to."""

    name: str
    """Model's name in the registry."""
    changes: tuple[Change, ...]
    """Valid changes of champion, oldest first."""
    last: int
    """Number of the last valid entry, which the next one must name; 0 if there is none."""
    alias: str | None
    """Number of the version that the alias points to; None if the alias is not set."""
    fault: str = ""
    """Reason that the alias does not point to the champion; empty if it does."""
    is_lost: bool = False
    """Whether the champion is no longer in the registry."""

    @property
    def champion(self) -> str | None:
        """Return the version number of the champion; None if there is none.

        If the last entry of the history cannot be read, the alias is all that is known.
        """
        return self.changes[-1].version or self.alias if self.changes else self.alias


def reconcile_alias(
    name: str, client: MlflowClient, *, is_dry_run: bool = False, is_quiet: bool = False
) -> ChampionState:
    """Read the champion from the history, and move the alias to it.

    Args:
        name: model's name in the registry.
        client: client of the registry.
        is_dry_run: whether to leave the alias unchanged.
        is_quiet: whether to move the alias without a warning, because the caller has just changed the champion.

    Returns:
        The state after the move; if the alias could not be moved, ``fault`` has the reason.

    Raises:
        ValueError: there is no such model.
    """
    has_failed = False
    while True:
        state = read_champion_state(name, client)
        if state.champion == state.alias:
            return state
        if fault := _loss_of(state, client):
            return replace(state, fault=fault, is_lost=True)
        if not is_quiet and not has_failed:
            _warn(state, is_dry_run=is_dry_run)
        if is_dry_run:
            return state
        try:
            client.set_registered_model_alias(name, CHAMPION, state.champion or "")
        except MlflowException as error:
            # If two processes create the alias at once, MLflow refuses one of them, which then finds the alias set.
            if error.error_code == "BAD_REQUEST" and not has_failed:
                has_failed = True
                continue
            fault = f"version {state.champion} is the champion of {name}, but the alias cannot be moved to it"
            return replace(state, fault=f"{fault} ({one_line(error, with_kind=False)}); the next command tries again")


def read_champion_state(name: str, client: MlflowClient) -> ChampionState:
    """Read the history, then the alias.

    In the other order, a reader could miss that the alias is behind the history.

    Raises:
        ValueError: there is no such model.
    """
    try:
        changes, last = read_history(name, client)
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if not is_about_the_request(error):
            raise
        reason = one_line(error, with_kind=False)
        raise ValueError(
            f"model {name} cannot be read from the registry ({reason}); captioning models lists the models"
        ) from None
    alias = aliases.get(CHAMPION)
    return ChampionState(name=name, changes=changes, last=last, alias=None if alias is None else str(alias))


def _loss_of(state: ChampionState, client: MlflowClient) -> str:
    """Return why the champion is no longer in the registry; empty if it is."""
    change = state.changes[-1]
    champion = f"version {change.version} of {state.name}, champion by entry {change.entry} of the history,"
    try:
        found = client.get_model_version(state.name, change.version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"{champion} was deleted from the registry"
    return f"{champion} was replaced by another version with its number" if found.source != change.source else ""


def _warn(state: ChampionState, *, is_dry_run: bool) -> None:
    change = state.changes[-1]
    logger.warning(
        "the alias champion of %s %s, but its history names version %s (entry %d, %s by %s at %s); %s%s",
        state.name,
        f"points to version {state.alias}" if state.alias else "is gone",
        change.version,
        change.entry,
        change.kind,
        change.by,
        change.at,
        "the alias would be moved there" if is_dry_run else "moving the alias there",
        f"; to change the champion, use captioning rollback {state.name} --to {state.alias}" if state.alias else "",
    )
