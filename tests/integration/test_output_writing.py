"""What Runs print is written out for each by itself: a Run whose output takes its time keeps no other waiting."""

from __future__ import annotations

import asyncio

import psycopg

from harness.engine import Engine
from interlock.engine.output import PIECE_BYTES

SLOW, QUICK = 900_001, 900_002


async def test_a_run_whose_output_waits_for_the_database_keeps_no_other_waiting(engine: Engine) -> None:
    log, store = engine.parts.output_log, engine.parts.outputs
    log.of(SLOW).write("x" * (3 * PIECE_BYTES))
    log.of(QUICK).write("done\n")
    connection = await psycopg.AsyncConnection.connect(engine.parts.address.owner)
    async with connection:
        # Whoever writes this Run's first piece waits until this transaction has ended.
        await connection.execute("insert into output (run, seq, bytes, body) values (%s, 1, 0, '')", (SLOW,))
        slow = asyncio.create_task(log.flush(SLOW))
        await asyncio.wait_for(log.flush(QUICK), 10)
        assert [piece.text for piece in await store.read(QUICK)] == ["done\n"]
        again = asyncio.create_task(log.flush_all())
        log.of(QUICK).write("more\n")
        await asyncio.wait_for(log.flush(QUICK), 10)
        assert not slow.done()
        await connection.rollback()
    await asyncio.wait_for(asyncio.gather(slow, again), 10)
    assert [len(piece.text) for piece in await store.read(SLOW)] == [PIECE_BYTES] * 3
    assert [piece.text for piece in await store.read(QUICK)] == ["done\n", "more\n"]


async def test_the_pieces_of_a_run_keep_their_order_however_many_write_them(engine: Engine) -> None:
    log, store = engine.parts.output_log, engine.parts.outputs
    written = []
    for number in range(20):
        log.of(SLOW).write(f"{number}\n" * 1000)
        written.append(f"{number}\n" * 1000)
        if number % 5 == 4:
            await asyncio.gather(*(log.flush(SLOW) for _ in range(3)), log.flush_all())
    assert "".join([piece.text for piece in await store.read(SLOW)]) == "".join(written)
