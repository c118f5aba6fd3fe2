// Pixels of everything in a browser that shows an image.

let canvas;

/**
 * @param source pixels ({ data, width, height, format, rotation, rowBytes }), ImageData, an image file (Blob), or
 *   anything that a canvas draws: an image, a video, a canvas, an ImageBitmap, a VideoFrame.
 * @returns {Promise<{data: Uint8Array, width: number, height: number, format: string}>}
 */
export async function toPixels(source) {
  if (source instanceof Blob) {
    const bitmap = await readImage(source);
    try {
      return draw(bitmap);
    } finally {
      bitmap.close();
    }
  }
  if (ArrayBuffer.isView(source.data)) {
    const { data, width, height, format, rotation, rowBytes } = source;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { data: bytes, width, height, format: format ?? "rgba", rotation: rotation ?? 0, rowBytes: rowBytes ?? 0 };
  }
  return draw(source);
}

/** An image file, upright, its colours as they are stored. */
export async function readImage(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch (cause) {
    throw new Error(`${file.name ?? "the file"} is no image that this browser reads`, { cause });
  }
}

/** Width and height of what a canvas draws. */
export function sizeOf(source) {
  return {
    width: source.videoWidth ?? source.naturalWidth ?? source.displayWidth ?? source.width,
    height: source.videoHeight ?? source.naturalHeight ?? source.displayHeight ?? source.height,
  };
}

function draw(source) {
  const { width, height } = sizeOf(source);
  if (!width || !height) throw new Error("the image has no pixels yet");
  canvas ??= typeof OffscreenCanvas === "function" ? new OffscreenCanvas(1, 1) : document.createElement("canvas");
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.clearRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return { data: new Uint8Array(data.buffer), width, height, format: "rgba", rotation: 0, rowBytes: 0 };
}
