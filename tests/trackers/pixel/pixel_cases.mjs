// Cases as JSON lines on stdin, their URLs on stdout: what pixel_cases.py builds, built by the JavaScript builder.
import { createInterface } from "node:readline";
import { Pixel, PixelError, selfDescribing } from "../../../trackers/pixel/pixel.js";

const key = Uint8Array.from({ length: 32 }, (_, place) => place);
const out = [];
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const one = JSON.parse(line);
  const pixel = new Pixel("https://track.example.com", { appId: "news", key, base64: one.base64 ?? undefined });
  const event = selfDescribing("iglu:com.acme/anything/jsonschema/1-0-0", one.data);
  const more = { entities: one.entities, eventId: one.id };
  try {
    out.push(one.target ? await pixel.click(one.target, event, more) : pixel.open(event, more));
  } catch (error) {
    if (!(error instanceof PixelError)) throw error;
    out.push(`!${error.code}`);
  }
}
process.stdout.write(out.join("\n") + "\n");
