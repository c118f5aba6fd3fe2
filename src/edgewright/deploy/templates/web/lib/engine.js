// One opened model with its processing, and the words for its results.
import { openFirst } from "./accelerators.js";
import { Core, ProcessingError, arrayClass } from "./core.js";
import { openRuntime } from "./runtime.js";
import { toPixels } from "./images.js";

const count = (shape) => shape.reduce((product, size) => product * size, 1);

const ACCELERATORS = ["webgpu", "wasm"];

const mostThreads = () => Math.min(4, globalThis.navigator?.hardwareConcurrency || 1);

async function fetchedFrom(url) {
  let response;
  try {
    response = await fetch(url);
  } catch (cause) {
    throw new Error(`${url.pathname} cannot be loaded: there is no network, and it was not kept before`, { cause });
  }
  if (!response.ok) throw new Error(`${url.pathname} cannot be loaded: ${response.status} ${response.statusText}`.trim());
  return response;
}

const fetched = async (url, as) => (await fetchedFrom(url))[as]();

/** The files of each model, and meanwhile how much of them is here. */
async function fetchModels(base, models, progress) {
  const all = models.flatMap(({ files }) => files).reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  const read = async ({ name, bytes }) => {
    const made = new Uint8Array(bytes);
    let at = 0;
    for (const reader = (await fetchedFrom(new URL(`data/model/${name}`, base))).body.getReader(); ; ) {
      const { value, done: isEnd } = await reader.read();
      if (isEnd) break;
      if (at + value.length > bytes) throw new Error(`${name} has more than the ${bytes} bytes that are expected`);
      made.set(value, at);
      at += value.length;
      done += value.length;
      progress(done, all);
    }
    if (at !== bytes) throw new Error(`${name} has ${at} bytes, but ${bytes} are expected`);
    return { name, bytes: made };
  };
  return Promise.all(models.map(({ files }) => Promise.all(files.map(read))));
}

export class Engine {
  /** What the bundle is: inputs, models, results with their labels. */
  description;
  #core;
  #runtime;
  #sessions;
  #last = Promise.resolve();
  #tried = [];

  constructor(description, core, runtime, sessions) {
    this.description = description;
    this.#core = core;
    this.#runtime = runtime;
    this.#sessions = sessions;
  }

  /**
   * @param {URL} base the folder of the bundle
   * @param {Object} options
   * @param {number} options.threads of the runtime, where the page may have several
   * @param {string[]} options.accelerators tried one by one, "webgpu" or "wasm"; the bundle's own order without them
   * @param {boolean} options.mayBeSoftware whether a GPU that the CPU computes is one
   * @param {(done: number, all: number) => void} options.progress told of the bytes of the model as they come
   */
  static async open(base, { threads = mostThreads(), accelerators, mayBeSoftware = false, progress = () => {} } = {}) {
    const description = await fetched(new URL("data/interface.json", base), "json");
    const names = accelerators ?? description.accelerators;
    const unknown = names.find((name) => !ACCELERATORS.includes(name));
    if (unknown !== undefined || names.length === 0) {
      throw new Error(`${unknown ?? "nothing"} is no accelerator: choose of ${ACCELERATORS.join(", ")}`);
    }
    const models = fetchModels(base, description.models, progress);
    models.catch(() => {}); // told where it is waited for
    const open = async (name) => {
      const [core, runtime] = await Promise.all([
        Core.load(new URL("core/processing.wasm", base), description.function),
        openRuntime(new URL("vendor/", base), { threads, accelerator: name, mayBeSoftware }),
      ]);
      const sessions = [];
      try {
        for (const [index, files] of (await models).entries()) {
          sessions.push(await runtime.open(description.models[index], files));
        }
      } catch (error) {
        for (const session of sessions) await session.close();
        await runtime.close();
        throw error;
      }
      return new Engine(description, core, runtime, sessions);
    };
    const { engine, tried } = await openFirst(names, open, new URL("data/golden/", base));
    engine.#tried = tried;
    return engine;
  }

  /** The runtime, its version, its threads, and what computes the model. */
  get runtime() {
    const { threads } = this.#runtime;
    return { ...this.description.runtime, threads, accelerator: this.#tried.at(-1).name };
  }

  /** What was tried, in order: the last is used, and `outcome` says why those before it are not. */
  get accelerators() {
    return this.#tried.map((row) => ({ ...row }));
  }

  /**
   * Run once; runs wait for one another.
   * @param inputs by name of the specification: images as `toPixels` takes them, or typed arrays.
   * @param {(tensors: Object) => void} [prepared] sees the inputs of the first model, by name.
   * @returns results by name of the specification, as arrays: { data, dtype, shape }.
   */
  arrays(inputs, prepared) {
    const run = this.#last.then(() => this.#run(inputs, prepared));
    this.#last = run.catch(() => {});
    return run;
  }

  /** Forget earlier runs: a new stream begins. */
  reset() {
    const done = this.#last.then(() => this.#core.reset());
    this.#last = done.catch(() => {});
    return done;
  }

  async close() {
    await this.#last;
    for (const session of this.#sessions) await session.close();
    if (this.#sessions.length) await this.#runtime.close();
    this.#sessions = [];
  }

  async #run(inputs, prepared) {
    if (this.#sessions.length === 0) throw new ProcessingError("the model is closed");
    const { description } = this;
    this.#core.begin();
    for (const [index, row] of description.inputs.entries()) {
      const given = inputs[row.name];
      if (given === undefined || given === null) throw new ProcessingError(`the input ${row.name} is missing`);
      try {
        if (row.kind === "image") this.#core.setImage(index, await toPixels(given));
        else if (row.kind === "audio") this.#core.setSamples(index, numbers(given, row.dtype));
        else this.#core.setValues(index, numbers(given, row.dtype));
      } catch (error) {
        const code = error instanceof ProcessingError ? error.code : 0;
        throw Object.assign(new ProcessingError(`${row.name}: ${error.message}`), { code, cause: error });
      }
    }
    for (const [number, model] of description.models.entries()) {
      this.#core.prepare(number);
      const tensors = model.inputs.map((row, index) => this.#core.input(number, index, row.dtype, count(row.shape)));
      if (prepared && number === 0) {
        prepared(Object.fromEntries(model.inputs.map((row, index) => [row.name, tensors[index]])));
      }
      const outputs = await this.#sessions[number].run(tensors);
      for (const [index, row] of model.outputs.entries()) {
        const place = this.#core.output(number, index, row.dtype, count(row.shape));
        if (outputs[index].length !== place.length) {
          throw new ProcessingError(`output ${row.name} has ${outputs[index].length} numbers, but ${place.length} are expected`);
        }
        place.set(outputs[index]);
      }
      this.#core.finish(number);
    }
    return Object.fromEntries(description.results.map((row, index) => [row.name, this.#core.result(index)]));
  }
}

function numbers(given, dtype) {
  const kind = arrayClass(dtype);
  if (given instanceof kind) return given;
  if (!Array.isArray(given)) throw new ProcessingError(`it is no ${kind.name}`);
  const made = new kind(given.length);
  for (const [index, value] of given.entries()) {
    const isWhole = Number.isInteger(value);
    made[index] = kind === BigInt64Array ? BigInt(isWhole ? value : 0) : value;
    // What wraps around or is cut off is another number.
    if (kind !== Float32Array && (!isWhole || Number(made[index]) !== value)) {
      throw new ProcessingError(`${value} is no ${dtype}`);
    }
  }
  return made;
}

/** Results for people and programs, made of arrays: labels, boxes, points, masks, or numbers. */
export function typed(kind, { data, shape }, labels) {
  return (READERS[kind] ?? ((values, sizes) => ({ shape: sizes, numbers: values })))(data, shape, labels);
}

const label = (labels, index, score) => ({ index, name: labels[index] ?? "", score });

function rows(data, shape) {
  const [length, width] = shape;
  return Array.from({ length }, (_, index) => data.subarray(index * width, (index + 1) * width));
}

function points(row) {
  return Array.from({ length: Math.floor(row.length / 3) }, (_, index) => {
    const [x, y, score] = row.subarray(3 * index);
    return { x, y, score };
  });
}

const READERS = {
  classes: (data, shape, labels) => rows(data, shape).map(([index, score]) => label(labels, index, score)),
  boxes: (data, shape, labels) =>
    rows(data, shape).map((row) => {
      const [x0, y0, x1, y1, score, index] = row;
      return { x0, y0, x1, y1, label: label(labels, index, score), points: points(row.subarray(6)) };
    }),
  keypoints: (data) => points(data),
  mask: (data, [height, width], labels) => ({ height, width, classes: data, labels }),
  audio: (data) => data,
  codes: (data, _, labels) => Array.from(data, (index) => ({ index, name: labels[index] ?? "" })),
};
