"""What every part of an installation stands on: where it lies, its clock, its keys, its tables."""

from __future__ import annotations

from dataclasses import dataclass

from interlock.bootstrap.project import ProjectSource
from interlock.core.model import JsonObject
from interlock.engine.adoption_seal import AdoptionSeal
from interlock.engine.blobs import FileBlobs
from interlock.engine.cipher import PieceCipher
from interlock.engine.control_store import ControlStore
from interlock.engine.db import Database
from interlock.engine.identity import process_identity
from interlock.engine.keys import blob_key, signing_key
from interlock.engine.output import Outputs
from interlock.engine.output_store import OutputStore
from interlock.engine.policy.applied import AppliedPolicies
from interlock.engine.policy_store import PolicyStore
from interlock.engine.records import LiveRecords
from interlock.engine.signals import Signals
from interlock.engine.store import RunStore
from interlock.engine.telemetry import Telemetry
from interlock.lib.clock import SystemClock
from interlock.lib.note import SigningKey
from interlock.lib.redact import Redactor
from interlock.settings import Locations


@dataclass(frozen=True)
class Base:
    """What everything else stands on: where it lies, its clock, its keys, its tables."""

    locations: Locations
    project: ProjectSource
    database: Database
    clock: SystemClock
    signals: Signals
    worker: JsonObject
    key: SigningKey
    blobs: FileBlobs
    store: RunStore
    control: ControlStore
    redactor: Redactor
    outputs: OutputStore
    output_log: Outputs
    records: LiveRecords
    applied: AppliedPolicies
    telemetry: Telemetry


async def open_base(locations: Locations, project: ProjectSource, database: Database, telemetry: Telemetry) -> Base:
    """Read or make the keys, and look up what is known. Raises Permanent when a key cannot be used."""
    keys = locations.state_folder / "keys"
    body_key = blob_key(keys)
    store, control, signals = RunStore(database, telemetry.meter), ControlStore(database), Signals()
    redactor = Redactor(project().secrets_patterns)
    outputs = OutputStore(database, PieceCipher(body_key))
    records = LiveRecords(store, control, AdoptionSeal(body_key))
    await records.refresh()
    return Base(
        locations=locations,
        project=project,
        database=database,
        clock=SystemClock(),
        telemetry=telemetry,
        signals=signals,
        worker=process_identity(),
        key=signing_key(keys, f"interlock/{project().name}"),
        blobs=FileBlobs(locations.state_folder / "blobs", body_key),
        store=store,
        control=control,
        redactor=redactor,
        outputs=outputs,
        output_log=Outputs(outputs, signals, redactor),
        records=records,
        applied=AppliedPolicies(await PolicyStore(database).in_force()),
    )
