"""The newsletter of the example in a real Chromium without scripts: what it fetches, what a click does, and how it looks.

Pictures are looked at by their pixels: nothing of ours may be seen, with images on or off, in light or dark.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from spoorway.pixel import Pixel, email_open, noscript, page_view
from spoorway.pixel.mail import Copy, decorate
from spoorway.pixel.preview import preview
from tests.peers.browser_peer import ARGUMENTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.peers import programs

    if not Path(programs.CHROMIUM).is_file():
        programs.missing("chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=programs.CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture
def running(start: Callable[..., Any], tmp_path: Path) -> Any:
    keys, config = tmp_path / "redirect.keys", tmp_path / "spoorway.toml"
    keys.write_text("5a" * 32 + "\n")
    config.write_text(f'[gateway.transports.http.redirects]\nkey_file = "{keys}"\n')
    return start("--config", str(config))


def letters(url: str, folder: Path) -> list[str]:
    """The HTML of the example's letters, as they would arrive."""
    example = [sys.executable, str(ROOT / "examples/newsletter/send.py"), url, "--out", str(folder / "letters")]
    subprocess.run([*example, "--key-file", str(folder / "redirect.keys")], check=True, capture_output=True, timeout=60)
    files = sorted((folder / "letters").glob("*.eml"))
    mails = [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]
    return [mail.get_body(("html",)).get_content() for mail in mails]


def test_a_letter_is_opened_and_followed_without_scripts(running: Any, tmp_path: Path, browser: Browser) -> None:
    ada, bjoern, chiara = letters(running.url, tmp_path)
    reached: list[str] = []

    def elsewhere(route: Any) -> None:
        reached.append(route.request.url)
        route.fulfill(status=200, body="there", content_type="text/html")

    context = browser.new_context(java_script_enabled=False)
    context.route("https://example.com/**", elsewhere)
    page = context.new_page()
    page.set_content(ada)
    page.wait_for_load_state("networkidle")
    page.get_by_text("the March guide").click()
    page.wait_for_url("https://example.com/guides/march")
    # The link that nobody sees: not shown, not read out, not reached by keyboard.
    page = context.new_page()
    page.set_content(chiara)
    page.wait_for_load_state("networkidle")
    assert sorted(link.inner_text() for link in page.get_by_role("link").all()) == [
        "See the seedlings",
        "Unsubscribe",
        "the March guide",
    ]
    assert page.get_by_role("img").count() == 1  # the seedlings, not the pixel
    context.close()
    # Images off: nothing is fetched, so nothing is counted.
    context = browser.new_context(java_script_enabled=False)
    context.route("**/*", lambda route: route.abort() if route.request.resource_type == "image" else route.continue_())
    page = context.new_page()
    page.set_content(bjoern)
    page.wait_for_load_state("networkidle")
    context.close()

    running.wait(3)
    opens = running.query(
        "SELECT app_id, campaign, recipient, label, rule, seconds_after_sending AS s FROM atomic.email_opens ORDER BY 3"
    )
    assert [(row["app_id"], row["campaign"], row["recipient"]) for row in opens] == [
        ("newsletter", "spring-letter", "1001"),
        ("newsletter", "spring-letter", "1003"),
    ]
    # Chromium without a screen, seconds after sending: a machine, and it is called one.
    assert {row["label"] for row in opens} == {"scanner"} and all("HeadlessChrome" in row["rule"] for row in opens)
    (click,) = running.query("SELECT link, target, recipient, label FROM atomic.email_clicks")
    assert (click["link"], click["target"], click["recipient"]) == ("guide", "https://example.com/guides/march", "1001")
    assert "https://example.com/guides/march" in reached


def test_a_page_without_scripts_counts_and_one_with_scripts_does_not(running: Any, browser: Browser) -> None:
    pixel = Pixel(running.url, "site")
    for enabled in (False, True):
        context = browser.new_context(java_script_enabled=enabled)
        page = context.new_page()
        page.set_content(f"<p>x</p>{noscript(pixel.open(page_view(f'https://shop.example/{enabled}', 'é')))}")
        page.wait_for_load_state("networkidle")
        context.close()
    running.wait(1)
    assert running.query("SELECT page_url, page_title, v_tracker FROM atomic.events") == [
        {"page_url": "https://shop.example/False", "page_title": "é", "v_tracker": "pixel-1.0.0"}
    ]


def corner(browser: Browser, picture: bytes) -> list[int]:
    """Red, green and blue of its first pixel, decoded by the browser: no library of pictures is needed."""
    page = browser.new_page()
    found: list[int] = page.evaluate(
        """async (source) => { const image = new Image(); image.src = 'data:image/png;base64,' + source; await image.decode();
        const context = new OffscreenCanvas(1, 1).getContext('2d');
        context.drawImage(image, 0, 0); return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3) }""",
        base64.b64encode(picture).decode(),
    )
    page.close()
    return found


@pytest.mark.parametrize(("images", "dark"), [(True, False), (False, True)], ids=["images-light", "no-images-dark"])
def test_our_parts_of_a_letter_cannot_be_seen(browser: Browser, tmp_path: Path, images: bool, dark: bool) -> None:
    page = (
        (ROOT / "examples/newsletter/newsletter.html").read_text("utf-8").replace("$picture", "data:,").replace("${name}", "Ada")
    )
    done = decorate(page, Pixel("https://track.example.com", key=bytes(16)), Copy("spring", "1")).html
    assert done != page
    shown: dict[str, bytes] = {}
    for name, text in (("plain", page), ("counted", done.replace("tv=pixel-", "tv=px-"))):  # else the preview takes the pixel out
        file = tmp_path / f"{name}.png"
        preview(text, file, images=images, dark=dark, width=375, height=700)
        shown[name] = file.read_bytes()
    assert shown["plain"] == shown["counted"]
    assert (sum(corner(browser, shown["plain"])) < 200) is dark


def test_the_preview_command_saves_a_picture(tmp_path: Path) -> None:
    mail = tmp_path / "mail.html"
    mail.write_text(noscript(Pixel("https://track.example.com").open(email_open("c"))))
    command = [sys.executable, "-m", "spoorway", "pixel", "preview", str(mail), "--dark", "--images", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (tmp_path / "mail.png").read_bytes().startswith(b"\x89PNG") and done.stdout.strip() == str(tmp_path / "mail.png")
    missing = subprocess.run([*command, "--browser", "/nonexistent"], capture_output=True, text=True, timeout=60)
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1
