"""A server of one's own that speaks OpenAI's API; here vLLM-Omni."""

from tests.emulators.kit import Misbehavior
from tests.emulators.openai_compatible import OpenAICompatibleEmulator
from tests.providers.profiles.kit import Case, Outcome, Profile

_NO_MODERATION = "A server of one's own looks at no content."
_NO_CALLBACKS = "None of these servers calls anybody."

PROFILE = Profile(
    emulator=OpenAICompatibleEmulator,
    image=Case("bfl/flux-schnell", {"generation_output_number": 2}, outputs=2),
    video=Case("ltx/2.3-fast", {"generation_duration": 6}),
    outcomes={
        # Pictures come with the answer; one that is not waited for any longer cannot be asked for again.
        Misbehavior.SLOW: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=1),
        Misbehavior.LOST_JOB: Outcome("failed", "BSE4001", purchases=1, media="video"),
        Misbehavior.MODERATED_INPUT: _NO_MODERATION,
        Misbehavior.MODERATED_OUTPUT: _NO_MODERATION,
        Misbehavior.BAD_INPUT: Outcome("refused_input", "BSE4005", purchases=0),
        Misbehavior.INTERNAL_ERROR: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.RATE_LIMITED: Outcome("refused_busy", "BSE4003", purchases=0),
        Misbehavior.NO_CAPACITY: Outcome("refused_busy", "BSE4004", purchases=0),
        Misbehavior.NO_BALANCE: "A server of one's own wants no money.",
        Misbehavior.BAD_KEY: Outcome("refused_auth", "BSE4008", purchases=0),
        Misbehavior.PARTIAL_BATCH: Outcome("bad_output", "BSE4010", purchases=1),
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
