"""URL -> what is pasted: markup for emails, pages without scripts and AMP, and QR codes.

Markup is written so that it looks the same, namely like nothing, with images on and off, in light and dark, and to a screen
reader. Every text is escaped here.
"""

from __future__ import annotations

import re

from spoorway.pixel.events import PixelError

_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


def pixel_tag(url: str) -> str:
    """For the end of an email's body.

    An empty alt: nothing is drawn or read out where pictures are off. No display:none: some programs then fetch nothing.
    Neither background nor border, so that no dark mode has anything to turn round.
    """
    return (
        f'<img src="{attribute(url)}" width="1" height="1" alt="" role="presentation" referrerpolicy="no-referrer"'
        ' style="display:block;width:1px;height:1px;border:0;margin:0;padding:0;background:transparent">'
    )


def noscript(url: str) -> str:
    """For a page whose reader runs no scripts."""
    return f"<noscript>{pixel_tag(url)}</noscript>"


def amp(url: str) -> str:
    """For AMP pages; AMP adds nothing to the address. AMP for email has no such element: there pixel_tag's own is taken."""
    return f'<amp-pixel src="{attribute(url)}" layout="nodisplay" referrerpolicy="no-referrer"></amp-pixel>'


def link(url: str, text: str, colour: str = "") -> str:
    """colour: such as #0b57d0; without it the mail program's own, which its dark mode knows how to show."""
    if colour and not _COLOUR.fullmatch(colour):
        raise PixelError("text", f"{colour!r}: expected a colour such as #0b57d0")
    style = f' style="color:{colour}"' if colour else ""
    return f'<a href="{attribute(url)}" rel="noreferrer"{style}>{_escaped(text)}</a>'


def honeypot(url: str) -> str:
    """A link that no reader sees, reaches by keyboard or hears: whoever follows it follows every link."""
    return (
        f'<div aria-hidden="true" style="display:none;max-height:0;overflow:hidden;mso-hide:all">'
        f'<a href="{attribute(url)}" tabindex="-1" rel="nofollow noreferrer" style="display:none;mso-hide:all">&#8203;</a></div>'
    )


def qr(url: str, scale: int = 4) -> str:
    """An SVG picture of a QR code with its quiet zone, black on white. Needs the package segno. Raises PixelError."""
    try:
        from segno import make_qr
    except ImportError:
        raise PixelError("missing", "QR codes need the package segno: pip install 'spoorway[qr]'") from None
    code = make_qr(url, error="m", boost_error=False)
    picture: str = code.svg_inline(scale=scale, light="#ffffff", dark="#000000", border=4, svgclass=None, lineclass=None)
    return picture


def attribute(url: str) -> str:
    return url.replace("&", "&amp;").replace('"', "&quot;")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
