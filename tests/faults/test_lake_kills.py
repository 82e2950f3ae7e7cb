"""kill -9 of the running product while it loads an S3 target, through a real S3 server: each acknowledged event is there once."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import lake
from storage.objects import open_objects
from tests.faults.kills import Product, Sender
from tests.peers.s3_server import S3Server

ROUNDS = 4


@pytest.mark.slow
def test_killed_under_load_every_acknowledged_event_is_in_the_bucket_once(tmp_path: Path) -> None:
    with S3Server() as server, server.in_environment():
        url = f"{server.bucket('kills')}/site"
        (tmp_path / "spoorway.toml").write_text(f'[storage.targets.lake]\nuse = "s3"\nurl = "{url}"\nevery_s = 0.1\n')
        product = Product(tmp_path / "data", "--config", str(tmp_path / "spoorway.toml"))
        ending, chance = threading.Event(), random.Random(3)
        product.start()
        senders = [Sender(product, ending) for _ in range(2)]
        for sender in senders:
            sender.start()
        try:
            for _ in range(ROUNDS):
                time.sleep(chance.uniform(0.3, 1.2))  # where the knife falls
                product.kill(chance.choice(("loader", "both")))
        finally:
            ending.set()
            for sender in senders:
                sender.join(60)
            code = product.stop()
        assert code == 0
        acknowledged = [event_id for sender in senders for event_id in sender.acknowledged]
        objects = open_objects(url)
        live, superseded = lake.sorted_out(objects.list("events/"))
        read = pa.concat_tables([pq.read_table(pa.BufferReader(objects.get(piece.name)), columns=["event_id"]) for piece in live])
        stored = read["event_id"].to_pylist()
        assert not superseded
        assert len(stored) == len(set(stored))
        assert acknowledged and set(acknowledged) <= set(stored)
