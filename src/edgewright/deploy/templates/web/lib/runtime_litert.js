// Runs models with LiteRT.js: on the CPU by WebAssembly, or on the GPU by WebGPU.
//
// The tensors of its own API are float32, int32 and uint8; the module below it takes every element type.
import { findAdapter } from "./accelerators.js";
import { arrayClass } from "./core.js";

const ELEMENTS = { float32: 1, int32: 2, uint8: 3, int64: 4, int16: 7, int8: 9 };

/** @param {URL} vendor where litertjs/ lies */
export async function openRuntime(vendor, { threads, accelerator, mayBeSoftware }) {
  const adapter = accelerator === "webgpu" ? await findAdapter(mayBeSoftware) : null;
  const folder = new URL("litertjs/", vendor);
  const litert = await import(new URL("core/dist/index.js", folder).href);
  const { opened, used } = await load(litert, new URL("core/wasm/", folder).href, threads);
  const device = await adapter?.requestDevice({ requiredLimits: limits(adapter) });
  const environment = device ? await litert.Environment.create({ webGpuDevice: device }) : opened.getDefaultEnvironment();
  const place = { environment, accelerator, threads: used, Tensor: litert.Tensor };
  return {
    threads: device ? 1 : used,
    open: (model, [{ bytes }]) => Session.open(opened.liteRtWasm, model, bytes, place),
    async close() {
      if (!device) return; // the runtime's own place, which the next model uses again
      environment.delete();
      device.destroy();
    },
  };
}

const LIMITS = ["maxBufferSize", "maxStorageBufferBindingSize", "maxStorageBuffersPerShaderStage", "maxTextureDimension2D"];
const limits = (adapter) => Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));

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
  #place;
  #parts; // what has to be freed, the last made first
  #compiled;
  #inputs; // tensors in the order of the signature, with the place of each among the model's inputs
  #outputs; // for each of the model's outputs its place in the signature

  static async open(wasm, model, bytes, place) {
    const { environment, accelerator, threads } = place;
    const session = new Session();
    session.#wasm = wasm;
    session.#place = place;
    const at = wasm._malloc(bytes.length);
    session.#parts = [() => wasm._free(at)];
    try {
      wasm.HEAPU8.set(bytes, at);
      const loaded = wasm.loadModel(environment.liteRtEnvironment, at, bytes.length);
      session.#parts.unshift(() => loaded.delete());
      session.#compiled = await wasm.compileModel(environment.liteRtEnvironment, loaded, {
        environment,
        accelerator,
        cpuOptions: { numThreads: threads },
        gpuOptions: {},
        webNNOptions: {},
      });
      session.#parts.unshift(() => session.#compiled.delete());
      // A model that goes back and forth between GPU and CPU is slower than on one of them.
      if (accelerator !== "wasm" && !session.#compiled.isFullyAccelerated()) throw new Error("not all of the model runs there");
      const signature = loaded.getSignature(0);
      const inputs = list(signature.inputNames());
      const outputs = list(signature.outputNames());
      signature.delete();
      session.#inputs = inputs.map((name, index) => session.#input(found(model.inputs, name, "input"), loaded, index));
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
    const copies = [];
    let made = [];
    try {
      const given = [];
      for (const { place, buffer, tensor } of this.#inputs) {
        this.#fill(buffer, tensors[place], place);
        if (tensor) copies.push(await tensor.copyTo("webgpu"));
        given.push(tensor ? copies.at(-1).liteRtTensorBuffer : buffer);
      }
      made = await this.#compiled.run(0, given);
      const results = [];
      for (const { at, dtype } of this.#outputs) {
        const { Tensor, environment } = this.#place;
        // Tensors of its API are for those on the GPU, which are float32: others have types that it does not know.
        if (made[at].isWebGpuMemory()) copies.push(await new Tensor(made[at], environment).copyTo("wasm"));
        results.push(this.#copy(made[at].isWebGpuMemory() ? copies.at(-1).liteRtTensorBuffer : made[at], at, dtype));
      }
      return results;
    } finally {
      for (const part of [...copies, ...made]) part.delete();
    }
  }

  async close() {
    for (const free of this.#parts) free();
    this.#parts = [];
  }

  #fill(buffer, { buffer: memory, byteOffset, byteLength }, place) {
    if (buffer.size() < byteLength) throw new Error(`input ${place} of the model has another size`);
    const at = buffer.lock(this.#wasm.LiteRtTensorBufferLockMode.WRITE);
    this.#wasm.HEAPU8.set(new Uint8Array(memory, byteOffset, byteLength), at);
    buffer.unlock();
  }

  #copy(buffer, at, dtype) {
    const type = buffer.tensorType();
    const element = type.elementType().value;
    const bytes = type.bytes();
    type.delete();
    if (element !== ELEMENTS[dtype]) throw new Error(`output ${at} of the model is not ${dtype}`);
    const start = buffer.lock(this.#wasm.LiteRtTensorBufferLockMode.READ);
    const copy = this.#wasm.HEAPU8.slice(start, start + bytes);
    buffer.unlock();
    return new (arrayClass(dtype))(copy.buffer);
  }

  /** Memory for input `index` of the signature, which is copied to the GPU where the model wants it there. */
  #input(place, loaded, index) {
    const host = this.#wasm.LiteRtTensorBufferType.HOST_MEMORY;
    const { environment, Tensor } = this.#place;
    const needs = this.#compiled.getInputBufferRequirements(0, index);
    const isOnGpu = !list(needs.supportedTypes()).some(({ value }) => value === host.value);
    needs.delete();
    // Its copies of numbers that are not float32 wait within WebAssembly, which the builds that are shipped cannot.
    if (this.#place.accelerator !== "wasm" && !isOnGpu) throw new Error("a model whose inputs are not float32 does not run there");
    const type = loaded.getInputTensorType(0, index);
    const buffer = this.#wasm.LiteRtTensorBuffer.createManaged(environment.liteRtEnvironment, host, type, type.bytes());
    type.delete();
    this.#parts.unshift(() => buffer.delete());
    return { place, buffer, tensor: isOnGpu ? new Tensor(buffer, environment) : null };
  }
}

function list(vector) {
  const entries = Array.from({ length: vector.size() }, (_, index) => vector.get(index));
  vector.delete();
  return entries;
}

function found(rows, name, what) {
  const index = rows.findIndex((row) => row.runtime_name === name);
  if (index < 0) throw new Error(`the model asks for an ${what} ${name} that the processing does not make`);
  return index;
}
