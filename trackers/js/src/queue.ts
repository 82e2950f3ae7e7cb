/**
 * The durable queue: events wait in local storage, one key each, until the gateway has acknowledged them; one tab at a time sends for all.
 *
 * An event leaves the queue when an answer of 2xx was read to its end, or when the gateway said that it never wants it (counted, told).
 * Where a request's fate is not known its events stay and are sent again: they keep their ids, the gateway stores them once.
 * Web Locks choose the sender; without them (plain HTTP) a lease does. How long to wait after a failure is shared by all tabs.
 */
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
  customFetch?: typeof fetch;
  /** Told why how many events were dropped: "full", or the gateway's status. Never throws into the tracker. */
  onError?: (reason: string, events: number) => void;
}

export interface Queue {
  /** Keeps the event. False: the queue is full. created: orders the queue. json: the parameters without stm. */
  add(created: number, id: string, json: string, anonymous?: boolean): boolean;
  /** Sends now what this page tracked and has not sent: the page may be going away. */
  leave(): void;
  /** True when the queue is empty, false when the time was too short. */
  flush(limitMs?: number): Promise<boolean>;
  /** Forgets everything that waits. */
  clear(): void;
  /** Reason -> events that this page dropped. */
  dropped: Record<string, number>;
}

const HOUR = 36e5;
const LONGEST_BACK_OFF = 6e5;
/** Added to every back-off: the first ten seconds of an outage see at most three requests. */
const LEAST_BACK_OFF = 3500;
/** Bytes of all keepalive requests of a page that browsers let through together, with a margin. */
const KEEPALIVE = 6e4;
/** Storage reaches other tabs a little later than a lock does. */
const SETTLE = 40;

const sleep = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));
const bytes = (text: string) => new TextEncoder().encode(text).length;

export const makeQueue = (url: string, options: QueueOptions): Queue => {
  const state = "spq " + url; // "until failures": when the next request may go out
  const lease = state + "!"; // "owner until"
  const prefix = state + " ";
  const timeout = options.connectionTimeout || 1e4;
  const memory: Record<string, string> = {};
  const mine = new Set<string>(); // tracked by this page, not sent yet
  const flying = new Set<string>(); // in a request of this page
  const dropped: Record<string, number> = {};
  let limit = options.maxPostBytes || 4e4;
  let flyingBytes = 0;
  let waiting = 0; // about; counted anew at each request
  let busy = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let due = 0;
  let offline = false; // when the last request failed
  let storage: Storage | undefined;
  try {
    if (options.queue != "memory") storage = localStorage;
  } catch {
    // forbidden here: events live as long as the page
  }

  const get = (key: string) => memory[key] ?? storage?.getItem(key);
  const set = (key: string, value: string) => {
    try {
      storage!.setItem(key, value);
    } catch {
      memory[key] = value; // no storage, or it is full
    }
  };
  const remove = (key: string) => {
    delete memory[key];
    storage?.removeItem(key);
  };
  const keys = () => {
    const all = [...Object.keys(memory), ...Object.keys(storage || {})].filter((key) => key.startsWith(prefix)).sort();
    waiting = all.length;
    return all;
  };
  const drop = (reason: string, events: number) => {
    dropped[reason] = (dropped[reason] || 0) + events;
    try {
      options.onError?.(reason, events);
    } catch {
      // the page's own fault stays with the page
    }
  };
  /** Milliseconds until a request may go out. More than an hour is a clock that was set back. */
  const pause = () => {
    const ms = parseInt(get(state) || "") - Date.now();
    return ms > 0 && ms <= HOUR ? ms : 0;
  };
  const backOff = (retryAfter: string | null) => {
    offline = globalThis.navigator?.onLine === false;
    const failures = +((get(state) || "").split(" ")[1] || 0);
    const ms = LEAST_BACK_OFF + Math.random() * Math.min(LONGEST_BACK_OFF - LEAST_BACK_OFF, 1e3 * 2 ** Math.min(failures, 20));
    // A date is allowed there too.
    const asked = retryAfter ? (+retryAfter ? +retryAfter * 1e3 : Date.parse(retryAfter) - Date.now()) || 0 : 0;
    set(state, Math.ceil(Date.now() + Math.min(HOUR, Math.max(ms, asked))) + " " + (failures + 1));
  };

  /** The first of these keys that go into one request, and their events. A request is anonymous as a whole, or not at all. */
  const batch = (from: string[], most: number): [string[], string[], number, string | undefined] => {
    const chosen: string[] = [];
    const events: string[] = [];
    let size = 100;
    let mark: string | undefined;
    for (const key of from) {
      const value = !flying.has(key) && get(key);
      if (!value) continue; // another tab was faster
      const larger = size + bytes(value) + 32;
      if (chosen.length && (larger > most || value[0] != mark || options.eventMethod == "get")) break;
      chosen.push(key);
      events.push(value.slice(1));
      size = larger;
      mark = value[0];
    }
    return [chosen, events, size, mark];
  };

  /** Sends a batch and does what the answer asks for. True: go on with the next. */
  const send = async ([chosen, events, size, mark]: ReturnType<typeof batch>): Promise<boolean> => {
    for (const key of chosen) {
      flying.add(key);
      mine.delete(key);
    }
    flyingBytes += size;
    const abort = new AbortController();
    const clock = setTimeout(() => abort.abort(), timeout);
    const stamped = events.map((event) => event.slice(0, -1) + `,"stm":"${Date.now()}"}`);
    const simple = options.eventMethod == "get";
    let status = 0;
    let retryAfter: string | null = null;
    try {
      const answer = await (options.customFetch || fetch)(
        simple ? url + "?" + new URLSearchParams(JSON.parse(stamped[0]!)) : url,
        {
          method: simple ? "GET" : "POST",
          headers: {
            ...(simple ? {} : { "Content-Type": "application/json; charset=UTF-8" }),
            ...(mark == "*" ? { "SP-Anonymous": "*" } : {}),
            ...options.customHeaders,
          },
          body: simple ? null : `{"schema":"${iglu("payload_data", "1-0-4")}","data":[${stamped}]}`,
          credentials: options.credentials || "include",
          keepalive: flyingBytes < KEEPALIVE,
          signal: abort.signal,
        },
      );
      retryAfter = answer.headers.get("Retry-After");
      await answer.text(); // an answer that breaks off acknowledges nothing
      status = answer.status;
    } catch {
      // no answer
    }
    clearTimeout(clock);
    flyingBytes -= size;
    for (const key of chosen) flying.delete(key);
    const taken = status >= 200 && status < 300;
    if (status == 413 && chosen.length > 1) limit = size >> 1;
    else if (taken || /^4(0[0134]|1[03]|22)$/.test("" + status)) {
      chosen.forEach(remove);
      if (taken) remove(state);
      else drop("" + status, chosen.length);
    } else {
      backOff(retryAfter);
      return false;
    }
    return true;
  };

  const work = async (): Promise<void> => {
    while (!pause()) {
      const next = batch(keys(), limit);
      if (!next[0].length) break;
      // Outlives the request: whoever comes after a dead tab waits no longer than needed.
      if (storage && !locks) set(lease, owner + " " + (Date.now() + timeout + 5e3));
      await send(next);
    }
    await sleep(SETTLE);
    // Every tab looks again when the pause is over: the one that failed may be gone by then.
    if (keys().length) wake(pause());
  };

  const owner = uuid();
  const locks = storage && globalThis.navigator?.locks;
  const alone = async (): Promise<void> => {
    if (locks) return locks.request(state, work);
    if (!storage) return work();
    for (;;) {
      const [holder, until] = (get(lease) || "").split(" ");
      if (!holder || !(+until! > Date.now()) || +until! > Date.now() + HOUR) {
        set(lease, owner + " " + (Date.now() + timeout));
        await sleep(SETTLE * (2 + Math.random()));
        if (get(lease)?.startsWith(owner)) break;
      }
      await sleep(SETTLE * (5 + 5 * Math.random()));
    }
    try {
      await work();
    } finally {
      if (get(lease)?.startsWith(owner)) remove(lease);
    }
  };
  const drain = async (): Promise<void> => {
    timer = undefined;
    if (busy) return wake(SETTLE);
    busy = true;
    await alone().catch(() => {});
    busy = false;
  };
  const wake = (ms: number): void => {
    const at = Date.now() + ms;
    if (timer && due <= at && due >= Date.now()) return;
    clearTimeout(timer);
    due = at;
    timer = setTimeout(drain, ms);
  };

  globalThis.addEventListener?.("online", () => {
    if (offline) remove(state); // nobody asked us to wait
    offline = false;
    wake(pause());
  });
  wake(0); // what earlier pages left behind

  return {
    dropped,
    add(created, id, json, anonymous) {
      if (waiting >= (options.maxLocalStorageQueueSize || 1e3)) {
        drop("full", 1);
        wake(pause());
        return false;
      }
      const key = prefix + ("" + created).padStart(15, "0") + id;
      set(key, (anonymous ? "*" : " ") + json);
      mine.add(key);
      waiting++;
      wake(pause());
      return true;
    },
    leave() {
      if (pause()) return;
      const last = batch([...mine].sort(), Math.min(limit, KEEPALIVE - flyingBytes));
      if (last[0].length && flyingBytes + last[2] < KEEPALIVE) void send(last).then(() => wake(pause()));
    },
    async flush(limitMs = 1e4) {
      const end = Date.now() + limitMs;
      wake(pause());
      while (keys().length && Date.now() < end) await sleep(SETTLE);
      return !keys().length;
    },
    clear() {
      keys().forEach(remove);
      mine.clear();
      waiting = 0;
    },
  };
};
