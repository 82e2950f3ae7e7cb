/**
 * Who and which session: the values of `_sp_id` and `_sp_ses`, in the official tracker's format, so that a visitor keeps his id.
 *
 * An existing `_sp_id.XXXX` is found whatever its four digits are. Nothing is stored before `next` is called.
 */
import { storage } from "./storage.js";
import { uuid } from "./wire.js";

/** A place for values that come to an end. */
export interface StateStorage {
  /** All names, with anything between them; where `_sp_id.0000` is there none is needed. */
  names(): string;
  /** Empty when there is none, or its time is over. */
  read(name: string): string;
  /** 0 seconds: it is deleted. */
  write(name: string, value: string, seconds: number): void;
}

export interface IdentityOptions {
  /** Where ids live. "none": no ids at all. "memory": as long as the page. A storage of your own: see cookies. Default "localStorage". */
  stateStorageStrategy?: "localStorage" | "memory" | "none" | StateStorage;
  /** Seconds without an event after which a session is over; default 1,800. */
  sessionCookieTimeout?: number;
}

/** Domain user id, created, visits, now, last visit, session id, previous session id, first event's id and ms, event index. */
export type Visit = (string | number)[];

export interface Identity {
  /** The visit as this event makes it. fresh: a new session; anonymous: no user id. */
  next(eventId: string, created: number, fresh: unknown, anonymous: unknown): Visit;
  clear(): void;
}

const TWO_YEARS = 63072e3;

/** The official tracker keeps the end of a value's time beside it, under NAME.expires. */
const webStorage = (strategy?: unknown): StateStorage => {
  const store = storage(strategy);
  return {
    // Who has a name of ours need not look through a thousand events that wait.
    names: () => (store["_sp_id.0000"] ? "" : Reflect.ownKeys(store)) as string,
    read: (name) => (!(+store[name + ".expires"]! < Date.now()) && store[name]) || "",
    write(name, value, seconds) {
      store[name] = value;
      store[name + ".expires"] = (Date.now() + seconds * 1e3) as unknown as string; // which makes it text
      if (!seconds) {
        delete store[name];
        delete store[name + ".expires"];
      }
    },
  };
};

export const makeIdentity = (options: IdentityOptions): Identity => {
  const strategy = options.stateStorageStrategy as StateStorage;
  const { names, read, write } = Object(strategy).read ? strategy : webStorage(strategy);
  const suffix = (/_sp_id(\.\w{4})/.exec(names()) || ["", ".0000"])[1];
  const id = "_sp_id" + suffix;
  const session = "_sp_ses" + suffix;
  let kept: any[] | 0; // of this task, until the microtask after it has written it once for all its events
  const keep = async () => {
    await 0;
    try {
      write(id, (kept as Visit).join("."), TWO_YEARS);
      write(session, "*", options.sessionCookieTimeout || 1800);
    } catch {
      // forgotten meanwhile; or storage is full: the visit goes on from what is there
    }
    kept = 0;
  };
  return {
    next(eventId, created, fresh, anonymous) {
      const seconds = Math.round(Date.now() / 1e3);
      const visit: any[] = kept || (read(id) || `.${seconds}.0.${seconds}......0`).split(".");
      visit[0] = anonymous ? "" : visit[0] || uuid();
      if (fresh || (!kept && !read(session))) {
        visit[2]++;
        visit[4] = visit[5] && visit[3];
        visit[6] = anonymous ? "" : visit[5];
        visit[5] = uuid();
        visit[9] = 0;
      }
      if (visit[9]++ < 1) visit.splice(7, 2, eventId, created);
      visit[3] = seconds;
      kept || void keep();
      return (kept = visit);
    },
    clear() {
      kept = 0;
      write(id, "", 0);
      write(session, "", 0);
    },
  };
};
