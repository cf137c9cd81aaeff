"""Answers `systemctl show` as the real one does, from a file of units, and fails as the real one can.

Hand-written, because systemd is not to be had in a container. Beside this file's copy lie `units.json` (name ->
properties; `Names` holds aliases) and `mode`: well, hang, garbage, bytes, half, lines, cut, fewer, more,
fails, flood, empty, refuses. An instance of a template that has a `Command` is started and stopped for real, with the
environment that its `EnvironmentFiles` says.
"""

import fnmatch
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUFFIXES = (".service", ".socket", ".target", ".timer", ".slice", ".scope", ".mount", ".device", ".path", ".swap")
DEFAULTS = {
    **dict.fromkeys(
        ("Requires", "RequiredBy", "BoundBy", "PropagatesStopTo", "ConsistsOf", "Conflicts", "Following"), ""
    ),
    "StopWhenUnneeded": "no",
}


def mangle(name: str) -> str:
    """unit_name_mangle(): a path becomes a mount, a bare word a service."""
    if name.startswith("/"):
        return name.strip("/").replace("/", "-") + ".mount"
    return name if name.endswith(SUFFIXES) else name + ".service"


def find(units: dict[str, dict[str, str]], name: str) -> dict[str, str]:
    """A unit by its name or an alias, an instance of a template, or one that is not there."""
    for unit, properties in units.items():
        if name == unit or name in properties.get("Names", "").split():
            return {"Id": unit, "Names": unit, "LoadState": "loaded", "ActiveState": "active", **properties}
    template = re.sub(r"@.+(\.[a-z]+)$", r"@\1", name)
    if template in units and template != name:
        loaded = {"LoadState": "loaded", "ActiveState": "inactive", **units[template]}
        files = loaded.get("EnvironmentFiles", "").replace("%i", name[name.index("@") + 1 : name.rindex(".")])
        return {**loaded, "Id": name, "Names": name, **({"EnvironmentFiles": files} if files else {})}
    return {"Id": name, "Names": name, "LoadState": "not-found", "ActiveState": "inactive"}


def show(argv: list[str]) -> int:
    """`show -p A,B -- NAME...`, one block for each, patterns last."""
    units = json.loads((HERE / "units.json").read_text())
    wanted = argv[argv.index("-p") + 1].split(",")
    names = argv[argv.index("--") + 1 :]
    plain = [name for name in names if not re.search(r"[*?\[]", name)]
    for name in plain:
        if not re.fullmatch(r"[A-Za-z0-9:_.\\@/-]+", name):
            sys.stderr.write(
                f"Failed to get properties: Unit name {name} is neither a valid invocation ID nor unit name.\n"
            )
            return 1
    loaded = [name for name in units if "@." not in name]
    patterns = [mangle(name) if name != "*" else name for name in names if name not in plain]
    found = [find(units, mangle(name)) for name in plain]
    found += [find(units, name) for name in sorted(loaded) if any(fnmatch.fnmatchcase(name, each) for each in patterns)]
    if (HERE / "mode").read_text() == "fewer":
        found = found[:-1]
    if (HERE / "mode").read_text() == "more":
        found += found[-1:]
    whole = [{**DEFAULTS, **unit} for unit in found]
    blocks = ["".join(f"{key}={unit[key]}\n" for key in wanted if key in unit) for unit in whole]
    answer = "\n".join(blocks)
    if (HERE / "mode").read_text() == "lines":
        answer = "".join(answer.splitlines(keepends=True)[:4])
    if (HERE / "mode").read_text() == "cut":
        answer = answer[:-3]
    sys.stdout.write(answer[: len(answer) // 2] if (HERE / "mode").read_text() == "half" else answer)
    return 0


def begin(unit: dict[str, str]) -> int:
    """Execute its command as a process of its own; returns its id, or 0 when it cannot be."""
    path = unit["EnvironmentFiles"].partition(" (")[0]
    lines = [line for line in Path(path).read_text().splitlines() if line and not line.startswith("#")]
    environment = dict(shlex.split(line)[0].partition("=")[::2] for line in lines)
    nowhere = subprocess.DEVNULL
    streams = {"stdin": nowhere, "stdout": nowhere, "stderr": nowhere}
    command = json.loads(unit["Command"])
    process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)  # type: ignore[call-overload]
    return int(process.pid)


def end(unit: dict[str, str]) -> None:
    """End its process, if there is one."""
    try:
        os.kill(int(unit.get("MainPID", "0")) or 1 << 22, signal.SIGKILL)
    except ProcessLookupError:
        return


def job(verb: str, name: str) -> int:
    """`start`, `stop`, `restart` and `reset-failed` of an instance."""
    units = json.loads((HERE / "units.json").read_text())
    unit = find(units, name)
    if unit["LoadState"] == "not-found":
        sys.stderr.write(f"Failed to {verb} {name}: Unit {name} not found.\n")
        return 5
    if verb in ("stop", "restart"):
        end(unit)
        unit |= {"ActiveState": "inactive", "MainPID": "0", "ExecMainCode": "2", "ExecMainStatus": "9"}
    if verb == "reset-failed":
        unit["ActiveState"] = "inactive"
    if verb in ("start", "restart") and unit["ActiveState"] != "active":
        pid = begin(unit)
        unit |= {"ActiveState": "active", "MainPID": str(pid), "ExecMainCode": "0", "ExecMainStatus": "0"}
        unit["ExecMainStartTimestampMonotonic"] = str(time.monotonic_ns() // 1000)
    units[name] = unit
    (HERE / "units.json").write_text(json.dumps(units))
    return 0


def main() -> int:
    """Behave as `mode` says."""
    mode = (HERE / "mode").read_text()
    if mode == "hang":
        threading.Event().wait(60)
    if mode == "garbage":
        sys.stdout.write("\x1b[31mWarning: the unit file changed on disk\x1b[0m\n")
        return 0
    if mode == "bytes":
        sys.stdout.buffer.write(b"Id=\xff\xfe\n")
        return 0
    if mode == "fails":
        sys.stderr.write("Failed to connect to bus: Connection refused\n")
        return 1
    if mode == "flood":
        sys.stdout.write("Id=x\n" * 2_000_000)
        return 0
    if mode == "empty":
        return 0
    if mode == "refuses":
        sys.stderr.write("Failed to start: Access denied\n")
        return 4 if "show" not in sys.argv else show(sys.argv[1:])
    if sys.argv[-3] in ("start", "stop", "restart", "reset-failed"):
        return job(sys.argv[-3], sys.argv[-1])
    return show(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
