"""The interface of a C model: any buffers, any arena, several at once, nothing written but the arena, no library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.microcontrollers.c_models import open_model, random_rows

from edgewright.microcontrollers import host
from edgewright.microcontrollers.emit import compile_model, write_sources

pytestmark = pytest.mark.toolchain("ai_edge_litert")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
KWS = "mlperf-tiny/kws_dscnn_int8.tflite"
MODELS = {
    "kws": KWS,
    "lstm": "tflite-micro/trained_lstm_int8.tflite",
    "real": "hand-gesture/keypoint_classifier.tflite",
}
# What compilers may call for copies and for arithmetic that a core lacks; nothing of an operating system.
ALLOWED = {"memcpy", "memset", "memmove", "memcmp"}

BUFFERS = """\
#include <stdio.h>
#include <stdlib.h>
#include "kws.h"

/* Exactly as large as they must be, and not aligned: the sanitizers see every step beyond. */
int main(void)
{
    int8_t *in = (int8_t *)malloc(KWS_INPUT_COUNT + 1) + 1, *out = (int8_t *)malloc(KWS_OUTPUT_COUNT + 1) + 1;
    int8_t *arena = (int8_t *)malloc(KWS_ARENA_BYTES);
    int8_t first[KWS_OUTPUT_COUNT];
    float real[KWS_OUTPUT_COUNT], features[KWS_INPUT_COUNT];
    int i;
    if (fread(in, 1, KWS_INPUT_COUNT, stdin) != KWS_INPUT_COUNT) {
        return 2;
    }
    if (kws_run_in(NULL, KWS_ARENA_BYTES, in, out) != KWS_NULL_POINTER ||
        kws_run_in(arena, KWS_ARENA_BYTES, NULL, out) != KWS_NULL_POINTER ||
        kws_run_in(arena, KWS_ARENA_BYTES, in, NULL) != KWS_NULL_POINTER ||
        kws_run_in(arena, KWS_ARENA_BYTES - 1, in, out) != KWS_ARENA_TOO_SMALL ||
        kws_run_in(arena + 1, KWS_ARENA_BYTES, in, out) != KWS_ARENA_UNALIGNED ||
        kws_init_in(NULL, KWS_ARENA_BYTES) != KWS_NULL_POINTER || kws_init_in(arena, 0) != KWS_ARENA_TOO_SMALL) {
        return 3;
    }
    if (kws_init_in(arena, KWS_ARENA_BYTES) != KWS_OK || kws_run_in(arena, KWS_ARENA_BYTES, in, out) != KWS_OK) {
        return 4;
    }
    memcpy(first, out, KWS_OUTPUT_COUNT);
    memset(out, 0, KWS_OUTPUT_COUNT);
    memcpy(kws_input(), in, KWS_INPUT_COUNT);
    if (kws_init() != KWS_OK || kws_run(kws_input(), out) != KWS_OK || memcmp(first, out, KWS_OUTPUT_COUNT) != 0) {
        return 5;
    }
    kws_dequantize_output(out, real);
    for (i = 0; i < KWS_OUTPUT_COUNT; ++i) {
        if (real[i] != (float)(out[i] - KWS_OUTPUT_ZERO_POINT) * KWS_OUTPUT_SCALE) {
            return 6;
        }
    }
    for (i = 0; i < KWS_INPUT_COUNT; ++i) {
        features[i] = (float)(in[i] - KWS_INPUT_ZERO_POINT) * KWS_INPUT_SCALE;
    }
    features[0] = 1e30f;
    features[1] = -1e30f;
    features[2] = 0.0f / (float)(first[0] - first[0]); /* not a number */
    kws_quantize_input(features, in);
    if (in[0] != 127 || in[1] != -128 || in[2] != -128) {
        return 7;
    }
    fwrite(first, 1, KWS_OUTPUT_COUNT, stdout);
    free(in - 1);
    free(out - 1);
    free(arena);
    return 0;
}
"""
THREADS = """\
#include <pthread.h>
#include <stdio.h>
#include "kws.h"

#define THREADS 4
#define RUNS 25

typedef struct {
    union {
        int64_t alignment;
        int8_t bytes[KWS_ARENA_BYTES];
    } arena;
    int8_t in[KWS_INPUT_COUNT], out[KWS_OUTPUT_COUNT];
    int code;
} Work;
static Work works[THREADS];

static void *work(void *given)
{
    Work *mine = (Work *)given;
    int run;
    for (run = 0; run < RUNS; ++run) {
        mine->code |= kws_run_in(mine->arena.bytes, sizeof mine->arena.bytes, mine->in, mine->out);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    int8_t alone[KWS_OUTPUT_COUNT];
    int i, j, wrong = 0;
    for (i = 0; i < THREADS; ++i) {
        for (j = 0; j < KWS_INPUT_COUNT; ++j) {
            works[i].in[j] = (int8_t)((i * 37 + j * (11 + i)) % 256 - 128);
        }
        wrong |= pthread_create(&threads[i], NULL, work, &works[i]);
    }
    for (i = 0; i < THREADS; ++i) {
        wrong |= pthread_join(threads[i], NULL);
    }
    for (i = 0; i < THREADS; ++i) {
        wrong |= works[i].code | kws_run(works[i].in, alone) | memcmp(alone, works[i].out, sizeof alone);
    }
    return wrong != 0;
}
"""


def _program(text: str, source: Path, *flags: str) -> Path:
    user = source.with_name("user.c")
    user.write_text(text, encoding="utf-8")
    return host.build([source, user], source.with_name("user"), flags=flags)


def _kws(assets: Path, folder: Path) -> Path:
    return write_sources(compile_model(assets / "models" / KWS, name="kws"), folder)[0]


def test_buffers_need_no_alignment_and_nothing_beyond_them_is_touched(assets: Path, tmp_path: Path) -> None:
    model = compile_model(assets / "models" / KWS, name="kws")
    (row,) = random_rows(model, 1, seed=3)
    (want,) = open_model(model, tmp_path / "library").run(row)
    program = _program(BUFFERS, _kws(assets, tmp_path), *SANITIZE)
    done = subprocess.run([program], input=row[0].tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == want.tobytes()


def test_threads_with_an_arena_each_do_not_meet(assets: Path, tmp_path: Path) -> None:
    program = _program(THREADS, _kws(assets, tmp_path), "-O1", "-pthread", "-D_POSIX_C_SOURCE=200809L")
    subprocess.run([program], check=True)


def test_wide_buffers_that_are_not_aligned_are_answered_with_a_code(assets: Path, tmp_path: Path) -> None:
    model = compile_model(assets / "models" / MODELS["real"], name="real")
    source, _ = write_sources(model, tmp_path)
    text = """
#include "real.h"
static int8_t in[4 * REAL_INPUT_COUNT + 8], out[4 * REAL_OUTPUT_COUNT + 8];
int main(void)
{
    int8_t *const a = in + 4 - (uintptr_t)in % 4, *const b = out + 4 - (uintptr_t)out % 4;
    return real_run((const float *)(void *)(a + 1), (float *)(void *)b) != REAL_BUFFER_UNALIGNED
        || real_run((const float *)(void *)a, (float *)(void *)(b + 2)) != REAL_BUFFER_UNALIGNED
        || real_run((const float *)(void *)a, (float *)(void *)b) != REAL_OK;
}
"""
    subprocess.run([_program(text, source, *SANITIZE)], check=True)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_the_arena_is_written_and_no_library_called(
    name: str, assets: Path, tmp_path: Path
) -> None:
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        pytest.skip("needs arm-none-eabi-gcc")
    source, _ = write_sources(compile_model(assets / "models" / MODELS[name], name=name), tmp_path)
    made = tmp_path / "model.o"
    flags = ["-mcpu=cortex-m4", "-mthumb", "-O2", *host.WARNINGS, f"-D{name.upper()}_NO_STATIC_ARENA"]
    subprocess.run([compiler, *flags, "-c", source, "-o", made], check=True)
    said = subprocess.run(["arm-none-eabi-nm", made], capture_output=True, text=True, check=True).stdout
    symbols = [(line.split()[-2], line.split()[-1]) for line in said.splitlines()]
    assert not [symbol for kind, symbol in symbols if kind in "bBdDcC"], (
        "there is memory that is not the arena's"
    )
    called = {symbol for kind, symbol in symbols if kind == "U"}
    assert all(symbol in ALLOWED or symbol.startswith("__aeabi_") for symbol in called), called
    public = {symbol for kind, symbol in symbols if kind == "T"}
    assert {f"{name}_init_in", f"{name}_run_in"} <= public
    assert all(symbol.startswith(f"{name}_") for symbol in public)
