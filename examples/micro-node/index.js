// Tests in Node for what trackers send: starts Spoorway's test server, reads its events back, compares them.
// No dependency. For node:test use `micro.expectGood` and `assertTracked`; for Jest and Vitest `expect.extend(matchers)`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/**
 * Starts `spoorway micro` on a port the system chooses; it ends with `stop()`, or with this process.
 * command: program and its first arguments. args: more of them. schemas: folders with schemas.
 */
export async function startMicro({ command = ["spoorway"], args = [], schemas = [] } = {}) {
  const [program, ...first] = command;
  const own = ["micro", "--http", "127.0.0.1:0", "--json", "--quiet", "--with-parent"];
  const folders = schemas.flatMap((folder) => ["--schemas", folder]);
  const child = spawn(program, [...first, ...own, ...folders, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const failed = once(child, "error").then(([error]) => { throw error; });
  const lines = createInterface({ input: child.stdout });
  const line = await Promise.race([once(lines, "line").then(([text]) => text), ended.then(() => null), failed]);
  if (line === null) throw new Error(`spoorway micro ended with code ${child.exitCode}; it has said why on standard error`);
  const micro = new Micro(JSON.parse(line).url);
  micro.stop = async () => {
    child.stdin.end();
    await ended;
  };
  return micro;
}

/** One namespace of a test server. url: what a tracker is given as its collector's address. */
export class Micro {
  constructor(url) {
    this.url = url.replace(/\/+$/, "");
  }

  /** The same server with events of its own. */
  namespace(name) {
    return new Micro(`${this.url}/ns/${encodeURIComponent(name)}`);
  }

  /** How many there are: { total, good, bad }. */
  all(options) {
    return this.#ask("all", {}, options);
  }

  /**
   * Valid events, newest first. filter: event_type, schema, contexts, limit.
   * options: wait, timeoutMs (answer once there are so many, or then), and columns: { app_id: "shop" }.
   */
  good(filter = {}, options) {
    return this.#ask("good", filter, options);
  }

  /** Failed events, newest first. filter: vendor, version, limit. */
  bad(filter = {}, options) {
    return this.#ask("bad", filter, options);
  }

  /** Forgets this namespace's events. */
  async reset() {
    await this.#ask("reset", {});
  }

  /** Exactly so many events that `good` finds; waits for them. Rejects with what was found instead. */
  async expectGood(count, filter = {}, { timeoutMs = 5000, columns } = {}) {
    const found = await this.good(filter, { wait: count, timeoutMs, columns });
    if (found.length === count) return found;
    const all = JSON.stringify(await this.all());
    throw new Error(`${found.length} good events where ${count} were expected, of ${all}${await this.#why()}`);
  }

  /** Rejects with what is wrong with each bad event. */
  async expectNoBad() {
    const why = await this.#why();
    if (why) throw new Error(`no bad event was expected${why}`);
  }

  async #why() {
    return (await this.bad()).reverse().map((event) => `\n  bad: ${event.errors[0]}`).join("");
  }

  async #ask(what, body, { wait, timeoutMs, columns = {} } = {}) {
    const query = new URLSearchParams(Object.entries(columns).map(([name, value]) => [name, String(value)]));
    if (wait) query.set("wait", wait);
    if (wait && timeoutMs !== undefined) query.set("timeout_ms", timeoutMs);
    const url = `${this.url}/micro/${what}?${query}`;
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${answer.status} from ${url}: ${await answer.text()}`);
    return answer.json();
  }
}

/**
 * Where `actual` lacks what `expected` asks for: "" when it lacks nothing. Objects may hold more than is expected; each
 * element of an expected array must match one of the actual, in any order. A function is asked whether it likes the value;
 * Jest's asymmetric matchers work as well.
 */
export function difference(actual, expected, path = "") {
  const here = path || "the event";
  if (typeof expected === "function") return expected(actual) ? "" : `${here}: ${show(actual)} is refused by ${expected}`;
  if (typeof expected?.asymmetricMatch === "function") {
    const wanted = expected.toAsymmetricMatcher?.() ?? String(expected);
    return expected.asymmetricMatch(actual) ? "" : `${here}: ${show(actual)} is not ${wanted}`;
  }
  if (expected === null || typeof expected !== "object") {
    return Object.is(actual, expected) ? "" : `${here}: ${show(actual)} instead of ${show(expected)}`;
  }
  if (actual === null || typeof actual !== "object" || Array.isArray(actual) !== Array.isArray(expected)) {
    return `${here}: ${show(actual)} instead of ${show(expected)}`;
  }
  if (Array.isArray(expected)) {
    const missing = expected.find((wanted) => !actual.some((item) => difference(item, wanted) === ""));
    return missing === undefined ? "" : `${here}: nothing in ${show(actual)} matches ${show(missing)}`;
  }
  for (const [name, wanted] of Object.entries(expected)) {
    const found = difference(actual[name], wanted, path ? `${path}.${name}` : name);
    if (found) return found;
  }
  return "";
}

/** The good events that match `expected` (part of a GoodEvent); waits for the first. Rejects with how the others differ. */
export async function assertTracked(micro, expected, { timeoutMs = 5000 } = {}) {
  const deadline = Date.now() + timeoutMs;
  for (let known = 0; ; ) {
    const left = Math.max(1, deadline - Date.now());
    const events = await micro.good({}, { wait: known + 1, timeoutMs: left });
    const matching = events.filter((event) => difference(event, expected) === "");
    if (matching.length > 0) return matching;
    if (events.length <= known || Date.now() >= deadline) {
      const differences = events.map((event) => `\n  ${event.eventType}: ${difference(event, expected)}`).join("");
      const bad = (await micro.bad()).map((event) => `\n  bad: ${event.errors[0]}`).join("");
      throw new Error(`nothing that was tracked matches ${show(expected)}${differences}${bad}`);
    }
    known = events.length;
  }
}

async function judged(attempt, otherwise) {
  try {
    await attempt();
    return { pass: true, message: () => otherwise };
  } catch (error) {
    return { pass: false, message: () => error.message };
  }
}

/** For `expect.extend(matchers)`: await expect(micro).toHaveTracked({…}), await expect(micro).toHaveNoBadEvents(). */
export const matchers = {
  toHaveTracked: (micro, expected, options) =>
    judged(() => assertTracked(micro, expected, options), `an event that matches ${show(expected)} was tracked`),
  toHaveNoBadEvents: (micro) => judged(() => micro.expectNoBad(), "there is no bad event"),
};

function show(value) {
  const text = JSON.stringify(value, (_, inner) => (typeof inner === "function" ? String(inner) : inner));
  return text === undefined ? "nothing" : text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
