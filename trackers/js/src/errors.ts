/** Errors that nobody caught become application_error events, at most so many a page; the same one once. */
import type { Extra, Tracker } from "./index.js";
import { iglu } from "./wire.js";

export interface ErrorOptions {
  filter?: (error: unknown) => boolean;
  /** Default 20. */
  most?: number;
  context?: Extra["context"];
}

export const trackError = (
  tracker: Tracker,
  { message, error, filename, lineno, colno, ...extra }: { message?: string; error?: unknown; filename?: string; lineno?: number; colno?: number } & Extra,
): string | undefined => {
  const known = error instanceof Error ? error : undefined;
  return tracker.trackSelfDescribingEvent({
    ...extra,
    event: {
      schema: iglu("application_error", "1-0-1"),
      data: {
        programmingLanguage: "JAVASCRIPT",
        message: (message || known?.message || "" + error).slice(0, 2048),
        stackTrace: known?.stack?.slice(0, 8192) ?? null,
        lineNumber: lineno ?? null,
        lineColumn: colno ?? null,
        fileName: filename?.slice(0, 1024) ?? null,
        exceptionName: known?.name.slice(0, 1024) ?? null,
      },
    },
  });
};

/** Returns what ends it. */
export const enableErrorTracking = (tracker: Tracker, { filter, most = 20, context = null }: ErrorOptions = {}): (() => void) => {
  const seen = new Set<string>();
  const notice = (event: Event) => {
    const { reason, message, filename, lineno, colno } = event as ErrorEvent & PromiseRejectionEvent;
    const error: unknown = (event as ErrorEvent).error ?? reason;
    const name = message + error + filename + lineno;
    if (seen.has(name) || seen.size >= most || (filter && !filter(error))) return;
    seen.add(name);
    trackError(tracker, { message, error, filename, lineno, colno, context });
  };
  const names = ["error", "unhandledrejection"];
  for (const name of names) addEventListener(name, notice);
  return () => names.forEach((name) => removeEventListener(name, notice));
};
