"""The short run; `make fuzz` makes a million inputs for each decoder. And the fuzzer itself: it finds what is planted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults import fuzz
from tests.faults.fuzz import TARGETS, Found, Target


@pytest.mark.parametrize("name", TARGETS)
def test_decoder_stands_any_input(name: str) -> None:
    assert fuzz.fuzz(name, inputs=2_000, seed=1) > 5


def test_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(pieces: Sequence[bytes]) -> int:
        return b"".join(pieces).index(b"@")

    monkeypatch.setitem(TARGETS, "planted", lambda: Target([b"@q,uno-1,7,1:body*1234\n"], planted))
    with pytest.raises(Found, match="planted: ValueError"):
        fuzz.fuzz("planted", inputs=2_000, seed=1)
    monkeypatch.setitem(TARGETS, "planted", lambda: Target([b"abc\n"], lambda pieces: pieces[0][:2]))
    with pytest.raises(Found, match="cut at"):
        fuzz.fuzz("planted", inputs=2_000, seed=1)
