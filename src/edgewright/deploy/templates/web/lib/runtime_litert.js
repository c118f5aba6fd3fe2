// Runs models with LiteRT.js, on the CPU by WebAssembly.
//
// The tensors of its own API are float32, int32 and uint8; the module below it takes every element type.
import { arrayClass } from "./core.js";

const ELEMENTS = { float32: 1, int32: 2, uint8: 3, int64: 4, int16: 7, int8: 9 };

/** @param {URL} vendor where litertjs/ lies */
export async function openRuntime(vendor, threads) {
  const folder = new URL("litertjs/", vendor);
  const litert = await import(new URL("core/dist/index.js", folder).href);
  const { opened, used } = await load(litert, new URL("core/wasm/", folder).href, threads);
  return {
    threads: used,
    open: (model, [{ bytes }]) => Session.open(opened, model, bytes, used),
  };
}

async function load(litert, wasm, threads) {
  // Several threads share memory, which only an isolated page (COOP and COEP) may do.
  if (globalThis.crossOriginIsolated && threads > 1 && (await litert.supportsFeature("relaxedSimd"))) {
    try {
      return { opened: await once(litert, wasm, true), used: threads };
    } catch (error) {
      // Offline, only the build that an earlier visit used is kept, and that one may not have been isolated.
      console.warn(`LiteRT.js has no threads here: ${error.message ?? "its build for them cannot be loaded"}`);
    }
  }
  return { opened: await once(litert, wasm, false), used: 1 };
}

const once = (litert, wasm, threads) => litert.getGlobalLiteRtPromise() ?? litert.loadLiteRt(wasm, { threads });

class Session {
  #wasm;
  #parts; // what has to be freed, the last made first
  #compiled;
  #inputs; // buffers in the order of the signature, with the place of each among the model's inputs
  #outputs; // for each of the model's outputs its place in the signature

  static async open({ liteRtWasm: wasm, ...litert }, model, bytes, threads) {
    const environment = litert.defaultEnvironment;
    const session = new Session();
    session.#wasm = wasm;
    const place = wasm._malloc(bytes.length);
    session.#parts = [() => wasm._free(place)];
    try {
      wasm.HEAPU8.set(bytes, place);
      const loaded = wasm.loadModel(environment.liteRtEnvironment, place, bytes.length);
      session.#parts.unshift(() => loaded.delete());
      session.#compiled = await wasm.compileModel(environment.liteRtEnvironment, loaded, {
        environment,
        accelerator: "wasm",
        cpuOptions: { numThreads: threads },
        gpuOptions: {},
        webNNOptions: {},
      });
      session.#parts.unshift(() => session.#compiled.delete());
      const signature = loaded.getSignature(0);
      const inputs = list(signature.inputNames());
      const outputs = list(signature.outputNames());
      signature.delete();
      session.#inputs = inputs.map((name, index) => ({
        place: found(model.inputs, name, "input"),
        buffer: session.#buffer(environment, loaded.getInputTensorType(0, index)),
      }));
      session.#outputs = model.outputs.map((row) => {
        const at = outputs.indexOf(row.runtime_name);
        if (at < 0) throw new Error(`the model has no output ${row.runtime_name}, but ${outputs.join(", ")}`);
        return { at, dtype: row.dtype };
      });
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  /** @param tensors typed arrays, in the order of the model's inputs; returns those of its outputs. */
  async run(tensors) {
    const wasm = this.#wasm;
    for (const { place, buffer } of this.#inputs) {
      const { buffer: memory, byteOffset, byteLength } = tensors[place];
      if (buffer.size() < byteLength) throw new Error(`input ${place} of the model has another size`);
      const at = buffer.lock(wasm.LiteRtTensorBufferLockMode.WRITE);
      wasm.HEAPU8.set(new Uint8Array(memory, byteOffset, byteLength), at);
      buffer.unlock();
    }
    const made = await this.#compiled.run(0, this.#inputs.map(({ buffer }) => buffer));
    try {
      return this.#outputs.map(({ at, dtype }) => {
        const type = made[at].tensorType();
        const element = type.elementType().value;
        const bytes = type.bytes();
        type.delete();
        if (element !== ELEMENTS[dtype]) throw new Error(`output ${at} of the model is not ${dtype}`);
        const start = made[at].lock(wasm.LiteRtTensorBufferLockMode.READ);
        const copy = wasm.HEAPU8.slice(start, start + bytes);
        made[at].unlock();
        return new (arrayClass(dtype))(copy.buffer);
      });
    } finally {
      for (const buffer of made) buffer.delete();
    }
  }

  async close() {
    for (const free of this.#parts) free();
    this.#parts = [];
  }

  #buffer(environment, type) {
    const host = this.#wasm.LiteRtTensorBufferType.HOST_MEMORY;
    const made = this.#wasm.LiteRtTensorBuffer.createManaged(environment.liteRtEnvironment, host, type, type.bytes());
    type.delete();
    this.#parts.unshift(() => made.delete());
    return made;
  }
}

function list(vector) {
  const names = Array.from({ length: vector.size() }, (_, index) => vector.get(index));
  vector.delete();
  return names;
}

function found(rows, name, what) {
  const index = rows.findIndex((row) => row.runtime_name === name);
  if (index < 0) throw new Error(`the model asks for an ${what} ${name} that the processing does not make`);
  return index;
}
