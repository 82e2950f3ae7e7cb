"""The short storm over the product and its Kafka (`make kafka-kills`: the long one), and what is said when nobody takes more."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.faults.kafka_kills import storm
from tests.faults.kills import Product


@pytest.mark.slow
def test_nothing_is_lost_or_stored_twice_on_the_way_through_kafka(tmp_path: Path) -> None:
    report = storm(tmp_path, rounds=2, seed=4, pause_s=0.8)
    assert (report.lost, report.repeated) == ([], 0)
    assert report.acknowledged > 200
    assert sum(report.killed.values()) == 2
    assert report.killed["broker"] >= 1


def test_with_kafka_away_and_the_disk_full_senders_are_asked_to_come_back(tmp_path: Path) -> None:
    configuration = tmp_path / "spoorway.toml"
    configuration.write_text(
        "[journal]\nmax_bytes = 60_000\nmin_free_bytes = 0\n"
        '[journal.kafka]\nbrokers = ["127.0.0.1:1"]\nmax_record_bytes = 30_000\n'
    )
    product = Product(tmp_path / "data", "--config", str(configuration))
    product.start()

    def post(size: int) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{product.port}/com.snowplowanalytics.snowplow/tp2", b"x" * size)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                assert error.code != 503 or error.headers["Retry-After"]
                return error.code

    try:
        assert post(30_001) == 413
        answers = [post(8_000) for _ in range(10)]
        taken = answers.count(200)
        assert 4 <= taken < 10
        assert answers == [200] * taken + [503] * (10 - taken)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{product.port}/sink-health", timeout=30)
    finally:
        product.stop()
