// The JavaScript pixel builder's side of a vector run: cases on stdin, the query strings of the URLs on stdout.
import { createInterface } from "node:readline";
import { Pixel, PixelError, pagePing, pageView, screenView, selfDescribing, structured } from "../../../trackers/pixel/pixel.js";

const PARAMETERS = {
  now_ms: "dtm", sent_ms: "stm", user_id: "uid", domain_user_id: "duid", session_id: "sid", session_index: "vid",
  network_user_id: "tnuid", screen: "res", viewport: "vp", color_depth: "cd", timezone: "tz", language: "lang", ip: "ip",
  useragent: "ua",
};
const VERBS = {
  page_view: (c) => pageView(c.url, c.title, c.referrer),
  page_ping: (c) => pagePing(c.url, c.title, c.referrer, c.min_x, c.max_x, c.min_y, c.max_y),
  screen_view: (c) => screenView(c.name, c.id, c.type, c.previous_name, c.previous_id, c.previous_type, c.transition_type),
  structured: (c) => structured(c.category, c.action, c.label, c.property, c.value),
  self_describing: (c) => selfDescribing(c.schema, JSON.parse(c.data)),
};

function answer(line) {
  const fields = [...new URLSearchParams(line)];
  const part = (prefix) => Object.fromEntries(fields.filter(([n]) => n.startsWith(prefix)).map(([n, v]) => [n.slice(prefix.length), v]));
  const given = part("given.");
  const call = part("call.");
  try {
    const pixel = new Pixel("http://localhost", {
      appId: given.app_id, namespace: given.namespace, platform: given.platform, base64: given.base64 === "1", longest: 1_000_000,
    });
    const parameters = Object.fromEntries(Object.entries(given).filter(([n]) => n in PARAMETERS).map(([n, v]) => [PARAMETERS[n], v]));
    const more = { entities: JSON.parse(call.entities ?? "[]"), trueMs: call.true_ms, eventId: given.event_id, parameters };
    return pixel.open(VERBS[call.verb](call), more).split("?")[1];
  } catch (error) {
    if (!(error instanceof PixelError)) throw error;
    return `!${error.code}`;
  }
}

for await (const line of createInterface({ input: process.stdin })) console.log(answer(line));
