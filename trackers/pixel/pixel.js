/*! @spoorway/pixel 1.0.0, Apache-2.0 */
/**
 * Events in URLs, for what runs no script: emails, AMP, pages without JavaScript, QR codes. Builds text and sends nothing.
 * Runs in Node 20 and later, on edge workers and in browsers; never take a signing key into a browser. The same arguments give
 * the same URL as in Python (spoorway.pixel). The specification is README.md.
 */

export const VERSION = "pixel-1.0.0";
export const LONGEST = 2048;

const TAG_LENGTH = 64;
const SIGNED = 16;
const PLATFORMS = ["web", "mob", "pc", "srv", "app", "tv", "cnsl", "iot", "headset"];
const IGLU = "iglu:com.snowplowanalytics.";
const ENDPOINT = /^https?:\/\/[A-Za-z0-9.[\]:_-]+(?:\/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$/;
const PATH = /^\/[A-Za-z0-9._~/-]+$/;
const HOST = String.raw`(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?`;
const TARGET = new RegExp(String.raw`^[Hh][Tt][Tt][Pp][Ss]?://${HOST}(?:[/?#](?:[A-Za-z0-9._~:/?#[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?$`);
const UNSUBSCRIBE = /unsub|opt-?out|list-?manage|preference-?cent|manage-?preferences/i;

/** code: one word that stays the same; the message is for people. */
export class PixelError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "PixelError";
    this.code = code;
  }
}

const BRACES = /\{\{[^{}]*\}\}|\{%[^{}]*%\}/g;

/** The merge tags of mail services: how they look, and which to use; "" where there is none that we know for certain. */
export const PROVIDERS = {
  mailchimp: { pattern: /\*\|[A-Za-z0-9_:]+\|\*/g, campaign: "*|CAMPAIGN_UID|*", message: "", recipient: "*|UNIQID|*" },
  sendgrid: { pattern: BRACES, campaign: "{{campaign_id}}", message: "{{message_id}}", recipient: "{{recipient_id}}" },
  brevo: {
    pattern: BRACES,
    campaign: "{{ params.campaign_id }}",
    message: "{{ params.message_id }}",
    recipient: "{{ contact.EXT_ID }}",
  },
  hubspot: { pattern: BRACES, campaign: "", message: "", recipient: "{{ contact.hs_object_id }}" },
  klaviyo: { pattern: BRACES, campaign: "", message: "", recipient: "{{ person.external_id }}" },
  jinja: {
    pattern: BRACES,
    campaign: "{{ campaign|urlencode }}",
    message: "{{ message|urlencode }}",
    recipient: "{{ recipient|urlencode }}",
  },
};

const given = (values) =>
  Object.fromEntries(
    Object.entries(values)
      .filter(([, value]) => value !== undefined && value !== null && value !== "")
      .map(([name, value]) => [name, String(value)]),
  );

const needed = (text, name) => {
  if (!text) throw new PixelError("missing", `${name} is needed`);
  return text;
};

// Events: { parameters, data }. Verbs and what they refuse are those of every tracker.

export const pageView = (url, title, referrer) => ({
  parameters: { e: "pv", url: needed(url, "url"), ...given({ page: title, refr: referrer }) },
});

export const pagePing = (url, title, referrer, minX, maxX, minY, maxY) => ({
  parameters: {
    ...pageView(url, title, referrer).parameters,
    e: "pp",
    ...given({ pp_mix: minX, pp_max: maxX, pp_miy: minY, pp_may: maxY }),
  },
});

export const screenView = (name, id, type, previousName, previousId, previousType, transitionType) =>
  selfDescribing(`${IGLU}mobile/screen_view/jsonschema/1-0-0`, {
    id: needed(id, "id"),
    name: needed(name, "name"),
    ...given({ type, previousName, previousId, previousType, transitionType }),
  });

/** value: a number, or its text, which is sent as it stands. */
export const structured = (category, action, label, property, value) => ({
  parameters: {
    e: "se",
    se_ca: needed(category, "category"),
    se_ac: needed(action, "action"),
    ...given({ se_la: label, se_pr: property, se_va: value }),
  },
});

export const selfDescribing = (schema, data) => ({
  parameters: { e: "ue" },
  data: { schema: needed(schema, "schema"), data },
});

export const timing = (category, variable, timingMs, label) =>
  selfDescribing(`${IGLU}snowplow/timing/jsonschema/1-0-0`, {
    category: needed(category, "category"),
    variable: needed(variable, "variable"),
    timing: timingMs,
    ...given({ label }),
  });

const copy = ({ campaign, message, recipient, sentMs }) => ({
  ...given({ campaign, message, recipient }),
  ...(sentMs === undefined ? {} : { sent_ms: sentMs }),
});

/** message: one text per copy that is sent. recipient: a name of your own for the reader, no address. */
export const emailOpen = (email = {}) => selfDescribing("iglu:io.spoorway/email_open/jsonschema/1-0-0", copy(email));

/** link: what you call it. honeypot: no reader sees it. */
export const emailClick = (email = {}) =>
  selfDescribing("iglu:io.spoorway/email_click/jsonschema/1-0-0", {
    ...copy(email),
    ...given({ link: email.link }),
    ...(email.honeypot ? { honeypot: true } : {}),
  });

const base64url = (bytes) => {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
};

const checked = (_, value) => {
  if (typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value)))
    throw new PixelError("number", `no JSON: ${value}`);
  return value;
};

export class Pixel {
  /**
   * endpoint: the gateway as readers reach it, without a slash at the end. options: appId, namespace, platform ("web"), key (bytes;
   * without it links are not signed), provider, openPath ("/i"), clickPath ("/r/tp2"), base64 (undefined = whichever is shorter),
   * longest (2048).
   */
  constructor(endpoint, options = {}) {
    const { appId = "", namespace = "", platform = "web", key, provider = "" } = options;
    const { openPath = "/i", clickPath = "/r/tp2", base64, longest = LONGEST } = options;
    if (!PLATFORMS.includes(platform)) throw new PixelError("platform", `no platform ${platform}; there are ${PLATFORMS.join(", ")}`);
    if (!ENDPOINT.test(endpoint) || !PATH.test(openPath) || !PATH.test(clickPath))
      throw new PixelError("endpoint", `${endpoint}: expected https://HOST, without a slash at the end, and paths like /i`);
    if (provider && !Object.hasOwn(PROVIDERS, provider))
      throw new PixelError("provider", `no mail service ${provider}; there are ${Object.keys(PROVIDERS).join(", ")}`);
    Object.assign(this, { endpoint, appId, namespace, platform, key, openPath, clickPath, base64, longest });
    this.pattern = provider ? PROVIDERS[provider].pattern : null;
  }

  /** The address of a picture of one transparent pixel. more: entities, trueMs, eventId, parameters. */
  open(event, more = {}) {
    return this.#url(this.openPath, {}, event, more);
  }

  /** A promise of a link that leads to `target` and records that it was followed; without an event, as a uri_redirect. */
  async click(target, event = { parameters: {} }, more = {}) {
    if (UNSUBSCRIBE.test(target))
      throw new PixelError("unsubscribe", `${target}: a link to unsubscribe must not depend on us; leave it as it is`);
    if (this.#tags(target).length) throw new PixelError("target", `${target}: a target with a merge tag cannot be signed`);
    if (!TARGET.test(target))
      throw new PixelError("target", `${target}: expected http or https, in ASCII, percent-encoded, without a user`);
    const first = { u: target };
    if (this.key) {
      const key = await crypto.subtle.importKey("raw", this.key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
      const tag = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(target));
      first.sig = base64url(new Uint8Array(tag, 0, SIGNED));
    }
    return this.#url(this.clickPath, first, event, more);
  }

  #url(path, first, event, { entities = [], trueMs, eventId, parameters = {} }) {
    const known = { ...first, ...event.parameters };
    if (event.data) this.#put(known, "ue_pr", "ue_px", { schema: `${IGLU}snowplow/unstruct_event/jsonschema/1-0-0`, data: event.data });
    if (entities.length) this.#put(known, "co", "cx", { schema: `${IGLU}snowplow/contexts/jsonschema/1-0-1`, data: entities });
    Object.assign(known, given({ aid: this.appId, p: this.platform, tna: this.namespace, tv: VERSION, eid: eventId, ttm: trueMs }), parameters);
    const query = Object.entries(known).map(([name, value]) => `${name}=${this.#quoted(value)}`).join("&");
    const url = `${this.endpoint}${path}?${query}`;
    const tags = Object.values(known).flatMap((value) => this.#tags(value));
    const length = tags.reduce((sum, tag) => sum + Math.max(0, TAG_LENGTH - tag.length), url.length);
    if (length > this.longest)
      throw new PixelError("too_long", `${length} characters, ${this.longest} is the most: say less in the event or its entities`);
    return url;
  }

  #put(known, plain, encoded, value) {
    const text = JSON.stringify(value, checked);
    const quoted = this.#quoted(text);
    if (this.#tags(text).length || this.base64 === false) {
      known[plain] = text;
      return;
    }
    const base64 = base64url(new TextEncoder().encode(text));
    if (this.base64 || base64.length < quoted.length) known[encoded] = base64;
    else known[plain] = text;
  }

  #tags(text) {
    return this.pattern ? text.match(this.pattern) ?? [] : [];
  }

  #quoted(text) {
    const tags = this.#tags(text);
    if (tags.some((tag) => /["\\&#]/.test(tag))) throw new PixelError("tag", 'a merge tag in a URL must not hold ", \\, & or #');
    const pieces = tags.length ? text.split(this.pattern) : [text];
    try {
      return pieces.map((piece, place) => percent(piece) + (tags[place] ?? "")).join("");
    } catch {
      throw new PixelError("text", "half of a surrogate pair is no text");
    }
  }
}

const percent = (text) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`);

// What is pasted. It looks like nothing with images on and off, in light and dark, and to a screen reader.

const attribute = (url) => url.replace(/&/g, "&amp;").replace(/"/g, "&quot;");
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

export const pixelTag = (url) =>
  `<img src="${attribute(url)}" width="1" height="1" alt="" role="presentation" referrerpolicy="no-referrer"` +
  ' style="display:block;width:1px;height:1px;border:0;margin:0;padding:0;background:transparent">';

export const noscript = (url) => `<noscript>${pixelTag(url)}</noscript>`;

export const amp = (url) =>
  `<amp-pixel src="${attribute(url)}" layout="nodisplay" referrerpolicy="no-referrer"></amp-pixel>`;

export const link = (url, text, colour = "") => {
  if (colour && !/^#[0-9A-Fa-f]{6}$/.test(colour)) throw new PixelError("text", `${colour}: expected a colour such as #0b57d0`);
  return `<a href="${attribute(url)}" rel="noreferrer"${colour ? ` style="color:${colour}"` : ""}>${escaped(text)}</a>`;
};

export const honeypot = (url) =>
  '<div aria-hidden="true" style="display:none;max-height:0;overflow:hidden;mso-hide:all">' +
  `<a href="${attribute(url)}" tabindex="-1" rel="nofollow noreferrer" style="display:none;mso-hide:all">&#8203;</a></div>`;
