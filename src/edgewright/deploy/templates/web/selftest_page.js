// Shows the self-test; `selftest` on the window is the promise of its report.
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
  const offline = await startOffline();
  const report = await selftest(undefined, show);
  const { name, version, threads } = report.runtime;
  verdict.className = `pill ${report.ok ? "good" : "bad"}`;
  verdict.textContent = report.ok ? "Passed" : "Failed";
  document.querySelector("#about").textContent =
    `${name ?? "no runtime"} ${version ?? ""}, ${threads ?? 0} thread(s), ` +
    `${report.isolated ? "isolated" : "not isolated (no COOP and COEP): one thread"}, ${offline}`;
  return { ...report, offline };
})();
