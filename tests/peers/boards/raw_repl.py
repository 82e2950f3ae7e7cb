# A board's REPL for the genuine MicroPython interpreter, whose Unix port has none that tools can speak to: raw mode and a reset.
# Runs in MicroPython, in the folder that is the board's file system. Without an argument it offers the REPL; `main` runs main.py.
import sys

RESTART = 64  # exit code: start me again, with main.py
PROMPT = b"raw REPL; CTRL-B to exit\r\n>"


class Machine:
    def reset(self):
        sys.exit(RESTART)


sys.path.insert(0, "")
wire, say = sys.stdin.buffer, sys.stdout.buffer.write


def raw():
    names = {"__name__": "__main__"}
    source = b""
    say(PROMPT)
    while True:
        byte = wire.read(1)
        if byte == b"\x02" or not byte:
            return
        if byte == b"\x01":
            source = b""
            say(PROMPT)
        elif byte == b"\x05":  # "can you take pasted text?"
            wire.read(2)
            say(b"R\x00")
        elif byte == b"\x04":
            say(b"OK")
            try:
                exec(source.strip(), names)
                say(b"\x04")
            except Exception as error:
                say(b"\x04")
                sys.print_exception(error, sys.stdout)
            say(b"\x04>")
            source = b""
        elif byte != b"\x03":
            source += byte


if sys.argv[1:] == ["main"]:
    import main  # noqa: F401
sys.modules["machine"] = Machine()
say(b"MicroPython\r\n>>> ")
while wire:
    byte = wire.read(1)
    if not byte:
        break
    if byte == b"\x01":
        raw()
        say(b"\r\nMicroPython\r\n>>> ")
