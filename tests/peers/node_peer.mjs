// Drives the official Node tracker through every call of calls.json and prints as JSON which event ids each call got.
//
//     node tests/peers/node_peer.mjs http://127.0.0.1:8080 [--method get|post] [--base64 on|off] [--anonymous]
//
// What was tracked stands in calls.json alone; nothing here knows a wire parameter.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import * as snowplow from "@snowplow/node-tracker";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    method: { type: "string", default: "post" },
    base64: { type: "string", default: "on" },
    anonymous: { type: "boolean", default: false },
  },
});
const table = JSON.parse(readFileSync(new URL("calls.json", import.meta.url), "utf8"));

const unsupported = {
  mobile_screen_view: "no method",
};

const delivered = [];
const failed = [];
const tracker = snowplow.newTracker(
  { namespace: table.tracker.namespace, appId: table.tracker.app_id, encodeBase64: options.base64 === "on" },
  {
    endpoint: positionals[0],
    eventMethod: options.method,
    bufferSize: 5, // several batches, and one that is not full
    customHeaders: options.anonymous ? { "SP-Anonymous": "*" } : {},
    onRequestSuccess: (batch) => delivered.push(...batch.map((event) => event.eid)),
    onRequestFailure: (failure) => failed.push({ status: failure.status ?? null, message: failure.message ?? null }),
  },
);

const subject = table.subject;
tracker.setPlatform(subject.platform);
tracker.setScreenResolution(...subject.screen.map(String));
tracker.setViewport(...subject.viewport.map(String));
tracker.setColorDepth(String(subject.color_depth));
tracker.setTimezone(subject.timezone);
tracker.setLang(subject.lang);
tracker.setUseragent(subject.useragent);
if (!options.anonymous) {
  tracker.setUserId(subject.user_id);
  tracker.setDomainUserId(subject.domain_userid);
  tracker.setSessionId(subject.session_id);
  tracker.setSessionIndex(subject.session_index);
  tracker.setIpAddress(subject.ip);
  tracker.setNetworkUserId(subject.network_userid);
}

// Name in calls.json -> the payloads the tracker's own builders make of the arguments.
const builders = {
  page_view: (a) => [snowplow.buildPageView({ pageUrl: a.url, pageTitle: a.title, referrer: a.referrer })],
  page_ping: (a) => [
    snowplow.buildPagePing({
      pageUrl: a.url, pageTitle: a.title, referrer: a.referrer,
      minXOffset: a.min_x, maxXOffset: a.max_x, minYOffset: a.min_y, maxYOffset: a.max_y,
    }),
  ],
  struct: (a) => [snowplow.buildStructEvent(a)],
  struct_bare: (a) => [snowplow.buildStructEvent({ category: a.category, action: a.action })],
  self_describing: (a) => [snowplow.buildSelfDescribingEvent({ event: a.event })],
  link_click: (a) => [
    snowplow.buildLinkClick({
      targetUrl: a.target_url, elementId: a.element_id, elementClasses: a.element_classes,
      elementTarget: a.element_target, elementContent: a.element_content,
    }),
  ],
  form_focus: (a) => [formEvent("focus_form", a)],
  form_change: (a) => [formEvent("change_form", a)],
  form_submit: (a) => [
    snowplow.buildFormSubmission({ formId: a.form_id, formClasses: a.form_classes, elements: a.elements }),
  ],
  site_search: (a) => [
    snowplow.buildSiteSearch({
      terms: a.terms, filters: a.filters, totalResults: a.total_results, pageResults: a.page_results,
    }),
  ],
  add_to_cart: (a) => [snowplow.buildAddToCart({ ...a, unitPrice: a.unit_price })],
  remove_from_cart: (a) => [snowplow.buildRemoveFromCart({ ...a, unitPrice: a.unit_price })],
  transaction: (a) => [
    snowplow.buildEcommerceTransaction({ ...a, orderId: a.order_id }),
    ...a.items.map((item) =>
      snowplow.buildEcommerceTransactionItem({ ...item, orderId: a.order_id, currency: a.currency }),
    ),
  ],
  screen_view: (a) => [snowplow.buildScreenView(a)],
  social_interaction: (a) => [snowplow.buildSocialInteraction(a)],
};

function formEvent(schema, a) {
  return snowplow.buildFormFocusOrChange({
    schema, formId: a.form_id, elementId: a.element_id, nodeName: a.node_name,
    type: a.element_type, elementClasses: a.element_classes, value: a.value,
  });
}

const made = [];
for (const call of table.calls) {
  if (call.name in unsupported) continue;
  const timestamp = call.true_timestamp_ms ? { type: "ttm", value: call.true_timestamp_ms } : undefined;
  const eventIds = builders[call.name](call.arguments).map(
    (payload) => tracker.track(payload, call.arguments.entities, timestamp).eid,
  );
  made.push({ name: call.name, event_ids: eventIds });
}
await tracker.flush();

// The emitter sends behind flush(); its callbacks say when everything has been answered.
const expected = made.flatMap((call) => call.event_ids).length;
const deadline = Date.now() + 20_000;
while (delivered.length < expected && failed.length === 0 && Date.now() < deadline) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
const answer = { tracker: `node-${snowplow.version}`, calls: made, unsupported, delivered, failed };
process.stdout.write(JSON.stringify(answer) + "\n", () => process.exit(0));
