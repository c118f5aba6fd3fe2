// Starts the service worker, so that the page works without a network.

const PATIENCE_MS = 20000;

/**
 * @param {(replace: () => void) => void} changed told when another version of the bundle was fetched; its argument
 *   loads the page anew with that one. Without it the change comes when no page uses the old version any more.
 * @returns {Promise<string>} in words, whether what is loaded from now on is kept for offline use.
 */
export async function startOffline(changed = () => {}) {
  if (!("serviceWorker" in navigator)) return "not kept offline: the page is not secure (https or localhost)";
  const container = navigator.serviceWorker;
  try {
    const registration = await container.register(new URL("../sw.js", import.meta.url), { type: "classic" });
    if (container.controller) {
      watch(registration, changed);
      return "kept for offline use";
    }
    const taken = new Promise((resolve, reject) => {
      container.addEventListener("controllerchange", resolve, { once: true });
      const worker = registration.installing ?? registration.waiting ?? registration.active;
      worker.addEventListener("statechange", () => {
        if (worker.state === "redundant") reject(new Error("a file is missing, or not the one that files.json lists"));
      });
    });
    await Promise.race([taken, new Promise((_, reject) => setTimeout(reject, PATIENCE_MS, new Error("it does not start")))]);
    return "kept for offline use";
  } catch (error) {
    return `not kept offline: ${error.message}`;
  }
}

/** Tell when a newer worker than the one of this page waits. */
function watch(registration, changed) {
  const replace = (worker) => () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    worker.postMessage("replace the old version");
  };
  const follow = (worker) => {
    const tell = () => worker.state === "installed" && changed(replace(worker));
    worker.addEventListener("statechange", tell);
    tell();
  };
  if (registration.waiting) follow(registration.waiting);
  if (registration.installing) follow(registration.installing);
  registration.addEventListener("updatefound", () => follow(registration.installing));
}
