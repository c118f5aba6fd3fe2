// Runs models with ONNX Runtime Web: on the CPU by WebAssembly, or on the GPU by WebGPU.
import { findAdapter } from "./accelerators.js";

const BUILDS = { wasm: "ort.wasm.min.mjs", webgpu: "ort.webgpu.min.mjs" };

/** @param {URL} vendor where onnxruntime-web/ lies */
export async function openRuntime(vendor, { threads, accelerator, mayBeSoftware }) {
  const isGpu = accelerator === "webgpu";
  // Before the runtime's code for the GPU is loaded, which is larger.
  if (isGpu) await findAdapter(mayBeSoftware);
  const folder = new URL("onnxruntime-web/", vendor);
  const ort = await imported(new URL(BUILDS[accelerator], folder));
  ort.env.wasm.wasmPaths = folder.href;
  // Several threads share memory, which only an isolated page (COOP and COEP) may do; a GPU does not want them.
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated && !isGpu ? threads : 1;
  ort.env.logLevel = "error";
  return {
    threads: ort.env.wasm.numThreads,
    async open(model, [main, ...others]) {
      // The model names its weights in other files by their places beside it.
      const folder = main.name.slice(0, main.name.lastIndexOf("/") + 1);
      const created = ort.InferenceSession.create(main.bytes, {
        executionProviders: [accelerator],
        externalData: others.map(({ name, bytes }) => ({ path: name.slice(folder.length), data: bytes })),
        // A model that goes back and forth between GPU and CPU is slower than on one of them.
        extra: isGpu ? { session: { disable_cpu_ep_fallback: "1" } } : {},
      });
      return new Session(ort, await created.catch(explain), model);
    },
    async close() {},
  };
}

async function imported(url) {
  try {
    return await import(url.href);
  } catch (cause) {
    throw new Error(`${url.pathname.split("/").at(-1)} cannot be loaded: this bundle may be made without it`, { cause });
  }
}

function explain(cause) {
  const isPart = String(cause?.message ?? cause).includes("assigned to the default CPU EP");
  throw isPart ? new Error("not all of the model runs there", { cause }) : cause;
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
