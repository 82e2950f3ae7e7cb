// What each part weighs, beside its limit and its peers, all built and minified in the same way. Exit code 1 when one is too heavy.
//   node sizes.mjs [FOLDER]     of a build in FOLDER, or of one made now
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { minify } from "terser";
import { bundle, MODULES, weigh } from "./build.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const built = process.argv[2];
const LIMITS = { index: 3000, lite: 1200, tag: 7000 };
const NAMES = { index: "core (index.js)", lite: "page views only (lite.js)", tag: "everything (spoorway.js)" };
const PEERS = [
  ["@snowplow/browser-tracker 4.10.1", "tests/peers/node_modules/browser-tracker-newest", 'export { newTracker, trackPageView } from "browser-tracker-newest"'],
  ["@plausible-analytics/tracker 0.4.6", "trackers/js/node_modules/@plausible-analytics/tracker", 'export { init, track } from "@plausible-analytics/tracker"'],
];

const row = (name, { bytes, gzip, brotli }, note = "") =>
  console.log(`${name.padEnd(38)} ${String(bytes).padStart(7)} ${String(gzip).padStart(7)} ${String(brotli).padStart(7)}  ${note}`);

console.log(`${"".padEnd(38)} ${"bytes".padStart(7)} ${"gzip".padStart(7)} ${"brotli".padStart(7)}`);
let heavy = false;
for (const name of [...MODULES, "tag"]) {
  const size = weigh(built ? readFileSync(join(built, `${name === "tag" ? "spoorway" : name}.js`), "utf8") : (await bundle(name, name === "tag" ? "iife" : "esm")).code);
  const limit = LIMITS[name];
  heavy ||= size.brotli > limit;
  row(NAMES[name] ?? `${name}.js`, size, limit ? `limit ${limit}${size.brotli > limit ? ": TOO HEAVY" : ""}` : "");
}
for (const [name, folder, contents] of PEERS) {
  const root = join(here, "../..", folder);
  if (!existsSync(root)) {
    console.log(`${name.padEnd(38)} not installed`);
    continue;
  }
  const made = await build({ stdin: { contents, resolveDir: root.slice(0, root.indexOf("/node_modules")) }, bundle: true, write: false, format: "esm", target: "es2022" });
  const { code } = await minify(made.outputFiles[0].text, { module: true, compress: { passes: 3 } });
  row(name, weigh(code), "page view only");
}
process.exit(heavy ? 1 : 0);
