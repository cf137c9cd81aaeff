"""Makes a routing from shares: which version comes first, whether that is a way back, what people read of it; pure."""

from __future__ import annotations

from collections.abc import Mapping

from interlock.core.errors import Invalid
from interlock.core.traffic import WHOLE, Arm, Mirror, Routing
from interlock.core.workload import Traffic

ARMS_MAX = 4


def in_order(shares: Mapping[str, int], before: Routing | None, release: tuple[str | None, str] | None) -> list[str]:
    """The versions, the stable one first and the candidate last.

    A release (stable, candidate) says so itself. Otherwise the version that was first stays first while it has or had
    users; else the one that most users have is, or else the one that most will have.
    """
    now = {arm.name: arm.share for arm in before.arms} if before is not None else {}
    names = sorted(shares, key=lambda name: (-now.get(name, 0), -shares[name], name))
    if release is not None:
        stable, candidate = release
        names.sort(key=lambda name: (name != stable, name == candidate))
    elif before is not None:
        first = before.arms[0]
        if first.name in shares and (first.share or shares[first.name]):
            names.sort(key=lambda name: name != first.name)
    return names


def make_routing(
    workload: str,
    declared: Traffic,
    arms: tuple[Arm, ...],
    *,
    salt: str | None,
    mirror: Mirror | None,
    before: Routing | None,
) -> Routing:
    """The routing as interlock.yaml declares it, with these arms. Without a salt users stay where they were.

    Raises: Invalid when the shares are not those of a whole.
    """
    total = sum(arm.share for arm in arms)
    if total != WHOLE:
        msg = f"the shares sum up to {total / 100:g} %"
        raise Invalid(msg, code="traffic.shares", fix=f"give shares in basis points that sum up to {WHOLE}")
    if len(arms) > ARMS_MAX:
        msg = f"{len(arms)} versions of {workload} would have users at once"
        raise Invalid(msg, code="traffic.shares", fix=f"name {ARMS_MAX} at most")
    return Routing(
        workload=workload,
        listen=declared.listen,
        salt=salt or (before.salt if before is not None else "0"),
        arms=arms,
        sticky=declared.sticky,
        testers=declared.testers,
        mirror=mirror,
        fallback=declared.fallback,
        timeout_seconds=declared.timeout_seconds,
    )


def goes_back(before: Routing | None, after: Routing) -> bool:
    """Whether all users get the stable version of the routing before again, and nothing else is changed.

    Such a change is safe at any hour; so it is one only where that version is the same and at the same place, nobody is
    copied anew, and users come where they came. What is so already goes back as well.
    """
    if before is None:
        return False
    stable = before.arms[0]
    whole = [arm for arm in after.arms if arm.share == WHOLE]
    if [(arm.name, arm.address) for arm in whole] != [(stable.name, stable.address)]:
        return False
    known = {(arm.name, arm.address) for arm in before.arms}
    if not {(arm.name, arm.address) for arm in after.arms} <= known or after.mirror not in {None, before.mirror}:
        return False
    arms_aside = {"arms": after.arms, "mirror": after.mirror, "salt": after.salt}
    return before.model_copy(update=arms_aside) == after


def shown(routing: Routing | None) -> str:
    """One line for people: who has what."""
    if routing is None:
        return "nothing is routed"
    arms = ", ".join(f"{arm.name} {arm.share / 100:g} %" for arm in routing.arms)
    copies = f", {routing.mirror.share / 100:g} % copied" if routing.mirror is not None else ""
    return arms + copies


def preview_of(before: Routing | None, after: Routing) -> str:
    """What an approver reads: each version with its share before and after, and where it listens."""
    now = {arm.name: arm.share for arm in before.arms} if before is not None else {}
    gone = [arm for arm in before.arms if arm.name not in {each.name for each in after.arms}] if before else []
    rows = [(arm.name, now.get(arm.name, 0), arm.share, arm.address) for arm in after.arms]
    rows += [(arm.name, arm.share, 0, arm.address) for arm in gone]
    lines = [f"{name:<20} {was / 100:>6g} % -> {share / 100:>6g} %   {address}" for name, was, share, address in rows]
    head = f"{after.workload}, users come at {after.listen}"
    copies = (
        [f"copies of {after.mirror.share / 100:g} % of safe requests to {after.mirror.address}"] if after.mirror else []
    )
    return "\n".join([head, *lines, *copies])
