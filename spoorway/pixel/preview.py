"""An email's HTML -> a picture of it, drawn by Chromium: with and without pictures, in light and dark.

Nothing is counted by it: our own pixels are taken out before, and scripts do not run.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from spoorway.pixel.events import PixelError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
_LONGEST_S = 60
_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_DOCTYPE = re.compile(r"\s*<!doctype[^>]*>", re.IGNORECASE)
_HEAD = '<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
_OURS = re.compile(r"[?&]tv=pixel-")


def preview(
    mail: str, picture: Path, *, images: bool = True, dark: bool = False, width: int = 640, height: int = 1_000, browser: str = ""
) -> None:
    """picture: the PNG file to write. Raises PixelError, code browser, where there is none or it fails."""
    program = browser or next((found for name in BROWSERS if (found := shutil.which(name))), "")
    if not program:
        raise PixelError("browser", f"a preview needs one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory(prefix="spoorway-preview-") as folder:
        page = Path(folder, "mail.html")
        page.write_text(harmless(mail), "utf-8")
        command = [
            program,
            "--headless",
            "--no-sandbox",  # as root there is none; nothing but this page is opened, and it may not run scripts
            "--disable-gpu",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--user-data-dir={folder}/profile",
            f"--window-size={width},{height}",
            # 0 is dark, 1 is light: what @media (prefers-color-scheme) answers.
            f"--blink-settings=imagesEnabled={str(images).lower()},preferredColorScheme={int(not dark)}",
            f"--screenshot={picture.resolve()}",
            page.as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LONGEST_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PixelError("browser", f"{program}: {error}") from None
    if done.returncode or not picture.exists():
        raise PixelError("browser", f"{program}: {done.stderr.decode('utf-8', 'replace')[-300:]}")


def harmless(mail: str) -> str:
    """Without our pixels, with scripts forbidden, and said to be the UTF-8 that it is."""
    uncounted = _IMAGE.sub(lambda found: "" if _OURS.search(html.unescape(found[0])) else found[0], mail)
    doctype = _DOCTYPE.match(uncounted)
    start = doctype.end() if doctype else 0  # before it, the page would be drawn by the rules of the nineties
    return uncounted[:start] + _HEAD + uncounted[start:]
