/** Verbs beside the core: screen views and timings, which are self-describing events, and the official names for the tracker's lists. */
import type { Extra, GlobalEntity, Tracker } from "./index.js";
import { iglu } from "./wire.js";

export interface ScreenView {
  name: string;
  id?: string;
  type?: string;
  previousName?: string;
  previousId?: string;
  previousType?: string;
  transitionType?: string;
}

export interface Timing {
  category: string;
  variable: string;
  timing: number;
  label?: string;
}

export const trackScreenView = (tracker: Tracker, view: ScreenView & Extra): string | undefined => {
  const { name, id = crypto.randomUUID(), type, previousName, previousId, previousType, transitionType, ...extra } = view;
  return tracker.trackSelfDescribingEvent({
    ...extra,
    event: {
      schema: name && "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0",
      data: { name, id, type, previousName, previousId, previousType, transitionType },
    },
  });
};

export const trackTiming = (tracker: Tracker, { category, variable, timing, label, ...extra }: Timing & Extra): string | undefined =>
  tracker.trackSelfDescribingEvent({ ...extra, event: { schema: iglu("timing", "1-0-0"), data: { category, variable, timing, label } } });

/** What the browser's address, referrer and title are replaced by, from here on. */
export const setCustomUrl = (tracker: Tracker, url: string): void => void (tracker.page.url = url);
export const setReferrerUrl = (tracker: Tracker, url: string): void => void (tracker.page.referrer = url);
export const setDocumentTitle = (tracker: Tracker, title: string): void => void (tracker.page.title = title);

export const addGlobalContexts = (tracker: Tracker, entities: GlobalEntity[]): void => void tracker.globalContexts.push(...entities);
export const removeGlobalContexts = (tracker: Tracker, entities: GlobalEntity[]): void => {
  const kept = tracker.globalContexts.filter((one) => !entities.includes(one));
  tracker.globalContexts.splice(0, Infinity, ...kept);
};
export const clearGlobalContexts = (tracker: Tracker): void => void (tracker.globalContexts.length = 0);
