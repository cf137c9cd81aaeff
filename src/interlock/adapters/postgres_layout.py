"""Says in which folders a cluster, its socket and its programs lie, and makes those folders."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from interlock.adapters.postgres_account import SERVER_ACCOUNT, ServerAccount
from interlock.adapters.postgres_cluster import ClusterPaths, write_private
from interlock.core.errors import Conflict, Permanent

_ID_CHARACTERS = 16
_NEW = "new "  # put before the id while the cluster has not been completed for the first time


@dataclass(frozen=True)
class Layout:
    """The folders of one state folder.

    An ordinary user's cluster lies in `state_folder/postgresql`, its socket below `runtime_folder`. Root's lies in
    `system_folder/clusters/ID` together with its socket; the state folder holds the id. It is a random id and not a
    hash of the path, so that a new state folder never finds the database of an old one that had the same path.
    """

    state_folder: Path
    runtime_folder: Path
    system_folder: Path

    @property
    def startup_lock(self) -> Path:
        """Held while a server is started or stopped."""
        return self.state_folder / "postgresql.lock"

    @property
    def installation_lock(self) -> Path:
        """Held while the account is made or programs are copied."""
        return self.system_folder / "installation.lock"

    @property
    def _pointer(self) -> Path:
        return self.state_folder / "postgresql-cluster"

    def make_state_folder(self) -> None:
        """Make the state folder for this user alone, when there is none.

        Raises:
            Conflict: it is another user's: under root the same project would silently get a second, empty database.
        """
        self.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = self.state_folder.stat().st_uid
        if owner != os.geteuid():
            msg = f"{self.state_folder} belongs to user {owner}, and this is user {os.geteuid()}"
            raise Conflict(msg, code="postgres.other_user", fix=f"run this as user {owner}")

    def make_system_folder(self) -> None:
        """Make root's folder and see that every account can reach it.

        Raises:
            Permanent: a folder above it is closed to others; we never open somebody else's folder.
        """
        for folder in (self.system_folder, self.system_folder / "clusters"):
            if not folder.exists():
                folder.mkdir(mode=0o755, exist_ok=True)
                folder.chmod(0o755)
        for folder in (self.system_folder, *self.system_folder.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                msg = f"the account {SERVER_ACCOUNT} cannot reach {self.system_folder}: {folder} is closed to others"
                raise Permanent(msg, code="postgres.system_folder", fix=f"`chmod o+x {folder}`, if that is right there")

    def cluster_paths(self) -> ClusterPaths | None:
        """Where the cluster is, or will be; None for root before the first start."""
        if os.geteuid() != 0:
            folder = self.state_folder / "postgresql"
            name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
            return ClusterPaths(folder=folder, socket_folder=self.runtime_folder / f"postgresql-{name}")
        identifier = self._identifier()
        return None if identifier is None else self._system_paths(identifier.removeprefix(_NEW))

    def make_cluster_folder(self, account: ServerAccount) -> ClusterPaths:
        """Make the folders around the data folder.

        Raises:
            Permanent: the database that the state folder names is gone, or the socket's folder is somebody else's.
            Conflict: the state folder is a copy of another, whose database this is.
        """
        if account.is_other and self._identifier() is None:
            self._point(_NEW + secrets.token_hex(_ID_CHARACTERS // 2))
        paths = self.cluster_paths()
        if paths is None:
            msg = f"{self._pointer} vanished while the cluster was being made"
            raise Conflict(msg, code="postgres.cluster", fix="start again")
        if account.is_other:
            self._require_mine(paths)
        if account.is_other:
            _make_folder(paths.folder, os.geteuid(), group_id=account.group_id)
            write_private(paths.folder / "origin", str(self.state_folder))
        else:
            _make_folder(paths.folder, os.geteuid())
        paths.socket_folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (paths.log, paths.socket_folder):
            _make_folder(folder, account.user_id)
        return paths

    def keep_cluster(self) -> None:
        """From now on a missing data folder is a loss, and no longer the first start."""
        identifier = self._identifier() if os.geteuid() == 0 else None
        if identifier is not None:
            self._point(identifier.removeprefix(_NEW))

    def forget_cluster(self) -> None:
        """The next start begins with an empty database."""
        self._pointer.unlink(missing_ok=True)

    def _system_paths(self, identifier: str) -> ClusterPaths:
        folder = self.system_folder / "clusters" / identifier
        return ClusterPaths(folder=folder, socket_folder=folder / "socket")

    def _identifier(self) -> str | None:
        try:
            text = self._pointer.read_text().strip()
        except FileNotFoundError:
            return None
        identifier = text.removeprefix(_NEW)
        if len(identifier) != _ID_CHARACTERS or set(identifier) - set("0123456789abcdef"):
            msg = f"{self._pointer} does not hold the id of a cluster"
            raise Permanent(msg, code="postgres.cluster", fix="restore the state folder from a backup")
        return text

    def _point(self, text: str) -> None:
        write_private(self._pointer, text + "\n")

    def _require_mine(self, paths: ClusterPaths) -> None:
        identifier = self._identifier() or _NEW
        if not paths.data.is_dir() and not identifier.startswith(_NEW):
            msg = f"the database of {self.state_folder} is gone: {paths.data} does not exist"
            raise Permanent(
                msg,
                code="postgres.cluster_lost",
                fix=f"bring {paths.folder} back, or delete {self._pointer} and restore a backup into the new database",
            )
        origin = paths.folder / "origin"
        other = Path(origin.read_text()) if origin.exists() else self.state_folder
        pointer = other / self._pointer.name
        is_copy = other != self.state_folder and pointer.exists() and pointer.read_text().strip() == identifier
        if is_copy and not pointer.samefile(self._pointer):
            msg = f"{self.state_folder} is a copy of {other}, and both name the same database"
            raise Conflict(
                msg, code="postgres.copied", fix=f"delete {self._pointer} to begin with an empty database here"
            )


def _make_folder(folder: Path, user_id: int, *, group_id: int | None = None) -> None:
    """See that a folder is a real one, belongs to the user, and is closed to all others but the group, if given.

    It changes nothing that is as it should be: a server may be at work in it.
    """
    if not folder.exists():
        folder.mkdir(mode=0o700)
        if user_id != os.geteuid():
            os.chown(folder, user_id, -1, follow_symlinks=False)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user_id:
        msg = f"{folder} must be a folder of user {user_id}, and is not"
        raise Permanent(msg, code="postgres.folder", fix="move it away, or choose another folder")
    if group_id is not None and found.st_gid != group_id:
        os.chown(folder, -1, group_id, follow_symlinks=False)
    mode = 0o700 if group_id is None else 0o750
    if stat.S_IMODE(found.st_mode) != mode:
        folder.chmod(mode)
