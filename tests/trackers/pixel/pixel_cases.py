"""Random events for pixels and links, and the JavaScript builder that must make the same URLs of them."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from spoorway.pixel import Event, Pixel, PixelError, email_click, email_open, page_view, self_describing, structured

KEY = bytes(range(32))
ENDPOINT = "https://track.example.com"
ANYTHING = "iglu:com.acme/anything/jsonschema/1-0-0"
_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz0123456789",
    " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "éßñøЖ関卡€\u00a0\u2028",
    "🦆🏳️‍🌈👩‍👩‍👧",
    "\t\n\r\x01\x7f",
)


def text(chance: random.Random, most: int = 24) -> str:
    return "".join(chance.choice(chance.choice(_ALPHABETS)) for _ in range(chance.randrange(1, most)))


def value(chance: random.Random, deep: int = 0) -> Any:
    match chance.randrange(7 if deep < 3 else 5):
        case 0:
            return chance.randrange(-(2**53) + 1, 2**53)
        case 1:
            return chance.choice((True, False, None))
        case 2:
            return chance.randrange(-9_999, 9_999) / 100 + 0.001
        case 5:
            return [value(chance, deep + 1) for _ in range(chance.randrange(4))]
        case 6:
            return {"k" + text(chance, 8): value(chance, deep + 1) for _ in range(chance.randrange(4))}
        case _:
            return text(chance)


def case(chance: random.Random, number: int) -> dict[str, Any]:
    """One URL to be made, as plain JSON."""
    entities = [{"schema": ANYTHING, "data": {"v": value(chance)}} for _ in range(chance.randrange(3))]
    return {
        "id": f"{number:08x}-0000-4000-8000-{chance.getrandbits(48):012x}",
        "data": {"n": number, "v": value(chance), "k" + text(chance, 6): value(chance)},
        "entities": entities,
        "target": f"https://example.com/{number}?q=%C3%A9&x={chance.randrange(99)}#a" if chance.random() < 0.3 else None,
        "base64": chance.choice((True, False, None)),
    }


def built(one: dict[str, Any]) -> str:
    """Its URL, or ! and why there is none."""
    pixel = Pixel(ENDPOINT, "news", key=KEY, base64=one["base64"])
    more: dict[str, Any] = {"entities": one["entities"], "event_id": one["id"]}
    event = self_describing(ANYTHING, one["data"])
    try:
        return pixel.click(one["target"], event, **more) if one["target"] else pixel.open(event, **more)
    except PixelError as error:
        return f"!{error.code}"


def built_in_javascript(cases: list[dict[str, Any]]) -> list[str]:
    lines = "".join(json.dumps(one) + "\n" for one in cases)
    command = ["node", str(Path(__file__).with_name("pixel_cases.mjs"))]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=240)
    return done.stdout.splitlines()


def examples(provider_tag: str = "") -> list[Event]:
    return [
        email_open("spring", "m-1", provider_tag or "r-1", 1_768_471_200_000),
        email_click("spring", "m-1", provider_tag, None, "offer"),
        page_view("https://shop.example/?a=b&c", 'A "quoted" <title>'),
        structured("mail", "seen", "x'y", value=0.5),
    ]
