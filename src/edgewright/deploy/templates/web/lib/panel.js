// Results as elements of the page. Labels come from a model: they are text, never markup.
import { colourOf, drawCurves, drawWave, maskColour } from "./draw.js";
import { wav } from "./sound.js";

const MOST_ROWS = 12;
const MOST_NUMBERS = 32;

function element(name, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
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
  if (score !== undefined) made.append(element("meter", { min: 0, max: 1, value: score }));
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

function sound(samples, rate, isLive = false) {
  const canvas = element("canvas");
  drawWave(canvas, samples, { width: 420, height: 110, seconds: samples.length / rate });
  if (isLive) return [canvas];
  const player = element("audio", { controls: true, src: URL.createObjectURL(wav(samples, rate)) });
  return [canvas, player];
}

function clear(panel) {
  for (const player of panel.querySelectorAll("audio")) URL.revokeObjectURL(player.src);
  panel.replaceChildren();
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

  /** @param {boolean} isLive more comes: sound gets no player yet */
  show(panel, rate, isLive = false) {
    if (this.#runs.length === 0) return;
    clear(panel);
    panel.append(...this.#rows.map((row) => section(row.name, this.#view(row, rate, isLive))));
  }

  #view({ field, kind }, rate, isLive) {
    const values = this.#runs.map((results) => results[field]);
    if (kind === "audio") return sound(joined(values), rate, isLive);
    if (kind === "codes") return VIEWS.codes(values.flat());
    const curves = curvesOf(kind, values);
    if (!curves) return (VIEWS[kind] ?? VIEWS.tensor)(values.at(-1));
    const canvas = element("canvas");
    drawCurves(canvas, curves, { width: 420, height: 130 });
    const last = curves.map((curve, index) => row("last", Number(curve.at(-1).toPrecision(3)).toString(), { colour: colourOf(index) }));
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
