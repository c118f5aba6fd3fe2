// The page: camera, files and microphone in, results drawn. `app` on the window is the promise of it.
import { optionsOf } from "./lib/accelerators.js";
import { Model } from "./lib/model.js";
import { drawImage, drawWave, peakOf, shown } from "./lib/draw.js";
import { inputsOf, readCases } from "./lib/golden.js";
import { readImage, sizeOf } from "./lib/images.js";
import { startOffline } from "./lib/offline.js";
import { History, showResults, spoken } from "./lib/panel.js";
import { Microphone, readSound, wav } from "./lib/sound.js";

const SHOWN_S = 10; // of a live stream
const WINDOWS_A_SECOND = 4; // of live sound for a model of clips
const PAUSE_MS = 50; // at least so often the page may draw
const MOST_SECONDS = 600;
const MOST_FILE_BYTES = 256 * 2 ** 20;
const MOST_PIXELS = 64e6; // of a picture: a canvas of more is none in most browsers

const at = (id) => document.getElementById(id);

function say(text, isBad = false) {
  at("message").className = isBad ? "bad" : "";
  at("message").textContent = text;
}

// What browsers call these is of no help.
const DEVICE_TROUBLES = {
  NotAllowedError: (what) => `The ${what} is not allowed for this page: allow it in the settings of the browser, or open a file`,
  NotFoundError: (what) => `No ${what} is found: open a file`,
  NotReadableError: (what) => `The ${what} cannot be read: another program may use it`,
};

function complain(error) {
  at("panel").replaceChildren(); // what stood there was of another input
  at("time").textContent = "";
  say(error.message, true);
}

function progress(done, all) {
  at("message").ariaLive = done < all ? "off" : "polite"; // nobody can listen to every byte
  Object.assign(at("progress"), done < all ? { value: done, max: all } : {});
  if (done >= all) at("progress").removeAttribute("value");
  const bytes = (count) => (count / 1e6).toFixed(1);
  say(done < all ? `Loading the model: ${bytes(done)} of ${bytes(all)} MB` : "Starting the model…");
}

class App {
  #model;
  #live = null; // what ends the camera or the microphone
  #running = Promise.resolve();
  #next = 0; // example
  #hasRun = false;

  constructor(model) {
    this.#model = model;
    const { inputs, hop, results } = model.description;
    this.inputs = inputs;
    this.results = results;
    this.hop = hop;
    this.kind = inputs.length === 1 ? inputs[0].kind : "numbers";
    if (!["image", "audio"].includes(this.kind)) this.kind = "numbers";
    this.rate = inputs.find(({ kind }) => kind === "audio")?.rate_hz || 16000;
  }

  /** Make the controls work. */
  start() {
    const { kind } = this;
    // Nothing is dropped on a screen that is touched.
    const drop = (what) => (matchMedia("(pointer: coarse)").matches ? "Open" : `Drop ${what} here, open`);
    at("hint").textContent = {
      image: `${drop("a picture")} one, or use the camera.`,
      audio: `${drop("a sound file")} one, or use the microphone.`,
      numbers: "Numbers are separated by spaces or commas.",
    }[kind];
    say("Nothing has run yet.");
    at("file").accept = { image: "image/*", audio: "audio/*", numbers: ".txt,.csv,.json" }[kind];
    at("open").textContent = { image: "Open a picture", audio: "Open a sound", numbers: "Run" }[kind];
    at("open").onclick = () => (kind === "numbers" ? this.#guarded(() => this.#form()) : at("file").click());
    at("file").onchange = () => {
      const [file] = at("file").files;
      if (file) this.#guarded(() => this.#file(file));
      at("file").value = "";
    };
    at("example").onclick = () => this.#guarded(() => this.example(this.#next++));
    at("live").onclick = () => this.#guarded(() => this.#toggle());
    at("live").hidden = kind === "numbers";
    this.#mark();
    if (kind === "numbers") this.#fields();
    else this.#drops();
    for (const id of ["open", "live", "example"]) at(id).disabled = false;
  }

  /** Run the golden case `number`; returns what was found, in words. */
  async example(number) {
    await this.#stop();
    const { cases } = await readCases(new URL("./data/golden/", import.meta.url));
    const kase = cases[number % cases.length];
    const given = inputsOf(kase, 0, 1);
    if (this.kind === "image") await this.#picture(shown(given[this.inputs[0].name]), given[this.inputs[0].name]);
    else if (this.kind === "audio") await this.#sound(given[this.inputs[0].name]);
    else await this.#values(given);
    return `example ${kase.name}: ${spoken(at("panel"))}`;
  }

  async #guarded(work) {
    this.#running = this.#running.then(work).catch(complain);
    await this.#running;
  }

  async #file(file) {
    await this.#stop();
    if (file.size > MOST_FILE_BYTES) throw new Error(`${file.name} has ${Math.round(file.size / 2 ** 20)} MiB; at most ${MOST_FILE_BYTES / 2 ** 20} are read`);
    if (this.kind === "audio") return this.#sound(await readSound(file, this.rate));
    const bitmap = await readImage(file);
    try {
      const pixels = bitmap.width * bitmap.height;
      if (pixels > MOST_PIXELS) throw new Error(`${file.name} has ${Math.round(pixels / 1e6)} million pixels; at most ${MOST_PIXELS / 1e6} are shown`);
      return await this.#picture(bitmap, bitmap);
    } finally {
      bitmap.close();
    }
  }

  async #run(inputs) {
    const fields = Object.fromEntries(this.inputs.map(({ name, field }) => [field, inputs[name]]));
    const start = performance.now();
    const results = await this.#model.run(fields);
    // A runtime prepares itself in its first run.
    at("time").textContent = `${this.#hasRun ? "" : "first run "}${(performance.now() - start).toFixed(1)} ms`;
    this.#hasRun = true;
    say("");
    return results;
  }

  #found(results) {
    return this.results.map(({ field, kind }) => ({ kind, value: results[field] }));
  }

  /** @param picture what is drawn; `pixels` what the model gets */
  async #picture(picture, pixels) {
    const results = await this.#run({ [this.inputs[0].name]: pixels });
    at("view").hidden = false;
    drawImage(at("view"), picture, this.#found(results));
    showResults(at("panel"), this.results, results, this.rate);
    at("view").ariaLabel = `The picture, with what was found: ${spoken(at("panel"))}`;
  }

  async #sound(samples) {
    const { name } = this.inputs[0];
    if (samples.length > MOST_SECONDS * this.rate) throw new Error(`The sound is longer than ${MOST_SECONDS} s`);
    const peak = peakOf(samples);
    at("view").hidden = false;
    at("view").ariaLabel = "The sound that was put in";
    drawWave(at("view"), samples, { seconds: samples.length / this.rate, peak });
    this.#play(samples);
    if (!this.hop) return showResults(at("panel"), this.results, await this.#run({ [name]: this.#fitted(samples) }), this.rate);
    // What comes late is waited for.
    const late = Math.max(0, ...this.results.map(({ lag }) => lag));
    const runs = Math.ceil((samples.length + late) / this.hop);
    const history = new History(this.results, runs);
    await this.#model.reset();
    let last = performance.now();
    for (let from = 0; from < runs * this.hop; from += this.hop) {
      const part = new Float32Array(this.hop);
      part.set(samples.subarray(from, from + this.hop));
      history.add(await this.#run({ [name]: part }));
      if (performance.now() - last > PAUSE_MS) {
        say(`${Math.min(100, Math.round((100 * from) / samples.length))} %`);
        await new Promise((resolve) => setTimeout(resolve));
        last = performance.now();
      }
    }
    say("");
    history.show(at("panel"), this.rate, { peak, runs: samples.length / this.hop });
  }

  /** Make the input heard; without samples nothing is. */
  #play(samples) {
    const player = at("heard");
    if (player.src) URL.revokeObjectURL(player.src);
    player.hidden = !samples;
    if (samples) player.src = URL.createObjectURL(wav(samples, this.rate));
    else player.removeAttribute("src");
  }

  /** As many samples as a model of clips takes: the loudest part, or with silence behind. */
  #fitted(samples) {
    const [length] = this.inputs[0].shape;
    if (!length || samples.length === length) return samples;
    const fitted = new Float32Array(length);
    let best = 0;
    let most = -1;
    for (let from = 0; from + length <= samples.length; from += Math.ceil(length / 8)) {
      const energy = samples.subarray(from, from + length).reduce((sum, sample) => sum + sample * sample, 0);
      if (energy > most) [most, best] = [energy, from];
    }
    fitted.set(samples.subarray(best, best + length));
    return fitted;
  }

  #drops() {
    const stage = at("stage");
    stage.ondragover = (event) => {
      event.preventDefault();
      stage.classList.add("over");
    };
    stage.ondragleave = () => stage.classList.remove("over");
    stage.ondrop = (event) => {
      event.preventDefault();
      stage.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) this.#guarded(() => this.#file(file));
    };
  }

  #mark() {
    const what = this.kind === "image" ? "camera" : "microphone";
    at("live").textContent = this.#live ? `Stop the ${what}` : `Use the ${what}`;
    at("live").classList.toggle("on", Boolean(this.#live));
    at("live").ariaPressed = String(Boolean(this.#live));
    at("panel").ariaLive = this.#live ? "off" : "polite"; // nobody can listen to every frame
  }

  async #toggle() {
    if (this.#live) return this.#stop();
    if (!navigator.mediaDevices) throw new Error("Cameras and microphones need a secure page: https, or localhost");
    this.#play(null);
    const what = this.kind === "image" ? "camera" : "microphone";
    try {
      this.#live = this.kind === "image" ? await this.#camera() : await this.#microphone();
    } catch (cause) {
      throw cause.name in DEVICE_TROUBLES ? new Error(DEVICE_TROUBLES[cause.name](what), { cause }) : cause;
    }
    this.#mark();
  }

  async #stop() {
    const end = this.#live;
    this.#live = null;
    await end?.();
    this.#mark();
  }

  async #camera() {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    const frame = document.createElement("canvas");
    let isOn = true;
    const loop = async () => {
      while (isOn) {
        Object.assign(frame, sizeOf(video));
        frame.getContext("2d", { willReadFrequently: true }).drawImage(video, 0, 0);
        await this.#picture(frame, frame);
        await new Promise(requestAnimationFrame);
      }
    };
    const done = loop().catch(complain);
    return async () => {
      isOn = false;
      await done;
      for (const track of stream.getTracks()) track.stop();
    };
  }

  async #microphone() {
    const { name, shape } = this.inputs[0];
    const size = this.hop || Math.ceil((shape[0] || this.rate) / WINDOWS_A_SECOND);
    const heard = new Float32Array(this.hop ? SHOWN_S * this.rate : shape[0] || this.rate);
    const history = this.hop ? new History(this.results, Math.ceil((SHOWN_S * this.rate) / this.hop)) : null;
    let drawn = 0;
    let waiting = Promise.resolve();
    let backlog = 0;
    const take = async (block) => {
      heard.copyWithin(0, block.length);
      heard.set(block, heard.length - block.length);
      const results = await this.#run({ [name]: this.hop ? block : heard });
      history?.add(results);
      if (performance.now() - drawn < PAUSE_MS) return;
      drawn = performance.now();
      const peak = Math.max(0.1, peakOf(heard));
      drawWave(at("view"), heard, { seconds: heard.length / this.rate, peak });
      if (history) history.show(at("panel"), this.rate, { isLive: true, peak });
      else showResults(at("panel"), this.results, results, this.rate);
    };
    if (this.hop) await this.#model.reset();
    at("view").hidden = false;
    const microphone = await Microphone.open(this.rate, size, (block) => {
      // A machine that is too slow for the model leaves blocks out instead of falling behind.
      if (backlog * size > this.rate) return;
      backlog += 1;
      waiting = waiting
        .then(() => take(block))
        .catch(complain)
        .finally(() => (backlog -= 1));
    });
    return async () => {
      await microphone.close();
      await waiting;
      history?.show(at("panel"), this.rate);
    };
  }

  /** A field for each input: files for images and sound, text for numbers. */
  #fields() {
    const form = at("numbers");
    form.hidden = false;
    for (const { name, kind, dtype, shape } of this.inputs) {
      const isFile = kind === "image" || kind === "audio";
      const label = document.createElement("label");
      const sizes = shape.map((size) => size || "any").join(" x ");
      label.textContent = isFile ? name.replaceAll("_", " ") : `${name.replaceAll("_", " ")} (${dtype}, ${sizes})`;
      const field = document.createElement(isFile ? "input" : "textarea");
      field.id = `input-${name}`;
      if (isFile) Object.assign(field, { type: "file", accept: `${kind}/*` });
      else field.spellcheck = false;
      label.append(field);
      form.append(label);
    }
  }

  async #form() {
    const given = {};
    for (const { name, kind } of this.inputs) {
      const { value, files } = at(`input-${name}`);
      if (!files) given[name] = numbersOf(name, value);
      else if (!files[0]) throw new Error(`${name}: choose a file`);
      else given[name] = kind === "image" ? files[0] : await readSound(files[0], this.rate);
    }
    showResults(at("panel"), this.results, await this.#run(given), this.rate);
  }

  async #values(given) {
    for (const { name } of this.inputs) {
      const field = at(`input-${name}`);
      if (!field.files) field.value = Array.from(given[name], (value) => Number(Number(value).toPrecision(6))).join(" ");
    }
    showResults(at("panel"), this.results, await this.#run(given), this.rate);
  }
}

function numbersOf(name, text) {
  const words = text.split(/[\s,;[\]]+/).filter(Boolean);
  const wrong = words.find((word) => !Number.isFinite(Number(word)));
  if (wrong !== undefined) throw new Error(`${name}: ${wrong} is no number`);
  return words.map(Number);
}

globalThis.app = (async () => {
  try {
    say("Loading the runtime…");
    at("offline").textContent = await startOffline((replace) => {
      at("update").hidden = false;
      at("update").onclick = replace;
    });
    const model = await Model.load({ ...optionsOf(location), progress });
    const { name, version, threads, accelerator } = model.runtime;
    const where = accelerator === "wasm" ? `${threads} thread${threads === 1 ? "" : "s"}` : "on the GPU (WebGPU)";
    at("runtime").textContent = `${name} ${version}, ${where}${crossOriginIsolated ? "" : ", not isolated"}`;
    at("tried").textContent = model.accelerators.slice(0, -1).map((row) => `Not on ${row.name}: ${row.outcome}.`).join(" ");
    at("task").textContent = model.description.task.replaceAll("-", " ");
    const app = new App(model);
    app.start();
    return app;
  } catch (error) {
    at("runtime").textContent = "not loaded";
    complain(error);
    throw error;
  } finally {
    at("progress").hidden = true;
  }
})();
