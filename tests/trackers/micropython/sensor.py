"""A board with the tracker: makes events, tries to send them, ends. Runs in MicroPython and CPython.

argv: the package's folder or an image of a ROMFS, the queue's folder, the link (http, mqtt, uart, tls), its URL, a key or
password or "", how many events, how long it tries in ms, the name of the device.
Standard error: a line of JSON. uart: the port is standard input and output.
"""

import json
import sys

if sys.argv[1].endswith(".romfs"):
    import vfs

    with open(sys.argv[1], "rb") as file:
        image = file.read()
    vfs.mount(vfs.VfsRom(image), "/rom")
    sys.path.insert(0, "/rom/lib")  # as a board's firmware does
else:
    sys.path.insert(0, sys.argv[1])
from spoor.files import Files
from spoor.verbs import Tracker

_, _, folder, kind, url, secret, count, tries_ms, name = sys.argv


class Port:
    """Standard input and output as machine.UART is: a read that does not wait."""

    def __init__(self):
        import select

        self.ready = select.poll()
        self.ready.register(sys.stdin, select.POLLIN)

    def read(self, size):
        data = b""
        while len(data) < size and self.ready.poll(0):
            byte = sys.stdin.buffer.read(1)
            if not byte:
                break
            data += byte
        return data or None

    def write(self, data):
        n = sys.stdout.buffer.write(data)
        if hasattr(sys.stdout, "flush"):
            sys.stdout.flush()
        return n


if kind == "tls":  # secret: the file of the certificate authority
    from spoor.http import Http
    from spoor.mqtt import Mqtt

    if sys.implementation.name == "cpython":
        import ssl

        context = ssl.create_default_context(cafile=secret or None)
    else:
        import tls

        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_REQUIRED
        if secret:
            with open(secret, "rb") as file:
                context.load_verify_locations(file.read())
    link = (Mqtt if url[0] == "m" else Http)(url, tls=context)
elif kind == "http":
    from spoor.http import Http

    link = Http(url, bytes.fromhex(secret) if secret else None)
elif kind == "mqtt":
    from spoor.mqtt import Mqtt

    link = Mqtt(url, secret, will=("tp1", b"e=se&se_ca=board&se_ac=will&p=iot&tv=mpy-1.0.0"))
else:
    if hasattr(sys.stdin.buffer, "raw"):
        sys.stdin = open(0, "rb", 0, closefd=False)  # noqa: SIM115
        sys.stdin.buffer = sys.stdin
    from spoor.uart import Uart

    link = Uart(Port(), bytes.fromhex(secret) if secret else None)
tracker = Tracker(link, "garden", name, Files(folder))
ids = [tracker.track_structured("air", "read", property="celsius", value=20.5 + n) for n in range(int(count))]
ids.append(tracker.track_self_describing("iglu:com.snowplowanalytics.snowplow/link_click/jsonschema/1-0-1", {"targetUrl": "ü"}))
empty = tracker.close(int(tries_ms))
facts = {"ids": ids, "empty": empty, "sent": tracker.sent, "reason": tracker.reason, "boot": tracker.boot, "clock": tracker.clock}
facts["refused"] = tracker.refused
facts["errors"] = tracker.queue.errors
print(json.dumps(facts), file=sys.stderr)
