"""Git, made to look at a repository through a Git folder of our own, so that none of its settings can run anything."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from interlock.adapters.program_output import CLEAN_ENVIRONMENT, ProgramOutput, read_program
from interlock.core.errors import Invalid, NotFound, Permanent, Transient
from interlock.core.git import GitHead, GitPlace, Outgoing, Staged
from interlock.core.ports import ProcessSpec

READ_SECONDS = 20.0
REMOTE_SECONDS = 30.0
PUSH_SECONDS = 300.0
ARCHIVE_SECONDS = 300.0
DIFF_BYTES_MAX = 8 * 1024 * 1024
INDEX_BYTES_MAX = 256 * 1024 * 1024
CONFIG_BYTES_MAX = 256 * 1024
POINTER_BYTES_MAX = 4096
COMMITS_MAX = 1000
OBJECT_FOLDERS_MAX = 50
NOTHING = "0" * 40
_ID = re.compile(r"[0-9a-f]{40}")
_SHORT_ID = re.compile(r"[0-9a-f]{7,40}")
# What says how files are compared, and can run nothing.
_COMPARING = ("core.filemode", "core.symlinks", "core.ignorecase", "core.autocrlf", "core.eol")
_ENVIRONMENT = {
    **CLEAN_ENVIRONMENT,
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_ASKPASS": "/bin/false",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_EDITOR": "/bin/false",
    "GIT_GRAFT_FILE": "/dev/null",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "SSH_ASKPASS": "/bin/false",
}
# For the few commands that have to read the repository's own settings: none of these objects to being overruled.
_OVERRULED = (
    "advice.graftFileDeprecated=false",
    "core.alternateRefsCommand=/bin/true",
    "core.attributesFile=/dev/null",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.sshCommand=/bin/false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "receive.autogc=false",
    # A work tree that follows a push is written through its filters, which are programs.
    "receive.denyCurrentBranch=refuse",
    # A list of objects not to check is a file of any name, of which git tells the line that it does not understand.
    "receive.fsckObjects=false",
    "transfer.fsckObjects=false",
)
# What a push changes in a Git folder, besides the branch and its reflog.
_PUSHED_TO = ("objects", "refs", "refs/heads", "packed-refs", "logs", "logs/HEAD")
_OF_OPERATOR = ("GIT_SSH_COMMAND", "SSH_AUTH_SOCK", "GIT_SSL_CAINFO", "HOME", "HTTPS_PROXY", "https_proxy")
_SSH = re.compile(r"(?:ssh://[^/\s]+/.*|[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^:].*)", re.DOTALL)
# Of the Git folder that is ours. A graft file is named so that none is read, which git would give advice about.
_OWN_SETTINGS = ("attributesFile = /dev/null", "[gc]", "auto = 0", "[advice]", "graftFileDeprecated = false")
_OVERRULES = tuple(word for setting in _OVERRULED for word in ("-c", setting))


class Git:
    """Repositories of this machine.

    Args:
        environment: What the operator declared for git (`contexts.git.environment`): how ssh is started, say.
    """

    def __init__(self, environment: Callable[[], Mapping[str, str]]) -> None:
        self._environment = environment

    @property
    def binary(self) -> str:
        """Raises NotFound."""
        found = shutil.which("git", path=CLEAN_ENVIRONMENT["PATH"])
        if found is None:
            msg = "there is no git on this machine"
            raise NotFound(msg, code="program.absent", fix="install git")
        return found

    def place(self, top: str) -> GitPlace:
        """By what lies there, not by what git finds: its settings may say that the work tree is elsewhere."""
        pointer = Path(top, ".git")
        own = os.path.realpath(pointer)
        if pointer.is_file():
            line = _first_line(pointer)
            if not line.startswith("gitdir:"):
                msg = f"{pointer} is no pointer to a Git folder"
                raise Invalid(msg, code="git.pointer", fix="clone the repository anew")
            own = os.path.realpath(Path(top, line.removeprefix("gitdir:").strip()))
        shared = Path(own, "commondir")
        common = os.path.realpath(Path(own, _first_line(shared))) if shared.is_file() else own
        if not Path(common, "objects").is_dir() or not Path(own, "HEAD").is_file():
            msg = f"{top} is no work tree of a Git repository"
            raise NotFound(msg, code="repository.unknown", fix="name a folder of a work tree")
        return GitPlace(top=top, own=own, common=common)

    def stored(self, folder: str) -> GitPlace:
        """Bare ones have their objects at the top."""
        top = os.path.realpath(folder)
        if Path(top, "HEAD").is_file() and Path(top, "objects").is_dir():
            return GitPlace(top=top, own=top, common=top)
        return self.place(top)

    def commit_of(self, place: GitPlace, name: str) -> str:
        """The ref is read in the repository, what it leads to through a Git folder of our own."""
        for ref in (f"refs/tags/{name}", f"refs/heads/{name}", f"refs/remotes/origin/{name}"):
            found = self._real(place, "show-ref", "--verify", "--hash", ref)  # this very ref, and no expression
            if found.exit_code == 0:
                start = found.stdout.strip()
                break
        else:
            start = name if _SHORT_ID.fullmatch(name) else ""
        with self.effects(place) as look:
            peeled = look.read("rev-parse", "--verify", "--quiet", f"{start}^{{commit}}") if start else None
        commit = peeled.stdout.strip() if peeled is not None and peeled.exit_code == 0 else ""
        if not _ID.fullmatch(commit):
            msg = f"{place.top} has no tag, branch or commit {name}"
            raise NotFound(msg, code="git.ref", fix=f"git -C {place.top} tag --list")
        return commit

    def files_of(
        self, place: GitPlace, commit: str, *, files_max: int, file_bytes_max: int
    ) -> tuple[dict[str, str], int]:
        """One object after the other; links are told by where they lead, as git keeps them."""
        files: dict[str, str] = {}
        left_out = 0
        with self.effects(place) as look:
            listed = _done(look.read("ls-tree", "-r", "-z", "-l", "--full-tree", commit)).stdout
            for row in filter(None, listed.split("\0")):
                told, _, path = row.partition("\t")
                _, kind, blob, size = told.split()
                if kind != "blob" or len(files) >= files_max or int(size) > file_bytes_max:
                    left_out += 1
                    continue
                files[path] = _done(look.read("cat-file", "blob", blob)).stdout
        return files, left_out

    def head(self, place: GitPlace) -> GitHead:
        """From the ref itself: no object is looked at."""
        named = self._real(place, "symbolic-ref", "--quiet", "HEAD")
        ref = named.stdout.strip()
        if named.exit_code != 0 or not ref.startswith("refs/heads/"):
            msg = f"no branch is checked out in {place.top} (detached HEAD)"
            raise Invalid(msg, code="git.detached", fix="git switch BRANCH")
        found = self._real(place, "rev-parse", "--verify", "--quiet", ref)
        commit = found.stdout.strip()
        if found.exit_code != 0:
            return GitHead(ref, None)
        if not _ID.fullmatch(commit):
            msg = f"{place.top} names its objects in a way that is not known here"
            raise Invalid(msg, code="git.format", fix="only repositories with SHA-1 names are taken")
        return GitHead(ref, commit)

    def identity(self, place: GitPlace) -> str | None:
        """As data."""
        settings = self._settings(place)
        name, address = (settings.get(f"user.{key}", [""])[-1] for key in ("name", "email"))
        return f"{name} <{address}>" if name and address else None

    def staged(self, place: GitPlace, parent: str | None) -> Staged:
        """Trees that are made for this look are kept in a folder that goes with it."""
        with self.effects(place) as look:
            tree = look.tree()
            base = parent or look.empty_tree()
            names = _done(look.read("diff-tree", "-r", "-z", "--no-renames", "--name-only", base, tree))
            paths = tuple(filter(None, names.stdout.split("\0")))
            _require_text(paths)
            options = ("diff-tree", "-p", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index")
            diff = _done(look.read(*options, base, tree))
            whole = _done(look.read(*options, "--text", "--no-renames", "-U0", base, tree))
            return Staged(tree, paths, diff.stdout, _added(whole.stdout))

    def dirty(self, place: GitPlace, head: str, *, untracked: bool) -> tuple[str, ...]:
        """As status sees it; a submodule counts where it is at another commit."""
        with self.effects(place) as look:
            look.set_head(head)
            excluded = ("-c", f"core.excludesFile={place.common}/info/exclude")
            words = ("status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=dirty")
            found = _done(look.read(*excluded, *words, f"--untracked-files={'normal' if untracked else 'no'}"))
        return tuple(sorted(entry[3:] for entry in found.stdout.split("\0") if entry))

    def remote_url(self, place: GitPlace, remote: str) -> str:
        """As data: what `insteadOf` and the like would make of it does not count."""
        settings = self._settings(place)
        urls = settings.get(f"remote.{remote}.pushurl") or settings.get(f"remote.{remote}.url") or []
        if not urls:
            msg = f"{place.top} has no remote {remote!r}"
            raise NotFound(msg, code="git.remote", fix="git remote -v")
        if len(urls) > 1:
            msg = f"the remote {remote!r} leads to {len(urls)} places; one at a time is pushed to"
            raise Invalid(msg, code="git.remotes", fix="give it one push address")
        return require_url(urls[0], place.top)

    def read_from(self, place: GitPlace) -> tuple[str, ...]:
        """Followed through alternates of alternates, and through every link among the objects."""
        found: dict[str, None] = {}
        waiting = [Path(place.common, "objects")]
        while waiting:
            objects = Path(os.path.realpath(waiting.pop()))
            if str(objects) in found:
                continue
            if len(found) >= OBJECT_FOLDERS_MAX:
                msg = f"{place.top} has its objects in more than {OBJECT_FOLDERS_MAX} places"
                raise Invalid(msg, code="git.format", fix="git repack -a -d, and remove .git/objects/info/alternates")
            found[str(objects)] = None
            found |= dict.fromkeys(_links(objects))
            waiting += _alternates(objects)
        return tuple(found)

    def written_at(self, url: str, ref: str) -> tuple[str, ...]:
        """By what lies there now."""
        if not url.startswith("/"):
            return ()
        git = _git_folder(Path(url))
        return (str(git), *(str(git / name) for name in (*_PUSHED_TO, ref, f"logs/{ref}")))

    def remote_heads(self, url: str) -> dict[str, str]:
        """By the network, or in a folder of this machine."""
        with _private() as folder:
            words = ("ls-remote", "--upload-pack", self._served("upload-pack"), "--heads", url)
            found = read_program(
                (self.binary, *words),
                timeout_seconds=REMOTE_SECONDS,
                environment=self._outward({"GIT_DIR": str(folder)}),
                decode_errors="backslashreplace",
            )
        if found.exit_code != 0:
            msg = f"{url} does not answer: {found.stderr.strip()[-300:]}"
            raise Transient(msg, code="git.remote_unreachable", fix="check the address and the key", effect_sent=False)
        lines = (line.split("\t", 1) for line in found.stdout.splitlines() if "\t" in line)
        return {ref: commit for commit, ref in lines}

    def has_ancestor(self, place: GitPlace, commit: str, ancestor: str) -> bool:
        """False also where the ancestor was never fetched."""
        with self.effects(place) as look:
            return look.read("merge-base", "--is-ancestor", ancestor, commit).exit_code == 0

    def outgoing(self, place: GitPlace, commit: str, known: tuple[str, ...]) -> Outgoing:
        """Whatever the other side has and is known here is left out."""
        with self.effects(place) as look:
            here = [each for each in known if look.read("cat-file", "-e", each).exit_code == 0]
            span = (commit, *(f"^{each}" for each in here), "--")
            listed = _done(look.read("log", f"-n{COMMITS_MAX + 1}", "--no-color", "--format=%h %an: %s", *span))
            commits = tuple(listed.stdout.splitlines())
            if len(commits) > COMMITS_MAX:
                msg = f"more than {COMMITS_MAX} commits would be sent"
                raise Invalid(msg, code="git.too_many", fix="push that much by hand, once")
            names = _done(look.read("log", "-m", "-z", "--format=", "--name-only", "--no-renames", *span))
            words = ("log", "-m", "-p", "--format=", "--text", "--no-ext-diff", "--no-textconv", "--no-renames", "-U0")
            whole = _done(look.read(*words, "--no-color", *span))
        return Outgoing(commits, tuple(sorted({*filter(None, names.stdout.split("\0"))})), _added(whole.stdout))

    def commit_body(self, place: GitPlace, commit: str) -> str:
        """As `cat-file` shows it."""
        with self.effects(place) as look:
            return _done(look.read("cat-file", "commit", commit)).stdout

    @contextmanager
    def effects(self, place: GitPlace) -> Iterator[_Look]:
        """A folder of our own, with a copy of the index as it is now."""
        with _private() as folder:
            index = Path(place.own, "index")
            if index.is_file():
                if index.stat().st_size > INDEX_BYTES_MAX:
                    msg = f"the index of {place.top} is too large to be looked at"
                    raise Permanent(msg, code="git.too_large", fix="commit by hand")
                shutil.copyfile(index, folder / "index")
            settings = self._settings(place)
            lines = ["[core]", "repositoryformatversion = 0", "bare = false", "quotePath = false"]
            for key in _COMPARING:
                value = settings.get(key, [""])[-1]
                lines += [f"{key.removeprefix('core.')} = {value}"] if re.fullmatch(r"[a-z]{1,10}", value) else []
            (folder / "config").write_text("\n".join([*lines, *_OWN_SETTINGS, ""]))
            yield _Look(self.binary, place, folder, self._outward({}), self._served("receive-pack"))

    def _settings(self, place: GitPlace) -> dict[str, list[str]]:
        """The repository's own settings, as data: one file, nothing that it includes."""
        file = Path(place.common, "config")
        if not file.is_file():
            return {}
        words = (self.binary, "config", "--file", str(file), "--no-includes", "--null", "--list")
        environment = {**_ENVIRONMENT, "GIT_DIR": "/nonexistent"}
        found = _done(read_program(words, timeout_seconds=READ_SECONDS, environment=environment))
        settings: dict[str, list[str]] = {}
        for entry in filter(None, found.stdout.split("\0")):
            key, _, value = entry.partition("\n")
            settings.setdefault(key, []).append(value)
        return settings

    def _real(self, place: GitPlace, *words: str) -> ProgramOutput:
        """A command that reads refs of the repository itself: it looks at no object and runs nothing."""
        environment = {**_ENVIRONMENT, "GIT_DIR": place.own, "GIT_WORK_TREE": place.top}
        return read_program((self.binary, *_OVERRULES, *words), timeout_seconds=READ_SECONDS, environment=environment)

    def _served(self, word: str) -> str:
        """How the other side is started where it lies on this machine: its hooks are not run by our account."""
        return " ".join((self.binary, *_OVERRULES, word))

    def _outward(self, more: Mapping[str, str]) -> dict[str, str]:
        """For what goes over a network: as the operator declared, and within the transports that are taken."""
        declared = {key: value for key, value in self._environment().items() if key in _OF_OPERATOR}
        return {**_ENVIRONMENT, **declared, **more, "GIT_ALLOW_PROTOCOL": "ssh:https:file"}


class _Look:
    """One look at a repository: its objects and a copy of its index, and nothing of its settings."""

    def __init__(
        self, binary: str, place: GitPlace, folder: Path, environment: Mapping[str, str], receive_pack: str
    ) -> None:
        self._binary = binary
        self._place = place
        self._folder = folder
        self._receive_pack = receive_pack
        objects = {
            "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{place.common}/objects"'.replace("\n", "\\n"),
        }
        own = {"GIT_DIR": str(folder), "GIT_WORK_TREE": place.top, "GIT_INDEX_FILE": str(folder / "index")}
        self._outward = {**environment, **own}
        self._reading = {**self._outward, **objects, "GIT_ALLOW_PROTOCOL": ""}
        self._writing = {**self._outward, "GIT_OBJECT_DIRECTORY": f"{place.common}/objects", "GIT_ALLOW_PROTOCOL": ""}

    def read(self, *words: str) -> ProgramOutput:
        """A command; what it writes is gone with this look."""
        return read_program(
            (self._binary, *words),
            timeout_seconds=READ_SECONDS,
            output_bytes_max=DIFF_BYTES_MAX,
            environment=self._reading,
            decode_errors="backslashreplace",
        )

    def set_head(self, commit: str) -> None:
        """What status compares with."""
        (self._folder / "HEAD").write_text(f"{commit}\n")

    def tree(self) -> str:
        """Raises Invalid when files are in conflict."""
        found = self.read("write-tree")
        if found.exit_code != 0:
            msg = f"what is staged in {self._place.top} makes no tree: {found.stderr.strip()[-300:]}"
            raise Invalid(msg, code="git.index", fix="git status")
        return found.stdout.strip()

    def empty_tree(self) -> str:
        """What the first commit is compared with."""
        return _done(self.read("hash-object", "-t", "tree", "-w", "/dev/null")).stdout.strip()

    def write_tree(self) -> ProcessSpec:
        """Keep the tree of the copied index."""
        return self._spec(("write-tree",), self._writing)

    def write_commit(self, body: bytes) -> ProcessSpec:
        """From standard input."""
        return self._spec(("hash-object", "-t", "commit", "-w", "--stdin"), self._writing, stdin=body)

    def move(self, ref: str, new: str | None, old: str | None) -> ProcessSpec:
        """From our own Git folder too, in which only the branches are the repository's: it has hooks and reflogs, and
        a reflog may be a link to any file, to which git would then append."""
        for name in ("refs", "packed-refs"):
            mine = self._folder / name
            if mine.is_dir():
                mine.rmdir()
            mine.symlink_to(Path(self._place.common, name))
        words = ("update-ref", "--no-deref", *(("-d", ref) if new is None else (ref, new)), old or NOTHING)
        return self._spec(words, self._writing)

    def archive(self, commit: str, file: str) -> ProcessSpec:
        """No setting of the repository counts, so that no filter of it runs; `export-ignore` of the commit does."""
        words = ("archive", "--format=tar", f"--output={file}", commit)
        return self._spec(words, self._reading, seconds=ARCHIVE_SECONDS)

    def push(self, url: str, ref: str, new: str, old: str | None) -> ProcessSpec:
        """By its address, from our own Git folder: no setting of the repository names a program for it."""
        lease = f"--force-with-lease={ref}:{old or ''}"
        words = ("push", "--porcelain", "--no-verify", "--no-recurse-submodules", "--receive-pack", self._receive_pack)
        environment = {**self._outward, "GIT_OBJECT_DIRECTORY": f"{self._place.common}/objects"}
        return self._spec((*words, lease, url, f"{new}:{ref}"), environment, seconds=PUSH_SECONDS)

    def _spec(
        self, words: Sequence[str], environment: Mapping[str, str], *, stdin: bytes = b"", seconds: float = READ_SECONDS
    ) -> ProcessSpec:
        return ProcessSpec(
            path=self._binary,
            argv=("git", *words),
            environment=dict(environment),
            stdin=stdin,
            timeout_seconds=seconds,
        )


def require_url(url: str, top: str) -> str:
    """An address that may be pushed to: https, ssh, or a folder of this machine that brings no hooks of its own.

    Raises: Invalid.
    """
    if url.startswith("https://") or _SSH.fullmatch(url):
        if re.search(r"[\x00-\x20]", url) or url.startswith("-"):
            msg = f"{url!r} is no address"
            raise Invalid(msg, code="git.address", fix="git remote -v")
        return url
    path = url.removeprefix("file://")
    if "::" in url or not path.startswith(("/", "./", "../")):
        msg = f"{url!r} is no address that is pushed to: https, ssh, or a folder"
        raise Invalid(msg, code="git.address", fix="use an https or ssh address")
    folder = Path(os.path.realpath(Path(top, path)))
    if not folder.exists():
        folder = Path(os.path.realpath(f"{folder}.git"))
    git = _git_folder(folder)
    active = [each.name for each in _hooks(git / "hooks")]
    config = git / "config"
    redirected = config.is_file() and re.search(rb"(?i)hookspath|include|alternaterefscommand", _body(config))
    if active or redirected:
        msg = f"{folder} runs hooks of its own, which on this machine would run as Interlock"
        raise Invalid(msg, code="git.remote_hooks", fix="push to it over ssh, as the account that it belongs to")
    return str(folder)


def _links(objects: Path) -> Iterator[str]:
    """Where links lead that stand for a folder of objects, a pack or one object."""
    for entry in os.scandir(objects) if objects.is_dir() else ():
        if entry.is_symlink():
            yield os.path.realpath(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            yield from (os.path.realpath(each.path) for each in os.scandir(entry.path) if each.is_symlink())


def _alternates(objects: Path) -> list[Path]:
    """Further folders of objects (gitrepository-layout(5)), where git would look as well."""
    file = objects / "info" / "alternates"
    lines = _body(file).decode("utf-8", "surrogateescape").splitlines() if file.is_file() else []
    named = (line.strip() for line in lines if not line.startswith("#"))
    return [objects / _unquoted(name) for name in named if name]


def _unquoted(name: str) -> str:
    """As git writes names that hold strange characters. Raises Invalid for one that it could read otherwise."""
    if not name.startswith('"'):
        return name
    if not name.endswith('"') or "\\" in name:
        msg = f"{name!r} among the alternates is no name that is taken here"
        raise Invalid(msg, code="git.format", fix="git repack -a -d, and remove .git/objects/info/alternates")
    return name[1:-1]


def _git_folder(folder: Path) -> Path:
    """The Git folder that git finds when it is pushed to a folder. Raises Invalid where that may be another one.

    Git takes the first of `.git` in it, itself, and the same with `.git` at the end (enter_repo, in git's path.c).
    """
    inner, beside = folder / ".git", Path(f"{folder}.git")
    strange = os.path.lexists(inner) and (inner.is_symlink() or not inner.is_dir())
    git = inner if inner.is_dir() else folder
    whole = (git / "HEAD").is_file() and (git / "objects").is_dir() and (git / "refs").is_dir()
    if strange or not whole or os.path.lexists(beside) or os.path.lexists(git / "commondir"):
        msg = f"{folder} is no repository of its own, or leads to another one"
        raise Invalid(msg, code="git.address", fix="name the bare repository itself, or push over ssh")
    return git


def _hooks(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for each in folder.iterdir():
            if not each.name.endswith(".sample") and each.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
                yield each


@contextmanager
def _private() -> Iterator[Path]:
    """A Git folder that only we can write, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="interlock-git-") as name:
        folder = Path(name)
        for part in ("objects", "refs"):
            (folder / part).mkdir()
        (folder / "HEAD").write_text("ref: refs/heads/none\n")
        yield folder


def _done(found: ProgramOutput) -> ProgramOutput:
    if found.exit_code != 0:
        msg = f"git failed: {found.stderr.strip()[-300:]}"
        raise Permanent(msg, code="git.failed", fix="git fsck")
    return found


def _added(diff: str) -> str:
    return "\n".join(line[1:] for line in diff.split("\n") if line.startswith("+") and not line.startswith("+++ "))


def _require_text(paths: Sequence[str]) -> None:
    strange = next((path for path in paths if "\\x" in path or "\n" in path), None)
    if strange is not None:
        msg = f"{strange!r} is no file name that a plan could show"
        raise Invalid(msg, code="git.file_name", fix="rename it")


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(POINTER_BYTES_MAX).decode("utf-8", "replace").partition("\n")[0].strip()


def _body(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(CONFIG_BYTES_MAX)
