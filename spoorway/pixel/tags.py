"""The merge tags of mail services: how they look, and which ones name the campaign, the copy and the reader.

A tag stays in a URL as it is written, because the service replaces it as it sends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    """pattern: a tag of the service. The others: the tags to use; "" where the service has none that we know for certain."""

    pattern: re.Pattern[str]
    campaign: str = ""
    message: str = ""
    recipient: str = ""


_BRACES = re.compile(r"\{\{[^{}]*\}\}|\{%[^{}]*%\}")

PROVIDERS: dict[str, Provider] = {
    "mailchimp": Provider(re.compile(r"\*\|[A-Za-z0-9_:]+\|\*"), "*|CAMPAIGN_UID|*", "", "*|UNIQID|*"),
    # Of the next four, campaign and copy are names that you hand to the service, or fields that you add to its contacts.
    "sendgrid": Provider(_BRACES, "{{campaign_id}}", "{{message_id}}", "{{recipient_id}}"),
    "brevo": Provider(_BRACES, "{{ params.campaign_id }}", "{{ params.message_id }}", "{{ contact.EXT_ID }}"),
    "hubspot": Provider(_BRACES, "", "", "{{ contact.hs_object_id }}"),
    "klaviyo": Provider(_BRACES, "", "", "{{ person.external_id }}"),
    "jinja": Provider(_BRACES, "{{ campaign|urlencode }}", "{{ message|urlencode }}", "{{ recipient|urlencode }}"),
}
