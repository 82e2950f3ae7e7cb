/**
 * The tracker: calls become events, events go into the durable queue. Verbs and options are named as in the official tracker's version 4.
 *
 * A call does no network work, never throws into the page, and gives the event's id, or undefined after telling onError why.
 */
import { type IdentityOptions, makeIdentity, type StateStorage, type Visit } from "./identity.js";
import { makeQueue, type QueueOptions } from "./queue.js";
import { iglu, type SelfDescribing, timeZone, uuid } from "./wire.js";

export type { IdentityOptions, StateStorage, Visit, QueueOptions, SelfDescribing };

/** What the name of an event is told by, for global entities. */
export interface EventFacts {
  event: Record<string, unknown>;
  eventType: string;
  eventSchema?: string | undefined;
}
type Made = SelfDescribing | SelfDescribing[] | undefined;
/** An entity, or a function that makes one, some or none. */
export type Maker = SelfDescribing | ((facts: EventFacts) => Made);
/** Entities for all events, or, with a filter before them, for some. */
export type GlobalEntity = Maker | [filter: (facts: EventFacts) => boolean, entities: Maker | Maker[]];

/** What every event may carry. */
export interface Extra {
  context?: SelfDescribing[] | null;
  /** When it happened: a number replaces the time of the call; of type "ttm" it stands beside that as the true time. Milliseconds. */
  timestamp?: number | { type: "dtm" | "ttm"; value: number } | null;
}
export interface Page {
  url?: string;
  title?: string;
  referrer?: string;
}
/** Pixels that the page was scrolled since the last ping. */
export interface Offsets {
  minX?: number;
  maxX?: number;
  minY?: number;
  maxY?: number;
}
export interface StructEvent {
  category: string;
  action: string;
  label?: string;
  property?: string;
  value?: number;
}

export interface Options extends QueueOptions, IdentityOptions {
  appId?: string;
  platform?: "web" | "mob" | "pc" | "srv" | "app" | "tv" | "cnsl" | "iot" | "headset";
  /** A path of your own: what the gateway's option `paths` maps to /com.snowplowanalytics.snowplow/tp2. */
  postPath?: string;
  /** No ids; withSessionTracking: but a session; withServerAnonymisation: the gateway keeps neither address nor cookie. */
  anonymousTracking?: boolean | { withSessionTracking?: boolean; withServerAnonymisation?: boolean };
  /** False: nothing is stored or sent until optIn(). Events wait in memory. */
  consent?: boolean;
  /** Entities of the tracker's own. Default: webPage. */
  contexts?: { webPage?: boolean };
  /** Parameters of your own for each event; null takes one off: { res: null, cd: null }. */
  parameters?: Record<string, string | null>;
}

export interface Tracker {
  trackPageView(event?: Page & Extra): string | undefined;
  trackPagePing(event?: Page & Offsets & Extra): string | undefined;
  trackStructEvent(event: StructEvent & Extra): string | undefined;
  trackSelfDescribingEvent(event: { event: SelfDescribing } & Extra): string | undefined;
  setUserId(id?: string | null): void;
  /** What all events say instead of the browser: `tracker.page.url = "https://…"`. */
  page: Page;
  newSession(): void;
  /** What is in this list goes with every event, or, where it has a filter, with those that pass. */
  globalContexts: GlobalEntity[];
  enableAnonymousTracking(how?: Options["anonymousTracking"]): void;
  disableAnonymousTracking(): void;
  /** From here on events are stored and sent; what was tracked before on this page too. */
  optIn(): void;
  /** Nothing is tracked any more; what waits and the ids are deleted. */
  optOut(): void;
  clearUserData(): void;
  /** The visit as of the last event, in the order of `_sp_id`: user id, created, visits, now, last visit, session id, previous one, first event, its ms, events. */
  getVisit(): Visit;
  getPageViewId(): string;
  /** True when all events were acknowledged, false when the time was too short. */
  flushBuffer(limitMs?: number): Promise<boolean>;
  /** Reason -> events that were dropped on this page. */
  dropped: Record<string, number>;
}

const version = "spoorway-1.0.0";

export const newTracker = (namespace: string, endpoint: string, options: Options = {}): Tracker => {
  const doc = globalThis.document as Document | undefined;
  const base = (/\/\//.test(endpoint) ? "" : "//") + endpoint.replace(/\/$/, "");
  const queue = makeQueue(
    base + (options.eventMethod == "get" ? "/i" : options.postPath || "/com.snowplowanalytics.snowplow/tp2"),
    options,
  );
  const identity = makeIdentity(options);
  let anonymous = options.anonymousTracking as { withSessionTracking?: boolean; withServerAnonymisation?: boolean } | boolean | undefined;
  let consent = options.consent !== false;
  let held: (() => void)[] = [];
  let room = 100; // for events that wait for consent; none after a refusal
  const globals: GlobalEntity[] = [];
  let user: string | null | undefined;
  const own: Page = {};
  let referrer = doc?.referrer;
  let href = doc?.URL;
  let pageId = uuid();
  let viewed = 0;
  let freshSession = 0;
  let surroundings: Record<string, unknown> | undefined;
  let visit: Visit = [];

  /** Reading sizes lays the page out, so all this is asked once per page view and size of the window. */
  const look = (): typeof surroundings =>
    doc &&
    (surroundings ||= {
      vp: innerWidth + "x" + innerHeight,
      ds:
        Math.max(doc.documentElement.scrollWidth, doc.documentElement.offsetWidth) +
        "x" +
        Math.max(doc.documentElement.scrollHeight, doc.documentElement.offsetHeight),
      cookie: +navigator.cookieEnabled,
      cs: doc.characterSet,
      lang: navigator.language,
      res: screen.width + "x" + screen.height,
      cd: screen.colorDepth,
      tz: timeZone(),
    });
  /** A faulty filter or function costs its entity, not the event. */
  const entitiesOf = (one: GlobalEntity, facts: EventFacts): SelfDescribing[] => {
    try {
      return Array.isArray(one)
        ? one[0](facts)
          ? [one[1]].flat().flatMap((maker) => entitiesOf(maker, facts))
          : []
        : [(typeof one == "function" ? one(facts) : one) || []].flat();
    } catch {
      return [];
    }
  };

  /** event: what is the event's own. From here on its id and time are fixed. needed: what it cannot do without. */
  const track = (extra: Page & Extra, make: () => [event: Record<string, unknown>, needed?: unknown, schema?: string]): string | undefined => {
    try {
      const [event, needed, schema] = make();
      const created = Date.now();
      const id = uuid();
      const page = pageId; // the one it happened on, however late consent is given
      const time = extra.timestamp as { type?: string; value?: number } | null | undefined;
      if (href != doc?.URL) {
        referrer = href; // a page without a load
        href = doc?.URL;
      }
      const values = {
        url: extra.url ?? own.url ?? href,
        refr: extra.referrer ?? own.referrer ?? referrer,
        ...event,
        eid: id,
        dtm: created,
        [time?.type || "dtm"]: time?.value ?? time ?? created,
        tv: version,
        tna: namespace,
        aid: options.appId,
        p: options.platform || "web",
      };
      if (!(needed ?? values.url)) return queue.drop("incomplete");
      const store = () => {
        const how = Object(anonymous);
        visit =
          (!anonymous || how.withSessionTracking) && options.stateStorageStrategy != "none"
            ? identity.next(id, created, freshSession, anonymous)
            : [];
        freshSession = 0;
        const payload: Record<string, unknown> = {
          ...values,
          ...look(),
          uid: anonymous ? "" : user,
          duid: visit[0],
          sid: visit[5],
          vid: visit[2],
          ...options.parameters,
        };
        const facts = { event: payload, eventType: event["e"] as string, eventSchema: schema };
        const entities = [...(extra.context || []), ...globals.flatMap((one) => entitiesOf(one, facts))];
        if (options.contexts?.webPage !== false) entities.push({ schema: iglu("web_page", "1-0-0"), data: { id: page } });
        if (entities[0]) payload["co"] = JSON.stringify({ schema: iglu("contexts", "1-0-1"), data: entities });
        // What is empty is not sent; what is sent is text.
        const text = JSON.stringify(payload, (name, value) => (name ? (value == null || value === "" ? undefined : "" + value) : value));
        return queue.add(created, id, text, how.withServerAnonymisation);
      };
      if (consent) return store();
      if (held.length >= room) return queue.drop("no consent");
      held.push(store);
      return id;
    } catch (error) {
      return queue.drop("" + error);
    }
  };

  const title = (event: Page) => event.title ?? own.title ?? doc?.title;
  const tracker: Tracker = {
    dropped: queue.dropped,
    page: own,
    trackPageView(event = {}) {
      if (viewed++) pageId = uuid();
      surroundings = undefined;
      return track(event, () => [{ e: "pv", page: title(event) }]);
    },
    trackPagePing: (event = {}) =>
      track(event, () => [
        { e: "pp", page: title(event), pp_mix: event.minX, pp_max: event.maxX, pp_miy: event.minY, pp_may: event.maxY },
      ]),
    trackStructEvent: (event) =>
      track(event, () => [
        { e: "se", se_ca: event.category, se_ac: event.action, se_la: event.label, se_pr: event.property, se_va: event.value },
        (event.category && event.action) || 0,
      ]),
    trackSelfDescribingEvent: (event) =>
      track(event, () => [
        { e: "ue", ue_pr: JSON.stringify({ schema: iglu("unstruct_event", "1-0-0"), data: event.event }) },
        event.event.schema || 0,
        event.event.schema,
      ]),
    setUserId: (id) => void (user = id),
    newSession: () => void (freshSession = 1),
    globalContexts: globals,
    enableAnonymousTracking: (how = true) => void (anonymous = how),
    disableAnonymousTracking: () => void (anonymous = false),
    optIn() {
      consent = true;
      held.splice(0).forEach((store) => store());
    },
    optOut() {
      consent = false;
      room = 0;
      held = [];
      visit = [];
      queue.clear();
      identity.clear();
    },
    clearUserData: identity.clear,
    getVisit: () => visit,
    getPageViewId: () => pageId,
    flushBuffer: queue.flush,
  };

  if (doc) {
    addEventListener("resize", () => (surroundings = undefined));
    // Both: some browsers send only one of them; what has been sent is not sent twice.
    addEventListener("pagehide", queue.leave);
    doc.addEventListener("visibilitychange", () => doc.hidden && queue.leave());
  }
  return tracker;
};
