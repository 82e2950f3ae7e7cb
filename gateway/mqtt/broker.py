"""A connection to somebody's broker that stays: made, lost, made again, its troubles told in words. paho-mqtt does the protocol.

Knows nothing of payloads. paho runs in a thread of its own, and so do all calls to a `Listener`; `acknowledge` may be called
from any thread, and says nothing on a connection other than the one that brought the message.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Signal
from threading import Lock
from typing import Any, Literal, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.mqtt.topics import OWN, check_filter
from protocol.seams import ConfigurationError

log = logging.getLogger("gateway.mqtt")

_QOS = 1
_SHORTEST_BACKOFF_S = 0.5
_FAREWELL_S = 5.0  # so long a broker that is asked whether it has read everything may take
_NOBODYS = "spoorway/-/nothing"  # a filter that is never subscribed

# What a broker says -> what to do about it.
_NEXT_STEPS = {
    "Not authorized": "check username and password, and that the broker's access list lets this user subscribe",
    "Bad user name or password": "check username and password_file",
    "Client identifier not valid": "set another client_id",
    "Unsupported protocol version": 'set version = "3.1.1"',
    "Server unavailable": "look at the broker's log",
    "Session taken over": "another client has the same client_id; give each gateway its own",
}


@dataclass(frozen=True, slots=True)
class Config:
    """broker, port: where it is; port 0 = 1883, with TLS 8883. version: of MQTT.

    client_id: what the broker keeps our session under: the same at each start, and for one gateway only; "" = spoorway-HOSTNAME.
    session_expiry_s: so long the broker keeps messages for a gateway that is away (MQTT 5; a 3.1.1 broker has its own limit).
    filters: of topics spoorway/DEVICE/KIND. topics: filter of topics in a form of their own -> path of their adapter.
    group: gateways with the same one share the messages; "" = this one gets all.
    trust_topic: the broker's access list lets a device publish under its own name only, so the topic proves it.
    in_flight: messages that may wait for the journal. tls_ca: PEM file; "" = the system's authorities.
    """

    broker: str = "127.0.0.1"
    port: int = 0
    version: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    session_expiry_s: int = 604_800
    filters: tuple[str, ...] = tuple(OWN)
    topics: Mapping[str, str] = field(default_factory=dict[str, str])
    group: str = ""
    trust_topic: bool = False
    username: str = ""
    password: str = ""
    password_file: str = ""
    tls: bool = False
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    in_flight: int = 256
    keepalive_s: int = 30
    connect_timeout_s: float = 10.0
    longest_backoff_s: float = 30.0
    retry_s: float = 1.0

    @property
    def address(self) -> tuple[str, int]:
        return self.broker, self.port or (8883 if self.tls else 1883)

    @property
    def subscriptions(self) -> list[str]:
        prefix = f"$share/{self.group}/" if self.group else ""
        return [f"{prefix}{topic_filter}" for topic_filter in dict.fromkeys((*self.filters, *self.topics))]


class Listener(Protocol):
    """What the connection tells. connection: its number, counted up with each that is made."""

    def connected(self, connection: int, resumed: bool) -> None:
        """resumed: the broker kept our session and sends again what was not acknowledged."""
        ...

    def subscribed(self) -> None:
        """From now on the broker keeps for us what is published."""
        ...

    def arrived(self, connection: int, message: MQTTMessage) -> None: ...
    def lost(self) -> None: ...
    def refused(self) -> None: ...


class Broker:
    """Call order: open -> close."""

    def __init__(self, config: Config, listener: Listener) -> None:
        """Raises ConfigurationError."""
        self._name = "{}:{}".format(*config.address)
        self._config = config
        self._listener = listener
        self._closing = Signal()
        self._lock = Lock()
        self._connection = 0
        self._up = False
        self._attempts = 0
        self._trouble = ""
        self._read = Signal()  # by the broker, all that we sent
        self._granted = False  # all that we asked for, in this session
        self._client = client = _Client(self, config, config.client_id or f"spoorway-{socket.gethostname()}")
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_unsubscribe = self._on_unsubscribe

    def open(self) -> None:
        self._client.prepare(clean=False)
        self._client.loop_start()

    def close(self) -> None:
        """Sends what is still to be sent, keeps the session, returns when the thread has ended.

        And when the broker has read it: where we come back before that, it forgets what it had not, and sends again what we have
        acknowledged. It answers in order, so it is asked to end a subscription that we never made.
        """
        self._closing.set()
        if self._up and self._client.unsubscribe(_NOBODYS)[0] == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._read.wait(_FAREWELL_S)
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def closing(self) -> bool:
        return self._closing.is_set()

    def acknowledge(self, connection: int, mid: int) -> bool:
        """False: that connection is gone; the broker will send the message again."""
        with self._lock:  # paho clears its queue when it connects again, and must not find us in it
            if not self._up or connection != self._connection:
                return False
            self._client.ack(mid, _QOS)
            return True

    # In paho's thread.

    def wait(self) -> None:
        """Before an attempt to connect: full jitter, so that many gateways do not come back in step. Raises OSError to end it."""
        attempts, self._attempts = self._attempts, self._attempts + 1
        if attempts:
            longest = min(self._config.longest_backoff_s, _SHORTEST_BACKOFF_S * 2 ** min(attempts, 20))
            if self._closing.wait(random.uniform(0, longest)):
                raise ConnectionAbortedError("closing")

    def trouble(self, what: str) -> None:
        """Told once, until it changes or is over."""
        if what and what != self._trouble and not self.closing:
            log.error("broker %s: %s", self._name, what)
        self._trouble = what

    def down(self) -> None:
        with self._lock:
            was, self._up = self._up, False
        self._read.set()  # or never
        if was:
            self._listener.lost()

    def _on_connect(self, client: Client, _: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None) -> None:
        if reason.is_failure:
            self._listener.refused()
            self.trouble(refusal(reason))
            return
        first = self._connection == 0
        with self._lock:
            self._connection += 1
            self._up = True
            self._read.clear()
        self._attempts = 1  # a broker that takes us in and throws us out is not asked in a tight loop
        self._listener.connected(self._connection, flags.session_present)
        if not (first or flags.session_present):
            log.warning("broker %s: it has not kept our session; what it held for us then is gone", self._name)
        if self._trouble or first:
            log.info("broker %s: connected", self._name)
        self.trouble("")
        if not (self._granted and flags.session_present):
            # Once a process, as the filters may have changed; then only a session that is new needs it. Each time a 3.1.1 broker
            # sends what it retains anew; one of version 5 only for a filter that is new to it.
            client.subscribe(self._client.filters)
        else:
            self._listener.subscribed()

    def _on_subscribe(self, client: Client, _: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None) -> None:
        for topic_filter, reason in zip(self._config.subscriptions, reasons, strict=False):
            if reason.is_failure:
                self.trouble(f"it refuses the subscription to {topic_filter}: {refusal(reason)}")
            elif reason.value < _QOS:
                self.trouble(f"it grants {topic_filter} with QoS 0 only; messages may be lost before they reach us")
        self._granted = not self._trouble
        if self._granted:
            self._listener.subscribed()

    def _on_unsubscribe(self, client: Client, _: Any, mid: int, reasons: list[ReasonCode], properties: Properties | None) -> None:
        self._read.set()

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        self._listener.arrived(self._connection, message)

    def _on_disconnect(
        self, client: Client, _: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        answered = self._up
        self.down()
        if reason.is_failure and not self._trouble:  # after a refusal there is nothing to add
            self.trouble(refusal(reason) if answered else unanswered(self._config))


class _Client(Client):
    """paho's, with our way of waiting between attempts, and with the reason why one failed."""

    def __init__(self, broker: Broker | None, config: Config, client_id: str) -> None:
        """Raises ConfigurationError."""
        version = MQTTProtocolVersion.MQTTv5 if config.version == "5" else MQTTProtocolVersion.MQTTv311
        session = None if config.version == "5" else broker is None
        super().__init__(CallbackAPIVersion.VERSION2, client_id, session, protocol=version, manual_ack=True)
        self._ours, self._config = broker, config
        self.connect_timeout = config.connect_timeout_s
        self.reconnect_delay_set(0, 0)  # we wait ourselves
        self.filters: Any = [(topic_filter, _QOS) for topic_filter in config.subscriptions]
        if config.version == "5":
            options = SubscribeOptions(_QOS, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            self.filters = [(topic_filter, options) for topic_filter in config.subscriptions]
        if config.username or config.password or config.password_file:
            self.username_pw_set(config.username, _password(config))
        if config.tls:
            self.tls_set_context(_tls(config))  # pyright: ignore[reportUnknownMemberType]

    def prepare(self, clean: bool) -> None:
        host, port = self._config.address
        if self._config.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = min(self._config.in_flight, 65_535)
            if not clean:
                properties.SessionExpiryInterval = self._config.session_expiry_s
            self.connect_async(host, port, self._config.keepalive_s, clean_start=clean, properties=properties)
        else:
            self.connect_async(host, port, self._config.keepalive_s)

    def reconnect(self) -> MQTTErrorCode:
        if self._ours is None:
            return super().reconnect()
        self._ours.wait()
        try:
            return super().reconnect()
        except OSError as error:
            self._ours.trouble(unreachable(error))
            raise

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """The thread. What a broker sends must not end it."""
        while True:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except Exception as error:
                if self._ours is None or self._ours.closing:
                    return MQTTErrorCode.MQTT_ERR_UNKNOWN
                self._ours.down()
                self._ours.trouble(f"it sent what cannot be understood: {error!r}")
                log.debug("what could not be understood", exc_info=True)
                try:
                    self.reconnect()
                except OSError:
                    continue


def checked(config: Config) -> Config:
    """Raises ConfigurationError."""
    if not config.broker:
        raise ConfigurationError("mqtt_bridge: broker is empty; it is the host name of your broker")
    for name, least in {
        "in_flight": 1,
        "keepalive_s": 1,
        "session_expiry_s": 0,
        "longest_backoff_s": 0,
        "retry_s": 0,
        "port": 0,
    }.items():
        if getattr(config, name) < least:
            raise ConfigurationError(f"mqtt_bridge: {name} = {getattr(config, name)}; it must be at least {least}")
    for topic_filter in config.filters:
        check_filter(topic_filter)
        if not topic_filter.startswith("spoorway/"):
            raise ConfigurationError(
                f"mqtt_bridge: {topic_filter} does not begin with spoorway/; name it in topics, with its path"
            )
    if not (config.filters or config.topics):
        raise ConfigurationError("mqtt_bridge: both filters and topics are empty, there is nothing to subscribe to")
    if set(config.group) & set("/+#"):
        raise ConfigurationError(f"mqtt_bridge: group = {config.group!r}; it must hold no / + #")
    if bool(config.tls_certificate) != bool(config.tls_key):
        raise ConfigurationError("mqtt_bridge: tls_certificate and tls_key belong together")
    if not config.tls and (config.tls_ca or config.tls_certificate):
        raise ConfigurationError("mqtt_bridge: there are files for TLS, but tls = false")
    return config


def check(config: Config) -> str:
    """Connects once, beside a gateway that may run: what is wrong, "" = nothing. Raises ConfigurationError."""
    client = _Client(None, checked(config), f"{config.client_id or socket.gethostname()}-doctor")
    answers: list[str] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.append(
        refusal(reason) if reason.is_failure else ""
    )
    client.on_disconnect = lambda _client, _data, _flags, _reason, _properties: answers.append(unanswered(config))
    try:
        client.prepare(clean=True)
        client.reconnect()
        end = time.monotonic() + config.connect_timeout_s
        while not answers and time.monotonic() < end and client.loop(0.1) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass
    except OSError as error:
        return unreachable(error)
    client.disconnect()
    return answers[0] if answers else "it does not answer"


def refusal(reason: ReasonCode) -> str:
    """In words, with the next step."""
    name = str(reason)
    if name in ("Unspecified error", "Keep alive timeout"):  # what paho makes of a connection that broke
        return "the connection broke"
    step = _NEXT_STEPS.get(name)
    return f"it says {name!r}" + (f"; {step}" if step else "")


def unanswered(config: Config) -> str:
    """In words, with the next step: of a connection that broke before the broker said anything."""
    step = "it may want tls_certificate and tls_key" if config.tls and not config.tls_certificate else "check port and tls"
    return f"it closed the connection without an answer; {step}"


def unreachable(error: OSError) -> str:
    """In words, with the next step."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; set tls_ca, or the name the certificate is for as broker"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with it: {error.reason or error}; check port, tls and tls_certificate"
    if isinstance(error, TimeoutError):
        return "it does not answer; check broker and port"
    return f"{error.strerror or error}; check broker, port and tls"


class _Socket(ssl.SSLSocket):
    """paho leaves one open whose handshake failed."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _password(config: Config) -> str:
    if not config.password_file:
        return config.password
    try:
        return Path(config.password_file).expanduser().read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"mqtt_bridge: password_file {config.password_file}: {error}") from None


def _tls(config: Config) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.tls_ca or None)
        context.sslsocket_class = _Socket
        if config.tls_certificate:
            context.load_cert_chain(config.tls_certificate, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"mqtt_bridge: tls_ca, tls_certificate or tls_key cannot be read: {error}") from None
    return context
