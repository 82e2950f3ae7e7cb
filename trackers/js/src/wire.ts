/**
 * What stands on the wire: self-describing parts, parameters, ids. Knows no page, no storage, no network.
 */

/** An entity, or the inside of a self-describing event. */
export interface SelfDescribing {
  schema: string;
  data: unknown;
}

const SNOWPLOW = "iglu:com.snowplowanalytics.snowplow/";
export const iglu = (name: string, version: string): string => `${SNOWPLOW}${name}/jsonschema/${version}`;

/** As in Europe/Amsterdam. Temporal, of 2026 and later, knows it at once; a page's first use of Intl takes 10 ms and more. */
export const timeZone = (): string =>
  (globalThis as { Temporal?: { Now: { timeZoneId?(): string } } }).Temporal?.Now.timeZoneId?.() ?? Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A random UUID. crypto.randomUUID exists on HTTPS pages only. The 8 keeps two of its bits, the 1s and 0s none. */
export const uuid = (): string => {
  const bytes = crypto.getRandomValues(new Uint8Array(36));
  return "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit, at) => (+digit ^ (bytes[at]! & (15 >> (+digit / 4)))).toString(16));
};
