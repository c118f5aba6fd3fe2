// Runs models with LiteRT.js, on the CPU by WebAssembly.
//
// The tensors of its own API are float32, int32 and uint8; buffers of the module below it take every element type.

const ELEMENTS = { float32: 1, int32: 2, uint8: 3, int64: 4, int16: 7, int8: 9 };

/** @param {URL} vendor where litertjs/ lies */
export async function openRuntime(vendor, threads) {
  const folder = new URL("litertjs/", vendor);
  const litert = await import(new URL("core/dist/index.js", folder).href);
  // Several threads share memory, which only an isolated page (COOP and COEP) may do.
  const isThreaded =
    globalThis.crossOriginIsolated && threads > 1 && (await litert.supportsFeature("relaxedSimd"));
  const opened = await (litert.getGlobalLiteRtPromise() ??
    litert.loadLiteRt(new URL("core/wasm/", folder).href, { threads: isThreaded }));
  return {
    name: "LiteRT.js",
    version: VERSION,
    threads: isThreaded ? threads : 1,
    async open(model, [{ bytes }]) {
      const compiled = compile(opened, bytes, isThreaded ? threads : 1);
      return new Session(opened.liteRtWasm, await compiled, model);
    },
  };
}
