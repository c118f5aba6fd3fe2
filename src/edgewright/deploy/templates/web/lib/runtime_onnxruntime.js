// Runs models with ONNX Runtime Web, on the CPU by WebAssembly.

/** @param {URL} vendor where onnxruntime-web/ lies */
export async function openRuntime(vendor, threads) {
  const folder = new URL("onnxruntime-web/", vendor);
  const ort = await import(new URL("ort.wasm.min.mjs", folder).href);
  ort.env.wasm.wasmPaths = folder.href;
  // Several threads share memory, which only an isolated page (COOP and COEP) may do.
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads : 1;
  ort.env.logLevel = "error";
  return {
    threads: ort.env.wasm.numThreads,
    async open(model, [main, ...others]) {
      // The model names its weights in other files by their places beside it.
      const folder = main.name.slice(0, main.name.lastIndexOf("/") + 1);
      const session = await ort.InferenceSession.create(main.bytes, {
        executionProviders: ["wasm"],
        externalData: others.map(({ name, bytes }) => ({ path: name.slice(folder.length), data: bytes })),
      });
      return new Session(ort, session, model);
    },
  };
}

class Session {
  #ort;
  #session;
  #model;

  constructor(ort, session, model) {
    this.#ort = ort;
    this.#session = session;
    this.#model = model;
  }

  /** @param tensors typed arrays, in the order of the model's inputs; returns those of its outputs. */
  async run(tensors) {
    const feeds = {};
    for (const [index, { name, dtype, shape }] of this.#model.inputs.entries()) {
      feeds[name] = new this.#ort.Tensor(dtype, tensors[index], shape);
    }
    const made = await this.#session.run(feeds);
    return this.#model.outputs.map(({ name }) => {
      if (!made[name]) throw new Error(`the model gives no output ${name}`);
      return made[name].data;
    });
  }

  async close() {
    await this.#session.release();
  }
}
