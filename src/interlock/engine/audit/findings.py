"""What a verification of the log found, kept within bounds."""

from __future__ import annotations

from interlock.core.model import Frozen

FINDINGS_MAX = 100


class Finding(Frozen):
    """One thing that is not as it should be: a stable code, a sentence, and where.

    `index` is a leaf number, `size` that of a checkpoint.
    """

    code: str
    message: str
    run: int | None = None
    seq: int | None = None
    index: int | None = None
    size: int | None = None


class Findings:
    """The first `FINDINGS_MAX` findings, and how many there were."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.count = 0

    def add(
        self,
        code: str,
        message: str,
        *,
        run: int | None = None,
        seq: int | None = None,
        index: int | None = None,
        size: int | None = None,
    ) -> None:
        """Note a finding."""
        self.count += 1
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(Finding(code=code, message=message, run=run, seq=seq, index=index, size=size))
