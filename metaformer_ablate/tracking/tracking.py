"""What Weights & Biases is told: a W&B run for each run, its record, and the table at the end.

W&B is a guest. Whatever goes wrong with it is a warning on standard error and the run goes on. Nothing here asks for a
login: without one, or without a network, W&B's own offline files are written, which `wandb sync` sends.

The id of a W&B run follows from ours, and W&B's step is our optimiser step. So a run that is resumed goes on in the
same W&B run, and what is told twice stands there once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted
from metaformer_ablate.tracking.tracker import FAILED, Tracker, load_wandb, open_run

if TYPE_CHECKING:
    from metaformer_ablate.spec.plan import Plan


logger = logging.getLogger(__name__)


PROJECT = "metaformer_ablate"


LONGEST_NAME = 128  # of a W&B run or group


_UNREACHED = "W&B cannot be reached, so runs are logged offline, for `wandb sync`"


def in_agent() -> bool:
    """Whether a W&B agent called this process and has a W&B run ready for it."""
    return bool(os.environ.get("WANDB_SWEEP_ID") or os.environ.get("WANDB_RUN_ID"))


def wandb_id(run_id: str, project: str, fingerprint: str | None, versions: Mapping[str, str] | None) -> str:
    """The id of a run's W&B run. Runs of other data or versions go from the beginning, so theirs is another one."""
    return f"{run_id}-{digest([project, fingerprint, dict(versions or {})])[:8]}"


class Tracking:
    """Weights & Biases as one process uses it: owns the W&B run that is open, and what it has warned of."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._open: Tracker | None = None

    def _warn(self, text: str, error: BaseException | None = None) -> None:
        """A warning, each one once."""
        if text not in self._warned:
            self._warned.add(text)
            why = f" ({type(error).__name__}: {' '.join(str(error).split())[:200]})" if error is not None else ""
            logger.warning(f"{text}{why}")

    def resolve(self, project: str | None, entity: str | None = None, **labels: Any) -> dict[str, Any] | None:
        """What runs are tracked by, as plain values for `RunRequest.wandb`: project, entity, mode and the labels given.

        Decides once for all runs whether they go online. A WANDB_MODE in the environment stands, but online without a
        login or a network is offline. None, with a warning, where wandb cannot be used; None where it is switched off.
        With the label `agent` runs are logged into the one that a W&B agent has ready. Raises RequestError under an
        agent without that label: W&B would take all of them for that one.
        """
        if os.environ.get("WANDB_SWEEP_ID") and not labels.get("agent"):
            raise RequestError("WANDB_SWEEP_ID is set: a W&B agent has one run ready; have it call `ablate trial`")
        mode = os.environ.get("WANDB_MODE") or "online"
        mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
        if mode == "disabled":
            return None
        try:
            wandb = load_wandb()
        except (Exception, SystemExit) as error:
            self._warn("wandb cannot be used, so nothing is logged to it", error)
            return None
        if mode == "online":
            try:
                if not wandb.login(prompt=False):
                    mode = "offline"
                    self._warn("no W&B login (`wandb login`), so runs are logged offline, for `wandb sync`")
            except (Exception, SystemExit) as error:
                mode = "offline"
                self._warn(_UNREACHED, error)
        # Workers have a W&B service of their own: in one that is shared, a run whose worker was killed would stay open.
        os.environ.pop("WANDB_SERVICE", None)
        return {
            "project": project or os.environ.get("WANDB_PROJECT") or PROJECT,
            "entity": entity,
            "mode": mode,
            **labels,
        }

    @contextmanager
    def run(
        self,
        how: Mapping[str, Any] | None,
        spec: RunSpec,
        store: Store,
        fingerprint: str | None,
        versions: Mapping[str, str] | None,
    ) -> Iterator[Tracker | None]:
        """A W&B run around what is done with one of ours; None where `how` is. Finished at the end, whatever it is.

        One that is open already in this process, as that of a trial, is given and left open.
        """
        if how is None:  # the run that a trial starts from is not the trial's
            yield None
            return
        if self._open is not None:
            yield self._open
            return
        rows = list(how.get("rows") or ())
        experiment, _, row = rows[0].partition("/") if rows else ("", "", "")
        labels = {"experiment": experiment or None, "row": row or None, "rows": rows}
        labels |= {key: how.get(key) for key in ("recipe", "overrides")}
        # Runs of a group differ in their seeds alone, so that a mean over one is a mean over seeds.
        family = f"{how.get('recipe') or ''} {spec.with_seed(0).run_id[:6]}".strip()
        run = self._start(
            how,
            store,
            id=wandb_id(spec.run_id, how["project"], fingerprint, versions),
            name=_fitting(rows[0] if rows else spec.run_id, f"seed {spec.seed}"),
            group=_fitting(rows[0] if rows else "", family),
            job_type="train",
            config={"run_id": spec.run_id, **labels, **spec.to_dict()},
        )
        tracker = self._open = Tracker(run, self._warn)
        try:
            yield tracker
        except Interrupted:
            tracker.preempted()
            raise
        finally:
            self._open = None
            tracker.finish(store, 0 if tracker.record is not None and tracker.record.status != "failed" else 1)

    def _start(self, how: Mapping[str, Any], store: Store, **of_run: Any) -> Any:
        """A W&B run, offline where it cannot be had online; None, with a warning, where it cannot be had at all."""
        for mode in dict.fromkeys((how["mode"], "offline")):
            try:
                return open_run(how, store, mode, of_run)
            except (Exception, SystemExit) as error:
                self._warn(FAILED if mode == "offline" else _UNREACHED, error)
        return None

    def log_table(self, how: Mapping[str, Any], table: Mapping[str, Any], plan: Plan, store: Store) -> None:
        """A table as `build_table` makes it, in a W&B run of its own; the same table again is a new version of it."""
        name = f"{table['experiment']} under {table['recipe']}"
        identity = digest([how["project"], name, {row: spec.run_id for row, spec in plan.specs.items()}])
        config = {key: table[key] for key in ("experiment", "recipe")} | {"overrides": how.get("overrides")}
        run = self._start(
            how,
            store,
            id=f"table-{identity[:12]}",
            name=_fitting(name, "table"),
            group=_fitting(table["experiment"], "tables"),
            job_type="table",
            config=config,
        )
        tracker = Tracker(run, self._warn)
        tracker.table(table)
        tracker.finish(store, 0)


def _fitting(text: str, end: str) -> str:
    return f"{text[: LONGEST_NAME - len(end) - 1]} {end}".strip()
