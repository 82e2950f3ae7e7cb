/** An entity about the session at every event: client_session, from the visit that the tracker keeps. */
import type { Tracker } from "./index.js";
import { iglu } from "./wire.js";

/** how: what `storageMechanism` shall say; COOKIE_1 where ids are in a cookie. */
export const addSessionContext = (tracker: Tracker, how: "LOCAL_STORAGE" | "COOKIE_1" = "LOCAL_STORAGE"): void =>
  void tracker.globalContexts.push(() => {
      const [user, , visits, , , session, previous, first, firstMs, events] = tracker.getVisit();
      return session
        ? {
            schema: iglu("client_session", "1-0-2"),
            data: {
              userId: user || "00000000-0000-0000-0000-000000000000",
              sessionId: session,
              eventIndex: +events!,
              sessionIndex: +visits!,
              previousSessionId: previous || null,
              storageMechanism: how,
              firstEventId: first,
              firstEventTimestamp: new Date(+firstMs!).toISOString(),
            },
          }
        : undefined;
  });
