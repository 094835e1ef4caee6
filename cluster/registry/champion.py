"""A model's champion: the history decides, the alias follows.

Every command first moves the alias to the version that the history names. So a process that is killed between the two
is repaired by the next command. After moving the alias, a process reads the history once more, so that of several at
once the last one leaves the alias right. A request of a killed process may arrive late and move the alias; MLflow
cannot refuse that, and the next command moves it back.

An alias that a person moved by hand is moved back too, with a warning: it looks the same as what a killed process
leaves, and it has no author, reason or evidence. The warning names the command that makes the same change with all
three. A model without a history keeps its alias; that version is the champion which the first entry replaces.
"""

import logging
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.errors import one_line
from cluster.registry.history import Change, read_history

logger = logging.getLogger(__name__)

CHALLENGER, CHAMPION = "challenger", "champion"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionState:
    """A model's champion by its history, and where its alias points."""

    name: str
    changes: tuple[Change, ...]
    """The changes that count, first to last."""
    last: int
    """Number of the last entry that counts, which the next one must name; 0 if there is none."""
    alias: str | None
    """Number of the version that the alias points to."""
    fault: str = ""
    """Why the alias does not point to the champion; empty if it does."""
    is_lost: bool = False
    """Whether the champion is no longer in the registry."""

    @property
    def champion(self) -> str | None:
        """Return the champion's number."""
        return self.changes[-1].version if self.changes else self.alias


def reconcile_alias(
    name: str, client: MlflowClient, *, is_dry_run: bool = False, is_quiet: bool = False
) -> ChampionState:
    """Read who is champion, and move the alias there; if that fails, the returned ``fault`` says why.

    Args:
        name: the model's name in the registry.
        client: the registry's client.
        is_dry_run: whether the alias stays where it is.
        is_quiet: whether to move the alias without a warning, since the caller has just changed the champion.

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
            # Of two processes that set an alias which there was not, MLflow refuses one; it finds the alias set.
            if error.error_code == "BAD_REQUEST" and not has_failed:
                has_failed = True
                continue
            fault = f"version {state.champion} is the champion of {name}, and its alias cannot be moved there"
            return replace(state, fault=f"{fault} ({one_line(error, with_kind=False)}); the next command tries again")


def read_champion_state(name: str, client: MlflowClient) -> ChampionState:
    """Read the history, then the alias; in the other order, a reader could miss that the alias is behind.

    Raises:
        ValueError: there is no such model.
    """
    try:
        changes, last = read_history(name, client)
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        reason = one_line(error, with_kind=False)
        raise ValueError(
            f"model {name} cannot be read from the registry ({reason}); captioning models lists what can"
        ) from None
    alias = aliases.get(CHAMPION)
    return ChampionState(name=name, changes=changes, last=last, alias=None if alias is None else str(alias))


def _loss_of(state: ChampionState, client: MlflowClient) -> str:
    """Return why the champion cannot be served; empty if it can."""
    change = state.changes[-1]
    champion = f"version {change.version} of {state.name}, its champion by entry {change.entry} of its history,"
    try:
        found = client.get_model_version(state.name, change.version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"{champion} was deleted from the registry"
    return f"{champion} was replaced by another under its number" if found.source != change.source else ""


def _warn(state: ChampionState, *, is_dry_run: bool) -> None:
    change = state.changes[-1]
    logger.warning(
        "the alias champion of %s %s, while its history says version %s (entry %d, %s by %s at %s); %s%s",
        state.name,
        f"points to version {state.alias}" if state.alias else "is gone",
        change.version,
        change.entry,
        change.kind,
        change.by,
        change.at,
        "it would be set right" if is_dry_run else "it is set right",
        f"; captioning rollback {state.name} --to {state.alias} changes the champion" if state.alias else "",
    )
