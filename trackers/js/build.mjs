// Builds dist/: ES modules with types and source maps, the classic script, SRI hashes; and the copy that the gateway serves.
//   node build.mjs [FOLDER]     into dist/ and the gateway, or into FOLDER alone
//   node build.mjs --sizes      prints what each part weighs, as JSON
import { build } from "esbuild";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { minify } from "terser";

const here = dirname(fileURLToPath(import.meta.url));
export const MODULES = ["index", "lite", "link-click", "forms", "ecommerce", "errors", "vitals", "media", "routes", "scroll", "more", "activity", "session", "cross-domain", "cookies"];

/** One program, bundled and minified: { code, map }. */
export async function bundle(name, format) {
  const made = await build({
    entryPoints: [join(here, "src", `${name}.ts`)],
    bundle: true,
    write: false,
    format,
    target: "es2022",
    minifySyntax: true,
    sourcemap: "external",
    outfile: `${name}.js`,
    logLevel: "warning",
  });
  const [map, code] = made.outputFiles;
  return minify(code.text, {
    module: format === "esm",
    compress: { passes: 4, unsafe: true, unsafe_comps: true, hoist_props: true, booleans_as_integers: false, inline: 3, reduce_funcs: true,  unsafe_arrows: true, unsafe_methods: true, unsafe_undefined: true, keep_fargs: false, toplevel: true, pure_getters: true, ecma: 2020 },
    mangle: { properties: { regex: /_$/ } },
    // Chromium then compiles the classic script beside the page's main thread, not in it at the first call of each function.
    format: { comments: false, ecma: 2020, preamble: name === "tag" ? "//# allFunctionsCalledOnLoad" : "" },
    sourceMap: { content: map.text, filename: `${name}.js`, url: `${name}.js.map` },
  });
}

/** What a server would send: without the line that names the source map. */
export function weigh(code) {
  const bare = Buffer.from(code.replace(/\n\/\/# sourceMappingURL=.*$/, ""));
  return {
    bytes: bare.length,
    gzip: gzipSync(bare, { level: 9 }).length,
    brotli: brotliCompressSync(bare, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT, [constants.BROTLI_PARAM_SIZE_HINT]: bare.length } }).length,
  };
}

async function sizes() {
  const entries = await Promise.all([...MODULES.map((name) => [name, "esm"]), ["tag", "iife"]].map(async ([name, format]) => [name, weigh((await bundle(name, format)).code)]));
  return Object.fromEntries(entries);
}

async function write(folder, gateway) {
  mkdirSync(folder, { recursive: true });
  const integrity = {};
  for (const [name, format, as] of [...MODULES.map((module) => [module, "esm", module]), ["tag", "iife", "spoorway"]]) {
    const { code, map } = await bundle(name, format);
    // The classic script names no map, so that it is the same bytes wherever it is served from.
    const text = name === "tag" ? `${code.replace(/\n\/\/# sourceMappingURL=.*$/, "")}\n` : code;
    writeFileSync(join(folder, `${as}.js`), text);
    writeFileSync(join(folder, `${as}.js.map`), map);
    integrity[`${as}.js`] = `sha384-${createHash("sha384").update(text).digest("base64")}`;
    if (name === "tag" && gateway) {
      writeFileSync(join(gateway, "spoorway.js"), text);
      writeFileSync(join(gateway, "integrity.txt"), `${integrity[`${as}.js`]}\n`);
    }
  }
  writeFileSync(join(folder, "integrity.json"), `${JSON.stringify(integrity, null, 2)}\n`);
  execFileSync(join(here, "node_modules/.bin/tsc"), ["--outDir", folder], { cwd: here, stdio: "inherit" });
}

const called = process.argv[1] === fileURLToPath(import.meta.url);
if (!called);
else if (process.argv[2] === "--sizes") console.log(JSON.stringify(await sizes()));
else if (process.argv[2]) await write(process.argv[2]);
else {
  const gateway = join(here, "../../gateway/http/script");
  mkdirSync(gateway, { recursive: true });
  await write(join(here, "dist"), gateway);
}
