"""The rules of one MQTT connection after its CONNECT was accepted: packets in -> steps out. Does nothing itself.

A step's answer may be sent when its payload is on disk, and not before. Steps are done in their order, so acknowledgements leave
in the order in which the publishes came (MQTT-4.6.0-2). What the protocol forbids is a step that ends the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from gateway.mqtt.config import Config
from gateway.mqtt.counters import Counters
from gateway.mqtt.packets import (
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    V5,
    Ack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    encode,
)
from gateway.mqtt.presence import Reason
from gateway.mqtt.properties import PROTOCOL_ERROR, Properties
from gateway.mqtt.sessions import Held, Kept
from gateway.mqtt.topics import Topics
from protocol.seams import RawPayload

NOT_AUTHORIZED, TOPIC_INVALID, NOT_FOUND, TOO_MANY, BAD_ALIAS = 0x87, 0x90, 0x92, 0x93, 0x94
NO_RETAIN, NO_SHARED, NO_SUBSCRIPTION_IDENTIFIERS, NO_WILDCARDS = 0x9A, 0x9E, 0xA1, 0xA2
_FAILED = 0x80
_WITH_WILL = 0x04
_MOST_TOPICS = 16  # that one session listens to
_MOST_REMEMBERED = 256  # topics whose device is not looked up again


class End(NamedTuple):
    """code: of the DISCONNECT that MQTT 5 gets before; 0 = it gets none."""

    reason: Reason
    code: int = 0
    why: str = ""


class Step(NamedTuple):
    """hold: packet identifier of the QoS 2 message that the payload is; free: one that is released.

    listens: what the client listens to has changed.
    """

    answer: bytes = b""
    payload: RawPayload | None = None
    hold: int = 0
    free: int = 0
    listens: bool = False
    end: End | None = None


class Session:
    """will: still to be published when the connection ends. expiry_s: how long the session outlives it."""

    def __init__(
        self,
        connect: Connect,
        kept: Kept,
        *,
        config: Config,
        counters: Counters,
        topics: Topics,
        device: str | None,
        known: Callable[[str], bool],
        ip: str | None,
        expiry_s: int,
        clock_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self.kept, self.device, self.ip, self.expiry_s = kept, device, ip, expiry_s
        self.will = connect.will
        self.v5 = connect.version == V5
        self.unanswered = 0  # QoS 1 publishes; whoever sends the answers sets it back
        self._version = connect.version
        self._longest = int(_number(connect.properties, "maximum_packet_size", 0xFFFF_FFFF))
        self._config, self._counters, self._topics, self._known = config, counters, topics, known
        self._clock_ms, self._new_id = clock_ms, new_id
        self._aliases: dict[int, str] = {}
        self._devices: dict[str, str | None] = {}
        self._had_expiry = expiry_s > 0

    def receive(self, packet: Packet) -> Step:
        if type(packet) is Publish:
            return self._publish(packet)
        match packet:
            case Ack(kind, packet_id) if kind == PUBREL:
                found = packet_id in self.kept.held
                answer = Ack(PUBCOMP, packet_id, 0 if found else NOT_FOUND)
                return Step(encode(answer, self._version), free=packet_id if found else 0)
            case Ping(kind) if kind == PINGREQ:
                return Step(encode(Ping(PINGRESP)))
            case Subscribe():
                return self._subscribe(packet)
            case Unsubscribe():
                return self._unsubscribe(packet)
            case Disconnect():
                return self._disconnect(packet)
            case _:  # an acknowledgement of what was never sent, an AUTH that nobody began
                return _end(PROTOCOL_ERROR, "a packet that answers nothing")

    def publishable(self, topic: str) -> int:
        """0, or the reason code why this connection may not publish there."""
        try:
            name = self._devices[topic]
        except KeyError:
            name = self._topics.device(topic)
            if len(self._devices) < _MOST_REMEMBERED:
                self._devices[topic] = name
        if name is None:
            return TOPIC_INVALID if topic.startswith("spoorway/") else 0
        return 0 if self._may_be(name) else NOT_AUTHORIZED

    def payload(self, topic: str, body: bytes, id: str) -> RawPayload | None:
        return self._topics.payload(
            id=id,
            received_ms=self._clock_ms(),
            transport="mqtt",
            topic=topic,
            body=body,
            retain=False,  # a device asks with it that we keep the message; what a broker had kept is something else
            device=self.device,
            ip=self.ip,
        )

    def down(self, message: bytes) -> bytes:
        """The packets that carry `message` to everything this client listens to; none that is larger than it takes."""
        found = [encode(Publish(topic, message), self._version) for topic in sorted(self.kept.topics)]
        return b"".join([packet for packet in found if len(packet) <= self._longest])

    def farewell(self, end: End) -> bytes:
        """What MQTT 5 is told before the connection is closed."""
        if not self.v5 or not end.code:
            return b""
        full = encode(Disconnect(end.code, {"reason": end.why} if end.why else {}), self._version)
        short = full if len(full) <= self._longest else encode(Disconnect(end.code), self._version)
        return short if len(short) <= self._longest else b""

    def greeting(self) -> bytes:
        """The time, and how often the device may send."""
        out = self.down(b'{"time_ms":%d}' % self._clock_ms())
        if self._config.min_interval_ms:
            out += self.down(b'{"min_interval_ms":%d}' % self._config.min_interval_ms)
        return out

    def _publish(self, packet: Publish) -> Step:
        topic, body, qos, packet_id, *_ = packet
        if self.v5 and (packet.properties or not topic or packet.retain):
            if isinstance(wrong := self._resolved(packet), Step):
                return wrong
            topic = wrong
        if code := self.publishable(topic):
            self._counters.messages["not_allowed" if code == NOT_AUTHORIZED else "unknown_topic"] += 1
            return self._refused(packet, code, topic)
        if qos == 2:
            return self._publish_once(packet, topic)
        payload = self.payload(topic, body, self._new_id())
        if payload is None:
            self._counters.messages["unknown_topic"] += 1
            return self._refused(packet, TOPIC_INVALID, topic)
        if not qos:
            return Step(b"", payload)
        self.unanswered += 1
        if self.v5 and self.unanswered + len(self.kept.held) > self._config.max_in_flight:
            return _end(TOO_MANY, f"more than {self._config.max_in_flight} publishes under way")
        return Step(b"\x40\x02" + packet_id.to_bytes(2, "big"), payload)

    def _publish_once(self, packet: Publish, topic: str) -> Step:
        """Exactly once: until it is released, a message with this identifier is the one that was taken before."""
        packet_id, held = packet.packet_id, self.kept.held
        answer = b"\x50\x02" + packet_id.to_bytes(2, "big")
        digest = blake2b(topic.encode() + b"\0" + packet.body, digest_size=16).digest()
        before = held.get(packet_id)
        # Another message under an identifier in use is from a device that forgot its session: it is not lost, though the
        # standard would have it taken for the old one.
        same = before is not None and before.digest == digest
        if before is not None and same and before.certain:
            self._counters.messages["repeated"] += 1
            return Step(answer)
        if before is None and len(held) + self.unanswered >= self._config.max_in_flight:
            return _end(TOO_MANY, f"more than {self._config.max_in_flight} publishes under way")
        payload_id = before.payload_id if before is not None and same else self._new_id()
        payload = self.payload(topic, packet.body, payload_id)
        if payload is None:
            self._counters.messages["unknown_topic"] += 1
            return self._refused(packet, TOPIC_INVALID, topic)
        held[packet_id] = Held(payload_id, digest, True)
        return Step(answer, payload, hold=packet_id)

    def _resolved(self, packet: Publish) -> str | Step:
        """The topic of a version 5 publish, or what is wrong with it."""
        properties, topic = packet.properties, packet.topic
        if packet.retain:
            return _end(NO_RETAIN, "nothing is retained here")
        if "subscription_identifier" in properties:
            return _end(PROTOCOL_ERROR, "a client does not send subscription identifiers")
        alias = _number(properties, "topic_alias", 0)
        if alias > self._config.max_topic_aliases:
            return _end(BAD_ALIAS, f"topic aliases go up to {self._config.max_topic_aliases}")
        if alias and topic:
            self._aliases[alias] = topic
        found = topic or self._aliases.get(alias, "")
        return found or _end(PROTOCOL_ERROR, "neither a topic nor an alias that was set")

    def _refused(self, packet: Publish, code: int, topic: str) -> Step:
        """3.1.1 has no word for it but the end of the connection: an acknowledgement would say that it is on disk."""
        if self.v5 and packet.qos:
            return Step(encode(Ack(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id, code), self._version))
        what = "another device's topic" if code == NOT_AUTHORIZED else "a topic nobody takes"
        return _end(code, f"{what}: {topic[:100]!r}")

    def _may_be(self, name: str) -> bool:
        return name == self.device if self.device is not None else not self._known(name)

    def _subscribe(self, packet: Subscribe) -> Step:
        if "subscription_identifier" in packet.properties:
            return _end(NO_SUBSCRIPTION_IDENTIFIERS, "there are no subscription identifiers here")
        codes = bytes([self._listen(name) for name, _ in packet.filters])
        answer = encode(Suback(SUBACK, packet.packet_id, codes), self._version)
        granted = 0 in codes
        return Step(answer + (self.greeting() if granted else b""), listens=granted)

    def _listen(self, name: str) -> int:
        """0, QoS 0, when the client may listen to it."""
        device = self._topics.device(name)
        topics = self.kept.topics
        is_own = device is not None and name.endswith("/down") and self._may_be(device)
        if is_own and (name in topics or len(topics) < _MOST_TOPICS):
            topics.add(name)
            return 0
        if not self.v5:
            return _FAILED
        if name.startswith("$share/"):
            return NO_SHARED
        return NO_WILDCARDS if "#" in name or "+" in name else NOT_AUTHORIZED

    def _unsubscribe(self, packet: Unsubscribe) -> Step:
        topics = self.kept.topics
        codes = bytes([0 if name in topics else 0x11 for name in packet.filters])  # 0x11: there was none
        topics.difference_update(packet.filters)
        return Step(encode(Suback(UNSUBACK, packet.packet_id, codes), self._version), listens=True)

    def _disconnect(self, packet: Disconnect) -> Step:
        if "session_expiry_s" in packet.properties:
            wanted = _number(packet.properties, "session_expiry_s", 0)
            if wanted and not self._had_expiry:
                return _end(PROTOCOL_ERROR, "a session cannot begin to last when it ends")
            self.expiry_s = min(wanted, self._config.session_expiry_s)
        if packet.code == _WITH_WILL:
            return Step(end=End("will"))
        self.will = None
        return Step(end=End("disconnect"))


def _end(code: int, why: str) -> Step:
    return Step(end=End("connection_lost", code, why))


def _number(properties: Properties, name: str, default: int) -> int:
    value = properties.get(name, default)
    return value if isinstance(value, int) else default
