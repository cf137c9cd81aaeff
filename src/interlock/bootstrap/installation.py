"""Everything that is alive in a resident process, for interfaces to speak to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from interlock.adapters.postgres import EmbeddedPostgres
from interlock.bootstrap.database import dump_database
from interlock.bootstrap.project import ProjectSource
from interlock.bootstrap.replaying import Replays
from interlock.engine.approvals import Approvals
from interlock.engine.backup import BackupParts
from interlock.engine.catalog import Catalog
from interlock.engine.db import Database, DatabaseAddress
from interlock.engine.holds import Holds
from interlock.engine.interventions import Interventions
from interlock.engine.output import Outputs
from interlock.engine.output_store import OutputStore
from interlock.engine.policy.judge import Judge
from interlock.engine.policy.load import PolicyBook, PolicyLoader
from interlock.engine.reconcile import Reconcilers
from interlock.engine.rooms import Inspect
from interlock.engine.runner import Runner
from interlock.engine.signals import Signals
from interlock.engine.store import RunStore
from interlock.engine.submit import Door
from interlock.engine.telemetry import Telemetry
from interlock.engine.tokens import TokenDesk
from interlock.engine.views import ViewDesk
from interlock.lib.clock import SystemClock
from interlock.lib.note import SigningKey
from interlock.settings import Locations


@dataclass(frozen=True)
class Installation:
    """Everything that is alive in a resident process, for interfaces to speak to."""

    locations: Locations
    project: ProjectSource
    address: DatabaseAddress
    embedded: EmbeddedPostgres | None
    database: Database
    store: RunStore
    outputs: OutputStore
    output_log: Outputs
    door: Door
    approvals: Approvals
    interventions: Interventions
    holds: Holds
    judge: Judge
    tokens: TokenDesk
    loader: PolicyLoader
    book: PolicyBook
    catalog: Catalog
    replays: Replays
    views: ViewDesk
    inspections: tuple[Inspect, ...]
    runner: Runner
    reconcilers: Reconcilers
    signals: Signals
    key: SigningKey
    clock: SystemClock
    telemetry: Telemetry
    started_at: datetime

    def backup_parts(self) -> BackupParts:
        """What a backup of this installation is made of."""
        return BackupParts(
            state_folder=self.locations.state_folder,
            project_file=self.locations.project_file,
            policies=tuple(self.locations.project_folder / name for name in self.project().policies),
            dump=partial(dump_database, self.embedded, self.address),
        )
