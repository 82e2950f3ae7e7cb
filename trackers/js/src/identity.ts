/**
 * Who and which session: the values of `_sp_id` and `_sp_ses`, in the official tracker's format, so that a visitor keeps his id.
 *
 * An existing `_sp_id.XXXX` is found whatever its four digits are. Nothing is stored before `next` is called.
 */
import { uuid } from "./wire.js";

export interface IdentityOptions {
  /** Where ids live. "none": no ids at all. "memory": as long as the page. Default "localStorage". */
  stateStorageStrategy?: "localStorage" | "cookie" | "cookieAndLocalStorage" | "memory" | "none";
  cookieDomain?: string;
  cookieSameSite?: "Lax" | "Strict" | "None";
  cookieSecure?: boolean;
  /** Seconds; default two years. */
  cookieLifetime?: number;
  /** Seconds without an event after which a session is over; default 1,800. */
  sessionCookieTimeout?: number;
}

/** Domain user id, created, visits, now, last visit, session id, previous session id, first event's id and ms, event index. */
export type Visit = string[];

export interface Identity {
  /** The visit as this event makes it. fresh: a new session; anonymous: no user id. */
  next(eventId: string, created: number, fresh: boolean, anonymous: boolean): Visit;
  /** Undefined before the first event of a new visitor. */
  now(): Visit | undefined;
  clear(): void;
}

export const makeIdentity = (options: IdentityOptions): Identity => {
  const strategy = options.stateStorageStrategy || "localStorage";
  const cookies = /^cookie/.test(strategy);
  const page: Record<string, string> = {};
  let storage: Record<string, string> = page;
  try {
    if (strategy == "localStorage") storage = localStorage as unknown as Record<string, string>;
  } catch {
    // forbidden here: ids live as long as the page
  }
  const all = (): Record<string, string> =>
    cookies ? Object.fromEntries(document.cookie.split("; ").map((pair) => pair.split("=") as [string, string])) : storage;

  let id = Object.keys(all()).find((name) => /^_sp_id\.\w{4}$/.test(name)) || "_sp_id.0000";
  const session = id.replace("id", "ses");

  const read = (name: string) => {
    const values = all();
    return values[name] && (cookies || !(+values[name + ".expires"]! < Date.now())) ? values[name] : "";
  };
  const write = (name: string, value: string, seconds: number) => {
    if (cookies)
      document.cookie =
        `${name}=${value};path=/;max-age=${seconds};samesite=${options.cookieSameSite || "Lax"}` +
        (options.cookieDomain ? ";domain=" + options.cookieDomain : "") +
        ((options.cookieSecure ?? location.protocol == "https:") ? ";secure" : "");
    else
      try {
        storage[name] = value;
        storage[name + ".expires"] = "" + (Date.now() + seconds * 1e3);
      } catch {
        storage = page; // it is full
        page[name] = value;
      }
  };
  const now = () => read(id)?.split(".");
  return {
    now: () => (read(id) ? now() : undefined),
    next(eventId, created, fresh, anonymous) {
      const seconds = "" + Math.round(Date.now() / 1e3);
      const visit = read(id) ? now()! : ["", seconds, "0", seconds, "", "", "", "", "", "0"];
      visit[0] = anonymous ? "" : visit[0] || uuid();
      if (fresh || !read(session)) {
        visit[2] = "" + (+visit[2]! + 1);
        visit[4] = visit[5] ? visit[3]! : "";
        visit[6] = anonymous ? "" : visit[5]!;
        visit[5] = uuid();
        visit[9] = "0";
      }
      if (!+visit[9]!) {
        visit[7] = eventId;
        visit[8] = "" + created;
      }
      visit[3] = seconds;
      visit[9] = "" + (+visit[9]! + 1);
      write(id, visit.join("."), options.cookieLifetime || 63072e3);
      write(session, "*", options.sessionCookieTimeout || 1800);
      return visit;
    },
    clear() {
      for (const name of [id, session]) {
        write(name, "", 0);
        delete storage[name];
        delete storage[name + ".expires"];
      }
    },
  };
};
