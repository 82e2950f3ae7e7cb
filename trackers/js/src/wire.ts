/**
 * Turns values into what stands on the wire: parameters, ids, base64. Pure but for randomness; knows no page, no storage, no network.
 */

/** An entity, or the inside of a self-describing event. */
export interface SelfDescribing {
  schema: string;
  data: unknown;
}

/** Parameter name -> text, as sent. */
export type Payload = Record<string, string>;

const SNOWPLOW = "iglu:com.snowplowanalytics.snowplow/";
export const iglu = (name: string, version: string): string => `${SNOWPLOW}${name}/jsonschema/${version}`;

/** Empty is absent: null, undefined and "" are not sent; 0 and false are. */
export const put = (to: Payload, values: Record<string, unknown>): Payload => {
  for (const name in values) {
    const value = values[name];
    if (value != null && value !== "") to[name] = "" + value;
  }
  return to;
};

/** A random UUID. crypto.randomUUID exists on HTTPS pages only. */
export const uuid = (): string =>
  "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (_, at) =>
    // The variant digit (the 8) keeps its upper two bits.
    (at == 14 ? 4 : (crypto.getRandomValues(new Uint8Array(1))[0]! & 15 & (at == 19 ? 3 : 15)) | (at == 19 ? 8 : 0)).toString(16),
  );

/** The name of a self-describing parameter, and its text: `plain`, or as base64url in `encoded`. */
export const json = (value: unknown, plain: string, encoded: string, base64?: boolean): Payload => {
  const text = JSON.stringify(value);
  return base64
    ? {
        [encoded]: btoa(
          encodeURIComponent(text).replace(/%(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))),
        ).replace(/[+/=]/g, (letter) => ({ "+": "-", "/": "_" })[letter] || ""),
      }
    : { [plain]: text };
};
