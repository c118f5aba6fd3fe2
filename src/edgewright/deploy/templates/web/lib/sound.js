// Sound as the model takes it: mono, -1..1, at the rate of the input.

/** @returns {Promise<Float32Array>} the sound of a file; the browser resamples it to `rate` Hz. */
export async function readSound(file, rate) {
  const context = new OfflineAudioContext(1, 1, rate);
  let decoded;
  try {
    decoded = await context.decodeAudioData(await file.arrayBuffer());
  } catch (cause) {
    throw new Error(`${file.name ?? "the file"} is no sound that this browser reads`, { cause });
  }
  const mono = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
    const samples = decoded.getChannelData(channel);
    for (let index = 0; index < mono.length; index += 1) mono[index] += samples[index] / decoded.numberOfChannels;
  }
  return mono;
}

/** The microphone, in blocks of `size` samples at `rate` Hz. */
export class Microphone {
  #context;
  #stream;

  /** @param {(samples: Float32Array) => void} heard gets every block. */
  static async open(rate, size, heard) {
    const opened = new Microphone();
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    opened.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    try {
      // A context of this rate resamples what the microphone gives.
      opened.#context = new AudioContext({ sampleRate: rate });
      await opened.#context.audioWorklet.addModule(new URL("./listener.js", import.meta.url));
      const listener = new AudioWorkletNode(opened.#context, "listener", {
        numberOfOutputs: 0,
        channelCount: 1,
        channelCountMode: "explicit",
        processorOptions: { size },
      });
      listener.port.onmessage = ({ data }) => heard(data);
      opened.#context.createMediaStreamSource(opened.#stream).connect(listener);
    } catch (error) {
      await opened.close();
      throw error;
    }
    return opened;
  }

  async close() {
    for (const track of this.#stream.getTracks()) track.stop();
    await this.#context?.close();
  }
}

/** A WAV file of 16-bit samples. */
export function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, index) => {
    view.setInt16(44 + 2 * index, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
  });
  return new Blob([view], { type: "audio/wav" });
}
