"""Options of the serial transport. Plain values; checked once, when the transport is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from protocol.devices import NAME
from protocol.lines import LONGEST
from protocol.seams import ConfigurationError

_SLOWEST, _FASTEST = 300, 4_000_000


@dataclass(frozen=True, slots=True)
class Port:
    """What one port, or all that a pattern stands for, has of its own; None = as all others.

    device: who speaks here, whatever it calls itself: the cable is the proof. "" = nobody in particular.
    """

    device: str = ""
    baud: int | None = None
    dtr: bool | None = None
    rts: bool | None = None
    hang_up: bool | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """ports: paths, patterns such as /dev/ttyUSB*, or "-" for standard input; looked for again every rescan_s seconds.

    dtr, rts: the state of these lines while the port is open. hang_up: they fall when it closes, which resets many boards at
    the next opening. port: options of single ports by path or pattern; such a port need not be in `ports` as well.
    window: lines of one port that may wait for the disk before no more are read. longest_pause_s: between two tries to open.
    damaged_per_minute: damaged lines of one port that are kept as failed events; more are counted only.
    lent: folder of the ports to let alone, see gateway.serial.lending; "" = lent-ports in the data folder.
    """

    ports: tuple[str, ...] = ("/dev/ttyUSB*", "/dev/ttyACM*")
    baud: int = 115_200
    dtr: bool = True
    rts: bool = True
    hang_up: bool = True
    longest_line_bytes: int = LONGEST
    window: int = 16
    rescan_s: float = 1.0
    longest_pause_s: float = 5.0
    damaged_per_minute: int = 6
    lent: str = ""
    port: Mapping[str, Port] = field(default_factory=dict[str, Port])


@dataclass(frozen=True, slots=True)
class Settled:
    """The options of one port, with those of all filled in."""

    device: str
    baud: int
    dtr: bool
    rts: bool
    hang_up: bool


def settled(config: Config) -> Iterator[tuple[str, Settled]]:
    """(pattern, its options), the ports of their own first: the first pattern that stands for a port decides.

    Raises ConfigurationError.
    """
    if not (256 <= config.longest_line_bytes <= 1 << 20 and config.window >= 1 and config.rescan_s > 0):
        raise ConfigurationError("serial: longest_line_bytes is 256 to 1048576, window at least 1, rescan_s above 0")
    if config.damaged_per_minute < 0 or config.longest_pause_s <= 0:
        raise ConfigurationError("serial: damaged_per_minute is at least 0, longest_pause_s above 0")
    for pattern, own in [*config.port.items(), *((pattern, Port()) for pattern in config.ports)]:
        if own.device and not NAME.fullmatch(own.device):
            raise ConfigurationError(f"serial.port.{pattern}.device: {own.device!r} is no device name; see docs/devices.md")
        baud = config.baud if own.baud is None else own.baud
        if not _SLOWEST <= baud <= _FASTEST:
            raise ConfigurationError(f"serial: baud is {_SLOWEST} to {_FASTEST}, not {baud}")
        yield (
            pattern,
            Settled(
                own.device,
                baud,
                config.dtr if own.dtr is None else own.dtr,
                config.rts if own.rts is None else own.rts,
                config.hang_up if own.hang_up is None else own.hang_up,
            ),
        )
