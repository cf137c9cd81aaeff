"""Says whether what git is about to show, from any commit, index or branch, has ever been a file that holds secrets."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SECONDS_MAX = 5.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024
SUBCOMMANDS = ("diff", "show", "log", "stash", "grep")
# What makes git print more, less or other things than names.
_FORMS_OF_OUTPUT = re.compile(
    r"-[pswubq]+|--(?:patch|no-patch|check|quiet|exit-code|oneline|word-diff|minimal|graph|name-only|name-status|"
    r"shortstat|numstat|summary|follow|reverse)|--(?:stat|format|pretty|color|decorate)(?:=.*)?",
    re.DOTALL,
)


class Unsaid(Exception):
    """git gave no answer, or a longer one than is read."""


@dataclass(frozen=True, slots=True)
class Git:
    """How git is started, for the command and for what is asked about it before."""

    binary: str
    folder: str
    environment: Mapping[str, str]

    def ask(self, argv: tuple[str, ...]) -> str:
        """What it prints. Raises Unsaid."""
        try:
            with subprocess.Popen(
                argv,
                executable=self.binary,
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as process:
                try:
                    answer, _ = process.communicate(timeout=SECONDS_MAX)
                except subprocess.TimeoutExpired as error:
                    process.kill()
                    raise Unsaid from error
        except OSError as error:
            raise Unsaid from error
        if process.returncode != 0 or len(answer) > ANSWER_BYTES_MAX:
            raise Unsaid
        return answer.decode("utf-8", "surrogateescape")


def shows_secret(git: Git, argv: tuple[str, ...], revisions: tuple[str, ...], is_secret: Callable[[str], bool]) -> bool:
    """Whether a command that shows content (`argv` as it will be executed) shows any of a secret file.

    What lies in the working tree now is no measure: a secret may have been removed, or lie on another branch. An
    object that is named by its number alone may be any file. `is_secret` takes a path from the top of the repository.
    What git does not say in time counts as a secret.
    """
    place = next((index for index, word in enumerate(argv) if index and word in SUBCOMMANDS), None)
    if place is None:
        return True
    try:
        for revision in revisions:
            kind = "commit" if ".." in revision else _kind_of(git, argv[:place], revision)
            if kind is None:
                return False  # git will find nothing either
            if kind == "blob" and ":" not in revision:
                return True  # a file by its path (HEAD:a) was looked at by that
        answers = [git.ask(question) for question in _questions(argv, place, revisions)]
    except Unsaid:
        return True
    return any(name and is_secret(name) for answer in answers for name in re.split(r"[\0\n]", answer))


def _kind_of(git: Git, start: tuple[str, ...], revision: str) -> str | None:
    """commit, tag, tree or blob; None where git knows nothing of that name."""
    try:
        return git.ask((*start, "cat-file", "-t", revision)).strip()
    except Unsaid:
        return None


def _questions(argv: tuple[str, ...], place: int, revisions: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The commands that print the names of the files whose content `argv` shows."""
    start = argv[:place]
    if argv[place] == "grep":
        if revisions:
            return [(*start, "ls-tree", "-r", "-z", "--full-tree", "--name-only", each) for each in revisions]
        return [(*start, "ls-files", "-z")]
    words = 2 if argv[place] == "stash" else 1
    rest = argv[place + words :]
    end = rest.index("--") if "--" in rest else len(rest)
    kept = tuple(word for word in rest[:end] if not _FORMS_OF_OUTPUT.fullmatch(word))
    form = () if argv[place] == "diff" else ("--format=",)
    return [(*argv[: place + words], "--name-only", "-z", *form, *kept, *rest[end:])]
