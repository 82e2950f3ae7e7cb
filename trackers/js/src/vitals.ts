/**
 * Web vitals: one web_vitals event per page, in the moment it is first hidden. Times in milliseconds; what a browser does not measure is left out.
 *
 * cls: the worst second-wide burst of layout shifts, as the Chrome team defines it. inp: the slowest interaction, or, of more than
 * fifty, the next after one in fifty.
 */
import type { Extra, Tracker } from "./index.js";
import { iglu } from "./wire.js";

interface Shift extends PerformanceEntry {
  value: number;
  hadRecentInput: boolean;
}
interface Interaction extends PerformanceEntry {
  interactionId: number;
}

export const enableWebVitals = (tracker: Tracker, { context = null }: Pick<Extra, "context"> = {}): void => {
  const data: Record<string, number | string> = {};
  const slow = new Map<number, number>();
  let first = 0;
  let last = 0;
  let burst = 0;
  let sent = false;
  const watch = <Entry extends PerformanceEntry>(type: string, each: (entry: Entry) => void) => {
    try {
      const observer = new PerformanceObserver((list) => (list.getEntries() as Entry[]).forEach(each));
      observer.observe({ type, buffered: true, durationThreshold: 40 } as PerformanceObserverInit);
      return () => (observer.takeRecords() as Entry[]).forEach(each);
    } catch {
      return () => {}; // unknown here
    }
  };
  const rest = [
    watch("largest-contentful-paint", (entry) => (data["lcp"] = entry.startTime)),
    watch("paint", (entry) => entry.name == "first-contentful-paint" && (data["fcp"] = entry.startTime)),
    watch<PerformanceEventTiming>("first-input", (entry) => (data["fid"] = entry.processingStart - entry.startTime)),
    watch<Shift>("layout-shift", (entry) => {
      data["cls"] ??= 0;
      if (entry.hadRecentInput) return;
      if (entry.startTime - last > 1e3 || entry.startTime - first > 5e3) {
        burst = 0;
        first = entry.startTime;
      }
      last = entry.startTime;
      burst += entry.value;
      data["cls"] = Math.max(data["cls"] as number, burst);
    }),
    watch<Interaction>("event", ({ interactionId, duration }) => {
      if (interactionId) slow.set(interactionId, Math.max(duration, slow.get(interactionId) || 0));
    }),
  ];
  const send = () => {
    if (sent || (document.visibilityState == "visible" && !document.hidden)) return;
    sent = true;
    rest.forEach((take) => take());
    const [navigation] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
    if (navigation) {
      data["ttfb"] = Math.max(0, navigation.responseStart);
      data["navigationType"] = navigation.type;
    }
    const sorted = [...slow.values()].sort((a, b) => b - a);
    if (sorted.length) data["inp"] = sorted[Math.floor(sorted.length / 50)]!;
    tracker.trackSelfDescribingEvent({ event: { schema: iglu("web_vitals", "1-0-0"), data }, context });
  };
  // Before the queue's own listener at the window, so that the event goes out with the page's last request.
  document.addEventListener("visibilitychange", send, true);
};
