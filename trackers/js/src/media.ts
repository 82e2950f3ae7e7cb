/** A video or audio element: play, pause, seek, volume, end and how far it got, each with the player's state as an entity. */
import type { SelfDescribing, Tracker } from "./index.js";
import { iglu } from "./wire.js";

export interface MediaOptions {
  label?: string;
  /** Percentages that count, each once; default 10, 25, 50, 75. */
  boundaries?: number[];
  context?: SelfDescribing[];
}

const MEDIA = "iglu:com.snowplowanalytics.snowplow.media/";
const NAMES: Record<string, string> = {
  loadedmetadata: "ready",
  play: "play",
  pause: "pause",
  seeking: "seek_start",
  seeked: "seek_end",
  ended: "end",
  waiting: "buffer_start",
  error: "error",
};

/** Returns what ends it. */
export const enableMediaTracking = (tracker: Tracker, media: HTMLMediaElement, options: MediaOptions = {}): (() => void) => {
  const left = new Set(options.boundaries || [10, 25, 50, 75]);
  const id = options.label ?? (media.id || null);
  const finite = (value: number) => (Number.isFinite(value) ? value : null);
  const send = (name: string, data: object = {}) =>
    tracker.trackSelfDescribingEvent({
      event: { schema: `${MEDIA}${name}_event/jsonschema/1-0-0`, data },
      context: [
        {
          schema: iglu("media_player", "2-0-0"),
          data: {
            currentTime: media.currentTime,
            duration: finite(media.duration),
            livestream: media.duration == Infinity,
            ended: media.ended,
            paused: media.paused,
            muted: media.muted,
            loop: media.loop,
            volume: Math.round(media.volume * 100),
            playbackRate: media.playbackRate,
            mediaType: media instanceof HTMLVideoElement ? "video" : "audio",
            playerType: "org.whatwg-media_element",
            label: id,
          },
        },
        ...(options.context || []),
      ],
    });
  const notice = (event: Event) => {
    if (event.type == "timeupdate") {
      const percent = (media.currentTime / media.duration) * 100;
      for (const boundary of left)
        if (percent >= boundary) {
          left.delete(boundary);
          send("percent_progress", { percentProgress: boundary });
        }
    } else send(NAMES[event.type]!);
  };
  const names = [...Object.keys(NAMES), "timeupdate"];
  for (const name of names) media.addEventListener(name, notice);
  return () => names.forEach((name) => media.removeEventListener(name, notice));
};
