/** Page pings: while the visitor does something, one after a first time and then one per beat, with how far the page was scrolled. */

export interface ActivityOptions {
  /** Seconds until the first ping. */
  minimumVisitLength: number;
  /** Seconds between pings. */
  heartbeatDelay: number;
}

export interface Offsets {
  minX: number;
  maxX: number;
  minY: number;
  maxY: number;
}

/** Returns what ends it. ping: gets how far the page was scrolled since the last one. */
export const watchActivity = (options: ActivityOptions, ping: (offsets: Offsets) => void): (() => void) => {
  const events = ["pointermove", "pointerdown", "keydown", "scroll", "wheel", "touchstart", "resize", "focus"];
  let active = false;
  let offsets: Offsets | undefined;
  const look = () => {
    const x = Math.max(0, Math.round(scrollX));
    const y = Math.max(0, Math.round(scrollY));
    offsets = {
      minX: Math.min(x, offsets?.minX ?? x),
      maxX: Math.max(x, offsets?.maxX ?? x),
      minY: Math.min(y, offsets?.minY ?? y),
      maxY: Math.max(y, offsets?.maxY ?? y),
    };
  };
  const notice = (event: Event) => {
    active = true;
    if (event.type == "scroll") look();
  };
  const beat = () => {
    if (active) {
      look();
      ping(offsets!);
      active = false;
      offsets = undefined;
    }
    timer = setTimeout(beat, options.heartbeatDelay * 1e3);
  };
  let timer = setTimeout(beat, options.minimumVisitLength * 1e3);
  look();
  for (const name of events) addEventListener(name, notice, { passive: true, capture: true });
  return () => {
    clearTimeout(timer);
    for (const name of events) removeEventListener(name, notice, true);
  };
};
