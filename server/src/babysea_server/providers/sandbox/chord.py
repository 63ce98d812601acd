"""The sound of a clip: one soft chord that swells and fades."""

import math

import numpy as np
from numpy.typing import NDArray

from babysea_server.providers.sandbox.scene import Scene

SAMPLES_PER_SECOND = 48_000

_ROOTS_HZ = (110.0, 123.47, 130.81, 146.83, 164.81)
#: Just intervals above the root: open, major, suspended and minor with their sevenths or ninths.
_CHORDS = (
    (1.0, 3 / 2, 2.0, 5 / 2, 9 / 2),
    (1.0, 3 / 2, 2.0, 9 / 4, 3.0),
    (1.0, 3 / 2, 15 / 8, 5 / 2, 3.0),
    (1.0, 3 / 2, 9 / 5, 12 / 5, 3.0),
)
_FADE_SECONDS = 0.8
_PEAK = 0.32


def chord(scene: Scene, samples: int) -> NDArray[np.float32]:
    """2 x `samples` in -1..1 at 48 kHz; the same for the same scene."""
    root, kind, *phases = scene.draws("chord", 7, per_index=True)
    seconds = np.arange(samples, dtype=np.float64) / SAMPLES_PER_SECOND
    sound = np.zeros((2, samples), dtype=np.float32)
    notes = _CHORDS[int(kind * len(_CHORDS))]
    for ratio, phase in zip(notes, phases, strict=True):
        hertz = _ROOTS_HZ[int(root * len(_ROOTS_HZ))] * ratio
        tone = np.sin(2 * math.pi * (hertz * seconds + phase)) / ratio**0.8
        # Each note wanders slowly between the ears.
        side = 0.5 + 0.3 * np.sin(2 * math.pi * (0.11 * seconds + phase))
        sound[0] += tone * side
        sound[1] += tone * (1 - side)
    fade = min(_FADE_SECONDS, samples / SAMPLES_PER_SECOND / 3)
    edge = np.minimum(seconds, samples / SAMPLES_PER_SECOND - seconds) / fade
    # A raised cosine has no corner at either end, so neither end clicks.
    envelope = 0.5 - 0.5 * np.cos(math.pi * np.clip(edge, 0, 1))
    loudest = sum(ratio**-0.8 for ratio in notes) / 2
    sound *= (envelope * (_PEAK / loudest)).astype(np.float32)
    return sound
