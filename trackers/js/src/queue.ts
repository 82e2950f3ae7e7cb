/**
 * The durable queue: events wait in local storage, one key each, until the gateway has acknowledged them; one tab at a time sends for all.
 *
 * An event leaves the queue when an answer of 2xx was read to its end, or when the gateway said that it never wants it (counted, told).
 * Where a request's fate is not known its events stay and are sent again: they keep their ids, the gateway stores them once.
 * Web Locks choose the sender; without them (plain HTTP) a lease does. How long to wait after a failure is shared by all tabs.
 */
import { storage } from "./storage.js";
import { iglu, uuid } from "./wire.js";

export interface QueueOptions {
  /** "post", or "get": one event a request. */
  eventMethod?: "post" | "get";
  /** Bytes of a request's body; default 40,000. A single event may be larger. */
  maxPostBytes?: number;
  /** Events that may wait; default 1,000. What comes after is dropped and told to onError as "full". */
  maxLocalStorageQueueSize?: number;
  /** Milliseconds until a request counts as failed; default 10,000. */
  connectionTimeout?: number;
  /** Cookies with each request? Default "include". */
  credentials?: RequestCredentials;
  customHeaders?: Record<string, string>;
  /** Where events wait. "memory" loses them with the page. */
  queue?: "localStorage" | "memory";
  /** Told why how many events were dropped: "full", or the gateway's status. Never throws into the tracker. */
  onError?: (reason: string, events: number) => void;
}

export interface Queue {
  /** Keeps the event; its id, or undefined when the queue is full. created: orders the queue. json: the parameters without stm. */
  add(created: number, id: string, json: string, anonymous: unknown): string | undefined;
  /** Sends now what this page tracked and has not sent: the page may be going away. */
  leave(): void;
  /** True when the queue is empty, false when the time was too short. */
  flush(limitMs?: number): Promise<boolean>;
  /** Forgets everything that waits. */
  clear(): void;
  /** Counts and tells what is not kept. */
  drop(reason: string, events?: number): undefined;
  /** Reason -> events that this page dropped. */
  dropped: Record<string, number>;
}

const HOUR = 36e5;
/** Before each back-off, so that the first ten seconds of an outage see at most three requests. */
const LEAST_BACK_OFF = 3500;
const LONGEST_BACK_OFF = 6e5;
/** Bytes of all keepalive requests of a page that browsers let through together, with a margin. */
const KEEPALIVE = 6e4;
/** Milliseconds: storage reaches other tabs a little later than a lock does. */
const SETTLE = 40;

/** Keys of one request, what they hold, and its size in bytes. */
type Batch = [keys: string[], values: string[], size: number];

const sleep = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

export const makeQueue = (url: string, options: QueueOptions): Queue => {
  const state = "spq " + url; // "until failures": when the next request may go out
  const lease = state + "!"; // "until owner"
  const owner = uuid();
  const timeout = options.connectionTimeout || 1e4;
  const simple = options.eventMethod == "get";
  const store = storage(options.queue);
  const spare: typeof store = {}; // what storage had no room for
  const here: Record<string, 1 | 2> = {}; // 1: tracked by this page, not sent yet. 2: in a request of this page
  const dropped: Record<string, number> = {};
  const nav: Partial<Navigator> = globalThis.navigator || {};
  const { locks } = nav;
  let limit = options.maxPostBytes || 4e4;
  let flyingBytes = 0;
  let waiting = 0; // about; counted anew at each request
  let busy = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let soon: typeof timer;

  const get = (key: string): string => spare[key] || store[key] || "";
  const set = (key: string, value: string) => {
    try {
      store[key] = value;
      delete spare[key];
    } catch {
      spare[key] = value;
    }
  };
  const remove = (key: string) => {
    delete spare[key];
    delete store[key];
  };
  const keys = () => {
    // Their names alone: Object.keys looks at each value too.
    const all = ([...Reflect.ownKeys(spare), ...Reflect.ownKeys(store)] as string[]).filter((key) => key.startsWith(state + " ")).sort();
    waiting = all.length;
    return all;
  };
  const drop = (reason: string, events = 1): undefined => {
    dropped[reason] = (dropped[reason] || 0) + events;
    try {
      options.onError?.(reason, events);
    } catch {
      // the page's own fault stays with the page
    }
  };
  /** Milliseconds until the time that this key tells. More than an hour is a clock that was set back. */
  const left = (key: string) => {
    const ms = parseInt(get(key)) - Date.now();
    // Without a network there is nothing to try, and no failure to count.
    return ms > 0 && ms <= HOUR ? ms : nav.onLine === false ? 5e3 : 0;
  };

  /** The first of these keys that go into one request: they are anonymous as a whole, or not at all. */
  const batch = (from: string[]): Batch => {
    const found: Batch = [[], [], 99];
    for (const key of from) {
      const value = get(key);
      if (!value) delete here[key]; // another tab was faster
      else if (here[key] != 2) {
        const size = found[2] + new TextEncoder().encode(value).length + 32;
        if (found[0][0] && (size > limit || simple || value[0] != found[1][0]![0])) break;
        found[0].push(key);
        found[1].push(value);
        found[2] = size;
      }
    }
    return found;
  };

  /** Sends a batch and does what the answer asks for. */
  const send = async ([chosen, values, size]: Batch): Promise<void> => {
    for (const key of chosen) here[key] = 2;
    flyingBytes += size;
    const events = values.map((value) => value.slice(1, -1) + `,"stm":"${Date.now()}"}`);
    let status: number | undefined; // none without an answer
    let asked: number | undefined; // milliseconds that the gateway wants us to wait
    try {
      const answer = await fetch(simple ? url + "?" + new URLSearchParams(JSON.parse(events[0]!)) : url, {
        method: simple ? "GET" : "POST",
        headers: {
          ...options.customHeaders,
          ...(values[0]![0] == "*" && { "SP-Anonymous": "*" }),
          ...(!simple && { "Content-Type": "application/json; charset=UTF-8" }),
        },
        body: simple ? null : `{"schema":"${iglu("payload_data", "1-0-4")}","data":[${events}]}`,
        credentials: options.credentials || "include",
        keepalive: flyingBytes < KEEPALIVE,
        signal: AbortSignal.timeout(timeout),
      });
      asked = +answer.headers.get("Retry-After")! * 1e3;
      await answer.text(); // an answer that breaks off acknowledges nothing
      status = answer.status;
    } catch {
      // no answer
    }
    flyingBytes -= size;
    for (const key of chosen) delete here[key];
    if (status == 413 && chosen[1]) limit = size >> 1;
    else if (/2..|4(0[0134]|1[03]|22)/.test(status as unknown as string)) {
      chosen.forEach(remove);
      if (status! < 300) remove(state);
      else drop("" + status, chosen.length);
    } else {
      const failures = -~(get(state).split(" ")[1] as unknown as number); // one more
      const ms = LEAST_BACK_OFF + Math.random() * Math.min(LONGEST_BACK_OFF, 500 * 2 ** failures);
      set(state, Date.now() + Math.min(HOUR, Math.max(ms, asked || 0)) + " " + failures);
      await sleep(1e3); // on a busy computer the others hear of it late, and it may be their turn next
    }
  };

  const work = async (): Promise<void> => {
    while (!left(state)) {
      const next = batch(keys());
      if (!next[0][0]) break;
      // Outlives the request, and not much: nobody waits long for a tab that is dead.
      if (!locks) set(lease, Date.now() + timeout + 5e3 + " " + owner);
      await send(next);
    }
    await sleep(SETTLE);
  };
  const drain = async (): Promise<void> => {
    busy = 1;
    try {
      if (locks) await locks.request(state, work);
      else {
        do {
          while (left(lease)) await sleep(SETTLE * 9 * Math.random());
          set(lease, Date.now() + timeout + 5e3 + " " + owner);
          await sleep(SETTLE * (2 + Math.random()));
        } while (!get(lease).endsWith(owner));
        await work();
        remove(lease);
      }
    } catch {
      // a lock that is forbidden here
    }
    busy = 0;
    // Every tab looks again when the pause is over: the one that failed may be gone by then.
    look();
  };
  const wake = (): void => {
    soon = undefined;
    clearTimeout(timer);
    if (!busy && waiting) timer = setTimeout(drain, left(state));
  };
  const look = () => {
    keys();
    wake();
  };

  globalThis.addEventListener?.("online", look);
  // What earlier pages left behind is counted in a task of its own, and sent in another: the page is loading.
  soon = setTimeout(look);

  return {
    drop,
    dropped,
    add(created, id, json, anonymous) {
      soon ||= setTimeout(wake); // not in the page's own task, and once for all that it tracks there
      if (waiting >= (options.maxLocalStorageQueueSize || 1e3)) return drop("full");
      const key = state + " " + created + id;
      set(key, (anonymous ? "*" : " ") + json);
      here[key] = 1;
      waiting++;
      return id;
    },
    leave() {
      const last = batch(Object.keys(here));
      if (last[0][0] && !left(state)) void send(last).then(wake);
    },
    async flush(limitMs = 1e4) {
      const end = Date.now() + limitMs;
      look();
      while (keys()[0] && Date.now() < end) await sleep(SETTLE);
      return !waiting;
    },
    clear() {
      keys().forEach(remove);
      waiting = 0;
    },
  };
};
