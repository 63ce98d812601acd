"""Google."""

from tests.emulators.google import GoogleEmulator
from tests.emulators.kit import Misbehavior
from tests.providers.profiles.kit import Case, Outcome, Profile

_ONE = "A call makes one output, so none of several can be missing."
_NO_CALLBACKS = "Callbacks of Google are not used."

PROFILE = Profile(
    emulator=GoogleEmulator,
    image=Case("google/nano-banana", {"generation_ratio": "16:9"}),
    video=Case("google/veo-3.1-fast", {"generation_duration": 8, "generation_generate_audio": True}),
    outcomes={
        # Pictures come with the answer; one that is not waited for any longer cannot be asked for again.
        Misbehavior.SLOW: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=1),
        Misbehavior.LOST_JOB: Outcome("failed", "BSE4001", purchases=1, media="video"),
        Misbehavior.MODERATED_INPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=0),
        Misbehavior.MODERATED_OUTPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=1),
        Misbehavior.BAD_INPUT: Outcome("refused_input", "BSE4005", purchases=0),
        Misbehavior.INTERNAL_ERROR: Outcome("failed", "BSE4001", purchases=0),
        Misbehavior.RATE_LIMITED: Outcome("refused_busy", "BSE4003", purchases=0),
        Misbehavior.NO_CAPACITY: Outcome("refused_busy", "BSE4004", purchases=0),
        Misbehavior.NO_BALANCE: Outcome("refused_funds", "BSE4007", purchases=0),
        Misbehavior.BAD_KEY: Outcome("refused_auth", "BSE4008", purchases=0),
        Misbehavior.PARTIAL_BATCH: _ONE,
        Misbehavior.NO_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.BROKEN_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.EXPIRED_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1, media="video"),
        Misbehavior.ANSWER_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=1),
        Misbehavior.REQUEST_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.GARBAGE: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.CALLBACK_TWICE: _NO_CALLBACKS,
        Misbehavior.CALLBACK_EARLY: _NO_CALLBACKS,
        Misbehavior.CALLBACK_FORGED: _NO_CALLBACKS,
        Misbehavior.CALLBACK_NEVER: _NO_CALLBACKS,
    },
)
