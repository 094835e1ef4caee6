"""Where a job would run, and how long a step takes there, to people."""

import logging
from typing import TYPE_CHECKING

from jobs.terminal import show_table

if TYPE_CHECKING:
    from cluster.rehearsal import Rehearsal

logger = logging.getLogger(__name__)


def show_rehearsal(rehearsal: "Rehearsal") -> None:
    """Show how many workers each node holds, and why nothing was measured, if so."""
    rows = [(node.address, f"{node.free}", f"{node.total}") for node in rehearsal.nodes]
    show_table("Room for workers", ("node", "now", "at most"), rows)
    if rehearsal.why_not:
        logger.warning("no estimate: %s", rehearsal.why_not)
