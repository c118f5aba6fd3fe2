// Shows the self-test; `selftest` on the window is the promise of its report.
import { optionsOf } from "./lib/accelerators.js";
import { startOffline } from "./lib/offline.js";
import { selftest } from "./selftest.js";

const rows = document.querySelector("#checks");
const verdict = document.querySelector("#verdict");

function show({ what, problems, ms }) {
  const row = document.createElement("li");
  row.className = problems.length ? "bad" : "good";
  const title = document.createElement("span");
  title.textContent = what;
  const time = document.createElement("small");
  time.textContent = `${ms} ms`;
  row.append(title, time);
  for (const problem of problems) {
    const line = document.createElement("p");
    line.textContent = problem;
    row.append(line);
  }
  rows.append(row);
}

globalThis.selftest = (async () => {
  const offline = await startOffline((replace) => {
    const button = document.querySelector("#update");
    button.hidden = false;
    button.onclick = replace;
  });
  const report = await selftest(undefined, show, optionsOf(location));
  const { name, version, threads, accelerator } = report.runtime;
  verdict.className = `pill ${report.ok ? "good" : "bad"}`;
  verdict.textContent = report.ok ? "Passed" : "Failed";
  const tried = report.accelerators.slice(0, -1).map((row) => ` Not on ${row.name}: ${row.outcome}.`);
  const where = accelerator === "webgpu" ? "on the GPU (WebGPU)" : `${threads ?? 0} thread${threads === 1 ? "" : "s"}`;
  document.querySelector("#about").textContent =
    `${name ?? "no runtime"} ${version ?? ""}, ${where}, ` +
    `${report.isolated ? "isolated" : "not isolated (no COOP and COEP): one thread"}, ${offline}.${tried.join("")}`;
  return { ...report, offline };
})();
