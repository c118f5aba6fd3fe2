// Golden cases: raw inputs, the tensors and results that must come of them, and how near they must be.
import { arrayClass } from "./core.js";

const SHARE_KINDS = ["mask", "codes"];

const product = (shape) => shape.reduce((total, size) => total * size, 1);

/** @returns the list of cases, of which there are at most `most`, their arrays fetched. */
export async function readCases(folder, most = Infinity) {
  const record = await (await opened(new URL("golden.json", folder))).json();
  if (record.edgewright_golden !== 1) throw new Error("golden.json is no list of golden cases");
  const group = (rows) => Promise.all(rows.map((row) => readArray(folder, row)));
  const cases = [];
  for (const { name, inputs, tensors, results } of record.cases.slice(0, most)) {
    cases.push({ name, inputs: await group(inputs), tensors: await group(tensors), results: await group(results) });
  }
  return { cases, tolerances: record.tolerances };
}

async function opened(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname} is missing (${response.status})`);
  return response;
}

async function readArray(folder, row) {
  const bytes = await (await opened(new URL(row.file, folder))).arrayBuffer();
  const kind = arrayClass(row.dtype);
  if (bytes.byteLength !== product(row.shape) * kind.BYTES_PER_ELEMENT) {
    throw new Error(`${row.file} has ${bytes.byteLength} bytes, which is not ${row.dtype} [${row.shape}]`);
  }
  return { ...row, data: new kind(bytes) };
}

/** The inputs of run `turn` of `turns`, as the engine takes them. */
export function inputsOf(kase, turn, turns) {
  return Object.fromEntries(
    kase.inputs.map(({ name, kind, order, shape, data }) => {
      if (kind === "image") return [name, { data, height: shape[0], width: shape[1], format: order }];
      const part = data.length / turns;
      return [name, data.subarray(part * turn, part * (turn + 1))];
    }),
  );
}

/**
 * Run a case, of a stream at most `mostRuns` hops, after the stream was begun anew.
 * @returns {Promise<string[]>} a line for everything that is not as it should be
 */
export async function checkCase(engine, kase, tolerances, mostRuns = Infinity) {
  const problems = [];
  const { hop } = engine.description;
  const all = hop ? kase.inputs[0].data.length / hop : 1;
  const turns = Math.min(all, mostRuns);
  const made = [];
  await engine.reset();
  for (let turn = 0; turn < turns; turn += 1) {
    const prepared = (tensors) => {
      for (const want of kase.tensors) problems.push(compareTensor(want, tensors[want.name], tolerances));
    };
    made.push(await engine.arrays(inputsOf(kase, turn, all), turn === 0 ? prepared : undefined));
  }
  const sides = kase.inputs.filter(({ kind }) => kind === "image").flatMap(({ shape }) => shape.slice(0, 2));
  for (const want of kase.results) {
    const parts = made.map((results) => results[want.name]);
    const [wanted, got] = hop ? [beginning(want, turns), stacked(parts)] : [want, parts[0]];
    problems.push(compareResult(wanted, got, Math.max(1, ...sides), tolerances));
  }
  return problems.filter(Boolean);
}

/** The results of the first `turns` runs of a stream. */
function beginning(want, turns) {
  const [all, ...shape] = want.shape;
  return { ...want, shape: [turns, ...shape], data: want.data.subarray(0, (want.data.length / all) * turns) };
}

/** The results of a stream's runs, one behind the other. */
function stacked(parts) {
  const data = new parts[0].data.constructor(parts.reduce((total, part) => total + part.data.length, 0));
  parts.reduce((at, part) => {
    data.set(part.data, at);
    return at + part.data.length;
  }, 0);
  return { data, shape: [parts.length, ...parts[0].shape] };
}

/** How a tensor differs beyond rounding; empty where it does not. */
export function compareTensor(want, got, tolerances) {
  if (want.data.length !== got.length || want.data.constructor !== got.constructor) {
    return `tensor ${want.name} is ${got.constructor.name} of ${got.length}, but ${want.dtype} [${want.shape}] is expected`;
  }
  const limit =
    want.dtype === "float32" ? tolerances.tensor * Math.max(largest(want.data), 1) : tolerances.tensor_steps;
  const { distance, at } = farthest(want.data, got);
  return distance <= limit ? "" : `tensor ${want.name} differs by ${short(distance)} at element ${at}; at most ${short(limit)} is right`;
}

/** How a result differs beyond what other kernels explain. `side` is the larger one of the source image in pixels. */
export function compareResult(want, got, side, tolerances) {
  const { kind, name } = want;
  if (want.shape.length !== got.shape.length || want.shape.some((size, axis) => size !== got.shape[axis])) {
    return `result ${name} is [${got.shape}], but [${want.shape}] is expected`;
  }
  if (want.data.length === 0) return "";
  if (SHARE_KINDS.includes(kind)) {
    let same = 0;
    for (const [index, value] of want.data.entries()) same += value === got.data[index];
    const share = same / want.data.length;
    return share >= tolerances.mask_agreement ? "" : `result ${name} agrees in ${(100 * share).toFixed(1)} % only`;
  }
  const width = want.shape.at(-1);
  const limits = columnLimits(kind, width, side, tolerances, largest(want.data));
  for (const [index, value] of want.data.entries()) {
    const [what, limit] = limits[index % width];
    const distance = Math.abs(Number(value) - Number(got.data[index]));
    if (!(distance <= limit)) {
      return `result ${name}: a ${what} differs by ${short(distance)}; at most ${short(limit)} is right`;
    }
  }
  return "";
}

function columnLimits(kind, width, side, tolerances, most) {
  const corner = ["corner", tolerances.box * side];
  const score = ["score", tolerances.score];
  const point = [["place", tolerances.box * side], ["place", tolerances.box * side], score];
  const same = ["class", 0];
  const other = ["value", tolerances.value * Math.max(most, 1e-6)];
  return Array.from({ length: width }, (_, column) => {
    if (kind === "classes") return column === 0 ? same : score;
    if (kind === "boxes") return [corner, corner, corner, corner, score, same][column] ?? point[(column - 6) % 3];
    return kind === "keypoints" ? point[column % 3] : other;
  });
}

function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(Number(value)));
  return most;
}

function farthest(want, got) {
  let distance = 0;
  let at = 0;
  for (let index = 0; index < want.length; index += 1) {
    const here = Math.abs(Number(want[index]) - Number(got[index]));
    // not >, so that NaN counts
    if (!(here <= distance)) [distance, at] = [here, index];
  }
  return { distance, at };
}

const short = (number) => Number(number.toPrecision(3)).toString();
