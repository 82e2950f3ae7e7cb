"""Base64 with the quick decoder and with Python's own: whatever was sent, it is decoded to the same bytes."""

from __future__ import annotations

import base64
import string

import pybase64
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import wire

SENT = st.text(string.ascii_letters + string.digits + "+/-_", max_size=80)
FOREIGN = st.text("= \n\t\0é漢\ud800%*A", max_size=3)


@given(before=SENT, foreign=FOREIGN, after=SENT)
@example(before="A", foreign="", after="")
@example(before="QUJDRE", foreign="", after="")
def test_both_decoders_say_the_same(before: str, foreign: str, after: str) -> None:
    text = before + foreign + after
    with pytest.MonkeyPatch.context() as one:
        one.setattr(wire, "b64decode", pybase64.b64decode)
        quick = wire.decode_base64(text)
        one.setattr(wire, "b64decode", base64.b64decode)
        assert wire.decode_base64(text) == quick


@given(st.binary(max_size=200), st.sampled_from(["standard", "urlsafe"]), st.booleans())
def test_what_was_encoded_comes_back(data: bytes, alphabet: str, padded: bool) -> None:
    text = getattr(base64, f"{alphabet}_b64encode")(data).decode()
    assert wire.decode_base64(text if padded else text.rstrip("=")) == data
