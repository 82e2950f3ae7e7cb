/** Clicks on links become link_click events, also with the middle button and the keyboard, for links that are added later too. */
import type { Extra, Tracker } from "./index.js";
import { iglu } from "./wire.js";

export interface LinkClickOptions {
  /** Which links count; default all. */
  filter?: (link: HTMLAnchorElement | HTMLAreaElement) => boolean;
  /** The link's content too. */
  trackContent?: boolean;
  context?: Extra["context"];
}

export const trackLinkClick = (
  tracker: Tracker,
  { targetUrl, elementId, elementClasses, elementTarget, elementContent, ...extra }: LinkClick & Extra,
): string | undefined =>
  tracker.trackSelfDescribingEvent({
    ...extra,
    event: { schema: targetUrl && iglu("link_click", "1-0-1"), data: { targetUrl, elementId, elementClasses, elementTarget, elementContent } },
  });
export interface LinkClick {
  targetUrl: string;
  elementId?: string | undefined;
  elementClasses?: string[] | undefined;
  elementTarget?: string | undefined;
  elementContent?: string | undefined;
}

/** Returns what ends it. */
export const enableLinkClickTracking = (tracker: Tracker, options: LinkClickOptions = {}): (() => void) => {
  const press = (event: Event) => {
    // A middle click is an auxclick; a right click opens a menu and no link.
    if ((event as MouseEvent).button > 1) return;
    const link = event.composedPath().find((one) => one instanceof Element && one.matches("a[href],area[href]")) as HTMLAnchorElement | undefined;
    if (link?.href && (!options.filter || options.filter(link)))
      trackLinkClick(tracker, {
        targetUrl: link.href,
        elementId: link.id || undefined,
        elementClasses: link.classList.length ? [...link.classList] : undefined,
        elementTarget: link.target || undefined,
        elementContent: options.trackContent ? link.innerHTML : undefined,
        context: options.context ?? null,
      });
  };
  const names = ["click", "auxclick"];
  for (const name of names) document.addEventListener(name, press, true);
  return () => names.forEach((name) => document.removeEventListener(name, press, true));
};
