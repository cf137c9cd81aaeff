"""The outside systems: every adapter there is, handed in here and nowhere else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from interlock.adapters.compose_runtime import ComposeServices
from interlock.adapters.devices import DeviceTargets
from interlock.adapters.docker import DockerTargets
from interlock.adapters.envoy import EnvoyProxy
from interlock.adapters.files import FileTargets
from interlock.adapters.git import Git
from interlock.adapters.health_probe import HttpProbe
from interlock.adapters.kubernetes import KubernetesTargets
from interlock.adapters.mcp_servers import OutsideMcpServers
from interlock.adapters.metric_source import HttpMetricSource
from interlock.adapters.names import NamedTargets
from interlock.adapters.nginx import nginx_plane
from interlock.adapters.postgres import SYSTEM_FOLDER, EmbeddedPostgres
from interlock.adapters.processes import ProcessTargets
from interlock.adapters.remote_hosts import SshHosts
from interlock.adapters.repositories import RepositoryTargets
from interlock.adapters.resolvers import ResolverSet
from interlock.adapters.secret_files import SecretFiles
from interlock.adapters.service_commands import CommandServices
from interlock.adapters.source_layout import OwnLayouts
from interlock.adapters.sql_databases import PostgresDatabases
from interlock.adapters.sql_parser import ProcessParser
from interlock.adapters.systemd import UnitTargets
from interlock.adapters.systemd_runtime import SystemdServices
from interlock.adapters.web import OutsideWeb
from interlock.batch.records import StoredBatches
from interlock.batch.room import FOLDER as BATCH_FOLDER
from interlock.batch.store import BatchStore
from interlock.bootstrap.foundation import Base
from interlock.bootstrap.kept import own_keeper
from interlock.bootstrap.project import ProjectSource
from interlock.commands.actions import CommandExec
from interlock.core.action import PathClass
from interlock.core.batch import BATCHES
from interlock.core.databases import SQL_DATABASES, SQL_PARSER
from interlock.core.errors import Permanent
from interlock.core.git import GIT
from interlock.core.golden import GOLDEN_FOLDER
from interlock.core.health_probe import HEALTH_PROBE
from interlock.core.keeper import KEEPER, Keeper
from interlock.core.mcp_server import ACCEPTED_TOOLS, MCP_SERVERS
from interlock.core.metric_source import METRIC_SOURCE
from interlock.core.outside import Outside
from interlock.core.policy_set import POLICY_SETS
from interlock.core.ports import ProgramContext
from interlock.core.release import RELEASES
from interlock.core.remote_host import REMOTE_HOSTS
from interlock.core.schedule import SCHEDULES
from interlock.core.service_instance import SERVICE_INSTANCES
from interlock.core.service_runtime import COMMANDS, COMPOSE, SYSTEMD
from interlock.core.source_layout import SOURCE_LAYOUTS
from interlock.core.traffic import ENVOY, NGINX
from interlock.core.web import WEB
from interlock.engine.catalog import Catalog
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.target_classes import CLASSES
from interlock.engine.policy_store import PolicyStore
from interlock.engine.project_file import overlay_file
from interlock.lib.clock import SystemClock
from interlock.releases.records import StoredReleases
from interlock.releases.store import ReleaseStore
from interlock.rules.desk import PolicyDesk
from interlock.schedules.records import StoredSchedules
from interlock.schedules.store import ScheduleStore
from interlock.services.records import StoredInstances
from interlock.services.store import InstanceStore
from interlock.settings import Locations
from interlock.tools.store import LiveAcceptedTools


def outside_systems(base: Base) -> Outside:
    """Every outside system that Actions and rooms may speak to, by its key: one line each."""
    keeper = own_keeper(base.locations.state_folder, base.clock)
    git = Git(lambda: base.project().contexts.get("git", ProgramContext()).environment)
    return Outside(
        {
            ACCEPTED_TOOLS: LiveAcceptedTools(base.database),
            MCP_SERVERS: OutsideMcpServers(
                lambda: base.project().mcp_servers, SecretFiles(base.locations.state_folder / "credentials")
            ),
            SQL_DATABASES: PostgresDatabases(
                lambda: base.project().databases, SecretFiles(base.locations.state_folder / "credentials")
            ),
            SQL_PARSER: ProcessParser(),
            KEEPER: keeper,
            ENVOY: own_envoy(base.locations, keeper),
            NGINX: nginx_plane(
                base.locations.state_folder / "traffic" / "nginx", keeper, lambda: base.project().workloads
            ),
            GIT: git,
            GOLDEN_FOLDER: base.locations.state_folder / "golden",
            HEALTH_PROBE: HttpProbe(base.clock),
            METRIC_SOURCE: HttpMetricSource(base.clock),
            SOURCE_LAYOUTS: OwnLayouts(base.locations.state_folder / "workloads", git, base.clock),
            COMMANDS: CommandServices(keeper),
            COMPOSE: ComposeServices(
                base.locations.state_folder / "compose",
                lambda: base.project().folder,
                lambda: base.project().contexts.get("docker", ProgramContext()).environment,
            ),
            SYSTEMD: SystemdServices(base.clock),
            SERVICE_INSTANCES: StoredInstances(InstanceStore(base.database)),
            BATCHES: StoredBatches(BatchStore(base.database), base.locations.state_folder.joinpath(*BATCH_FOLDER)),
            RELEASES: StoredReleases(ReleaseStore(base.database)),
            POLICY_SETS: PolicyDesk(PolicyStore(base.database), base.applied),
            WEB: OutsideWeb(SecretFiles(base.locations.state_folder / "credentials")),
            REMOTE_HOSTS: SshHosts(base.locations.state_folder / "hosts"),
            SCHEDULES: StoredSchedules(ScheduleStore(base.database), base.project, base.clock),
        }
    )


def own_envoy(locations: Locations, keeper: Keeper) -> EnvoyProxy:
    """The Envoy of this installation."""
    return EnvoyProxy(locations.state_folder / "traffic" / "envoy", locations.runtime_folder / "envoy.sock", keeper)


def own_parts(locations: Locations) -> OwnParts:
    """What belongs to Interlock itself on this machine."""
    package = Path(__file__).resolve().parents[1]
    return OwnParts(
        changed=(
            f"file:{locations.project_file}",
            f"file:{overlay_file(locations.project_file, '*')}",
            f"file:{locations.project_folder}/policies/**",
            f"file:{locations.runtime_folder}/**",
            f"file:{package}/**",
            "unit:interlock*",
            "interlock:*",
        ),
        private=(f"file:{locations.state_folder}/**", f"file:{SYSTEM_FOLDER}/**"),
    )


def path_classes(catalog: Catalog) -> Callable[[str], PathClass]:
    """How a path may be read, as the library of programs says, which `command.exec` holds."""

    def path_class(real_path: str) -> PathClass:
        execute = catalog.action(CommandExec.name)
        if not isinstance(execute, CommandExec):
            msg = f"{CommandExec.name} is another action"
            raise Permanent(msg, code="bug")
        return execute.library().classify_path(real_path)

    return path_class


def resolvers(
    locations: Locations, project: ProjectSource, own: OwnParts, embedded: EmbeddedPostgres | None
) -> ResolverSet:
    """Every outside system whose names can be turned into identities."""
    keeper = own_keeper(locations.state_folder, SystemClock())

    def own_pids() -> tuple[int, ...]:
        server = embedded.postmaster_pid if embedded is not None else None
        return (os.getpid(), *keeper.pids(), *(() if server is None else (server,)))

    well_known = tuple(pattern for patterns in CLASSES.values() for pattern in patterns if pattern.startswith("file:"))
    files = FileTargets(lambda: (*project().protected, *own.changed, *own.private, *well_known))
    processes = ProcessTargets(own_pids, (str(locations.state_folder), str(locations.runtime_folder)))
    return ResolverSet(
        (
            files,
            processes,
            UnitTargets(),
            DockerTargets(paths_of=files.paths_of),
            DeviceTargets(files.resolve),
            KubernetesTargets(),
            NamedTargets(host_names=(socket.gethostname(), socket.getfqdn())),
            RepositoryTargets(files.resolve),
        ),
        own_places=processes.own_places,
    )
