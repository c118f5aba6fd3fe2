// Runs beside the sound: collects what the microphone gives into blocks of one size.
class Listener extends AudioWorkletProcessor {
  #block;
  #filled = 0;

  constructor({ processorOptions }) {
    super();
    this.#block = new Float32Array(processorOptions.size);
  }

  process([[samples]]) {
    for (let from = 0; samples && from < samples.length; ) {
      const part = samples.subarray(from, from + this.#block.length - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      from += part.length;
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block.slice());
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("listener", Listener);
