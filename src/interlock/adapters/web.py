"""HTTP services of others: one exchange with an address that was looked at before it was called."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence

import httpcore

from interlock.adapters.web_body import Unreadable, read_body
from interlock.adapters.web_stream import BoundedStream
from interlock.core.errors import Denied, Invalid, Permanent, Transient
from interlock.core.secret_reference import Secrets
from interlock.core.web import SECRET_PLACE, WebAnswer, WebRequest
from interlock.lib.addresses import why_refused
from interlock.lib.redact import BLOT
from interlock.lib.url import Url, parse_url

ADDRESSES_TRIED_MAX = 4
HEADERS_MAX = 200
AGENT = "interlock"

Resolve = Callable[[str, int], Sequence[str]]
"""Host and port -> addresses, in the order in which they are tried. Raises OSError."""

_LOOK = "look in the outside system whether it happened"


def resolve(host: str, port: int) -> tuple[str, ...]:
    """What the machine's own resolver says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


class OutsideWeb:
    """Implements `core.web.Web`. The environment's proxies are not asked, and no connection is used twice.

    Args:
        secrets: Resolves credentials at the moment of use.
        resolve: Turns names into addresses.
    """

    def __init__(self, secrets: Secrets, resolve: Resolve = resolve) -> None:
        self._secrets = secrets
        self._resolve = resolve

    def exchange(self, request: WebRequest, *, hold: Callable[[], None], cancelled: Callable[[], bool]) -> WebAnswer:
        """As the Protocol says."""
        deadline = time.monotonic() + request.timeout_seconds
        url = parse_url(request.url)
        secret = self._secrets.read(request.credential) if request.credential is not None else None
        headers = _headers(request, url, secret)
        connection, address = self._connect(request, url, self._addresses(request, url), deadline)
        stream = BoundedStream(connection, deadline, hold, cancelled)
        try:
            with _named_failures(url, stream):
                return _exchange(request, url, headers, stream, (secret, address))
        finally:
            stream.close()

    def _addresses(self, request: WebRequest, url: Url) -> Sequence[str]:
        """All addresses of the host, each of them allowed: one bad one among them refuses all."""
        try:
            found = self._resolve(url.host, url.port)
        except (OSError, UnicodeError) as error:
            msg = f"the name {url.host} leads to no address now"
            fix = "check the name and the machine's resolver"
            raise Transient(msg, code="http.unresolved", fix=fix, effect_sent=False) from error
        for address in found:
            why = why_refused(address, private=request.private, named=request.named)
            if why is not None:
                msg = f"{url.host} leads to {address}, which is not called: {why}"
                fix = "a private network is declared as such: `private: true`, in interlock.yaml"
                raise Denied(msg, code="http.address", fix=fix)
        return found[:ADDRESSES_TRIED_MAX]

    def _connect(
        self, request: WebRequest, url: Url, addresses: Sequence[str], deadline: float
    ) -> tuple[socket.socket, str]:
        """A connection to one of these addresses; the name is not looked up again."""
        for address in addresses:
            seconds = min(request.connect_timeout_seconds, deadline - time.monotonic())
            if seconds <= 0:
                break
            try:
                connection = socket.create_connection((address, url.port), timeout=seconds)
            except OSError:
                continue
            try:
                return self._secured(request, url, connection), address
            except ssl.SSLCertVerificationError as error:
                connection.close()
                msg = f"who answers at {address} does not prove to be {url.host}: {error.verify_message}"
                fix = "for a certificate authority of your own: `certificate_authority`, in interlock.yaml"
                raise Denied(msg, code="http.certificate", fix=fix) from error
            except OSError:
                connection.close()
        msg = f"{url.host} takes no connection at port {url.port}"
        raise Transient(msg, code="http.unreachable", fix="look whether it runs", effect_sent=False)

    @staticmethod
    def _secured(request: WebRequest, url: Url, connection: socket.socket) -> socket.socket:
        """Raises OSError, ssl.SSLError among them."""
        if url.scheme == "http":
            return connection
        # Not create_default_context: it writes session keys to a file that the environment names.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if request.certificate_authority is None:
            context.load_default_certs()
        else:
            _trust(context, request.certificate_authority)
        return context.wrap_socket(connection, server_hostname=url.host)


def _trust(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        msg = f"the certificates in {path} cannot be read"
        raise Invalid(msg, code="http.authority", fix="write them there in PEM form") from error


def _headers(request: WebRequest, url: Url, secret: str | None) -> list[tuple[bytes, bytes]]:
    """Host first, then ours, then the asker's; none of them twice, which the plan has seen to."""
    found = [("Host", url.authority), ("Accept-Encoding", "identity"), ("User-Agent", AGENT), ("Connection", "close")]
    found += request.headers
    if request.body or request.method not in {"GET", "HEAD"}:
        found.append(("Content-Length", str(len(request.body))))
    if secret is not None:
        if not secret.isascii() or not secret.isprintable():
            msg = f"the secret {request.credential} holds characters that no header may hold"
            raise Invalid(msg, code="secret.malformed", fix="write the secret alone into its file")
        name, _, template = request.credential_header.partition(": ")
        found.append((name, template.replace(SECRET_PLACE, secret)))
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in found]


def _exchange(
    request: WebRequest,
    url: Url,
    headers: list[tuple[bytes, bytes]],
    stream: BoundedStream,
    known: tuple[str | None, str],
) -> WebAnswer:
    secret, address = known
    host = f"[{url.host}]" if ":" in url.host else url.host
    where = httpcore.URL(scheme=url.scheme, host=host, port=url.port, target=url.target)
    connection = httpcore.HTTP11Connection(origin=where.origin, stream=stream)
    response = connection.handle_request(httpcore.Request(request.method, where, headers=headers, content=request.body))
    if len(response.headers) > HEADERS_MAX:
        msg = f"{url.host} answered with {len(response.headers)} headers"
        raise Permanent(msg, code="http.garbage", fix=_LOOK)
    told = [(name.decode("latin-1"), _blotted(value, secret).decode("latin-1")) for name, value in response.headers]
    coding = next((value for name, value in told if name.lower() == "content-encoding"), "")
    # A secret on the edge is whole before it is blotted out, and the edge is cut afterwards.
    wanted = request.response_bytes_max + len(secret or "") + 1
    body, unreadable = b"", None
    try:
        if request.method != "HEAD":
            body = read_body(response.iter_stream(), coding, wanted)
    except Unreadable as error:
        unreadable = str(error)
    return WebAnswer(
        status=response.status,
        headers=tuple(told),
        body=_blotted(body, secret)[: request.response_bytes_max],
        truncated=len(body) > request.response_bytes_max,
        address=address,
        unreadable=unreadable,
    )


def _blotted(text: bytes, secret: str | None) -> bytes:
    return text.replace(secret.encode(), BLOT.encode()) if secret else text


@contextlib.contextmanager
def _named_failures(url: Url, stream: BoundedStream) -> Iterator[None]:
    """What the library raises, in our words; the server's are left out."""
    try:
        yield
    except httpcore.TimeoutException as error:
        msg = f"{url.host} gave no whole answer in time"
        raise Transient(msg, code="http.timed_out", fix=_LOOK, effect_sent=stream.sent) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        if isinstance(error, httpcore.RemoteProtocolError) and not stream.ended:
            msg = f"{url.host} answered with something that is no HTTP"
            raise Permanent(msg, code="http.garbage", fix=_LOOK) from error
        msg = f"{url.host} hung up before its answer was whole"
        raise Transient(msg, code="http.gone", fix=_LOOK, effect_sent=stream.sent) from error
