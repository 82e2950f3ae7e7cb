/** Links to your other domains carry the visitor's id as `_sp=USER.MILLISECONDS`; the enrichment cross_navigation reads it there. */
import type { Tracker } from "./index.js";

/** The address with this visitor's id; unchanged for a visitor without one. */
export const crossDomainUrl = (tracker: Tracker, url: string): string => {
  const [id] = tracker.getVisit();
  if (!id) return url;
  const to = new URL(url, location.href);
  to.searchParams.set("_sp", id + "." + Date.now());
  return to.href;
};

/** Every link that the function says yes to gets it in the moment it is pressed. Returns what ends it. */
export const crossDomainLinker = (tracker: Tracker, wanted: (link: HTMLAnchorElement) => boolean): (() => void) => {
  const press = (event: Event) => {
    const link = (event.target as Element).closest?.<HTMLAnchorElement>("a[href]");
    if (link && wanted(link)) link.href = crossDomainUrl(tracker, link.href);
  };
  const names = ["mousedown", "click"];
  for (const name of names) document.addEventListener(name, press, true);
  return () => names.forEach((name) => document.removeEventListener(name, press, true));
};
