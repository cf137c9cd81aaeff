"""The demo: the main job on real commands and files, told as a story that anybody can repeat by hand."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from interlock.bootstrap import remove_database
from interlock.core.errors import Permanent
from interlock.interfaces.cli.demo_releases import end_services, free_address, release_parts, tell_what_goes_on
from interlock.interfaces.cli.demo_shop import DEFAULT_FOLDER, is_ours, make_shop
from interlock.interfaces.messages import say
from interlock.settings import PROJECT_FILE_NAME, Settings, locate, read_settings

LINES_SHOWN = 14
LINE_CHARACTERS = 110
COMMAND_SECONDS = 120
POLL_SECONDS = 0.1
SILENT_SECONDS = 30.0
TAMPERED = 1


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    text: str


class Stage:
    """Runs real commands in the shop's folder and shows them as a person would see them; users come to `address`."""

    def __init__(self, folder: Path, *, colour: bool) -> None:
        self.folder = folder
        self.address = free_address()
        self._colour = colour
        settings = dict(read_settings().resident_environment)
        # Only what a shell would have: no other project, no other database, and no mark of a coding agent around us.
        self._environment = {name: value for name, value in settings.items() if not name.startswith("INTERLOCK_")}
        self._environment["INTERLOCK_LANG"] = read_settings().language
        self._environment["COLUMNS"] = str(LINE_CHARACTERS)

    def heading(self, number: int, text: str) -> None:
        """A part of the story."""
        self._print("")
        self._print(f"{number}. {text}", bold=True)

    def tell(self, text: str) -> None:
        """A sentence."""
        self._print(f"   {text}")

    def command(self, *words: str, expect: int = 0, shown: int = LINES_SHOWN) -> Said:
        """Run `interlock WORDS`, show it, and make sure that it ended as the story says."""
        self._print(f"   $ interlock {shlex.join(words)}", bold=True)
        said = self.quietly(*words)
        lines = said.text.rstrip().splitlines()
        for line in lines[:shown]:
            self._print(textwrap.indent(_wrapped(line), "     "), dim=True)
        if len(lines) > shown:
            self._print(f"     ... {len(lines) - shown} more lines", dim=True)
        if said.code != expect:
            msg = f"the demo expected exit {expect} and saw {said.code}: interlock {shlex.join(words)}\n{said.text}"
            raise Permanent(msg, code="demo.unexpected", fix="please report this with the output above")
        return said

    def quietly(self, *words: str) -> Said:
        """Run `interlock WORDS` without showing it."""
        done = subprocess.run(
            [sys.executable, "-m", "interlock", *words],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return Said(done.returncode, done.stdout)

    def shell(self, shown: str, *argv: str, expect: int = 0) -> Said:
        """Run another program of the story (the verifier) and show it as `shown`."""
        self._print(f"   $ {shown}", bold=True)
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in done.stdout.rstrip().splitlines()[:LINES_SHOWN]:
            self._print(textwrap.indent(_wrapped(line), "     "), dim=True)
        if done.returncode != expect:
            msg = f"the demo expected exit {expect} and saw {done.returncode}: {shown}\n{done.stdout}"
            raise Permanent(msg, code="demo.unexpected", fix="please report this with the output above")
        return Said(done.returncode, done.stdout)

    def newest_run(self) -> int:
        """The number of the Run that was asked for last."""
        return int(self.ask_json("log", "--limit", "1")["runs"][0]["number"])

    def ask_json(self, *words: str) -> dict:  # type: ignore[type-arg]
        """The data of an answer."""
        done = subprocess.run(
            [sys.executable, "-m", "interlock", *words, "--output", "json"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        data: dict = json.loads(done.stdout)["data"]  # type: ignore[type-arg]
        return data

    def until(self, what: str, ready: Callable[[], bool]) -> None:
        """Wait for something that happens by itself."""
        end = time.monotonic() + SILENT_SECONDS
        while not ready():
            if time.monotonic() > end:
                msg = f"the demo waited {SILENT_SECONDS:.0f} s for {what}"
                raise Permanent(msg, code="demo.silent", fix="please report this with the output above")
            time.sleep(POLL_SECONDS)

    def _print(self, text: str, *, bold: bool = False, dim: bool = False) -> None:
        code = "1" if bold else "2" if dim else ""
        sys.stdout.write(f"\x1b[{code}m{text}\x1b[0m\n" if self._colour and code else f"{text}\n")
        sys.stdout.flush()


def run_demo(folder: Path | None, *, colour: bool) -> int:
    """Tell the whole story in `folder` (default: ./interlock-demo), which is left to play with.

    Returns: 0. Raises: Conflict when the folder is somebody's own; Permanent when something went otherwise.
    """
    folder = (folder or Path(DEFAULT_FOLDER)).absolute()
    stage = Stage(folder, colour=colour)
    if is_ours(folder):
        end_services(stage)
        stage.quietly("stop")
        remove_database(locate(folder / PROJECT_FILE_NAME, Settings(), os.geteuid()))
    make_shop(folder, pwd.getpwuid(os.geteuid()).pw_name, stage.address)
    begun = time.monotonic()
    stage.tell(say("A small shop lies in {folder}. An agent called helper works on it, and so do you.", folder=folder))
    stage.tell(say("Every line that begins with $ is a real command; repeat it there by hand."))
    stage.tell(say("First paste this into your shell:"))
    stage.tell(f"$ {_way_there(folder, Path(sys.executable).parent, shutil.which('interlock'))}")
    for number, (title, part) in enumerate(_parts(), start=1):
        stage.heading(number, title)
        part(stage)
    stage.heading(len(_parts()) + 1, say("What is left for you"))
    stage.command("status", shown=30)
    stage.tell(
        say(
            "That took {seconds} s. The shop stays in {folder}; try there: interlock status",
            seconds=round(time.monotonic() - begun),
            folder=folder,
        )
    )
    stage.tell(
        say("An agent of your own comes in by `interlock connect claude`, a program by `interlock serve` (HTTP).")
    )
    stage.tell(say("Stop it with `interlock stop`; `interlock demo` makes it anew."))
    tell_what_goes_on(stage)
    return 0


def _way_there(folder: Path, programs: Path, found: str | None) -> str:
    """The line after which every command of the story works by hand; `found` is the `interlock` on PATH, if any.

    A developer's `make demo` runs the one in a virtual environment, which no PATH names.
    """
    there = f"cd {shlex.quote(str(folder))}"
    if found is not None or not (programs / "interlock").exists():
        return there
    return f'export PATH={shlex.quote(str(programs))}:"$PATH"; {there}'


def _parts() -> tuple[tuple[str, Callable[[Stage], None]], ...]:
    return (
        (say("Permitted: the agent looks around"), _permitted),
        (say("Forbidden: a protected file under another name"), _forbidden),
        (say("Approved: the agent's change needs a person"), _approved),
        (say("Undone: you take it back"), _undone),
        (say("Killed half way: kill -9, and it still ends rightly"), _killed),
        (say("Stale: the world changed while the ask waited"), _stale),
        *release_parts(),
        (say("Proven: the log is verified without Interlock, and a flipped byte is found"), _proven),
    )


def _permitted(stage: Stage) -> None:
    stage.tell(say("Reading changes nothing and tells no secret, so it runs at once."))
    stage.command("exec", "--as", "helper", "--", "tail", "-n", "2", "site/access.log")
    stage.command("exec", "--as", "helper", "--", "df", "-h", ".")


def _forbidden(stage: Stage) -> None:
    stage.tell(say("site/latest.csv is a link to data/customers.csv, which is protected. The name does not help."))
    write = ("--arg", "path=site/latest.csv", "--arg", "content=oops")
    stage.command("do", "file.write", "--as", "helper", *write, "--confirm", expect=4)
    stage.tell(say("Nor does a shell, which could hide anything."))
    stage.command("exec", "--as", "helper", "--confirm", "--", "bash", "-c", "rm data/customers.csv", expect=4)


def _approved(stage: Stage) -> None:
    content = "content=Open on Sunday!"
    write = ("--arg", "path=site/banner.txt", "--arg", content)
    stage.tell(say("The agent says what it wants; the plan waits for a person who reads it."))
    stage.command("do", "file.write", "--as", "helper", *write, "--reason", "opening hours", "--confirm", expect=8)
    number = str(stage.newest_run())
    stage.command("approve", number, "--yes", "--wait", shown=30)
    _show_file(stage, "site/banner.txt")


def _undone(stage: Stage) -> None:
    number = str(stage.newest_run())
    stage.tell(say("The original was kept, and the undo was part of the plan that you approved."))
    stage.command("undo", number, "--confirm")
    _show_file(stage, "site/banner.txt")


def _killed(stage: Stage) -> None:
    stage.tell(say("You make the nightly script a known program: pinned by its content, safe to repeat."))
    stage.command("adopt", "scripts/nightly-report.sh", "--name", "report.nightly", "--repeatable", "--confirm")
    stage.command("exec", "--confirm", "--no-wait", "--", "report.nightly", expect=8)
    number = str(stage.newest_run())
    stage.until("the report to begin", lambda: "counted east" in stage.quietly("output", number).text)
    pid = int(stage.ask_json("status")["resident"]["pid"])
    stage.tell(f"$ kill -9 {pid}")
    os.kill(pid, signal.SIGKILL)
    stage.tell(say("Interlock is gone in the middle of the report, and the report died with it: no half work goes on."))
    stage.tell(say("The next command starts it again. It finds the Run, proves the old process dead, and repeats it."))
    stage.command("output", number, "--follow")
    stage.until("the Run to end", lambda: stage.ask_json("show", number)["run"]["state"] == "succeeded")
    stage.command("show", number, shown=40)


def _stale(stage: Stage) -> None:
    content = 'content={"coffee": 3.50, "tea": 2.80}'
    write = ("--arg", "path=site/prices.json", "--arg", content)
    stage.command("do", "file.write", "--as", "helper", *write, "--confirm", expect=8)
    number = str(stage.newest_run())
    stage.tell(say("While it waits, somebody edits the file directly:"))
    stage.tell("$ echo '{\"coffee\": 9.99}' > site/prices.json")
    (stage.folder / "site" / "prices.json").write_text('{"coffee": 9.99}\n', encoding="utf-8")
    stage.tell(say("The approval was for another plan than the one it would be now, so nothing is written."))
    stage.command("approve", number, "--yes", "--wait", expect=5, shown=30)
    _show_file(stage, "site/prices.json")


def _proven(stage: Stage) -> None:
    stage.command("audit", "verify")
    name = "audit.tar.gz"
    stage.command("audit", "export", name)
    stage.shell(
        f"tar -xzf {name} --strip-components=1 --wildcards '*/verify.py'",
        *("tar", "-xzf", name, "--strip-components=1", "--wildcards", "*/verify.py"),
    )
    python = sys.executable
    stage.shell(f"{python} verify.py {name}", python, "verify.py", name)
    stage.tell(say("Now one byte of what was recorded is flipped, inside a copy of the archive:"))
    _flip_a_byte(stage.folder / name, stage.folder / "tampered.tar.gz")
    bad = "tampered.tar.gz"
    stage.shell(f"{python} verify.py {bad}", python, "verify.py", bad, expect=TAMPERED)


def _wrapped(line: str) -> str:
    """A long line goes on below itself; a table's line stays as it is."""
    if len(line) <= LINE_CHARACTERS:
        return line
    return textwrap.fill(line, LINE_CHARACTERS, subsequent_indent="  ", break_on_hyphens=False)


def _flip_a_byte(source: Path, target: Path) -> None:
    """Change one letter in the first file of recorded entries."""
    import io
    import tarfile

    with tarfile.open(source) as whole, tarfile.open(target, "w:gz") as changed:
        for member in whole:
            file = whole.extractfile(member)
            body = bytearray(file.read()) if file is not None else bytearray()
            if "/audit/entries/" in member.name:
                place = body.index(b"helper")
                body[place] ^= 1
            changed.addfile(member, io.BytesIO(bytes(body)))


def _show_file(stage: Stage, name: str) -> None:
    stage.tell(f"$ cat {name}")
    stage.tell(f"  {(stage.folder / name).read_text(encoding='utf-8').strip()}")
