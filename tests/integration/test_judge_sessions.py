"""Who began to ask about a rollout keeps it: nobody else ends its session, or begins it anew and so forgets a NO-GO."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio

from harness.databases import database
from interlock.core.actor import Actor
from interlock.core.errors import Denied
from interlock.engine.db import Database, DatabaseAddress
from interlock.judges.store import Kept, SessionStore
from interlock.judges.views import JudgeArgs, JudgeView

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ARGO, READER = (Actor(kind="service", name=name) for name in ("argo", "reader"))


@pytest_asyncio.fixture
async def store(postgres_endpoint: Any, migrated: str) -> AsyncIterator[SessionStore]:
    with database(postgres_endpoint, template=migrated) as (_, owner, app):
        opened = Database(DatabaseAddress(app=app, owner=owner))
        await opened.open()
        try:
            yield SessionStore(opened)
        finally:
            await opened.close()


def _view(store: SessionStore) -> JudgeView:
    async def ask(judge: str, session: str, stable: str | None, by: str) -> Any:
        return await store.ask(judge, session, stable, NOW, by=by)

    declared = SimpleNamespace(every_seconds=5)
    sessions = SimpleNamespace(store=store, ask=ask, declared=lambda _: declared)
    return JudgeView(cast("Any", sessions), cast("Any", SimpleNamespace(now=lambda: NOW)))


@pytest.mark.asyncio
async def test_nobody_else_ends_a_session(store: SessionStore) -> None:
    view = _view(store)
    ask = JudgeArgs(judge="checkout", session="new", stable="old")
    end = ask.model_copy(update={"purpose": "end"})
    begun = await view.read(ARGO, ask)
    assert begun["begun_by"] == "service:argo"
    (row,) = await store.open()
    await store.keep(row.number, Kept({}, {}), {"verdict": "no_go", "at_seconds": NOW.timestamp()}, None)
    assert (await view.read(READER, ask))["verdict"] == "no_go", "whoever may ask is told"
    with pytest.raises(Denied, match="begun by service:argo"):
        await view.read(READER, end)
    assert (await view.read(ARGO, ask))["verdict"] == "no_go"
    ended = await view.read(ARGO, end)
    assert (ended["ended_because"], ended["verdict"]) == ("who drives it said that it is over", "no_go")


@pytest.mark.asyncio
async def test_nobody_else_begins_it_anew_with_another_stable_version(store: SessionStore) -> None:
    first = await store.ask("checkout", "new", "old", NOW, by=ARGO.id)
    with pytest.raises(Denied, match="another stable version"):
        await store.ask("checkout", "new", "older", NOW, by=READER.id)
    assert (await store.ask("checkout", "new", "old", NOW, by=READER.id)).number == first.number
    assert (await store.ask("checkout", "new", "older", NOW, by=ARGO.id)).number != first.number
