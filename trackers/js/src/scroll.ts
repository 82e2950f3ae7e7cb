/** How far a page was read: a structured event "scroll" / "depth" for each quarter, once per page view. */
import type { Tracker } from "./index.js";

export interface ScrollOptions {
  /** Percent of the page's height whose lower edge was seen; default 25, 50, 75, 100. */
  depths?: number[];
}

/** Returns what ends it. */
export const enableScrollTracking = (tracker: Tracker, { depths = [25, 50, 75, 100] }: ScrollOptions = {}): (() => void) => {
  let page = "";
  let left: number[] = [];
  let waits = false;
  const look = () => {
    waits = false;
    if (page != tracker.getPageViewId()) {
      page = tracker.getPageViewId();
      left = [...depths];
    }
    const seen = ((scrollY + innerHeight) / document.documentElement.scrollHeight) * 100 + 0.5;
    left = left.filter((depth) => {
      if (seen >= depth) tracker.trackStructEvent({ category: "scroll", action: "depth", label: location.pathname, value: depth });
      return seen < depth;
    });
  };
  const notice = () => {
    if (!waits) requestAnimationFrame(look);
    waits = true;
  };
  addEventListener("scroll", notice, { passive: true, capture: true });
  return () => removeEventListener("scroll", notice, true);
};
