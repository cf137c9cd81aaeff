"""`traffic.route` and `traffic.forget`: which version answers which user of a service, and that none does any more."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Denied, Invalid, NotFound, Permanent, Stale
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Step, Target
from interlock.core.ports import StepContext
from interlock.core.release import RELEASES, ReleaseRecord
from interlock.core.service_instance import SERVICE_INSTANCES, STANDING, ServiceInstance
from interlock.core.traffic import (
    DATA_PLANES,
    WHOLE,
    Address,
    Arm,
    DataPlane,
    Mirror,
    Routing,
    VersionName,
    WorkloadName,
)
from interlock.lib.canonical import digest_of
from interlock.traffic.planes import require_no_other, routed, service
from interlock.traffic.shares import ARMS_MAX, goes_back, in_order, make_routing, preview_of, shown

Share = Annotated[int, Field(ge=0, le=WHOLE)]
BACK = ("release.rollback", "rollback")


class RouteArgs(Frozen):
    """`shares` says which part of the users each version gets, in basis points: {"v1": 9500, "v2": 500}.

    Interlock knows where the versions listen that it started; `addresses` says it of others. Without `salt` users stay
    where they are. `mirror` is who compares copies of requests. `release` is the number of the release that this is a
    step of.
    """

    workload: WorkloadName
    shares: dict[VersionName, Share] = Field(min_length=1, max_length=ARMS_MAX)
    addresses: dict[VersionName, Address] = Field(default={}, max_length=ARMS_MAX)
    salt: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,40}$")
    mirror: Mirror | None = None
    release: int | None = Field(default=None, ge=1)


class ForgetArgs(Frozen):
    """One workload. `release` is the number of the first release of it, when it is being ended."""

    workload: WorkloadName
    release: int | None = Field(default=None, ge=1)


class _Traffic(Action):
    """Puts a routing in force at a proxy, or none."""

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Change what is in force, if it still is what the plan was made from. Raises Stale."""
        plane, workload = self._plane(step), str(step.params["workload"])
        wanted, now = _routing(step.params["routing"]), plane.current(workload)
        if now != wanted and _digest(now) != (step.precondition or {}).get("in_force"):
            msg = f"the routing of {workload} was changed since this was planned; now {shown(now)}"
            raise Stale(msg, code="traffic.changed", fix="ask again, and read the new plan")
        context.hold()
        if wanted is None:
            plane.forget(workload)
            return StepResult(ok=True, summary=f"nobody is answered for {workload}")
        applied = plane.apply(wanted)
        data: JsonObject = {"version": applied.version, "milliseconds": round(applied.seconds * 1000, 3)}
        return StepResult(ok=True, summary=f"{workload}: {shown(wanted)}", data=data)

    def check(self, step: Step, context: StepContext) -> StepResult:  # noqa: ARG002
        """What the proxy acknowledged last is what was wanted."""
        workload = str(step.params["workload"])
        now = self._plane(step).current(workload)
        return StepResult(ok=now == _routing(step.params["routing"]), summary=f"in force: {shown(now)}")

    def _plane(self, step: Step) -> DataPlane:
        for name, key in DATA_PLANES.items():
            if name == step.params["proxy"]:
                return self.ports.outside[key]
        msg = f"there is no proxy {step.params['proxy']!r}"
        raise Permanent(msg, code="bug")


class Route(_Traffic):
    """Who answers whom."""

    name: ClassVar[str] = "traffic.route"
    summary: ClassVar[str] = "Share the users of a service between its versions."
    example: ClassVar[JsonObject] = {"workload": "web", "shares": {"v1": 9500, "v2": 500}}
    Args: ClassVar[type[Frozen]] = RouteArgs

    def read_facts(self, args: RouteArgs) -> JsonObject:
        """What is in force, and what would be.

        Raises: NotFound, Invalid, Conflict (a version does not run, or another proxy carries the requests), Denied (the
        release does not cover it).
        """
        release = self._release(args)
        if release is not None:
            declared = self.ports.outside[RELEASES].declared(release.number)
        else:
            declared = service(self.ports.project(), args.workload)
        found = routed(self.ports.outside, args.workload)
        require_no_other(args.workload, declared.traffic.proxy, found)
        before = found[1] if found is not None else None
        versions = (release.stable, release.candidate) if release is not None else None
        names = in_order(args.shares, before, versions)
        arms = (self._arm(args, name, before) for name in names)
        after = make_routing(
            args.workload,
            declared.traffic,
            tuple(arm for arm in arms if arm is not None),
            salt=args.salt,
            mirror=args.mirror,
            before=before,
        )
        return {
            "proxy": declared.traffic.proxy,
            "before": before.model_dump(mode="json") if before is not None else None,
            "after": after.model_dump(mode="json"),
            "goes_back": goes_back(before, after) or _ends(release, before, after),
        }

    def _release(self, args: RouteArgs) -> ReleaseRecord | None:
        """The release that covers just this. Raises Denied, NotFound, Invalid."""
        if args.release is None:
            return None
        if args.addresses:
            msg = "a release knows where its versions listen"
            raise Invalid(msg, code="traffic.addresses", fix="leave out `addresses`, or `release`")
        records = self.ports.outside[RELEASES]
        return records.require(args.release, args.workload, versions=tuple(args.shares), shares=args.shares)

    def _arm(self, args: RouteArgs, name: str, before: Routing | None) -> Arm | None:
        """Where this version is reached; None for one that nobody gets and that is nowhere. Raises Conflict."""
        share = args.shares[name]
        if name in args.addresses:
            return Arm(name=name, address=args.addresses[name], share=share)
        known = {arm.name: arm.address for arm in before.arms} if before is not None else {}
        instance = self._instance(args.workload, name)
        if instance is not None:
            # One that is being started or stopped may only be what users have already.
            stays = instance.stage in STANDING and known.get(name) == instance.address
            if instance.stage == "running" or stays:
                return Arm(name=name, address=instance.address, share=share)
        elif name in known:
            return Arm(name=name, address=known[name], share=share)
        if share == 0:
            return None
        stage = f"is {instance.stage}" if instance is not None else "was never started here"
        msg = f"{args.workload}@{name} {stage}: nobody can be sent there"
        raise Conflict(
            msg, code="traffic.version_down", fix=f"interlock do service.start --arg workload={args.workload} ..."
        )

    def _instance(self, workload: str, version: str) -> ServiceInstance | None:
        return self.ports.outside[SERVICE_INSTANCES].find(workload, version)

    def plan(self, args: RouteArgs, facts: JsonObject) -> Plan:
        """One step; its undo is the routing before, whatever has become of its versions.

        A way back has none, because to undo it would lead users on, in a freeze as well and with nobody who judges; nor
        has a step of a release, which goes on and back by itself.
        """
        before, after = _routing(facts["before"]), Routing.model_validate(facts["after"])
        back, proxy = facts["goes_back"] is True, str(facts["proxy"])
        operations = ["traffic.route"]
        if args.release is not None:
            operations += ["release.step", *(BACK if back else ())]
        elif back:
            operations.append("rollback")
        why = _why_no_undo(args, back=back)
        step = Step(
            verb="route",
            summary=f"users of {args.workload}: {shown(after)}",
            params={"workload": args.workload, "proxy": proxy, "routing": facts["after"]},
            targets=(_target(args.workload),),
            risk="low" if back else "medium",
            operations=tuple(sorted(operations)),
            repeatable=True,
            precondition={"in_force": _digest(before)},
            undo=None if why is not None else _back_to(args.workload, proxy, before, after),
            irreversible=why,
        )
        given = args.model_dump(mode="json")
        preview = preview_of(before, after)
        return Plan(
            action=self.name, args=given, summary=step.summary, steps=(step,), facts={"proxy": proxy}, preview=preview
        )


class Forget(_Traffic):
    """Nobody is answered any more."""

    name: ClassVar[str] = "traffic.forget"
    summary: ClassVar[str] = "Let the proxy listen no more for a service, after it has finished what it is answering."
    example: ClassVar[JsonObject] = {"workload": "web"}
    Args: ClassVar[type[Frozen]] = ForgetArgs

    def read_facts(self, args: ForgetArgs) -> JsonObject:
        """What is in force, also of a workload that is declared no more. Raises NotFound, Denied."""
        if args.release is not None:
            release = self.ports.outside[RELEASES].require(args.release, args.workload, versions=())
            if release.state != "going_back" or release.stable is not None:
                msg = f"release {args.release} does not end a first version"
                raise Denied(msg, code="release.uncovered", fix="ask for it by hand, without `release`")
        found = routed(self.ports.outside, args.workload)
        if found is None:
            msg = f"no proxy carries requests of {args.workload}"
            raise NotFound(msg, code="traffic.unrouted", fix="interlock traffic")
        return {"proxy": found[0], "before": found[1].model_dump(mode="json")}

    def plan(self, args: ForgetArgs, facts: JsonObject) -> Plan:
        """One step; its undo is the routing before, unless it ends a release."""
        before, proxy = Routing.model_validate(facts["before"]), str(facts["proxy"])
        ended = args.release is not None
        step = Step(
            verb="forget",
            summary=f"nobody is answered any more at {before.listen} for {args.workload}",
            params={"workload": args.workload, "proxy": proxy, "routing": None},
            targets=(_target(args.workload),),
            risk="high",
            operations=("release.step", "traffic.forget") if ended else ("traffic.forget",),
            repeatable=True,
            precondition={"in_force": _digest(before)},
            undo=None if ended else _back_to(args.workload, proxy, before, None),
            irreversible=_again(args.workload) if ended else None,
        )
        return Plan(
            action=self.name, args=args.model_dump(mode="json"), summary=step.summary, steps=(step,), facts=facts
        )


def _back_to(workload: str, proxy: str, before: Routing | None, after: Routing | None) -> Step:
    what = f"users of {workload} again: {shown(before)}" if before is not None else f"{workload} is routed no more"
    return Step(
        verb="route" if before is not None else "forget",
        summary=what,
        params={
            "workload": workload,
            "proxy": proxy,
            "routing": before.model_dump(mode="json") if before is not None else None,
        },
        targets=(_target(workload),),
        risk="medium",
        operations=("traffic.route",) if before is not None else ("traffic.forget",),
        repeatable=True,
        precondition={"in_force": _digest(after)},
    )


def _why_no_undo(args: RouteArgs, *, back: bool) -> str | None:
    """What to do instead, where taking it back is a way forward; None where it can be taken back."""
    if args.release is not None and not back:
        return f"let the release go back: interlock rollback {args.workload}"
    return _again(args.workload) if back else None


def _again(workload: str) -> str:
    return f"deploy it again: interlock deploy {workload} VERSION"


def _target(workload: str) -> Target:
    return Target(kind="route", id=workload, names=(workload, f"workload:{workload}"))


def _ends(release: ReleaseRecord | None, before: Routing | None, after: Routing) -> bool:
    """Whether a release that goes back asks for it, wherever users were led meanwhile; it copies nothing anew."""
    copies = before.mirror if before is not None else None
    return release is not None and release.state == "going_back" and after.mirror in {None, copies}


def _routing(found: object) -> Routing | None:
    return None if found is None else Routing.model_validate(found)


def _digest(routing: Routing | None) -> str | None:
    return None if routing is None else digest_of(routing.model_dump(mode="json"))
