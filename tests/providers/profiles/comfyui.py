"""ComfyUI."""

from tests.emulators.comfyui import ComfyUIEmulator
from tests.emulators.kit import Misbehavior
from tests.providers.profiles.kit import Case, Outcome, Profile

_NO_MODERATION = "A server of one's own looks at no content."
_NO_LIMIT = "The queue of ComfyUI has no end."
_NO_CALLBACKS = "ComfyUI announces the end of a prompt on a socket only, and calls nobody."

PROFILE = Profile(
    emulator=ComfyUIEmulator,
    image=Case(
        "bfl/flux-schnell", {"generation_output_number": 2, "generation_output_format": "png"}, outputs=2
    ),
    # Clips have templates, but the open models they are for have no price in the catalog, so they are not offered.
    video=None,
    outcomes={
        Misbehavior.SLOW: Outcome("timed_out", "BSE4002", purchases=1),
        Misbehavior.LOST_JOB: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.MODERATED_INPUT: _NO_MODERATION,
        Misbehavior.MODERATED_OUTPUT: _NO_MODERATION,
        Misbehavior.BAD_INPUT: Outcome("refused_input", "BSE4005", purchases=0),
        Misbehavior.INTERNAL_ERROR: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.RATE_LIMITED: _NO_LIMIT,
        # The GPU has too little memory.
        Misbehavior.NO_CAPACITY: Outcome("refused_busy", "BSE4004", purchases=1),
        Misbehavior.NO_BALANCE: "A server of one's own wants no money.",
        Misbehavior.BAD_KEY: Outcome("refused_auth", "BSE4008", purchases=0),
        Misbehavior.PARTIAL_BATCH: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.NO_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.BROKEN_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.EXPIRED_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        # Found again by our own id: made once, and used.
        Misbehavior.ANSWER_DROPPED: Outcome(purchases=1),
        # The id is ours, so it is certain that nothing arrived.
        Misbehavior.REQUEST_DROPPED: Outcome("failed", "BSE4001", purchases=0),
        Misbehavior.GARBAGE: Outcome("failed", "BSE4001", purchases=0),
        Misbehavior.CALLBACK_TWICE: _NO_CALLBACKS,
        Misbehavior.CALLBACK_EARLY: _NO_CALLBACKS,
        Misbehavior.CALLBACK_FORGED: _NO_CALLBACKS,
        Misbehavior.CALLBACK_NEVER: _NO_CALLBACKS,
    },
)
