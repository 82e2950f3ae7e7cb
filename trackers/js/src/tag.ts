/**
 * The classic script: makes the page's queueing function real, `window.snowplow("newTracker", "sp1", "https://…", {…})`.
 *
 * A verb may name its trackers, `"trackPageView:sp1;sp2"`; without names it goes to all. The function's name is the script's
 * `data-function`, or what the official tag's loader wrote into `GlobalSnowplowNamespace`, or "snowplow". Calls made before the
 * script was there are made now, in their order.
 */
import { newTracker, type Options, type Tracker } from "./index.js";
import * as links from "./link-click.js";
import * as forms from "./forms.js";
import * as shop from "./ecommerce.js";
import * as errors from "./errors.js";
import * as vitals from "./vitals.js";
import * as media from "./media.js";
import * as routes from "./routes.js";
import * as scroll from "./scroll.js";
import * as more from "./more.js";
import * as activity from "./activity.js";
import * as domains from "./cross-domain.js";
import { cookies } from "./cookies.js";
import { addSessionContext } from "./session.js";

type Call = [verb: string | ((...trackers: Tracker[]) => void), ...values: unknown[]];
type Verb = (tracker: Tracker, ...values: unknown[]) => unknown;

const added = { ...links, ...forms, ...shop, ...errors, ...vitals, ...media, ...routes, ...scroll, ...more, ...activity, ...domains } as unknown as Record<string, Verb>;
const trackers: Record<string, Tracker> = {};

/** The official tracker's options that are entry points of their own here. */
interface TagOptions extends Omit<Options, "stateStorageStrategy" | "contexts"> {
  stateStorageStrategy?: Options["stateStorageStrategy"] | "cookie" | "cookieAndLocalStorage";
  cookieDomain?: string;
  cookieSameSite?: "Lax" | "Strict" | "None";
  cookiePath?: string;
  contexts?: { webPage?: boolean; session?: boolean };
  crossDomainLinker?: (link: HTMLAnchorElement) => boolean;
}

const begin = (namespace: string, endpoint: string, given: TagOptions = {}): Tracker => {
  const known = trackers[namespace];
  if (known) return known;
  const inCookies = /^cookie/.test(given.stateStorageStrategy + "");
  const place = { domain: given.cookieDomain || "", sameSite: given.cookieSameSite || "Lax", path: given.cookiePath || "/" } as const;
  const options = { ...given, ...(inCookies && { stateStorageStrategy: cookies(place) }) } as Options;
  const tracker = (trackers[namespace] = newTracker(namespace, endpoint, options));
  if (given.contexts?.session) addSessionContext(tracker, inCookies ? "COOKIE_1" : "LOCAL_STORAGE");
  if (given.crossDomainLinker) domains.crossDomainLinker(tracker, given.crossDomainLinker);
  return tracker;
};

const call = (...[verb, ...values]: Call): unknown => {
  if (typeof verb == "function") return verb(...Object.values(trackers));
  const [name, to] = verb.split(":") as [string, string?];
  if (name == "newTracker") return begin(...(values as [string, string, TagOptions?]));
  let answer: unknown;
  for (const one of to ? to.split(";") : Object.keys(trackers)) {
    const tracker = trackers[one];
    const own = tracker && (tracker as unknown as Record<string, (...values: unknown[]) => unknown>)[name];
    if (own) answer = own(...values);
    else if (tracker && added[name]) answer = added[name]!(tracker, ...values);
    else console.warn("snowplow: nothing is called " + verb);
  }
  return answer;
};

type Queueing = { q?: ArrayLike<unknown>[] };
const page = window as unknown as { GlobalSnowplowNamespace?: string[] } & Record<string, Queueing | typeof call>;
const name = document.currentScript?.dataset["function"] || page.GlobalSnowplowNamespace?.shift() || "snowplow";
const early = (page[name] as Queueing | undefined)?.q || [];
page[name] = call;
for (const one of early) {
  try {
    call(...(Array.from(one) as Call));
  } catch (error) {
    console.warn(error);
  }
}
