// One opened model with its processing, and the words for its results.
import { Core, ProcessingError, arrayClass } from "./core.js";
import { openRuntime } from "./runtime.js";
import { toPixels } from "./images.js";

const count = (shape) => shape.reduce((product, size) => product * size, 1);

async function fetched(url, as) {
  let response;
  try {
    response = await fetch(url);
  } catch (cause) {
    throw new Error(`${url.pathname} cannot be loaded`, { cause });
  }
  if (!response.ok) throw new Error(`${url.pathname} cannot be loaded: ${response.status} ${response.statusText}`);
  return response[as]();
}

export class Engine {
  /** What the bundle is: inputs, models, results with their labels. */
  description;
  #core;
  #runtime;
  #sessions;
  #last = Promise.resolve();

  constructor(description, core, runtime, sessions) {
    this.description = description;
    this.#core = core;
    this.#runtime = runtime;
    this.#sessions = sessions;
  }

  /** @param {URL} base the folder of the bundle; `threads` of the runtime, where the page may have several. */
  static async open(base, threads) {
    const description = await fetched(new URL("data/interface.json", base), "json");
    const [core, runtime] = await Promise.all([
      Core.load(new URL("core/processing.wasm", base), description.function),
      openRuntime(new URL("vendor/", base), threads),
    ]);
    const sessions = [];
    for (const model of description.models) {
      const files = await Promise.all(
        model.files.map(async (name) => ({
          name,
          bytes: new Uint8Array(await fetched(new URL(`data/model/${name}`, base), "arrayBuffer")),
        })),
      );
      sessions.push(await runtime.open(model, files));
    }
    return new Engine(description, core, runtime, sessions);
  }

  /** In words: the runtime, its version, its threads. */
  get runtime() {
    return { ...this.description.runtime, threads: this.#runtime.threads };
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
