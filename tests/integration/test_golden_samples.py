"""Golden samples: pinned once with who accepted them, replayed against each later version."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from harness.shop_service import RunningShop, free_port, shop_service
from interlock.comparison.golden import accepted, pin, read_samples, replay, sample_path, unpin
from interlock.comparison.rules import ReadyRules
from interlock.core.comparison import ComparisonRules, GoldenFiles, GoldenRequest, GoldenSample
from interlock.core.errors import Invalid, NotFound, Permanent, Transient

TODAY = date(2026, 3, 1)
RULES = ComparisonRules(key_fields=("$.price",))


@pytest.fixture(scope="module")
def shop() -> Iterator[RunningShop]:
    with shop_service(version="v1") as running:
        yield running


def _accept(shop: RunningShop, target: str = "/items/7", headers: dict[str, str] | None = None) -> GoldenSample:
    return accepted(
        "shop",
        "item-7",
        GoldenRequest(target=target, headers=headers or {}),
        shop.address,
        ReadyRules(RULES, TODAY),
        by="alice",
        at=datetime(2026, 2, 1, tzinfo=UTC),
        reason="held against the price list",
        monotonic=time.monotonic,
    )


def test_a_sample_is_pinned_with_its_noise_and_found_again(shop: RunningShop, tmp_path: Path) -> None:
    sample = _accept(shop, headers={"authorization": "Bearer hunter2hunter2", "accept-language": "de"})
    assert sample.noise == ("$.served_at",)
    assert sample.request is not None
    assert sample.request.headers == {"accept-language": "de"}
    path = pin(tmp_path / "golden", sample)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_samples(tmp_path / "golden", "shop") == (sample,)
    assert read_samples(tmp_path / "golden", "other") == ()
    assert "hunter2" not in path.read_text()
    unpin(tmp_path / "golden", "shop", "item-7")
    with pytest.raises(NotFound):
        unpin(tmp_path / "golden", "shop", "item-7")


def test_a_version_that_answers_as_accepted_passes_and_one_that_does_not_is_told_why(shop: RunningShop) -> None:
    sample = _accept(shop)
    with shop_service(version="v2") as candidate:
        (result,) = replay([sample], candidate.address, RULES, today=TODAY, monotonic=time.monotonic)
        assert result.passes, result.words
        candidate.control(wrong_field="price")
        (result,) = replay([sample], candidate.address, RULES, today=TODAY, monotonic=time.monotonic)
        assert not result.passes
        assert "$.price was '6.88' when alice accepted it on 2026-02-01, and is 'not 6.88'" in result.words
    (result,) = replay([sample], f"127.0.0.1:{free_port()}", RULES, today=TODAY, monotonic=time.monotonic)
    assert (result.passes, result.outcome) == (False, "no_answer")


def test_without_an_answer_nothing_is_accepted(tmp_path: Path) -> None:
    with shop_service() as gone:
        pass
    with pytest.raises(Transient):
        _accept(gone)
    with pytest.raises(Invalid):
        _accept(gone, headers={"x": "a\r\nb: c"})


def test_a_sample_that_was_changed_by_hand_is_not_passed_over(shop: RunningShop, tmp_path: Path) -> None:
    sample = _accept(shop)
    pin(tmp_path, sample)
    path = sample_path(tmp_path, "shop", "item-7")
    path.rename(path.with_name("other.json"))
    with pytest.raises(Permanent, match="says that it is item-7"):
        read_samples(tmp_path, "shop")
    path.with_name("other.json").write_text("{")
    with pytest.raises(Permanent, match="cannot be read"):
        read_samples(tmp_path, "shop")


def test_a_sample_is_of_a_service_or_of_a_batch_job() -> None:
    who = {"accepted_by": "alice", "accepted_at": datetime(2026, 2, 1, tzinfo=UTC), "reason": "looked at"}
    files = GoldenFiles(files={"report.csv": "0" * 64})
    batch = GoldenSample(workload="report", name="feb", input=files, output=files, **who)
    assert batch.digest == GoldenSample.model_validate_json(batch.model_dump_json()).digest
    for parts in ({}, {"input": files}, {"input": files, "output": files, "request": GoldenRequest(target="/")}):
        with pytest.raises(ValueError, match="golden sample"):
            GoldenSample(workload="report", name="feb", **parts, **who)
