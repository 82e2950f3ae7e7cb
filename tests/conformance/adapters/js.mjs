// The JavaScript tracker's side of a vector run, in Node: cases on stdin, the query strings it would send on stdout.
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { bundle } from "../../../trackers/js/build.mjs";
import { answer } from "./js_answer.mjs";

const folder = mkdtempSync(join(tmpdir(), "js-adapter-"));
const load = async (name) => {
  const file = join(folder, `${name}.mjs`);
  writeFileSync(file, (await bundle(name, "esm")).code);
  return import(pathToFileURL(file).href);
};
const [{ newTracker }, more] = await Promise.all([load("index"), load("more")]);
for await (const line of createInterface({ input: process.stdin })) console.log(await answer(newTracker, more, line));
process.exit(0);
