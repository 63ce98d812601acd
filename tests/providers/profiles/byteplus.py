"""BytePlus. Pictures come with the answer and videos are tasks, so the two end differently."""

from tests.emulators.byteplus import BytePlusEmulator
from tests.emulators.kit import CALLBACKS, Misbehavior
from tests.providers.profiles.kit import Case, Outcome, Profile

PROFILE = Profile(
    emulator=BytePlusEmulator,
    image=Case(
        "bytedance/seedream-4.5", {"generation_output_number": 2, "generation_ratio": "16:9"}, outputs=2
    ),
    video=Case("bytedance/seedance-1-pro", {"generation_duration": 5}),
    outcomes={
        # The answer is the result: without one it cannot be known what was made.
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
        Misbehavior.PARTIAL_BATCH: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.NO_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.BROKEN_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.EXPIRED_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        # Found again by our seed: bought once, and used.
        Misbehavior.ANSWER_DROPPED: Outcome(purchases=1, media="video"),
        Misbehavior.REQUEST_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.GARBAGE: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        **dict.fromkeys(CALLBACKS, Outcome(media="video")),
    },
    callback_media="video",
)
