"""What is read of a Git repository, and the programs that change it, whatever the repository's own settings say."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from interlock.core.model import Frozen
from interlock.core.outside import OutsideKey
from interlock.core.ports import ProcessSpec


class GitPlace(Frozen):
    """Where a repository is: real paths of its work tree's top, its own Git folder, and the one worktrees share."""

    top: str
    own: str
    common: str


@dataclass(frozen=True)
class GitHead:
    """The branch that is checked out (`refs/heads/main`) and its commit; None before the first one."""

    ref: str
    commit: str | None


@dataclass(frozen=True)
class Staged:
    """What a commit would hold. `diff` is for people, `added` are all added lines, also of what is not text."""

    tree: str
    paths: tuple[str, ...]
    diff: str
    added: str


@dataclass(frozen=True)
class Outgoing:
    """What a push would send: `ID AUTHOR: SUBJECT` of each commit, newest first, the paths and lines they add."""

    commits: tuple[str, ...]
    paths: tuple[str, ...]
    added: str


class GitEffects(Protocol):
    """Programs to run under the guard; they belong to one look at the index, and are gone with it."""

    def tree(self) -> str:
        """The tree that the index stands for, as it was when this began."""
        ...

    def write_tree(self) -> ProcessSpec:
        """Keep that tree in the repository."""
        ...

    def write_commit(self, body: bytes) -> ProcessSpec:
        """Keep a commit object in the repository."""
        ...

    def move(self, ref: str, new: str | None, old: str | None) -> ProcessSpec:
        """Let a branch lead to another commit, if it still leads to `old`; None: there is, or shall be, none."""
        ...

    def archive(self, commit: str, file: str) -> ProcessSpec:
        """Write all files of a commit into a tar archive."""
        ...

    def push(self, url: str, ref: str, new: str, old: str | None) -> ProcessSpec:
        """Send a commit, if the remote branch is still `old`; None: if there is none."""
        ...


class GitRepositories(Protocol):
    """Git on this machine. Reading runs nothing that a repository brings with it, and changes nothing.

    Every method raises Invalid (it is not in a state for this), NotFound (no git here), Transient or Permanent.
    """

    def place(self, top: str) -> GitPlace:
        """The repository whose work tree has its top here."""
        ...

    def stored(self, folder: str) -> GitPlace:
        """The repository in a folder of which only commits are read: a work tree, or a bare one. Raises NotFound."""
        ...

    def commit_of(self, place: GitPlace, name: str) -> str:
        """The commit that a tag, else a branch, else the beginning of a commit's id stands for. Raises NotFound."""
        ...

    def files_of(
        self, place: GitPlace, commit: str, *, files_max: int, file_bytes_max: int
    ) -> tuple[dict[str, str], int]:
        """The files of a commit by their paths, with escapes for what is not text, and how many were left out as too
        many or too large."""
        ...

    def head(self, place: GitPlace) -> GitHead:
        """Raises Invalid when no branch is checked out."""
        ...

    def identity(self, place: GitPlace) -> str | None:
        """`Name <address>` as the repository's settings have it."""
        ...

    def staged(self, place: GitPlace, parent: str | None) -> Staged:
        """The index against a commit."""
        ...

    def dirty(self, place: GitPlace, head: str, *, untracked: bool) -> tuple[str, ...]:
        """Paths that differ from a commit, and with `untracked` those that nobody added."""
        ...

    def remote_url(self, place: GitPlace, remote: str) -> str:
        """Where a remote is pushed to. Raises NotFound, and Invalid for a transport that is not taken."""
        ...

    def read_from(self, place: GitPlace) -> tuple[str, ...]:
        """The real paths of every folder, and of every file that is but a link, whose objects count as this one's.

        Raises: Invalid when there are too many.
        """
        ...

    def written_at(self, url: str, ref: str) -> tuple[str, ...]:
        """The paths of this machine that a push of a branch to an address changes; none where it goes over a network.

        Raises: Invalid when nobody can say which repository lies there.
        """
        ...

    def remote_heads(self, url: str) -> dict[str, str]:
        """The branches there (`refs/heads/main`) and their commits."""
        ...

    def has_ancestor(self, place: GitPlace, commit: str, ancestor: str) -> bool:
        """Whether a commit is known here and lies behind another."""
        ...

    def outgoing(self, place: GitPlace, commit: str, known: tuple[str, ...]) -> Outgoing:
        """What the other side, which has `known`, lacks of a commit."""
        ...

    def commit_body(self, place: GitPlace, commit: str) -> str:
        """A commit object as it is kept."""
        ...

    def effects(self, place: GitPlace) -> AbstractContextManager[GitEffects]:
        """Programs that change it."""
        ...


GIT: OutsideKey[GitRepositories] = OutsideKey("git")
