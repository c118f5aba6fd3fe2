"""The table of boards, and where a model fits."""

from __future__ import annotations

import pytest

from edgewright.core.errors import UnknownNameError
from edgewright.microcontrollers.boards import ALL, BOARDS, KIB, MIB, board_of, fits_of
from edgewright.microcontrollers.qemu import DEVICES


def test_every_board_is_there_once_and_has_a_device() -> None:
    assert len(BOARDS) == len(ALL) >= 20
    for board in ALL:
        assert board.device in DEVICES
        assert 10 <= board.clock_mhz <= 1000
        assert 64 * KIB <= board.flash_bytes <= 16 * MIB
        assert 16 * KIB <= board.ram_bytes <= 4 * MIB
    assert {board.device for board in ALL} == set(DEVICES)


def test_only_boards_of_the_device_are_judged() -> None:
    fits = fits_of("cortex-m7", flash_bytes=0, ram_bytes=0)
    assert {fit.board.device for fit in fits} == {"cortex-m7"}
    assert all(fit.is_fitting for fit in fits)


def test_what_is_too_large_is_named() -> None:
    pico = board_of("pico")
    (exact,) = fits_of("cortex-m0plus", flash_bytes=2 * MIB, ram_bytes=264 * KIB, boards=[pico])
    assert exact.is_fitting
    (large,) = fits_of("cortex-m0plus", flash_bytes=2 * MIB + 1, ram_bytes=264 * KIB + 1, boards=[pico])
    assert not large.is_fitting
    assert large.reason == "flash 2,097,153 of 2,097,152 bytes; RAM 270,337 of 270,336 bytes"


def test_figures_of_another_core_are_marked() -> None:
    assert not board_of("esp32-devkitc").has_own_figures
    assert board_of("esp32-c3-devkitm").has_own_figures


def test_an_unknown_board_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'pico-2'"):
        board_of("pico2")
