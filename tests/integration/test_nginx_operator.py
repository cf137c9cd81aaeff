"""An operator's own nginx: it includes what shares users, and keeps TLS and everything else."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.nginx_site import PROGRAM, Site, keep_alive_load, open_site, without_nginx
from harness.stand_in_service import ask, free_port, until
from interlock.adapters.nginx import OneNginx
from interlock.adapters.nginx_hosts import IncludedNginx
from interlock.adapters.nginx_processes import master_of
from interlock.core.assignment import arm_of
from interlock.core.errors import InterlockError, Permanent, Transient
from interlock.core.traffic import WHOLE, Mirror, Routing

pytestmark = without_nginx


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    yield running
    running.calm()


OPERATORS = """
daemon on; pid {folder}/operator.pid; error_log {folder}/operator.error.log; worker_processes 2; {user}
events {{ worker_connections 256; }}
http {{
  client_body_temp_path {folder}/temporary; proxy_temp_path {folder}/temporary-proxy;
  fastcgi_temp_path {folder}/t1; uwsgi_temp_path {folder}/t2; scgi_temp_path {folder}/t3;
  access_log off;
  include {folder}/interlock/current/http.*;
  server {{
    listen 127.0.0.1:{port};
    add_header Strict-Transport-Security max-age=1000;
    location = /own {{ return 200 "the operator's"; }}
    {include}
  }}
}}
"""


def write_certificate(path: Path) -> None:
    """A key, and a certificate of its own making beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    unprotected = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, pkcs8, unprotected))
    path.with_name(f"{path.name}.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))


class Operator(NamedTuple):
    """His nginx, and ours to say what it shares."""

    proxy: OneNginx
    folder: Path
    port: int
    rewrite: Callable[[str], None]


@pytest.fixture
def operator() -> Iterator[Operator]:
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        (folder / "interlock").mkdir(mode=0o755)
        configuration = folder / "nginx.conf"
        command = [str(PROGRAM), "-c", str(configuration)]

        def rewrite(include: str) -> None:
            user = "user nobody nogroup;" if os.geteuid() == 0 else ""
            configuration.write_text(OPERATORS.format(folder=folder, port=port, include=include, user=user))

        rewrite(f"include {folder}/interlock/current/web.*;")
        subprocess.run(command, check=True, timeout=20)
        until(lambda: (folder / "operator.pid").exists() and (folder / "operator.pid").read_text())
        yield Operator(
            OneNginx(IncludedNginx(folder / "interlock", command), closing_seconds=0.05), folder, port, rewrite
        )
        if (master := master_of(folder / "operator.pid")) is not None:
            os.kill(master.pid, signal.SIGTERM)
            until(lambda: master_of(folder / "operator.pid") is None)


def of_operator(site: Site, operator: Operator, share: int, **settings: Any) -> Routing:
    return site.routing(share, **settings).model_copy(update={"listen": f"127.0.0.1:{operator.port}"})


def test_an_operators_nginx_shares_what_it_includes_and_keeps_the_rest(site: Site, operator: Operator) -> None:
    pid = (operator.folder / "operator.pid").read_text()
    routing = of_operator(site, operator, 5000, salt="o")
    operator.proxy.apply(routing)
    log = operator.proxy.log("web", from_end=True)
    for n in range(30):
        answer = ask(operator.port, cookie=f"interlock-unit=u{n}")
        assert answer.version == arm_of(routing, f"u{n}")
        assert answer.headers["Strict-Transport-Security"] == "max-age=1000"
    assert ask(operator.port).cookie.startswith("interlock-unit=")
    assert len(until(lambda: log.read(1 << 20))) >= 30
    log.close()
    assert operator.proxy.current("web") == routing
    workers = operator.proxy._host.workers()
    operator.proxy.apply(of_operator(site, operator, WHOLE, salt="o"))
    assert operator.proxy._host.workers() == workers, "shares need no reload here either"
    assert {ask(operator.port).version for _ in range(10)} == {"v2.0"}
    connection = http.client.HTTPConnection("127.0.0.1", operator.port)
    connection.request("GET", "/own")
    assert connection.getresponse().read() == b"the operator's"
    connection.close()
    assert (operator.folder / "operator.pid").read_text() == pid
    operator.proxy.ensure()
    operator.proxy.forget("web")
    assert operator.proxy.current("web") is None


def test_an_operators_nginx_keeps_tls_and_copies_and_reloads_fail_nobody(site: Site, operator: Operator) -> None:
    key, port = operator.folder / "key.pem", free_port()
    write_certificate(key)
    include = f"include {operator.folder}/interlock/current/web.*;"
    tls = f"listen 127.0.0.1:{port} ssl; ssl_certificate {key}.crt; ssl_certificate_key {key};"
    operator.rewrite(f"{include} }} server {{ {tls} {include}")
    mirror = Mirror(address=site.comparator.address, share=WHOLE)
    operator.proxy.apply(of_operator(site, operator, WHOLE, mirror=mirror))
    context = ssl._create_unverified_context()  # noqa: S323 - made above
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    connection.request("GET", "/tls", headers={"authorization": "secret"})
    answer = connection.getresponse()
    answer.read()
    assert (answer.status, answer.getheader("x-version")) == (200, "v2.0")
    assert str(answer.getheader("set-cookie")).endswith("; Secure")
    assert site.two.seen[-1][2]["x-forwarded-proto"] == "https"
    connection.close()
    assert until(lambda: [headers for _, path, headers in site.comparator.seen if path == "/tls"])
    assert "authorization" not in site.comparator.seen[-1][2]
    with keep_alive_load(operator.port) as seen:
        for n in range(4):
            operator.proxy.apply(of_operator(site, operator, WHOLE, timeout_seconds=20 + n))
    assert {*seen} == {"200"}


def test_files_that_nobody_includes_are_no_change(site: Site, operator: Operator) -> None:
    operator.rewrite("")
    with pytest.raises(Permanent) as caught:
        operator.proxy.apply(of_operator(site, operator, 0))
    assert caught.value.code == "nginx.not_included"
    line = f"`include {operator.folder}/interlock/current/web.*;` in its server block"
    assert line in caught.value.message, "a release shows the message alone"
    assert line in str(caught.value.fix)
    assert "http block" not in caught.value.message, "that line is there"
    assert operator.proxy.current("web") is None


def test_before_anything_is_changed_it_is_known_whether_it_would_be_read(site: Site, operator: Operator) -> None:
    operator.proxy.require_read("web")
    operator.rewrite(f"# include {operator.folder}/interlock/current/web.*;")
    with pytest.raises(Permanent, match=r"current/web\.\*;` in its server block"):
        operator.proxy.require_read("web")
    operator.rewrite('include "interlock/current/*.conf";')
    operator.proxy.require_read("web")
    site.proxy.require_read("web")


def test_a_mistake_of_the_operators_is_told_in_nginxs_words(site: Site, operator: Operator) -> None:
    operator.proxy.apply(of_operator(site, operator, 0))
    operator.rewrite("nonsense;")
    with pytest.raises(Permanent, match='unknown directive "nonsense"'):
        operator.proxy.apply(of_operator(site, operator, 0, testers="x-tester"))
    assert operator.proxy.current("web") == of_operator(site, operator, 0)
    assert ask(operator.port).version == "v1.0"


def test_a_folder_that_workers_cannot_enter_is_refused(site: Site, operator: Operator) -> None:
    operator.folder.chmod(0o700)
    with pytest.raises(Permanent) as caught:
        operator.proxy.apply(of_operator(site, operator, 0))
    operator.folder.chmod(0o755)
    assert caught.value.code == "nginx.closed_folder"


def test_an_operators_nginx_that_does_not_run_is_not_started(site: Site, operator: Operator) -> None:
    routing = of_operator(site, operator, 0)
    operator.proxy.apply(routing)
    master = operator.proxy._host.master()
    assert master is not None
    os.kill(master.pid, signal.SIGQUIT)
    until(lambda: operator.proxy._host.master() is None)
    for attempt in (operator.proxy.ensure, lambda: operator.proxy.apply(of_operator(site, operator, 100))):
        with pytest.raises(Transient) as caught:
            attempt()
        assert isinstance(caught.value, InterlockError)
        assert caught.value.code == "traffic.proxy_silent"
    subprocess.run([str(PROGRAM), "-c", str(operator.folder / "nginx.conf")], check=True, timeout=20)
    until(lambda: operator.proxy._host.master() is not None)
    assert ask(operator.port).version == "v1.0"
