"""A routing made from shares: which version is the stable one, and which changes are a way back."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from interlock.adapters.health_probe import HttpProbe
from interlock.core.errors import Invalid
from interlock.core.health_probe import HEALTH_PROBE
from interlock.core.outside import Outside, OutsideKey
from interlock.core.project import Project
from interlock.core.traffic import ENVOY, NGINX, WHOLE, Arm, DataPlane, Mirror, Routing
from interlock.core.workload import ServiceWorkload, Traffic
from interlock.lib.clock import SystemClock
from interlock.traffic.inspection import inspect_traffic
from interlock.traffic.shares import goes_back, in_order, make_routing, preview_of

LISTEN = "127.0.0.1:8080"
PORTS = {"v1": 1, "v2": 2, "v3": 3}


def arms(**shares: int) -> tuple[Arm, ...]:
    return tuple(Arm(name=name, address=f"127.0.0.1:{PORTS[name]}", share=share) for name, share in shares.items())


def routing(*, mirror: Mirror | None = None, salt: str = "0", **shares: int) -> Routing:
    return Routing(workload="web", listen=LISTEN, arms=arms(**shares), mirror=mirror, salt=salt)


@pytest.mark.parametrize(
    ("shares", "before", "release", "expected"),
    [
        ({"v1": WHOLE}, None, None, ["v1"]),
        ({"v1": 500, "v2": 9500}, None, None, ["v2", "v1"]),
        ({"v2": 500, "v1": 9500}, routing(v1=WHOLE), None, ["v1", "v2"]),
        ({"v2": WHOLE, "v1": 0}, routing(v1=9500, v2=500), None, ["v1", "v2"]),
        ({"v2": 9500, "v3": 500}, routing(v1=0, v2=WHOLE), None, ["v2", "v3"]),
        ({"v1": 0, "v2": 9500, "v3": 500}, routing(v1=0, v2=WHOLE), None, ["v2", "v3", "v1"]),
        ({"v1": 500, "v2": 9500}, routing(v1=0, v2=WHOLE), None, ["v1", "v2"]),
        ({"v2": 500, "v1": 9500}, routing(v3=WHOLE), ("v1", "v2"), ["v1", "v2"]),
        ({"v1": WHOLE, "v2": 0}, routing(v2=9500, v1=500), ("v2", "v1"), ["v2", "v1"]),
        ({"v2": WHOLE}, None, (None, "v2"), ["v2"]),
    ],
)
def test_the_stable_version_comes_first_and_the_candidate_last(
    shares: dict[str, int], before: Routing | None, release: Any, expected: list[str]
) -> None:
    assert in_order(shares, before, release) == expected


COPIED = Mirror(address="127.0.0.1:9", share=1000)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (routing(v1=9500, v2=500), routing(v1=WHOLE)),
        (routing(v1=9500, v2=500), routing(v1=WHOLE, v2=0, salt="other")),
        (routing(v1=0, v2=WHOLE), routing(v1=WHOLE, v2=0)),
        (routing(v1=9500, v2=500, mirror=COPIED), routing(v1=WHOLE)),
        (routing(v1=WHOLE), routing(v1=WHOLE)),
    ],
)
def test_all_users_to_the_same_stable_version_is_a_way_back(before: Routing, after: Routing) -> None:
    assert goes_back(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, routing(v1=WHOLE)),
        (routing(v1=9500, v2=500), routing(v2=WHOLE)),
        (routing(v1=9500, v2=500), routing(v1=9600, v2=400)),
        (routing(v1=9500, v2=500), routing(v3=WHOLE)),
        (routing(v1=WHOLE), routing(v1=WHOLE, v2=0)),
        (routing(v1=WHOLE), routing(v1=WHOLE, mirror=COPIED)),
        (routing(v1=9500, v2=500), routing(v1=WHOLE).model_copy(update={"listen": "0.0.0.0:80"})),
        (routing(v1=9500, v2=500), routing(v1=WHOLE).model_copy(update={"testers": "x-v"})),
        (
            routing(v1=9500, v2=500),
            Routing(workload="web", listen=LISTEN, arms=(Arm(name="v1", address="10.0.0.1:1", share=WHOLE),)),
        ),
    ],
)
def test_another_version_place_way_in_or_copy_is_no_way_back(before: Routing | None, after: Routing) -> None:
    assert not goes_back(before, after)


def test_a_routing_is_as_declared_and_users_stay_without_a_salt() -> None:
    declared = Traffic(listen=LISTEN, timeout_seconds=3)
    made = make_routing("web", declared, arms(v1=WHOLE), salt=None, mirror=None, before=routing(v1=WHOLE, salt="r7"))
    assert (made.salt, made.timeout_seconds, made.fallback) == ("r7", 3, True)
    assert make_routing("web", declared, arms(v1=WHOLE), salt="r8", mirror=None, before=made).salt == "r8"
    with pytest.raises(Invalid) as caught:
        make_routing("web", declared, arms(v1=9000), salt=None, mirror=None, before=None)
    assert caught.value.code == "traffic.shares"
    assert "90 %" in caught.value.message


def test_an_approver_reads_what_each_version_had_and_gets() -> None:
    text = preview_of(routing(v1=9500, v2=500), routing(v2=9000, v3=1000, mirror=COPIED))
    assert text.splitlines() == [
        "web, users come at 127.0.0.1:8080",
        "v2                        5 % ->     90 %   127.0.0.1:2",
        "v3                        0 % ->     10 %   127.0.0.1:3",
        "v1                       95 % ->      0 %   127.0.0.1:1",
        "copies of 10 % of safe requests to 127.0.0.1:9",
    ]


OUTSIDE = Outside({HEALTH_PROBE: HttpProbe(SystemClock())})


def declared(listen: str) -> ServiceWorkload:
    made = {"command": ["/bin/true"], "source": {"folder": "/srv/{version}"}, "traffic": {"listen": listen}}
    return ServiceWorkload.model_validate(made)


def test_check_finds_services_whose_users_could_not_come() -> None:
    workloads = {"a": declared(LISTEN), "b": declared(LISTEN), "c": declared("localhost:1"), "d": declared("[::1]:1")}
    project = Project.model_construct(workloads={**workloads, "e": declared("web.example.org:80")})
    found = [(each["level"], str(each["message"])) for each in inspect_traffic(project, OUTSIDE)]
    found = [(level, message) for level, message in found if "cannot listen there" not in message]
    assert [level for level, _ in found] == ["error", "error"]
    assert "a, b" in found[0][1]
    assert "web.example.org" in found[1][1]


class _Users:
    """A proxy where users come already."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing

    def current(self, workload: str) -> Routing | None:
        return self.routing if workload == "web" else None

    def require_read(self, workload: str) -> None:
        """It reads all."""


@pytest.mark.parametrize(
    ("key", "listen", "says"),
    [(ENVOY, "127.0.0.1:9999", "traffic.listen says 127.0.0.1:9999"), (NGINX, LISTEN, "traffic.proxy says envoy")],
)
def test_check_says_where_interlock_yaml_and_users_part(key: OutsideKey[DataPlane], listen: str, says: str) -> None:
    outside = Outside({HEALTH_PROBE: HttpProbe(SystemClock()), key: _Users(routing(v1=WHOLE))})
    found = list(inspect_traffic(Project.model_construct(workloads={"web": declared(listen)}), outside))
    assert [each["level"] for each in found] == ["error"]
    assert says in str(found[0]["message"])
    assert "interlock do traffic." in str(found[0]["fix"])


def test_check_says_where_somebody_listens_already() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        project = Project.model_construct(workloads={"web": declared(f"127.0.0.1:{taken.getsockname()[1]}")})
        (found,) = inspect_traffic(project, OUTSIDE)
    assert (found["level"], "a proxy cannot listen there: it is taken" in str(found["message"])) == ("warning", True)
    assert list(inspect_traffic(project, OUTSIDE)) == []
