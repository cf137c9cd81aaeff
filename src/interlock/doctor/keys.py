"""Looks at the key that signs the log, and at the certificate of the HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from interlock.core.checkpoint import Checkpoint
from interlock.core.errors import InterlockError
from interlock.core.http import Http
from interlock.doctor.model import Finding, doubtful, sound, wrong
from interlock.engine.keys import BLOB_KEY, PUBLIC_KEY, SIGNING_KEY, blob_key, signing_key
from interlock.lib.note import NoteError, SigningKey, open_note

EXPIRY_DAYS_GOOD = 21
_WHY_KEY = "without it no checkpoint can be signed, and what it encrypted stays unread"
_WHY_HTTP = "clients refuse to speak to a server whose certificate they cannot check"


def examine_keys(folder: Path) -> tuple[list[Finding], SigningKey | None]:
    """Whether both keys can be used; reads them, and makes none."""
    names = (SIGNING_KEY, PUBLIC_KEY, BLOB_KEY)
    missing = [name for name in names if not (folder / name).exists()]
    if len(missing) == len(names):
        return [sound("keys", "no keys yet: they are made at the first start")], None
    if missing:
        restore = f"interlock restore --help   # bring {folder} back from a backup"
        return [wrong("keys", f"{folder / name} is gone", _WHY_KEY, restore) for name in missing], None
    try:
        key = signing_key(folder, "unused")
        blob_key(folder)
    except InterlockError as error:
        return [wrong("keys", error.message, _WHY_KEY, error.fix or f"ls -l {folder}")], None
    return [sound("keys", f"the log is signed as {key.name}")], key


def judge_checkpoint(note: str | None, key: SigningKey) -> Finding:
    """Whether the newest checkpoint was signed by the key that is there."""
    if note is None:
        return sound("keys", "no checkpoint yet")
    why = "the log cannot go on under another key: nobody could follow it from its beginning"
    command = "interlock restore --help   # bring the keys folder back from a backup"
    try:
        checkpoint = Checkpoint.parse(open_note(note, key.verifier))
    except (NoteError, ValueError):
        return wrong("keys", f"the last checkpoint is not signed by {key.name}", why, command)
    return sound("keys", f"{key.name} signed the last checkpoint, of {checkpoint.size} rows")


def examine_certificate(http: Http, now: datetime) -> Iterator[Finding]:
    """How long the certificate is valid, and whether it belongs to the private key."""
    if http.tls is None:
        return
    certificate, key = Path(http.tls.certificate), Path(http.tls.key)
    look = f"openssl x509 -in {certificate} -noout -subject -enddate"
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        message = f"certificate or key cannot be read: {type(error).__name__} at {certificate}, {key}"
        yield wrong("http", message, _WHY_HTTP, f"ls -l {certificate} {key}; {look}")
        return
    public = (found.public_key(), private.public_key())
    one, other = (each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for each in public)
    if one != other:
        message = f"{key} is not the key of {certificate}"
        yield wrong("http", message, _WHY_HTTP, f"{look}; openssl pkey -in {key} -pubout")
    days = (found.not_valid_after_utc - now).total_seconds() / 86400
    if days < 0:
        yield wrong("http", f"{certificate} expired {-days:.0f} days ago", _WHY_HTTP, f"certbot renew; {look}")
    elif found.not_valid_before_utc > now:
        yield wrong("http", f"{certificate} is not valid yet", _WHY_HTTP, f"timedatectl; {look}")
    elif days < EXPIRY_DAYS_GOOD:
        yield doubtful("http", f"{certificate} expires in {days:.0f} days", _WHY_HTTP, f"certbot renew; {look}")
    else:
        yield sound("http", f"{certificate} is valid for {days:.0f} days")
