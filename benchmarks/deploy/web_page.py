"""The page of web bundles, used live: camera and microphone of a headless Chromium play real pictures and sound.

For each task its bundle is made, its page is opened, and "Use the camera" or "Use the microphone" is pressed. What the
model finds must be what is in the file:

    Objects   a cat in nine of ten frames
    Faces     one face in each frame
    Birds     more of the frame is bird than anything else but background, in each frame
    Keywords  "yes" at one time at least, "no" never
    Voice     speech at one time, and no speech at another
    Denoiser  in the quietest tenth of what is heard the noise falls by 10 dB at least

Nothing may be an error of the page or of the console. Prints a table and HOLDS, or FAILS with what does not hold; with
--shots DIR pictures of each page, wide and narrow, light and dark. Frames a second say nothing: the browser has no GPU.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.deploy.tasks import TASKS, Sources, Task
from benchmarks.reporting import conditions, parser_for, print_table, write_json

from edgewright.deploy.browser import FAKE_MEDIA, Browser
from edgewright.deploy.bundle import BundleRequest, make_bundle
from edgewright.deploy.web import PLATFORM
from edgewright.deploy.web_proof import serve
from edgewright.processing.audio_files import read_audio, wav_bytes
from edgewright.processing.media import read_image

LIVE_S = 12
NOISE_RMS = 0.02
_MICROPHONE_HZ = 48_000
_FRAME = (640, 480)  # width, height
_SIZES = {"wide": (1200, 860), "narrow": (390, 844)}
_RECORD = """import("./lib/model.js").then(({ Model }) => {
  globalThis.runs = [];
  const run = Model.prototype.run;
  Model.prototype.run = async function (inputs) {
    const results = await run.call(this, inputs);
    runs.push({ inputs, results });
    return results;
  };
  document.getElementById("live").click();
})"""


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the camera or microphone plays, and how the runs are judged.

    Attributes:
        media: a file of the assets.
        judge: JavaScript of `runs` -> [text, whether it is right].
    """

    media: str
    judge: str


_SHARE = """(({ runs, right }) => {
  const share = runs.filter(right).length / runs.length;
  return [`${(100 * share).toFixed(0)} %% of ${runs.length} frames`, share >= %s];
})({ runs, right: %s })"""
LIVE = {
    "Objects": Live(
        media="data/coral-images/cat.bmp",
        judge=_SHARE % (0.9, r"({ results }) => /\bcat\b/.test(results.classes[0].name)"),
    ),
    "Faces": Live(
        media="data/coral-images/grace_hopper.bmp",
        judge=_SHARE
        % (1, "({ results }) => results.boxes.length === 1 && results.boxes[0].label.score > 0.9"),
    ),
    "Birds": Live(
        media="data/coral-images/bird_segmentation.bmp",
        judge=_SHARE
        % (
            1,
            """({ results: { mask } }) => {
              const counts = new Array(mask.labels.length).fill(0);
              for (const index of mask.classes) counts[index] += 1;
              return mask.labels[counts.indexOf(Math.max(...counts.slice(1)), 1)] === "bird";
            }""",
        ),
    ),
    "Keywords": Live(
        media="data/micro-speech/yes_1000ms.wav",
        judge="""(() => {
          const most = (word) => Math.max(...runs.map(({ results }) =>
            results.keyword.find(({ name }) => name === word)?.score ?? 0));
          return [`yes ${most("yes").toFixed(2)}, no ${most("no").toFixed(2)} of ${runs.length} windows`,
                  most("yes") > 0.9 && most("no") < 0.5];
        })()""",
    ),
    "Voice": Live(
        media="data/silero-audio/test.wav",
        judge="""(() => {
          const speech = runs.map(({ results }) => results.speech.numbers[0]);
          const [low, high] = [Math.min(...speech), Math.max(...speech)];
          return [`${low.toFixed(2)} to ${high.toFixed(2)} in ${runs.length} hops`, low < 0.1 && high > 0.9];
        })()""",
    ),
    "Denoiser": Live(
        media="data/silero-audio/test.wav",
        judge="""(() => {
          const power = (samples) => samples.reduce((sum, sample) => sum + sample * sample, 1e-12) / samples.length;
          // The models need a moment to begin.
          const used = runs.slice(100);
          const heard = used.map(({ inputs, results }) => [power(Object.values(inputs)[0]), power(results.clean)]);
          const quiet = (which) => {
            const sorted = heard.map((pair) => pair[which]).sort((a, b) => a - b);
            const least = sorted.slice(0, Math.ceil(heard.length / 10));
            return least.reduce((sum, value) => sum + value, 0) / least.length;
          };
          const gain = 10 * Math.log10(quiet(0) / quiet(1));
          return [`${gain.toFixed(1)} dB less in ${heard.length} hops`, gain >= 10];
        })()""",
    ),
}


def play(file: Path, to: Path, *, noise_rms: float = 0.0) -> tuple[str, ...]:
    """Write `file` as Chromium's fake devices read it, into the folder `to`; return the flags."""
    if file.suffix == ".wav":
        samples = read_audio(file, rate_hz=_MICROPHONE_HZ, convert=True)
        noise = np.random.default_rng(0).normal(0, noise_rms, samples.shape).astype(np.float32)
        (to / "microphone.wav").write_bytes(wav_bytes(samples + noise, _MICROPHONE_HZ))
        return (*FAKE_MEDIA, f"--use-file-for-fake-audio-capture={to / 'microphone.wav'}")
    from PIL import Image

    picture = Image.fromarray(read_image(file))
    picture.thumbnail(_FRAME)
    frame = Image.new("RGB", _FRAME)
    frame.paste(picture, ((_FRAME[0] - picture.width) // 2, (_FRAME[1] - picture.height) // 2))
    frame.save(to / "frame.jpg", quality=95)
    (to / "camera.mjpeg").write_bytes((to / "frame.jpg").read_bytes() * 30)
    return (*FAKE_MEDIA, f"--use-file-for-fake-video-capture={to / 'camera.mjpeg'}")


def use(folder: Path, task: Task, flags: Sequence[str], shots: Path | None) -> tuple[str, list[str]]:
    """Use the page of a bundle live; return what was found, and what is wrong."""
    with serve(folder) as url, Browser(flags=flags) as browser:
        browser.open(url)
        browser.wait_for("globalThis.app")
        browser.evaluate("app.then(() => true)", timeout_s=120)
        browser.evaluate(_RECORD)
        time.sleep(LIVE_S)
        judged = browser.evaluate(LIVE[task.name].judge)
        assert isinstance(judged, list)
        said = str(browser.evaluate("document.getElementById('message').textContent"))
        wrong = [] if judged[1] else [f"live: {judged[0]}"]
        wrong += [f"the page says: {said}"] if said else []
        wrong += [f"the console says: {error}" for error in browser.errors]
        if shots is not None:
            take(browser, shots, task.name)
    return str(judged[0]), wrong


def take(browser: Browser, folder: Path, name: str) -> None:
    """Write pictures of the page as it is: wide and narrow, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for size, (width, height) in _SIZES.items():
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", metrics)
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.call("Emulation.setEmulatedMedia", {"features": features})
            time.sleep(1)  # the next live drawing has the new colours
            browser.screenshot(folder / f"{name}-{size}-{scheme}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Use the pages of the tasks that the options choose; return the exit code."""
    parser = parser_for(__doc__)
    parser.add_argument("--task", dest="tasks", metavar="TASK", action="append", choices=list(LIVE))
    parser.add_argument("--shots", type=Path, metavar="DIR", help="where pictures of the pages are written")
    options = parser.parse_args(arguments)
    rows = []
    wrong = []
    with tempfile.TemporaryDirectory(prefix="edgewright-") as work:
        sources = Sources(options.assets, Path(work))
        for task in TASKS:
            if task.name not in (options.tasks or LIVE):
                continue
            print(f"{task.name}: make its bundle and use its page", file=sys.stderr, flush=True)
            source, runtime = sources.find(task, PLATFORM.runtimes)
            samples = tuple(str(options.assets / sample) for sample in task.samples)
            request = BundleRequest(source=source, platform="web", name=task.name, samples=samples)
            bundle = make_bundle(request, Path(work) / f"web-{task.name}")
            media = Path(work) / f"media-{task.name}"
            media.mkdir()
            noise_rms = NOISE_RMS if task.name == "Denoiser" else 0.0
            flags = play(options.assets / LIVE[task.name].media, media, noise_rms=noise_rms)
            found, problems = use(bundle.folder, task, flags, options.shots)
            rows.append(
                (task.name, runtime, Path(LIVE[task.name].media).name, found, "no" if problems else "yes")
            )
            wrong += [f"{task.name}: {problem}" for problem in problems]
    print_table(("page", "runtime", "plays", "found live", "right"), rows)
    print("\nHOLDS" if not wrong else "\nFAILS\n" + "\n".join(wrong))
    pages = [dict(zip(("page", "runtime", "plays", "found", "right"), row, strict=True)) for row in rows]
    write_json(options.json, {"conditions": conditions(), "holds": not wrong, "pages": pages, "wrong": wrong})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
