"""The window of signed messages, held against a plain set of everything that was ever taken."""

import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.devices.window import SIZE, TAG_BYTES, Window
from protocol.devices import LARGEST

TAGS = st.sampled_from([bytes([n]) * TAG_BYTES for n in range(4)])


class Windows(RuleBasedStateMachine):
    """The model keeps all messages; the window must judge as it does, also after any restart."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window()
        self.taken: dict[tuple[int, int], bytes] = {}
        self.order: list[tuple[int, int, bytes]] = []
        self.checkpoint = self.window.pack(), 0

    @initialize(boot=st.sampled_from([0, 1, 7, LARGEST - 1]), sequence=st.integers(0, 200))
    def first(self, boot: int, sequence: int) -> None:
        self.send(boot, sequence, b"first   ")

    def last(self) -> tuple[int, int]:
        boot = max(boot for boot, _ in self.taken)
        return boot, max(sequence for b, sequence in self.taken if b == boot)

    def expected(self, boot: int, sequence: int, tag: bytes) -> str:
        last_boot, highest = self.last() if self.taken else (-1, -1)
        if boot < last_boot or (boot == last_boot and sequence <= highest - SIZE):
            return "replayed"
        if (boot, sequence) in self.taken:
            return "repeated" if self.taken[boot, sequence] == tag else "replayed"
        return "new"

    def send(self, boot: int, sequence: int, tag: bytes) -> None:
        found = self.window.judge(boot, sequence, tag)
        assert found == self.expected(boot, sequence, tag)
        if found == "new":
            assert (boot, sequence) not in self.taken
            self.window.take(boot, sequence, tag)
            self.taken[boot, sequence] = tag
            self.order.append((boot, sequence, tag))

    @rule(step=st.one_of(st.integers(-SIZE - 3, 3), st.integers(-3, 200)), tag=TAGS)
    def near(self, step: int, tag: bytes) -> None:
        boot, highest = self.last()
        self.send(boot, min(LARGEST, max(0, highest + step)), tag)

    @rule(boot=st.integers(-2, 2), sequence=st.integers(0, 70), tag=TAGS)
    def any_boot(self, boot: int, sequence: int, tag: bytes) -> None:
        self.send(min(LARGEST, max(0, self.last()[0] + boot)), sequence, tag)

    @rule(index=st.integers(0, 1_000_000))
    def exact_copy(self, index: int) -> None:
        self.send(*self.order[index % len(self.order)])

    @rule(boot=st.just(LARGEST), sequence=st.sampled_from([LARGEST, LARGEST - 1]), tag=TAGS)
    def the_largest_numbers(self, boot: int, sequence: int, tag: bytes) -> None:
        self.send(boot, sequence, tag)

    @rule()
    def save(self) -> None:
        self.checkpoint = self.window.pack(), len(self.order)

    @rule(earlier=st.integers(0, 100))
    def crash(self, earlier: int) -> None:
        """The last checkpoint, and the journal from there, or from earlier: taking twice changes nothing."""
        packed, place = self.checkpoint
        self.window = Window.unpack(packed)
        for message in self.order[max(0, place - earlier) :]:
            self.window.take(*message)

    @invariant()
    def remembers_the_last(self) -> None:
        if self.taken:
            assert self.window.last == self.last()


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_packed_window_is_small() -> None:
    assert len(Window().pack()) == struct.calcsize(">qqQ") + SIZE * TAG_BYTES < 600


def test_cut_window_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Window.unpack(Window().pack()[:-1])
