export declare const VERSION: string;
export declare const LONGEST: number;
export declare class PixelError extends Error {
  readonly code: string;
}
export interface SelfDescribing {
  schema: string;
  data: unknown;
}
export interface Event {
  parameters: Record<string, string>;
  data?: SelfDescribing;
}
export interface Provider {
  pattern: RegExp;
  campaign: string;
  message: string;
  recipient: string;
}
export declare const PROVIDERS: Record<"mailchimp" | "sendgrid" | "brevo" | "hubspot" | "klaviyo" | "jinja", Provider>;
export interface Email {
  campaign?: string;
  message?: string;
  recipient?: string;
  sentMs?: number;
}
export declare function pageView(url: string, title?: string, referrer?: string): Event;
export declare function pagePing(
  url: string,
  title?: string,
  referrer?: string,
  minX?: number,
  maxX?: number,
  minY?: number,
  maxY?: number,
): Event;
export declare function screenView(
  name: string,
  id: string,
  type?: string,
  previousName?: string,
  previousId?: string,
  previousType?: string,
  transitionType?: string,
): Event;
export declare function structured(category: string, action: string, label?: string, property?: string, value?: number | string): Event;
export declare function selfDescribing(schema: string, data: unknown): Event;
export declare function timing(category: string, variable: string, timingMs: number, label?: string): Event;
export declare function emailOpen(email?: Email): Event;
export declare function emailClick(email?: Email & { link?: string; honeypot?: boolean }): Event;
export interface Options {
  appId?: string;
  namespace?: string;
  platform?: string;
  key?: Uint8Array<ArrayBuffer>;
  provider?: keyof typeof PROVIDERS | "";
  openPath?: string;
  clickPath?: string;
  base64?: boolean;
  longest?: number;
}
export interface More {
  entities?: SelfDescribing[];
  trueMs?: number;
  eventId?: string;
  parameters?: Record<string, string>;
}
export declare class Pixel {
  constructor(endpoint: string, options?: Options);
  open(event: Event, more?: More): string;
  click(target: string, event?: Event, more?: More): Promise<string>;
}
export declare function pixelTag(url: string): string;
export declare function noscript(url: string): string;
export declare function amp(url: string): string;
export declare function link(url: string, text: string, colour?: string): string;
export declare function honeypot(url: string): string;
