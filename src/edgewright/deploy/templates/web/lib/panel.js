// Results as elements of the page. Labels come from a model: they are text, never markup.
import { colourOf, drawCurves, drawWave, maskColour, peakOf } from "./draw.js";
import { wav } from "./sound.js";

const MOST_ROWS = 12;
const MOST_NUMBERS = 32;

function element(name, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const named = ({ index, name }) => name || `class ${index}`;

/** A line of a list: a colour as in the drawing where there is one, a text, a value, a bar for a score. */
function row(text, value, { colour, score } = {}) {
  const made = element("div", { className: "row" });
  if (colour) {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = colour;
    made.append(swatch);
  }
  made.append(element("span", { className: "text", text }), element("span", { className: "value", text: value }));
  if (score !== undefined) made.append(element("meter", { min: 0, max: 1, value: score, ariaLabel: text }));
  return made;
}

function more(rows, count, what) {
  if (count > MOST_ROWS) rows.push(element("small", { text: `and ${count - MOST_ROWS} more ${what}` }));
  return rows;
}

const VIEWS = {
  classes: (labels) =>
    more(labels.slice(0, MOST_ROWS).map((label) => row(named(label), percent(label.score), { score: label.score })), labels.length, "classes"),
  boxes: (boxes) =>
    boxes.length
      ? more(boxes.slice(0, MOST_ROWS).map(({ label }) => row(named(label), percent(label.score), { colour: colourOf(label.index) })), boxes.length, "boxes")
      : [element("small", { text: "nothing found" })],
  keypoints: (points) =>
    more(points.slice(0, MOST_ROWS).map(({ x, y, score }, index) => row(`${index}: ${x.toFixed(1)}, ${y.toFixed(1)}`, percent(score))), points.length, "points"),
  mask: ({ classes, labels }) => {
    const counts = new Map();
    for (const which of classes) counts.set(which, (counts.get(which) ?? 0) + 1);
    const found = [...counts].sort(([, a], [, b]) => b - a);
    return more(
      found.slice(0, MOST_ROWS).map(([index, count]) => row(named({ index, name: labels[index] }), percent(count / classes.length), { colour: maskColour(index, labels) || "var(--line)" })),
      found.length,
      "classes",
    );
  },
  codes: (codes) => [element("p", { className: "text", text: codes.map(named).join(" ") || "nothing recognised" })],
  tensor: ({ shape, numbers }) => {
    const first = Array.from(numbers.slice(0, MOST_NUMBERS), (value) => Number(Number(value).toPrecision(4)));
    const rest = numbers.length > MOST_NUMBERS ? ` … (${shape.join(" x ")})` : "";
    return [element("p", { className: "numbers", text: first.join("  ") + rest })];
  },
};

function section(name, nodes) {
  return element("div", {}, element("h3", { text: name.replaceAll("_", " ") }), ...nodes);
}

/** A canvas that is drawn when it is in its place, where its width is known. */
function drawn(label, draw) {
  const canvas = element("canvas", { role: "img", ariaLabel: label });
  queueMicrotask(() => draw(canvas));
  return canvas;
}

function sound(samples, rate, { isLive = false, peak = peakOf(samples), lag = 0 } = {}) {
  const canvas = drawn("The sound that came out", (place) => drawWave(place, samples, { height: 110, peak, seconds: samples.length / rate }));
  const late = `${((1000 * lag) / rate).toFixed(0)} ms`;
  const note = lag ? [element("small", { text: `Comes ${late} late${isLive ? "" : "; moved back, so that it fits the input"}.` })] : [];
  if (isLive) return [canvas, ...note];
  const player = element("audio", { controls: true, ariaLabel: "The sound that came out", src: URL.createObjectURL(wav(samples, rate)) });
  return [canvas, player, ...note];
}

function clear(panel) {
  for (const player of panel.querySelectorAll("audio")) URL.revokeObjectURL(player.src);
  panel.replaceChildren();
}

/** What was found, in a few words, for those who do not see it. */
export function spoken(panel) {
  return panel.innerText.replace(/\s+/g, " ").trim().slice(0, 200);
}

/** Show the results of one run: `rows` are those of the description, `results` by field. */
export function showResults(panel, rows, results, rate) {
  clear(panel);
  panel.append(
    ...rows.map(({ name, field, kind }) =>
      section(name, kind === "audio" ? sound(results[field], rate) : (VIEWS[kind] ?? VIEWS.tensor)(results[field])),
    ),
  );
}

/** What many runs of a stream gave, one behind the other. */
export class History {
  #rows;
  #runs = [];
  #most;

  /** @param {number} most runs that are kept */
  constructor(rows, most) {
    this.#rows = rows;
    this.#most = most;
  }

  add(results) {
    this.#runs.push(results);
    if (this.#runs.length > this.#most) this.#runs.shift();
  }

  /**
   * @param {Object} options
   * @param {boolean} options.isLive more comes: sound gets no player yet
   * @param {number} options.peak of the input, so that sound has one scale
   * @param {number} options.runs how many the input fills, not all of the last one: sound is cut to that
   */
  show(panel, rate, options = {}) {
    if (this.#runs.length === 0) return;
    clear(panel);
    panel.append(...this.#rows.map((row) => section(row.name, this.#view(row, rate, options))));
  }

  #view({ field, kind, lag }, rate, { isLive = false, peak, runs }) {
    const values = this.#runs.map((results) => results[field]);
    if (kind === "audio") {
      const samples = joined(values);
      // What comes late is moved back: the first samples belong to nothing that was heard.
      const end = runs === undefined ? samples.length : lag + Math.ceil(runs * values[0].length);
      return sound(isLive ? samples : samples.subarray(lag, end), rate, { isLive, peak, lag });
    }
    if (kind === "codes") return VIEWS.codes(values.flat());
    const curves = curvesOf(kind, values);
    if (!curves) return (VIEWS[kind] ?? VIEWS.tensor)(values.at(-1));
    const places = isLive ? this.#most : 0;
    const canvas = drawn("One curve for each number, a point a run", (place) => drawCurves(place, curves, { height: 130, places }));
    const last = curves.map((curve, index) => row(isLive ? "now" : "at the end", Number(curve.at(-1).toPrecision(3)).toString(), { colour: colourOf(index) }));
    return [canvas, ...(kind === "classes" ? VIEWS.classes(values.at(-1)) : last)];
  }
}

const MOST_CURVES = 4;

function curvesOf(kind, values) {
  if (kind === "classes") return [values.map((labels) => labels[0]?.score ?? 0)];
  const count = values.at(-1)?.numbers?.length;
  if (!count || count > MOST_CURVES) return null;
  return Array.from({ length: count }, (_, index) => values.map(({ numbers }) => Number(numbers[index])));
}

function joined(parts) {
  const samples = new Float32Array(parts.reduce((total, part) => total + part.length, 0));
  parts.reduce((at, part) => {
    samples.set(part, at);
    return at + part.length;
  }, 0);
  return samples;
}
