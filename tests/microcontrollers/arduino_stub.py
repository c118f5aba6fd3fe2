"""As much of Arduino's core as the example sketch calls, for this machine and for cross compilers."""

from __future__ import annotations

from pathlib import Path

HEADER = """\
#ifndef Arduino_h
#define Arduino_h
#include <stdint.h>
#include <stddef.h>
#include <string.h>

struct Port {
    void begin(unsigned long baud);
    operator bool() const { return true; }
    void print(const char *text);
    void print(long value);
    void print(double value);
    void println(const char *text);
    void println(int value);
    void println(unsigned long value);
};
extern Port Serial;
unsigned long millis();
unsigned long micros();
void delay(unsigned long ms);
void setup();
void loop();
#endif
"""
MAIN = """\
#include <Arduino.h>
#include <stdio.h>

void Port::begin(unsigned long) {}
void Port::print(const char *text) { fputs(text, stdout); }
void Port::print(long value) { printf("%ld", value); }
void Port::print(double value) { printf("%.2f", value); }
void Port::println(const char *text) { puts(text); }
void Port::println(int value) { printf("%d\\n", value); }
void Port::println(unsigned long value) { printf("%lu\\n", value); }
Port Serial;
static unsigned long now;
unsigned long millis() { return now; }
unsigned long micros() { return now += 7; }
void delay(unsigned long ms) { now += ms; }

int main()
{
    setup();
    loop();
    return 0;
}
"""


def write_stub(folder: Path) -> tuple[Path, Path]:
    """Write the stub into `folder`; return its header and the file with the main function."""
    folder.mkdir(parents=True, exist_ok=True)
    header, main = folder / "Arduino.h", folder / "main.cpp"
    header.write_text(HEADER, encoding="utf-8")
    main.write_text(MAIN, encoding="utf-8")
    return header, main
