// A case in, the query string that the JavaScript tracker sends for it out: in Node and, as it is, in a page.
// Only its clock, its source of ids and the wire are replaced, and what a browser would add of its own is taken off.

export async function answer(newTracker, more, line) {
  const fields = Object.fromEntries(new URLSearchParams(line));
  const part = (prefix) =>
    Object.fromEntries(
      Object.entries(fields)
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, value]) => [name.slice(prefix.length), value]),
    );
  const given = part("given.");
  const call = part("call.");
  const real = { now: Date.now, fetch: globalThis.fetch, random: crypto.getRandomValues };
  // The tracker makes an id digit by digit, from the byte at its place, over this pattern.
  const draws = [..."10000000-1000-4000-8000-100000000000"].map((digit, at) => parseInt(given.event_id[at], 16) ^ +digit);
  crypto.getRandomValues = (into) => (into.set(draws.slice(0, into.length)), into);
  let query;
  try {
    const sent = new Promise((resolve) => {
      globalThis.fetch = async (_, { body }) => {
        resolve(new URLSearchParams(JSON.parse(body).data[0]).toString());
        return { status: 200, headers: new Headers(), text: async () => "ok" };
      };
    });
    const tracker = newTracker(given.namespace, `http://gateway.invalid/${Math.floor(real.now())}-${answer.count++}`, {
      appId: given.app_id,
      platform: given.platform,
      queue: "memory",
      stateStorageStrategy: "none",
      contexts: { webPage: false },
      parameters: {
        ...Object.fromEntries(["cookie", "cs", "lang", "res", "cd", "tz", "vp", "ds"].map((name) => [name, null])),
        ...(call.verb.startsWith("page_") ? {} : { url: null }),
        ...(call.referrer ? {} : { refr: null }),
        ...Object.fromEntries(
          [
            ["duid", "domain_user_id"], ["sid", "session_id"], ["vid", "session_index"], ["tnuid", "network_user_id"],
            ["res", "screen"], ["vp", "viewport"], ["cd", "color_depth"], ["tz", "timezone"], ["lang", "language"],
            ["ip", "ip"], ["ua", "useragent"],
          ].flatMap(([name, from]) => (given[from] ? [[name, given[from]]] : [])),
        ),
      },
    });
    if (given.user_id) tracker.setUserId(given.user_id);
    Date.now = () => +given.now_ms;
    const number = (name) => (call[name] == null ? undefined : +call[name]);
    const extra = {
      ...(call.entities ? { context: JSON.parse(call.entities) } : {}),
      ...(call.true_ms == null ? {} : { timestamp: { type: "ttm", value: +call.true_ms } }),
    };
    const page = { url: call.url ?? "", title: call.title ?? "", referrer: call.referrer ?? "", ...extra };
    const verbs = {
      page_view: () => tracker.trackPageView(page),
      page_ping: () =>
        tracker.trackPagePing({ ...page, minX: number("min_x"), maxX: number("max_x"), minY: number("min_y"), maxY: number("max_y") }),
      structured: () => tracker.trackStructEvent({ ...call, value: number("value"), ...extra }),
      self_describing: () => tracker.trackSelfDescribingEvent({ event: { schema: call.schema, data: JSON.parse(call.data) }, ...extra }),
      screen_view: () =>
        more.trackScreenView(tracker, {
          name: call.name, id: call.id, type: call.type, previousName: call.previous_name, previousId: call.previous_id,
          previousType: call.previous_type, transitionType: call.transition_type, ...extra,
        }),
    };
    if (!verbs[call.verb]()) return `!${Object.keys(tracker.dropped)[0]}`;
    Date.now = () => +given.sent_ms;
    query = await sent;
  } finally {
    Date.now = real.now;
    globalThis.fetch = real.fetch;
    crypto.getRandomValues = real.random;
  }
  return query;
}
answer.count = 0;
