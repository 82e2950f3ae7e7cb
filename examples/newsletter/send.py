"""A newsletter whose openings and clicks are counted: one copy for each reader of readers.csv, as .eml files or to a mail server.

    spoorway redirect key redirect.keys          # name it as redirects.key_file in spoorway.toml, then: spoorway run
    python examples/newsletter/send.py http://127.0.0.1:8080 --key-file redirect.keys --out letters
    python examples/newsletter/send.py https://track.example.com --key-file redirect.keys --smtp 127.0.0.1:25

Needs nothing but spoorway. A copy is known by a random number; its reader by the number in readers.csv, never by the address.
"""

from __future__ import annotations

import argparse
import csv
import smtplib
import time
import uuid
from collections.abc import Iterator
from email.message import EmailMessage
from html import escape
from pathlib import Path
from string import Template

from spoorway.pixel import Pixel
from spoorway.pixel.mail import Copy, decorate

HERE = Path(__file__).parent
CAMPAIGN = "spring-letter"
PICTURE = "https://example.com/pictures/seedlings.png"


def letters(pixel: Pixel, picture: str) -> Iterator[EmailMessage]:
    """One for each reader."""
    page = Template((HERE / "newsletter.html").read_text("utf-8"))
    with (HERE / "readers.csv").open(encoding="utf-8", newline="") as readers:
        for reader in csv.DictReader(readers):
            copy = Copy(CAMPAIGN, uuid.uuid4().hex, reader["number"], time.time_ns() // 1_000_000)
            html = page.substitute(name=escape(reader["name"]), reader=reader["number"], picture=picture)
            letter = EmailMessage()
            letter["From"] = "Glass & Loam <letter@example.com>"
            letter["To"] = reader["address"]
            letter["Subject"] = f"Seedlings are ready, {reader['name']}"
            letter["Message-ID"] = f"<{copy.message}@example.com>"
            # One click, by the mail program itself (RFC 8058): it goes straight to whoever keeps the list.
            letter["List-Unsubscribe"] = f"<https://example.com/unsubscribe?reader={reader['number']}>"
            letter["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
            letter.set_content("Seedlings are ready: https://example.com/shop\nUnsubscribe: https://example.com/unsubscribe\n")
            letter.add_alternative(decorate(html, pixel, copy).html, subtype="html")
            yield letter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the gateway as readers reach it")
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--picture", default=PICTURE)
    parser.add_argument("--out", type=Path, help="a folder for .eml files")
    parser.add_argument("--smtp", metavar="HOST:PORT", help="a mail server")
    args = parser.parse_args()
    key = bytes.fromhex(args.key_file.read_text().split()[0])
    pixel = Pixel(args.url.rstrip("/"), "newsletter", key=key)
    made = list(letters(pixel, args.picture))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for number, letter in enumerate(made, 1):
            (args.out / f"{number}.eml").write_bytes(letter.as_bytes())
    if args.smtp:
        host, _, port = args.smtp.rpartition(":")
        with smtplib.SMTP(host, int(port), timeout=30) as server:
            for letter in made:
                server.send_message(letter)
    print(f"{len(made)} letters")


if __name__ == "__main__":
    main()
