/** Page pings: while the visitor does something, one after a first time and then one per beat, with how far the page was scrolled. */
import type { Offsets, Tracker } from "./index.js";

export interface ActivityOptions {
  /** Seconds until the first ping. */
  minimumVisitLength: number;
  /** Seconds between pings. */
  heartbeatDelay: number;
}

const watched = new WeakMap<Tracker, () => void>();

export const disableActivityTracking = (tracker: Tracker): void => watched.get(tracker)?.();

/** Pings of this tracker, instead of those it may have had. */
export const enableActivityTracking = (tracker: Tracker, options: ActivityOptions): void => {
  const names = ["pointermove", "pointerdown", "keydown", "scroll", "wheel", "touchstart", "resize", "focus"];
  const { min, max, round } = Math;
  let active = false;
  let offsets: Required<Offsets> | undefined;
  const look = (): Required<Offsets> => {
    const x = max(0, round(scrollX));
    const y = max(0, round(scrollY));
    const { minX = x, maxX = x, minY = y, maxY = y } = offsets || {};
    return (offsets = { minX: min(x, minX), maxX: max(x, maxX), minY: min(y, minY), maxY: max(y, maxY) });
  };
  const notice = (event: Event) => {
    active = true;
    if (event.type == "scroll") look();
  };
  const beat = (seconds: number) => {
    timer = setTimeout(() => {
      if (active) {
        tracker.trackPagePing(look());
        active = false;
        offsets = undefined;
      }
      beat(options.heartbeatDelay);
    }, seconds * 1e3);
  };
  let timer: ReturnType<typeof setTimeout>;
  beat(options.minimumVisitLength);
  look();
  for (const name of names) addEventListener(name, notice, true);
  disableActivityTracking(tracker);
  watched.set(tracker, () => {
    clearTimeout(timer);
    for (const name of names) removeEventListener(name, notice, true);
  });
};
