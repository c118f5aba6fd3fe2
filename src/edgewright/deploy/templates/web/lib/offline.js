// Starts the service worker, so that the page works without a network.

const PATIENCE_MS = 20000;

/** @returns {Promise<string>} in words, whether what is loaded from now on is kept for offline use. */
export async function startOffline() {
  if (!("serviceWorker" in navigator)) return "not kept offline: the page is not secure (https or localhost)";
  try {
    await navigator.serviceWorker.register(new URL("../sw.js", import.meta.url), { type: "classic" });
    const taken = new Promise((resolve) => {
      if (navigator.serviceWorker.controller) resolve();
      else navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    });
    await Promise.race([taken, new Promise((_, reject) => setTimeout(reject, PATIENCE_MS, new Error("it does not start")))]);
    return "kept for offline use";
  } catch (error) {
    return `not kept offline: ${error.message}`;
  }
}
