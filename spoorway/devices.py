"""What is told of the register of devices: its metrics, and the warnings of `doctor` and of the start."""

from __future__ import annotations

from gateway.devices.register import Register
from spoorway.metrics import Metric


def device_metrics(devices: Register) -> list[Metric]:
    counters = devices.counters
    return [
        Metric("devices", "gauge", "Devices in the register.",
               [({"state": state}, count) for state, count in devices.states().items()]),
        Metric("device_logins", "counter", "Logins that proved a device.", [({}, counters.logins)]),
        Metric("device_messages", "counter", "Signed messages taken, and copies of them that were acknowledged.",
               [({"outcome": "taken"}, counters.messages), ({"outcome": "repeated"}, counters.repeated)]),
        Metric("device_refusals", "counter", "Logins and signed messages refused.",
               [({"reason": reason}, count) for reason, count in counters.refusals.items()]),
        Metric("device_delays", "counter", "Payloads told to wait for their device's limits.", [({}, counters.delayed)]),
        Metric("device_claims", "counter", "Claim codes redeemed, and wrong ones.",
               [({"outcome": "redeemed"}, counters.claims), ({"outcome": "wrong"}, counters.wrong_claims)]),
    ]  # fmt: skip
