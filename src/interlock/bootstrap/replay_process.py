"""The program that decides recorded Runs by another policy set: it has no database, no key and no credential.

The first line of standard input is `{actions, sources, known}`; each further one is a page of Runs, and is answered by
one line: what `engine.policy.replay.replay` says of it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

from interlock.adapters.cedar import CedarEngine
from interlock.core.decision import Requirement
from interlock.core.project import Project
from interlock.engine.policy.facts import OwnParts
from interlock.engine.policy.load import PolicyLoader, PolicySet, PolicySource
from interlock.engine.policy.replay import Known, RecordedRun, replay

NICENESS = 10
"""Below the resident process, which goes on serving meanwhile."""


def main() -> None:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    lines = iter(sys.stdin.buffer.readline, b"")
    header = json.loads(next(lines))
    policies = _load(header)
    known = Known(
        header["known"]["policy_set"],
        {each["policy"]: Requirement.model_validate(each) for each in header["known"]["requirements"]},
    )
    for line in lines:
        answer = replay(policies, [RecordedRun(*row) for row in json.loads(line)], known)
        sys.stdout.buffer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
        sys.stdout.buffer.flush()


def _load(header: dict[str, Any]) -> PolicySet:
    """The set itself; what interlock.yaml declares is part of each recorded question, and not asked for here."""
    names: list[str] = header["actions"]
    loader = PolicyLoader(CedarEngine(), lambda: names, OwnParts(), realpath=os.path.realpath, monotonic=time.monotonic)
    project = Project(name="replay", folder="/", policies=())
    return loader.load_sources(project, tuple(PolicySource(*source) for source in header["sources"]))


if __name__ == "__main__":
    main()
