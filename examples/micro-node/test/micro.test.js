// Run by `npm test`, and by the project's own tests. SPOORWAY names the program where it is not on the path.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { randomUUID } from "node:crypto";
import { assertTracked, difference, matchers, startMicro } from "../index.js";

const PAYLOAD_DATA = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";

async function track(micro, ...events) {
  const data = events.map((event) => ({ tv: "test-1", p: "web", eid: randomUUID(), ...event }));
  const body = JSON.stringify({ schema: PAYLOAD_DATA, data });
  const headers = { "Content-Type": "application/json" };
  await fetch(`${micro.url}/com.snowplowanalytics.snowplow/tp2`, { method: "POST", headers, body });
  return data.map((event) => event.eid);
}

describe("a test server of one's own", () => {
  let server, micro;
  before(async () => {
    server = await startMicro({ command: process.env.SPOORWAY?.split(" ") });
  });
  after(() => server.stop());
  beforeEach(() => {
    micro = server.namespace(randomUUID());
  });

  test("an event can be read once it was acknowledged", async () => {
    const [id] = await track(micro, { e: "pv", aid: "shop", page: "Beds", url: "http://shop.test/beds" });
    const [event] = await micro.expectGood(1, { event_type: "page_view" });
    assert.equal(event.event.event_id, id);
    assert.equal(event.event.page_urlport, 80);
    assert.deepEqual(await micro.all(), { total: 1, good: 1, bad: 0 });
    assert.equal((await micro.good({}, { columns: { event_id: id } })).length, 1);
    assert.equal((await micro.good({}, { columns: { app_id: "other" } })).length, 0);
    await micro.expectNoBad();
  });

  test("namespaces keep apart, and are reset alone", async () => {
    const other = server.namespace(randomUUID());
    await track(micro, { e: "pv" });
    await track(other, { e: "pv" }, { e: "pv" });
    await micro.reset();
    assert.equal((await micro.all()).total, 0);
    assert.equal((await other.all()).total, 2);
  });

  test("an assertion waits for the event it is about", async () => {
    const found = assertTracked(micro, { eventType: "struct", event: { se_value: 2.5, se_action: (text) => text.startsWith("a") } });
    await track(micro, { e: "pv" });
    await track(micro, { e: "se", se_ca: "c", se_ac: "add", se_va: "2.5" });
    assert.equal((await found).length, 1);
  });

  test("an assertion that fails says how what came differs", async () => {
    await track(micro, { e: "pv", aid: "shop" }, { e: "nonsense" });
    await assert.rejects(assertTracked(micro, { event: { app_id: "other" } }, { timeoutMs: 50 }), (error) => {
      assert.match(error.message, /page_view: event\.app_id: "shop" instead of "other"/);
      assert.match(error.message, /bad: .*expected one of pv/);
      return true;
    });
    await assert.rejects(micro.expectNoBad(), /no bad event was expected\n {2}bad: /);
    await assert.rejects(micro.expectGood(2, {}, { timeoutMs: 50 }), /1 good events where 2 were expected/);
  });

  test("matchers answer as Jest and Vitest ask for", async () => {
    await track(micro, { e: "pv", aid: "shop" });
    const yes = await matchers.toHaveTracked(micro, { event: { app_id: "shop" } });
    const no = await matchers.toHaveTracked(micro, { event: { app_id: "x" } }, { timeoutMs: 20 });
    assert.deepEqual([yes.pass, no.pass], [true, false]);
    assert.match(no.message(), /"shop" instead of "x"/);
    assert.match(yes.message(), /was tracked/);
    assert.equal((await matchers.toHaveNoBadEvents(micro)).pass, true);
  });

  test("a filter that is none is refused", async () => {
    await assert.rejects(micro.good({}, { columns: { app: "shop" } }), /422 .*app: no such parameter/);
  });
});

test("a difference is named by its place", () => {
  assert.equal(difference({ a: 1, b: [{ c: 1 }, { c: 2 }] }, { b: [{ c: 2 }] }), "");
  assert.equal(difference({ a: { b: 1 } }, { a: { b: 2 } }), "a.b: 1 instead of 2");
  assert.equal(difference({ a: [1] }, { a: [1, 3] }), "a: nothing in [1] matches 3");
  assert.equal(difference({ a: [1] }, { a: { 0: 1 } }), 'a: [1] instead of {"0":1}');
  assert.equal(difference({}, { a: null }), "a: nothing instead of null");
  assert.equal(difference({ a: 7 }, { a: { asymmetricMatch: (value) => value > 6 } }), "");
});

test("a server that cannot start says so", async () => {
  await assert.rejects(startMicro({ command: ["/no/such/program"] }), /ENOENT/);
});
