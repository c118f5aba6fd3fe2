// What computes a model: a list of accelerators is tried one by one, and the first that is right is used.
import { checkCase, readCases } from "./golden.js";

const FIRST_RUNS = 16; // of a stream, when an accelerator is tried
const MOST_REASON = 300;

/**
 * A GPU, or an error that says why there is none.
 * @param {boolean} mayBeSoftware take one that the CPU computes, which is slower than no GPU: for tests.
 */
export async function findAdapter(mayBeSoftware) {
  if (!globalThis.isSecureContext) throw new Error("WebGPU needs a secure page: https, or localhost");
  if (!navigator.gpu) throw new Error("this browser has no WebGPU");
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("WebGPU finds no adapter");
  if (adapter.info?.isFallbackAdapter && !mayBeSoftware) throw new Error("the only adapter is computed by the CPU");
  return adapter;
}

/**
 * @param {string[]} names in the order in which they are tried
 * @param {(name: string) => Promise<Object>} open gives an engine on one accelerator, or rejects
 * @param {URL} golden the folder of the golden cases
 * @returns {Promise<{engine: Object, tried: {name: string, outcome: string}[]}>}
 */
export async function openFirst(names, open, golden) {
  const tried = [];
  for (const name of names) {
    let engine;
    try {
      engine = await open(name);
      // The CPU computes as where the golden cases were made; other arithmetic has to show first that it is right.
      const problem = name === "wasm" ? "" : await firstProblem(engine, golden);
      if (!problem) return { engine, tried: [...tried, { name, outcome: "used" }] };
      throw new Error(problem);
    } catch (error) {
      await engine?.close();
      if (names.length === 1 && name === "wasm") throw error; // nothing was chosen here
      tried.push({ name, outcome: String(error?.message ?? error).slice(0, MOST_REASON) });
    }
  }
  throw new Error(tried.map(({ name, outcome }) => `${name}: ${outcome}`).join("; "));
}

async function firstProblem(engine, golden) {
  const { cases, tolerances } = await readCases(golden, 1);
  const problems = cases.length ? await checkCase(engine, cases[0], tolerances, FIRST_RUNS) : ["there are no golden cases"];
  await engine.reset();
  return problems.length ? `wrong results in golden case ${cases[0]?.name}: ${problems[0]}` : "";
}

/** What the address of a page asks for: ?accelerators=webgpu,wasm&software=1&threads=1 */
export function optionsOf({ search }) {
  const given = new URLSearchParams(search);
  const options = {};
  if (given.has("accelerators")) options.accelerators = given.get("accelerators").split(",");
  if (given.has("software")) options.mayBeSoftware = given.get("software") !== "0";
  if (given.has("threads")) options.threads = Math.max(1, Math.trunc(Number(given.get("threads"))) || 1);
  return options;
}
