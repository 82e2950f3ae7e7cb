/** Pages without a load: a page view whenever the address changes, by the history or the Back button. */
import type { Tracker } from "./index.js";

export interface RouteOptions {
  /** "path": a changed fragment is no new page. "all": it is one. Default "path". */
  count?: "path" | "all";
}

/** The first page view is the caller's. Returns what ends it. */
export const enableRouteTracking = (tracker: Tracker, { count = "path" }: RouteOptions = {}): (() => void) => {
  const where = () => (count == "all" ? location.href : location.href.split("#")[0]!);
  let last = where();
  let live = true;
  const look = () => {
    // After the router's own code, which sets the title.
    setTimeout(() => {
      if (!live || where() == last) return;
      last = where();
      tracker.trackPageView();
    });
  };
  for (const name of ["pushState", "replaceState"] as const) {
    const original = history[name];
    history[name] = function (...values) {
      original.apply(this, values);
      look();
    };
  }
  for (const name of ["popstate", "hashchange"]) addEventListener(name, look);
  return () => void (live = false);
};
