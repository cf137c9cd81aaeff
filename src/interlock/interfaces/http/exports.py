"""The evidence as an archive that verifies without Interlock."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from interlock.interfaces.http.asking import Asker
from interlock.interfaces.http.bodies import NUMBER_MAX
from interlock.interfaces.http.routing import JsonRoute

ARCHIVE_NAME = "interlock-evidence.tar.gz"

router = APIRouter(route_class=JsonRoute, tags=["Evidence"])


@router.get(
    "/audit/export",
    operation_id="export_evidence",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def export_evidence(
    asking: Asker,
    run: Annotated[int | None, Query(ge=1, le=NUMBER_MAX, description="Only this Run.")] = None,
) -> Response:
    """The whole log, or one Run. A download that broke off does not verify."""
    chunks = asking.texts("audit_export", {} if run is None else {"run": run}, "chunk")
    first = await anext(chunks, "")  # what is refused is refused before the answer begins

    async def pieces() -> AsyncIterator[bytes]:
        yield base64.b64decode(first)
        async for chunk in chunks:
            yield base64.b64decode(chunk)

    headers = {"Content-Disposition": f'attachment; filename="{ARCHIVE_NAME}"'}
    return StreamingResponse(pieces(), headers=headers, media_type="application/gzip")
