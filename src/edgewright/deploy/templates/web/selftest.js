// The self-test: are all files what they were, and do the golden cases give what they gave?
import { Engine } from "./lib/engine.js";
import { checkCase, readCases } from "./lib/golden.js";

const HASHED_AT_ONCE = 8;

/**
 * @param {URL} base the folder of the bundle
 * @param {(check: {what: string, problems: string[], ms: number}) => void} told of every check as it is done
 * @param {{ threads?: number, accelerators?: string[], mayBeSoftware?: boolean }} options as `load` takes them
 * @returns {Promise<{ok: boolean, isolated: boolean, runtime: Object, accelerators: Object[], checks: Object[]}>}
 */
export async function selftest(base = new URL("./", import.meta.url), told = () => {}, options = {}) {
  const isolated = Boolean(globalThis.crossOriginIsolated);
  const report = { ok: false, isolated, runtime: {}, accelerators: [], checks: [] };
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
    engine = await Engine.open(base, options);
    report.runtime = engine.runtime;
    report.accelerators = engine.accelerators;
    golden = await readCases(new URL("data/golden/", base));
    return golden.cases.length ? [] : ["there are no golden cases"];
  });
  for (const kase of golden?.cases ?? []) {
    await check(`golden case ${kase.name}`, () => checkCase(engine, kase, golden.tolerances));
  }
  await engine?.close();
  report.ok = report.checks.every(({ problems }) => problems.length === 0);
  return report;
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
