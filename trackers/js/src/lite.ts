/**
 * The smallest tracker: page views and nothing else. No ids, no storage; events wait in memory and are sent until they are acknowledged.
 *
 * What the page has not got rid of when it goes away is sent once more and then lost: where that matters use the whole tracker.
 */
import { iglu, timeZone, uuid } from "./wire.js";

export interface LiteOptions {
  appId?: string;
  namespace?: string;
  postPath?: string;
}

/** Returns the function that tracks a page view. url: of the gateway. */
export const pageViews = (url: string, { appId, namespace, postPath = "/com.snowplowanalytics.snowplow/tp2" }: LiteOptions = {}) => {
  const waiting = new Set<Record<string, unknown>>();
  let busy = false;
  let failures = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const send = async (): Promise<void> => {
    if (busy || !waiting.size) return;
    busy = true;
    timer = undefined;
    const batch = [...waiting].slice(0, 20);
    let status = 0;
    let wait = 0;
    try {
      const answer = await fetch(url + postPath, {
        method: "POST",
        headers: { "Content-Type": "application/json; charset=UTF-8" },
        body: JSON.stringify({ schema: iglu("payload_data", "1-0-4"), data: batch.map((event) => ({ ...event, stm: "" + Date.now() })) }),
        credentials: "include",
        keepalive: true,
        signal: AbortSignal.timeout(1e4),
      });
      wait = +answer.headers.get("Retry-After")! * 1e3 || 0;
      await answer.text();
      status = answer.status;
    } catch {
      // no answer
    }
    busy = false;
    if (/2..|4(0[0134]|1[03]|22)/.test(status as unknown as string)) {
      for (const event of batch) waiting.delete(event);
      failures = 0;
      void send();
    } else timer = setTimeout(send, Math.max(wait, 3500 + Math.random() * Math.min(6e5, 1e3 * 2 ** failures++)));
  };
  addEventListener("pagehide", () => timer && send());
  return (): string => {
    const eid = uuid();
    const event: Record<string, string> = {
      e: "pv",
      url: location.href,
      page: document.title,
      refr: document.referrer,
      eid,
      dtm: "" + Date.now(),
      tv: "spoorway-lite-1.0.0",
      tna: namespace || "",
      aid: appId || "",
      p: "web",
      lang: navigator.language,
      cs: document.characterSet,
      res: screen.width + "x" + screen.height,
      vp: innerWidth + "x" + innerHeight,
      tz: timeZone(),
    };
    for (const name in event) if (!event[name]) delete event[name];
    if (waiting.size < 100) waiting.add(event);
    if (!timer) void send();
    return eid;
  };
};
