// The processing in C, compiled to WebAssembly: raw inputs to a model's tensors, and tensors to results.

const REASONS = {
  "-1": "no such input or result",
  "-2": "a size is 0, too large, or not the one that is expected",
  "-3": "a number is infinite or not a number",
  "-4": "the memory is too small",
  "-5": "an input is not set",
  "-6": "the memory is not aligned",
  "-7": "no such pixel format or rotation",
};
const FORMATS = { rgb: 0, bgr: 1, rgba: 2, bgra: 3, grey: 4, nv12: 5, nv21: 6, i420: 7 };
const ARRAYS = {
  float32: Float32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
};
const DTYPES = Object.keys(ARRAYS); // in the order of the core's numbers
const PAGE_BYTES = 65536;
const VALUE_BYTES = 64; // of an ew_value: a pointer, dtype, rank, and eight sizes

/** An input that the processing refuses, or a bundle that does not fit together. `code` is the core's, negative. */
export class ProcessingError extends Error {
  constructor(what, code = 0) {
    super(code in REASONS ? `${what}: ${REASONS[code]}` : what);
    this.name = "ProcessingError";
    this.code = code;
  }
}

/** The class of typed arrays that holds numbers of `dtype`. */
export function arrayClass(dtype) {
  const found = ARRAYS[dtype];
  if (!found) throw new ProcessingError(`no numbers are ${dtype}`);
  return found;
}

const aligned = (bytes, to) => Math.ceil(bytes / to) * to;

export class Core {
  #c;
  #what;
  #block;
  #value;
  #behind; // where the raw inputs of a run are put, one after another
  #free;

  /** @param {WebAssembly.Exports} exports of the module; `name` is the function that gives the tables. */
  constructor(exports, name) {
    this.#c = exports;
    this.#what = exports[name]();
    const bytes = exports.ew_bytes(this.#what);
    this.#block = aligned(exports.__heap_base.value, 64);
    this.#value = aligned(this.#block + bytes, 64);
    this.#behind = this.#free = this.#value + VALUE_BYTES;
    this.#reserve(this.#behind);
    this.#check(exports.ew_init(this.#what, this.#block, bytes), "opening the processing");
  }

  /** @param {URL} url of the module */
  static async load(url, name) {
    const response = await fetch(url);
    if (!response.ok) throw new ProcessingError(`${url.pathname} is missing (${response.status})`);
    // Not the streaming kind: it asks for a media type that plain file servers do not know.
    const { instance } = await WebAssembly.instantiate(await response.arrayBuffer(), {});
    return new Core(instance.exports, name);
  }

  /** A new run begins: the raw inputs of the last one are forgotten. */
  begin() {
    this.#free = this.#behind;
  }

  reset() {
    this.#check(this.#c.ew_reset(this.#block), "a new stream");
  }

  setImage(input, { data, width, height, format = "rgba", rowBytes = 0, rotation = 0 }) {
    if (!(format in FORMATS)) throw new ProcessingError(`${format} is no format of pixels`);
    const least = this.#leastBytes(format, width, height, rowBytes);
    if (!(data.byteLength >= least)) {
      throw new ProcessingError(`an image of ${width}x${height} has ${data.byteLength} bytes, but ${least} are expected`);
    }
    const at = this.#put(data);
    const code = this.#c.ew_set_image(
      this.#block, input, at, width, height, rowBytes, FORMATS[format], rotation,
    );
    this.#check(code, `an image of ${width}x${height}`);
  }

  setSamples(input, samples) {
    this.#check(this.#c.ew_set_samples(this.#block, input, this.#put(samples), samples.length), "the sound");
  }

  setValues(input, values) {
    this.#check(this.#c.ew_set_values(this.#block, input, this.#put(values), values.length), "the numbers");
  }

  prepare(model) {
    this.#check(this.#c.ew_prepare(this.#block, model), "preparing the model's inputs");
  }

  finish(model) {
    this.#check(this.#c.ew_finish(this.#block, model), "reading the model's outputs");
  }

  /** A view of input `index` of a model; the next run changes it. */
  input(model, index, dtype, count) {
    return this.#view(this.#c.ew_input(this.#block, model, index), dtype, count);
  }

  /** A view of output `index` of a model, for what the runtime gives. */
  output(model, index, dtype, count) {
    return this.#view(this.#c.ew_output(this.#block, model, index), dtype, count);
  }

  /** A copy of a result: { data, dtype, shape }. */
  result(index) {
    this.#check(this.#c.ew_result(this.#block, index, this.#value), "the result");
    const [at, which, rank, ...sizes] = new Int32Array(this.#c.memory.buffer, this.#value, 11);
    const shape = sizes.slice(0, rank);
    const dtype = DTYPES[which];
    const count = shape.reduce((product, size) => product * size, 1);
    const data = count ? this.#view(at >>> 0, dtype, count).slice() : new (arrayClass(dtype))(0);
    return { data, dtype, shape };
  }

  #leastBytes(format, width, height, rowBytes) {
    const pixel = { rgb: 3, bgr: 3, rgba: 4, bgra: 4 }[format] ?? 1;
    const row = rowBytes || width * pixel;
    const luma = row * (height - 1) + width * pixel;
    if (!["nv12", "nv21", "i420"].includes(format)) return luma;
    return row * height + 2 * Math.ceil(width / 2) * Math.ceil(height / 2);
  }

  #view(at, dtype, count) {
    if (!at) throw new ProcessingError("the processing has no such tensor");
    return new (arrayClass(dtype))(this.#c.memory.buffer, at, count);
  }

  #put(numbers) {
    const at = this.#free;
    this.#free = aligned(at + numbers.byteLength, 64);
    this.#reserve(this.#free);
    const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
    new Uint8Array(this.#c.memory.buffer, at, bytes.length).set(bytes);
    return at;
  }

  #reserve(end) {
    const missing = end - this.#c.memory.buffer.byteLength;
    if (missing <= 0) return;
    try {
      this.#c.memory.grow(Math.ceil(missing / PAGE_BYTES));
    } catch {
      throw new ProcessingError(`the browser gives no ${end} bytes of memory`);
    }
  }

  #check(code, what) {
    if (code !== 0) throw new ProcessingError(what, code);
  }
}
