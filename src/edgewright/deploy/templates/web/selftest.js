// The self-test: are all files what they were, and do the golden cases give what they gave?
import { Engine } from "./lib/engine.js";
import { compareResult, compareTensor, inputsOf, readCases } from "./lib/golden.js";

const HASHED_AT_ONCE = 8;

/**
 * @param {URL} base the folder of the bundle
 * @param {(check: {what: string, problems: string[], ms: number}) => void} told of every check as it is done
 * @returns {Promise<{ok: boolean, isolated: boolean, runtime: Object, checks: Object[]}>}
 */
export async function selftest(base = new URL("./", import.meta.url), told = () => {}) {
  const report = { ok: false, isolated: Boolean(globalThis.crossOriginIsolated), runtime: {}, checks: [] };
  const check = async (what, work) => {
    const start = performance.now();
    let problems;
    try {
      problems = (await work()).filter(Boolean);
    } catch (error) {
      problems = [String(error.message ?? error)];
    }
    const done = { what, problems, ms: Math.round(performance.now() - start) };
    report.checks.push(done);
    told(done);
  };
  await check("digests of all files", () => digests(base));
  let engine;
  let golden;
  await check("model, processing and runtime open", async () => {
    engine = await Engine.open(base, Math.min(4, navigator.hardwareConcurrency || 1));
    report.runtime = engine.runtime;
    golden = await readCases(new URL("data/golden/", base));
    return golden.cases.length ? [] : ["there are no golden cases"];
  });
  for (const kase of golden?.cases ?? []) {
    await check(`golden case ${kase.name}`, () => run(engine, kase, golden.tolerances));
  }
  await engine?.close();
  report.ok = report.checks.every(({ problems }) => problems.length === 0);
  return report;
}

async function run(engine, kase, tolerances) {
  const problems = [];
  const { hop } = engine.description;
  const turns = hop ? kase.inputs[0].data.length / hop : 1;
  const made = [];
  await engine.reset();
  for (let turn = 0; turn < turns; turn += 1) {
    const prepared = (tensors) => {
      for (const want of kase.tensors) problems.push(compareTensor(want, tensors[want.name], tolerances));
    };
    made.push(await engine.arrays(inputsOf(kase, turn, turns), turn === 0 ? prepared : undefined));
  }
  const sides = kase.inputs.filter(({ kind }) => kind === "image").flatMap(({ shape }) => shape.slice(0, 2));
  for (const want of kase.results) {
    const parts = made.map((results) => results[want.name]);
    problems.push(compareResult(want, hop ? stacked(parts) : parts[0], Math.max(1, ...sides), tolerances));
  }
  return problems;
}

/** The results of a stream's runs, one behind the other. */
function stacked(parts) {
  const data = new parts[0].data.constructor(parts.reduce((total, part) => total + part.data.length, 0));
  parts.reduce((at, part) => {
    data.set(part.data, at);
    return at + part.data.length;
  }, 0);
  return { data, shape: [parts.length, ...parts[0].shape] };
}

async function digests(base) {
  if (!globalThis.crypto?.subtle) return ["this page is not secure (https or localhost), so no digest can be made"];
  const response = await fetch(new URL("files.json", base));
  if (!response.ok) return [`files.json is missing (${response.status})`];
  const rows = Object.entries((await response.json()).files);
  const problems = [];
  const next = async () => {
    for (let row = rows.pop(); row; row = rows.pop()) problems.push(await digest(base, ...row));
  };
  await Promise.all(Array.from({ length: HASHED_AT_ONCE }, next));
  return problems;
}

async function digest(base, name, want) {
  const response = await fetch(new URL(name, base));
  if (!response.ok) return `${name} is missing (${response.status})`;
  const made = await crypto.subtle.digest("SHA-256", await response.arrayBuffer());
  const text = Array.from(new Uint8Array(made), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return text === want ? "" : `${name} has the digest ${text.slice(0, 16)}..., but ${want.slice(0, 16)}... is expected`;
}
