"""spoorway.json, as `spoorway flash` leaves it on a board -> a tracker that sends as it says, and the board's Wi-Fi."""

import json


def settings(path: str = "spoorway.json") -> dict:
    """Raises OSError where there is no such file, ValueError where it is damaged or of a version not known."""
    with open(path) as file:
        said = json.load(file)
    if said["version"] != 1:
        raise ValueError("version")
    return said


def link(said: dict, port=None, tls=None):
    """The link for `url`; port: a UART, for boards that speak over the cable."""
    key = bytes.fromhex(said["key"]) if "key" in said else None
    url = said.get("url")
    if not url:
        from .uart import Uart

        return Uart(port, key)
    if url[:4] == "mqtt":
        from .mqtt import Mqtt

        return Mqtt(url, said.get("password", ""), tls)
    from .http import Http

    return Http(url, key, tls)


def wifi(said: dict, seconds: int = 20) -> bool:
    """Joins the network that spoorway.json names. Whether that was done in time."""
    import time

    import network

    station = network.WLAN(network.STA_IF)
    station.active(True)
    station.connect(*said["wifi"])
    for _ in range(seconds * 10):
        if station.isconnected():
            return True
        time.sleep(0.1)
    return False
