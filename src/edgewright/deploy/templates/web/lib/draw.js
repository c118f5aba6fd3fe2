// Draws on canvases: images with boxes, points and masks, sound, and curves.
import { sizeOf } from "./images.js";

const FONT = "system-ui, sans-serif";
const MASK_ALPHA = 150;

/** A colour for class `index`, far from those of its neighbours: steps of the golden angle around the circle. */
export function colourOf(index, light = 52) {
  return `hsl(${(212 + 137.508 * index) % 360} 85% ${light}%)`;
}

/** Something that a canvas draws, of pixels in any order. */
export function shown({ data, width, height, format }) {
  const places = { rgb: [3, 0, 1, 2], bgr: [3, 2, 1, 0], rgba: [4, 0, 1, 2], bgra: [4, 2, 1, 0], grey: [1, 0, 0, 0] };
  const [step, red, green, blue] = places[format];
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; to < image.data.length; from += step, to += 4) {
    image.data[to] = data[from + red];
    image.data[to + 1] = data[from + green];
    image.data[to + 2] = data[from + blue];
    image.data[to + 3] = 255;
  }
  return canvasOf(image);
}

function canvasOf(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/**
 * Show an image with what was found in it.
 * @param found list of { kind, value }: boxes, keypoints and masks are drawn, in pixels of the image.
 */
export function drawImage(canvas, source, found, most = 1280) {
  const { width, height } = sizeOf(source);
  // Small images are enlarged, so that lines and letters are fine.
  const scale = Math.min(most / Math.max(width, height), Math.max(1, 720 / Math.max(width, height)));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = "";
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  // Lines and letters are as large on a small screen as on a large one.
  const pixel = Math.max(1, canvas.width / (canvas.getBoundingClientRect().width || canvas.width));
  for (const { kind, value } of found) {
    if (kind === "mask") drawMask(context, value, canvas);
    if (kind === "boxes") value.forEach((box) => drawBox(context, box, scale, pixel));
    if (kind === "keypoints") drawPoints(context, value, scale, colourOf(0), pixel);
  }
}

/** The colour of class `index` in a mask; "" for the background, and for places that are of no class. */
export function maskColour(index, labels) {
  if (labels.length ? index >= labels.length : index === 0) return "";
  return index === 0 && /^(|_*background_*|none|void|unlabell?ed)$/i.test(labels[0]) ? "" : colourOf(index);
}

function drawMask(context, { width, height, classes, labels }, canvas) {
  const image = new ImageData(width, height);
  const colours = new Map();
  for (const [index, which] of classes.entries()) {
    if (!colours.has(which)) colours.set(which, rgbOf(maskColour(which, labels)));
    image.data.set(colours.get(which), 4 * index);
  }
  context.imageSmoothingEnabled = false;
  context.drawImage(canvasOf(image), 0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = true;
}

/** Black or white, whichever can be read on a colour (contrast of WCAG 2, section 1.4.3). */
function inkOn(colour) {
  const linear = (value) => (value <= 10.3 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const [red, green, blue] = rgbOf(colour).map(linear);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

function rgbOf(colour) {
  if (!colour) return [0, 0, 0, 0];
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, MASK_ALPHA];
}

function drawBox(context, { x0, y0, x1, y1, label, points }, scale, pixel) {
  const colour = colourOf(label.index);
  const size = 14 * pixel;
  context.lineWidth = 2.5 * pixel;
  context.strokeStyle = colour;
  context.strokeRect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
  const text = `${label.name} ${(100 * label.score).toFixed(0)} %`.trim();
  context.font = `600 ${size}px ${FONT}`;
  const width = context.measureText(text).width + 0.8 * size;
  const left = Math.min(Math.max(0, x0 * scale - context.lineWidth / 2), context.canvas.width - width);
  const top = y0 * scale > size * 1.5 ? y0 * scale - size * 1.5 : y0 * scale;
  context.fillStyle = colour;
  context.fillRect(left, top, width, size * 1.5);
  context.fillStyle = inkOn(colour);
  context.fillText(text, left + 0.4 * size, top + size * 1.12);
  drawPoints(context, points, scale, colour, pixel);
}

function drawPoints(context, points, scale, colour, pixel) {
  for (const { x, y, score } of points) {
    context.globalAlpha = Math.max(0.15, Math.min(1, score));
    context.beginPath();
    context.arc(x * scale, y * scale, 4 * pixel, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
    context.lineWidth = 1.5 * pixel;
    context.strokeStyle = "#fff";
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** Paint the ground of a drawing of curves, as sharp as the screen is. */
function prepare(canvas, width, height) {
  const sharp = globalThis.devicePixelRatio || 1;
  canvas.width = width * sharp;
  canvas.height = height * sharp;
  const context = canvas.getContext("2d");
  canvas.style.width = `${width}px`;
  context.scale(sharp, sharp);
  const style = getComputedStyle(document.documentElement);
  context.fillStyle = style.getPropertyValue("--ground");
  context.fillRect(0, 0, width, height);
  return { context, line: style.getPropertyValue("--line"), soft: style.getPropertyValue("--soft") };
}

/** The largest sample, and no less than what is silence to the eye. */
export function peakOf(samples) {
  return samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0.02);
}

/** How wide a drawing in `element` may be, in pixels of the page. */
function roomIn(element) {
  if (!element) return 0;
  const { paddingLeft, paddingRight } = getComputedStyle(element);
  return element.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
}

/** Sound, `peak` from top to bottom of the drawing: the lowest and the highest sample of each column. */
export function drawWave(canvas, samples, { width = 0, height = 160, seconds = 0, peak = 1, colour = colourOf(0) } = {}) {
  width ||= Math.round(roomIn(canvas.parentElement)) || 720;
  const { context, line, soft } = prepare(canvas, width, height);
  context.fillStyle = line;
  context.fillRect(0, height / 2, width, 1);
  context.fillStyle = colour;
  for (let x = 0; x < width && samples.length; x += 1) {
    const from = Math.floor((x * samples.length) / width);
    const to = Math.max(from + 1, Math.floor(((x + 1) * samples.length) / width));
    let low = 1;
    let high = -1;
    for (let index = from; index < to; index += 1) {
      low = Math.min(low, samples[index] / peak);
      high = Math.max(high, samples[index] / peak);
    }
    const top = (0.5 - 0.47 * Math.min(1, high)) * height;
    context.fillRect(x, top, 1, Math.max(1, (0.5 - 0.47 * Math.max(-1, low)) * height - top));
  }
  if (seconds) {
    context.fillStyle = soft;
    context.font = `12px ${FONT}`;
    context.textAlign = "right";
    context.fillText(`${seconds.toFixed(seconds < 10 ? 2 : 0)} s`, width - 6, height - 6);
  }
}

/**
 * Curves over one another: `lines` are lists of numbers, one a run, the last at the right edge of `places` of them. The
 * scale is 0 to 1, or what the numbers need.
 */
export function drawCurves(canvas, lines, { width = 0, height = 140, places = 0 } = {}) {
  width ||= Math.round(roomIn(canvas.parentElement)) || 420;
  const { context, line, soft } = prepare(canvas, width, height);
  const all = lines.flat().filter(Number.isFinite);
  const low = Math.min(0, ...all);
  const high = Math.max(1, ...all);
  const y = (value) => height - 10 - ((height - 20) * (value - low)) / (high - low);
  context.strokeStyle = line;
  context.fillStyle = soft;
  context.font = `12px ${FONT}`;
  for (const value of [low, high]) {
    context.beginPath();
    context.moveTo(0, y(value));
    context.lineTo(width, y(value));
    context.stroke();
    context.fillText(Number(value.toPrecision(3)), 4, y(value) + (value === low ? -3 : 12));
  }
  context.lineWidth = 2;
  context.lineJoin = "round";
  for (const [index, values] of lines.entries()) {
    context.strokeStyle = colourOf(index);
    context.beginPath();
    values.forEach((value, at) => {
      const steps = Math.max(places, values.length) - 1;
      const x = steps ? width - (width * (values.length - 1 - at)) / steps : width / 2;
      if (at) context.lineTo(x, y(value));
      else context.moveTo(x, y(value));
    });
    context.stroke();
  }
}
