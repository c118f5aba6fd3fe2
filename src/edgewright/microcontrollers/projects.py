"""The folder of a C model as a project of the tools that build for boards, all around the same NAME.c and NAME.h.

One folder is at once a CMake library (Pico SDK, STM32Cube), an Arduino library, an ESP-IDF component and a Zephyr
module: none of them needs its sources elsewhere, so that nothing is there twice.

Sources: Arduino library specification 2.2 (flat layout), ESP-IDF "Build System" (ESP_PLATFORM, idf_component_register)
and "idf_component.yml manifest", Zephyr "Modules" (zephyr/module.yml).
"""

from __future__ import annotations

from pathlib import Path

from edgewright.microcontrollers.emit import CModel
from edgewright.microcontrollers.layer import render
from edgewright.microcontrollers.qemu import DEVICES
from edgewright.microcontrollers.writer import ports

VERSION = "1.0.0"  # of the projects; the model's own is its digest in NAME.h

_CMAKE = """\
# The model {{ name }} as a library for CMake, an ESP-IDF component or a Zephyr module, whichever reads this file.
if(ESP_PLATFORM)
  idf_component_register(SRCS "{{ name }}.c" "{{ name }}_test.c" INCLUDE_DIRS ".")
  target_compile_definitions(${COMPONENT_LIB} PRIVATE EDGEWRIGHT_NO_MAIN)
  target_compile_options(${COMPONENT_LIB} PRIVATE -O2 -ffp-contract=off)
  return()
endif()

cmake_minimum_required(VERSION 3.13)

if(COMMAND zephyr_library_named)
  if(CONFIG_EDGEWRIGHT_{{ upper }})
    zephyr_library_named(edgewright_{{ name }})
    zephyr_library_sources({{ name }}.c {{ name }}_test.c)
    zephyr_library_compile_definitions(EDGEWRIGHT_NO_MAIN)
    zephyr_library_compile_options(-O2 -ffp-contract=off)
    zephyr_include_directories(${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  return()
endif()

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_BINARY_DIR)
  message(FATAL_ERROR "CMake would write over the Makefile here. Build elsewhere: cmake -B build")
endif()

project(edgewright_{{ name }} LANGUAGES C)

add_library(edgewright_{{ name }} STATIC {{ name }}.c {{ name }}.h)
target_include_directories(edgewright_{{ name }} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_options(edgewright_{{ name }} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O2> -ffp-contract=off)
set_target_properties(edgewright_{{ name }} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)

# Built by itself and for this machine, the folder has a test: ctest runs the golden vectors.
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR AND NOT CMAKE_CROSSCOMPILING)
  enable_testing()
  add_executable({{ name }}_self_test {{ name }}_test.c)
  target_link_libraries({{ name }}_self_test PRIVATE edgewright_{{ name }})
  add_test(NAME {{ name }}_self_test COMMAND {{ name }}_self_test)
endif()
"""

_CROSS = """\
# cmake -B build -DCMAKE_TOOLCHAIN_FILE=cmake/cross.cmake -DEDGEWRIGHT_DEVICE={{ devices[1].name }}
{% set known = devices | map(attribute="name") | join(", ") %}
# Devices: {{ known }}.
set(EDGEWRIGHT_DEVICE "{{ devices[0].name }}" CACHE STRING "The core to build for")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGEWRIGHT_DEVICE)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_SYSTEM_NAME Generic)
{% for device in devices %}
{{ "if" if loop.first else "elseif" }}(EDGEWRIGHT_DEVICE STREQUAL "{{ device.name }}")
  set(CMAKE_SYSTEM_PROCESSOR {{ device.core }})
  set(CMAKE_C_COMPILER {{ device.compiler }})
  set(CMAKE_C_FLAGS_INIT "{{ device.flags }}")
{% endfor %}
else()
  message(FATAL_ERROR "EDGEWRIGHT_DEVICE is ${EDGEWRIGHT_DEVICE}; known: {{ known }}.")
endif()
"""

_ARDUINO_LIBRARY = """\
name={{ name }}
version={{ version }}
author=Edgewright
maintainer=Edgewright
sentence=The model {{ name }} as C without dependencies.
paragraph=Made by Edgewright. {{ name }}.h says what it takes of RAM and flash.
category=Data Processing
url=
architectures=*
includes={{ name }}.h
"""

_SKETCH = """\
// {{ name }} on a board of Arduino's: first its self-test, then a run a second.
#include <{{ name }}.h>

{% for port in outputs %}
static {{ port.c_type }} {{ port.short }}[{{ port.macro }}_COUNT];
{% endfor %}

void setup() {
  Serial.begin(115200);
  while (!Serial && millis() < 5000) {
  }
  Serial.print("{{ name }}: outputs that are not as expected: ");
  Serial.println({{ name }}_self_test());
  {{ name }}_init();
}

void loop() {
{% for port in inputs %}
  // Put here what the model shall see.
{% if port.is_real %}
  // {{ name }}_quantize_{{ port.short }}() makes it of real values.
{% endif %}
  memset({{ name }}_{{ port.short }}(), 0, {{ port.macro }}_COUNT * sizeof({{ port.c_type }}));
{% endfor %}
  const unsigned long begin_us = micros();
  const int code = {{ name }}_run({{ arguments }});
  const unsigned long took_us = micros() - begin_us;
  if (code != {{ upper }}_OK) {
    Serial.print("{{ name }}: error ");
    Serial.println(code);
    return;
  }
{% set first = outputs[0] %}
  int32_t best = 0;
  for (int32_t i = 1; i < {{ first.macro }}_COUNT; ++i) {
    if ({{ first.short }}[i] > {{ first.short }}[best]) {
      best = i;
    }
  }
  Serial.print("{{ name }}: largest at ");
{% if has_labels %}
  Serial.print({{ name }}_label(best) != NULL ? {{ name }}_label(best) : "?");
{% else %}
  Serial.print((long)best);
{% endif %}
  Serial.print(", value ");
  Serial.print({{ "(long)" if first.c_type != "float" }}{{ first.short }}[best]);
  Serial.print(", microseconds ");
  Serial.println(took_us);
  delay(1000);
}
"""

_IDF_COMPONENT = """\
version: "{{ version }}"
description: "The model {{ name }} as C without dependencies, made by Edgewright"
"""

_ZEPHYR_MODULE = """\
name: edgewright_{{ name }}
build:
  cmake: .
  kconfig: zephyr/Kconfig
"""

_ZEPHYR_KCONFIG = """\
config EDGEWRIGHT_{{ upper }}
\tbool "The model {{ name }}, made by Edgewright"
\thelp
\t  Builds {{ name }}.c, which takes {{ arena_bytes }} bytes of RAM for its arena, and
\t  {{ name }}_self_test(), which the linker drops where nobody calls it.
"""

_README = """\
# {{ name }}

`{{ name }}.c` and `{{ name }}.h` are the model; the header says what it takes and how it is called. The rest of the
folder lets your tool find them:

| tool | what you do |
|---|---|
| any C compiler | `make check` runs the golden vectors here; add `{{ name }}.c` to your project |
| CMake, Pico SDK, STM32Cube | `add_subdirectory` this folder, link `edgewright_{{ name }}` |
| CMake, for a core | `cmake -B build -DCMAKE_TOOLCHAIN_FILE=cmake/cross.cmake -DEDGEWRIGHT_DEVICE=cortex-m4` |
| Arduino, PlatformIO | copy this folder into `libraries/` or `lib/`, open the example {{ name }} |
| ESP-IDF | copy this folder into `components/`, `#include "{{ name }}.h"` |
| Zephyr | `-DZEPHYR_EXTRA_MODULES=` this folder, and `CONFIG_EDGEWRIGHT_{{ upper }}=y` in `prj.conf` |

On the board, `{{ name }}_self_test()` of `{{ name }}_test.c` returns how many of the golden vectors differ: 0 is right.
"""


def write_projects(model: CModel, folder: Path) -> tuple[Path, ...]:
    """Write the files of all four kinds of projects into `folder`, and return them."""
    inputs, outputs = (ports(model.graph, side, model.plan, model.name) for side in ("input", "output"))
    values: dict[str, object] = {
        "name": model.name, "upper": model.name.upper(), "version": VERSION,
        "arena_bytes": model.plan.arena_bytes, "has_labels": bool(model.graph.labels),
        "inputs": inputs, "outputs": outputs,
        "arguments": ", ".join(
            [f"{model.name}_{port['short']}()" for port in inputs] + [str(port["short"]) for port in outputs]
        ),
        "devices": [
            {
                "name": name, "core": device.core, "compiler": device.compiler,
                "flags": " ".join([*device.flags, *device.runtime]),
            }
            for name, device in DEVICES.items()
        ],
    }  # fmt: skip
    texts = {
        "CMakeLists.txt": _CMAKE,
        "README.md": _README,
        "cmake/cross.cmake": _CROSS,
        f"examples/{model.name}/{model.name}.ino": _SKETCH,
        "idf_component.yml": _IDF_COMPONENT,
        "library.properties": _ARDUINO_LIBRARY,
        "zephyr/Kconfig": _ZEPHYR_KCONFIG,
        "zephyr/module.yml": _ZEPHYR_MODULE,
    }
    written = []
    for name, template in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render(template, values), encoding="utf-8")
        written.append(file)
    return tuple(written)
