/**
 * The tracker: calls become events, events go into the durable queue. Verbs and options are named as in the official tracker's version 4.
 *
 * A call does no network work, never throws into the page, and gives the event's id, or undefined after telling onError why.
 */
import { type ActivityOptions, type Offsets, watchActivity } from "./activity.js";
import { type IdentityOptions, makeIdentity } from "./identity.js";
import { makeQueue, type QueueOptions } from "./queue.js";
import { iglu, json, type Payload, put, type SelfDescribing, uuid } from "./wire.js";

export type { ActivityOptions, IdentityOptions, QueueOptions, Payload, SelfDescribing };

/** What the name of an event is told by, for global entities. */
export interface EventFacts {
  event: Payload;
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
export interface StructEvent {
  category: string;
  action: string;
  label?: string;
  property?: string;
  value?: number;
}

export interface Options extends QueueOptions, IdentityOptions {
  appId?: string;
  /** web (default), mob, pc, srv, app, tv, cnsl, iot, headset. */
  platform?: string;
  encodeBase64?: boolean;
  /** A path of your own: what the gateway's option `paths` maps to /com.snowplowanalytics.snowplow/tp2. */
  postPath?: string;
  /** No ids; withSessionTracking: but a session; withServerAnonymisation: the gateway keeps neither address nor cookie. */
  anonymousTracking?: boolean | { withSessionTracking?: boolean; withServerAnonymisation?: boolean };
  /** False: nothing is stored or sent until optIn(). Events wait in memory. */
  consent?: boolean;
  /** Nothing is tracked where the browser asks for that (Global Privacy Control, Do Not Track). */
  respectDoNotTrack?: boolean;
  /** Entities of the tracker's own. Default: webPage. */
  contexts?: { webPage?: boolean; session?: boolean };
  /** Which links carry the visitor's id to another domain, as `_sp`. */
  crossDomainLinker?: (link: HTMLAnchorElement) => boolean;
  /** Parameters of your own for each event; null takes one off: { res: null, cd: null }. */
  parameters?: Record<string, string | null>;
}

export interface Tracker {
  trackPageView(event?: Page & Extra): string | undefined;
  trackPagePing(event?: Page & Partial<Offsets> & Extra): string | undefined;
  trackStructEvent(event: StructEvent & Extra): string | undefined;
  trackSelfDescribingEvent(event: { event: SelfDescribing } & Extra): string | undefined;
  enableActivityTracking(options: ActivityOptions): void;
  disableActivityTracking(): void;
  setUserId(id?: string | null): void;
  setCustomUrl(url: string): void;
  setReferrerUrl(url: string): void;
  setDocumentTitle(title: string): void;
  newSession(): void;
  addGlobalContexts(entities: GlobalEntity[]): void;
  removeGlobalContexts(entities: GlobalEntity[]): void;
  clearGlobalContexts(): void;
  enableAnonymousTracking(how?: Options["anonymousTracking"]): void;
  disableAnonymousTracking(): void;
  /** From here on events are stored and sent; what was tracked before on this page too. */
  optIn(): void;
  /** Nothing is tracked any more; what waits and the ids are deleted. */
  optOut(): void;
  clearUserData(): void;
  /** The address with this visitor's id, for links to your other domain. */
  crossDomainUrl(url: string): string;
  getDomainUserId(): string | undefined;
  getPageViewId(): string;
  /** True when all events were acknowledged, false when the time was too short. */
  flushBuffer(limitMs?: number): Promise<boolean>;
  /** Reason -> events that were dropped on this page. */
  dropped: Record<string, number>;
}

export const version = "spoorway-js-1.0.0";

export const newTracker = (namespace: string, endpoint: string, options: Options = {}): Tracker => {
  const doc = globalThis.document as Document | undefined;
  const nav = globalThis.navigator as Navigator | undefined;
  const base = (/^https?:/.test(endpoint) ? endpoint : (/^http:/.test(doc?.URL || "") ? "http://" : "https://") + endpoint).replace(/\/$/, "");
  const queue = makeQueue(
    base + (options.eventMethod == "get" ? "/i" : options.postPath || "/com.snowplowanalytics.snowplow/tp2"),
    options,
  );
  const identity = makeIdentity(options);
  const { contexts = {}, parameters = {}, platform = "web" } = options;
  let anonymous = options.anonymousTracking;
  let consent = options.consent ?? true;
  let refused = !!options.respectDoNotTrack && !!(nav && ((nav as { globalPrivacyControl?: boolean }).globalPrivacyControl || nav.doNotTrack == "1"));
  let held: (() => void)[] = [];
  let globals: GlobalEntity[] = [];
  let user: string | null | undefined;
  let customUrl: string | undefined;
  let customTitle: string | undefined;
  let customReferrer: string | undefined;
  let referrer = doc?.referrer;
  let href = doc?.URL;
  let pageId = uuid();
  let viewed = false;
  let freshSession = false;
  let stopActivity: (() => void) | undefined;
  let sizes: Payload | undefined;

  /** Reading these lays the page out, so they are read once per page view and size of the window. */
  const measure = (): Payload => {
    if (!doc) return {};
    const { documentElement: root, body } = doc;
    return (sizes ||= {
      vp: innerWidth + "x" + innerHeight,
      ds:
        Math.max(root.clientWidth, root.offsetWidth, root.scrollWidth) +
        "x" +
        Math.max(root.clientHeight, root.offsetHeight, root.scrollHeight, body?.offsetHeight || 0, body?.scrollHeight || 0),
    });
  };
  const page = (given: Page): Payload => {
    if (doc && href != doc.URL) {
      referrer = href;
      href = doc.URL;
    }
    return { url: given.url ?? customUrl ?? href ?? "", refr: given.referrer ?? customReferrer ?? referrer ?? "" };
  };
  const refuse = (reason: string): undefined => {
    queue.dropped[reason] = (queue.dropped[reason] || 0) + 1;
    try {
      options.onError?.(reason, 1);
    } catch {
      // the page's own fault stays with the page
    }
  };
  const made = (maker: Maker | Maker[], facts: EventFacts): SelfDescribing[] =>
    [maker].flat().flatMap((one) => {
      try {
        return (typeof one == "function" ? one(facts) : one) || [];
      } catch {
        return []; // a faulty filter or entity costs that entity, not the event
      }
    });

  /** event: what is the event's own. From here on its id and time are fixed. needed: names of what it cannot do without. */
  const track = (event: Record<string, unknown>, needed: string, extra: Page & Extra, schema?: string): string | undefined => {
    try {
      const created = Date.now();
      const id = uuid();
      const { timestamp: time } = extra;
      const typed = typeof time == "object" ? time : time != null ? { type: "dtm", value: time } : undefined;
      const payload = put(
        {},
        {
          ...page(extra),
          ...event,
          eid: id,
          dtm: created,
          ...(typed && { [typed.type]: typed.value }),
          tv: version,
          tna: namespace,
          aid: options.appId,
          p: platform,
        },
      );
      if (refused) return refuse("opted out");
      if (needed.split(" ").some((name) => !payload[name]) || !/^(web|mob|pc|srv|app|tv|cnsl|iot|headset)$/.test(platform))
        return refuse("incomplete");
      const root = pageId; // the page it happened on, however late consent is given
      const store = () => {
        const session = !anonymous || (anonymous as { withSessionTracking?: boolean }).withSessionTracking;
        let visit: string[] | undefined;
        if (session && options.stateStorageStrategy != "none") visit = identity.next(id, created, freshSession, !!anonymous);
        freshSession = false;
        put(payload, {
          ...measure(),
          ...(doc && {
            cookie: +nav!.cookieEnabled,
            cs: doc.characterSet,
            lang: nav!.language,
            res: screen.width + "x" + screen.height,
            cd: screen.colorDepth,
            tz: Intl.DateTimeFormat().resolvedOptions().timeZone,
          }),
          uid: anonymous ? "" : user,
          duid: anonymous ? "" : visit?.[0],
          sid: visit?.[5],
          vid: visit?.[2],
          ...parameters,
        });
        for (const name in parameters) if (parameters[name] == null) delete payload[name];
        const facts = { event: payload, eventType: payload["e"]!, eventSchema: schema };
        const entities = [
          ...(extra.context || []),
          ...globals.flatMap((one) =>
            one instanceof Array ? (pass(one[0], facts) ? made(one[1], facts) : []) : made(one, facts),
          ),
        ];
        if (contexts.webPage ?? true) entities.push({ schema: iglu("web_page", "1-0-0"), data: { id: root } });
        if (contexts.session && visit)
          entities.push({
            schema: iglu("client_session", "1-0-2"),
            data: {
              userId: visit[0] || "00000000-0000-0000-0000-000000000000",
              sessionId: visit[5],
              eventIndex: +visit[9]!,
              sessionIndex: +visit[2]!,
              previousSessionId: visit[6] || null,
              storageMechanism: /cookie/.test(options.stateStorageStrategy || "") ? "COOKIE_1" : "LOCAL_STORAGE",
              firstEventId: visit[7],
              firstEventTimestamp: new Date(+visit[8]!).toISOString(),
            },
          });
        if (entities.length)
          Object.assign(payload, json({ schema: iglu("contexts", "1-0-1"), data: entities }, "co", "cx", options.encodeBase64));
        return queue.add(created, id, JSON.stringify(payload), !!(anonymous as { withServerAnonymisation?: boolean })?.withServerAnonymisation);
      };
      if (consent) return store() ? id : undefined;
      if (held.length >= 100) return refuse("no consent");
      held.push(store);
      return id;
    } catch (error) {
      return refuse("" + error);
    }
  };
  const pass = (filter: (facts: EventFacts) => boolean, facts: EventFacts) => {
    try {
      return filter(facts);
    } catch {
      return false;
    }
  };
  const linked = (url: string) => {
    const id = !anonymous && consent && identity.now()?.[0];
    if (!id) return url;
    const [before, hash] = url.replace(/([?&])_sp=[^&#]*&?/, "$1").replace(/[?&](#|$)/, "$1").split("#");
    return `${before}${before!.includes("?") ? "&" : "?"}_sp=${id}.${Date.now()}${hash == null ? "" : "#" + hash}`;
  };

  const tracker: Tracker = {
    dropped: queue.dropped,
    trackPageView(event = {}) {
      if (viewed) pageId = uuid();
      viewed = true;
      sizes = undefined;
      return track({ e: "pv", page: event.title ?? customTitle ?? doc?.title }, "url", event);
    },
    trackPagePing: (event = {}) =>
      track(
        {
          e: "pp",
          page: event.title ?? customTitle ?? doc?.title,
          pp_mix: event.minX,
          pp_max: event.maxX,
          pp_miy: event.minY,
          pp_may: event.maxY,
        },
        "url",
        event,
      ),
    trackStructEvent: (event) =>
      track(
        { e: "se", se_ca: event.category, se_ac: event.action, se_la: event.label, se_pr: event.property, se_va: event.value },
        "se_ca se_ac",
        event,
      ),
    trackSelfDescribingEvent: (event) =>
      track(
        {
          e: event.event?.schema && "ue",
          ...json({ schema: iglu("unstruct_event", "1-0-0"), data: event.event }, "ue_pr", "ue_px", options.encodeBase64),
        },
        "e",
        event,
        event.event?.schema,
      ),
    enableActivityTracking(how) {
      stopActivity?.();
      stopActivity = watchActivity(how, tracker.trackPagePing);
    },
    disableActivityTracking: () => stopActivity?.(),
    setUserId: (id) => void (user = id),
    setCustomUrl: (url) => void (customUrl = url),
    setReferrerUrl: (url) => void (customReferrer = url),
    setDocumentTitle: (title) => void (customTitle = title),
    newSession: () => void (freshSession = true),
    addGlobalContexts: (entities) => void globals.push(...entities),
    removeGlobalContexts: (entities) => void (globals = globals.filter((one) => !entities.includes(one))),
    clearGlobalContexts: () => void (globals = []),
    enableAnonymousTracking: (how = true) => void (anonymous = how),
    disableAnonymousTracking: () => void (anonymous = false),
    optIn() {
      consent = true;
      refused = false;
      held.splice(0).forEach((store) => store());
    },
    optOut() {
      refused = true;
      held = [];
      queue.clear();
      identity.clear();
    },
    clearUserData: identity.clear,
    crossDomainUrl: linked,
    getDomainUserId: () => identity.now()?.[0],
    getPageViewId: () => pageId,
    flushBuffer: queue.flush,
  };

  if (doc) {
    addEventListener("resize", () => (sizes = undefined));
    // Both: some browsers send only one of them; what has been sent is not sent twice.
    addEventListener("pagehide", queue.leave);
    doc.addEventListener("visibilitychange", () => doc.hidden && queue.leave());
    const decorate = (event: Event) => {
      const link = (event.target as Element).closest?.("a[href]") as HTMLAnchorElement | null;
      if (link && options.crossDomainLinker?.(link)) link.href = linked(link.href);
    };
    if (options.crossDomainLinker) for (const name of ["click", "mousedown"]) doc.addEventListener(name, decorate, true);
  }
  return tracker;
};
