"""What is asked of a repository, how a commit is written, and how its difference is shown; pure."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import Field

from interlock.core.errors import Denied
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Target

DIFF_LINES_MAX = 400
LINE_CHARACTERS_MAX = 300
PATHS_SHOWN_MAX = 200
BRANCH = r"^[A-Za-z0-9_][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*$"
_IDENTITY = re.compile(r"[^<>\x00-\x1f]{1,200} <[^<>\x00-\x20]{1,200}>")


class CommitArgs(Frozen):
    """`repository` is a folder of it. What is staged is committed, nothing else. `author` is `Name <address>`."""

    repository: str = Field(min_length=1, max_length=4096)
    message: str = Field(min_length=1, max_length=20_000)
    author: str | None = Field(default=None, pattern=r"^[^<>\x00-\x1f]{1,200} <[^<>\x00-\x20]{1,200}>$")


class PushArgs(Frozen):
    """The branch that is checked out goes to the branch of the same name at `remote`, or to `branch`.

    `force` lets commits there be lost, but none that came since the plan. `allow_untracked`: files that nobody added
    are not counted as forgotten.
    """

    repository: str = Field(min_length=1, max_length=4096)
    remote: str = Field(default="origin", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,99}$")
    branch: str | None = Field(default=None, max_length=200, pattern=BRANCH)
    force: bool = False
    allow_untracked: bool = False


def require_within(top: str, roots: tuple[str, ...]) -> None:
    """Raises Denied for a repository that lies in no folder that may be written."""
    if not any(PurePosixPath(top).is_relative_to(root) for root in roots):
        msg = f"the repository {top} lies outside the folders that may be written ({', '.join(roots) or 'none'})"
        raise Denied(msg, code="git.outside_roots", fix="declare the folder under roots.write in interlock.yaml")


def branch_target(top: str, ref: str, url: str | None = None) -> Target:
    """`branch:/srv/app/main`, known as `branch:app/main` too; at a remote also by its address."""
    branch = ref.removeprefix("refs/heads/")
    names = [f"branch:{PurePosixPath(top).name}/{branch}"]
    if url is None:
        return Target(kind="branch", id=f"{top}/{branch}", names=tuple(names))
    stem = PurePosixPath(url.rstrip("/")).name.removesuffix(".git")
    return Target(
        kind="branch", id=f"{url}/{branch}", names=(*names, f"branch:{top}/{branch}", f"branch:{stem}/{branch}")
    )


def commit_object(tree: str, parent: str | None, author: str, message: str, at: datetime) -> bytes:
    """A commit as git keeps it (`git cat-file commit`)."""
    moment = f"{int(at.timestamp())} +0000"
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent is not None else [])]
    lines += [f"author {author} {moment}", f"committer {author} {moment}"]
    return ("\n".join(lines) + "\n\n" + message.rstrip("\n") + "\n").encode()


def object_id(body: bytes) -> str:
    """The name of a commit object."""
    return hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest()  # noqa: S324 - git's own names


def says(body: str, params: JsonObject) -> bool:
    """Whether a commit is the one that a step describes, whenever it was made."""
    head, _, message = body.partition("\n\n")
    lines = [line for line in head.split("\n") if line.startswith(("tree ", "parent "))]
    parent = params["parent"]
    wanted = [f"tree {params['tree']}", *([f"parent {parent}"] if parent is not None else [])]
    return lines == wanted and message.rstrip("\n") == str(params["message"]).rstrip("\n")


def is_identity(text: str) -> bool:
    """Whether it can stand in a commit."""
    return _IDENTITY.fullmatch(text) is not None


def shown(diff: str) -> str:
    """A difference for people, bounded; the tree's id in the plan stands for all of it."""
    lines = diff.split("\n")
    cut = [line if len(line) <= LINE_CHARACTERS_MAX else line[:LINE_CHARACTERS_MAX] + " ..." for line in lines]
    if len(cut) > DIFF_LINES_MAX:
        cut = [*cut[:DIFF_LINES_MAX], f"... and {len(lines) - DIFF_LINES_MAX} more lines"]
    return "\n".join(cut)


def listed(items: tuple[str, ...], most: int = 10) -> str:
    """The first few, and how many more."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
