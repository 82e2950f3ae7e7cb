"""A small order service, tracked with the official Python tracker from PyPI: log-ins, screens and orders as they happen.

    pip install snowplow-tracker==1.1.0
    python examples/demo/app.py http://127.0.0.1:8080 [--seconds 4] [--seed 7] [--patience 10]

It ends when its last event was acknowledged, and with exit code 1 when that did not happen in time: a short-lived program
that does not wait for its tracker loses what the tracker still holds.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import uuid
from urllib.parse import urlsplit

from snowplow_tracker.emitters import Emitter
from snowplow_tracker.events.screen_view import ScreenView
from snowplow_tracker.events.self_describing import SelfDescribing
from snowplow_tracker.events.structured_event import StructuredEvent
from snowplow_tracker.self_describing_json import SelfDescribingJson
from snowplow_tracker.subject import Subject
from snowplow_tracker.tracker import Tracker

SHOP = "iglu:com.snowplowanalytics.snowplow.ecommerce"
GOODS = {"WC-10": 24.95, "TS-2": 3.40, "CF-90": 89.00, "PT-24": 14.50, "TH-1": 12.90, "SH-7": 32.00}
SCREENS = ("Home", "Catalogue", "Basket")


class Service:
    """What happens in the shop's app, each thing tracked where it happens."""

    def __init__(self, url: str, chance: random.Random) -> None:
        collector = urlsplit(url)
        self.tracked = self.acknowledged = 0
        self._chance = chance
        self._emitter = Emitter(
            collector.hostname or "",
            protocol="https" if collector.scheme == "https" else "http",
            port=collector.port,
            batch_size=8,
            request_timeout=5,
            max_retry_delay_seconds=1,
            on_success=self._delivered,
        )
        self._tracker = Tracker("service", self._emitter, app_id="order-service", encode_base64=False)

    def visit(self, number: int) -> None:
        """One customer: logs in, looks at the screens, and sometimes orders."""
        user = Subject().set_platform("mob").set_user_id(f"customer-{number:03}").set_useragent("GlassAndLoam/2.3 (Android 15)")
        attempts = self._chance.choice((1, 1, 1, 2))
        self._track(StructuredEvent("account", "log-in", "password", "ok", attempts, event_subject=user))
        for name in SCREENS[: self._chance.randint(1, len(SCREENS))]:
            self._track(ScreenView(str(uuid.uuid4()), name, event_subject=user))
        if self._chance.random() < 0.6:
            self._order(user)

    def _order(self, user: Subject) -> None:
        lines = {sku: self._chance.randint(1, 3) for sku in self._chance.sample(sorted(GOODS), self._chance.randint(1, 3))}
        order = {
            "transaction_id": f"AP-{self._chance.randrange(16**6):06X}",
            "revenue": round(sum(GOODS[sku] * quantity for sku, quantity in lines.items()), 2),
            "currency": "EUR",
            "total_quantity": sum(lines.values()),
            "payment_method": self._chance.choice(("card", "transfer")),
        }
        products = [
            SelfDescribingJson(
                f"{SHOP}/product/jsonschema/1-0-0",
                {"id": sku, "category": "greenhouse", "price": GOODS[sku], "currency": "EUR", "quantity": quantity},
            )
            for sku, quantity in lines.items()
        ]
        transaction = SelfDescribingJson(f"{SHOP}/transaction/jsonschema/1-0-0", order)
        action = SelfDescribingJson(f"{SHOP}/snowplow_ecommerce_action/jsonschema/1-0-2", {"type": "transaction"})
        self._track(SelfDescribing(action, context=[transaction, *products], event_subject=user))

    def close(self, patience_seconds: float) -> bool:
        """Sends what is left; whether everything was acknowledged. The emitter tries again by itself, we only wait."""
        deadline = time.monotonic() + patience_seconds
        while self.acknowledged < self.tracked and time.monotonic() < deadline:
            self._emitter.flush()
            time.sleep(0.05)
        return self.acknowledged == self.tracked

    def _track(self, event: StructuredEvent | ScreenView | SelfDescribing) -> None:
        self.tracked += 1
        self._tracker.track(event)

    def _delivered(self, events: list[dict[str, str]]) -> None:
        self.acknowledged += len(events)


def main() -> None:
    logging.getLogger("snowplow_tracker").setLevel(logging.WARNING)  # it tells every request otherwise
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="the gateway, http://host:port")
    parser.add_argument("--seconds", type=float, default=4, help="how long the shop is open")
    parser.add_argument("--seed", type=int, default=7, help="the same seed, the same customers")
    parser.add_argument("--patience", type=float, default=10, help="seconds to wait for the last acknowledgement")
    options = parser.parse_args()
    service = Service(options.url, random.Random(options.seed))
    closing = time.monotonic() + options.seconds
    number = 0
    while number == 0 or time.monotonic() < closing:
        number += 1
        service.visit(number)
        time.sleep(min(0.2, options.seconds / 10))
    complete = service.close(options.patience)
    print(f"{number} customers, {service.acknowledged} of {service.tracked} events acknowledged")
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
