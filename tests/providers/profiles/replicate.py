"""Replicate."""

from tests.emulators.kit import Misbehavior
from tests.emulators.replicate import ReplicateEmulator
from tests.providers.profiles.kit import SUCCESS, Case, Outcome, Profile

PROFILE = Profile(
    emulator=ReplicateEmulator,
    image=Case("bfl/flux-schnell", {"generation_output_number": 2}, outputs=2),
    video=Case("wan/2.6-t2v", {"generation_duration": 5}),
    outcomes={
        Misbehavior.SLOW: Outcome("timed_out", "BSE4002", purchases=1),
        Misbehavior.LOST_JOB: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.MODERATED_INPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=1),
        Misbehavior.MODERATED_OUTPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=1),
        Misbehavior.BAD_INPUT: Outcome("refused_input", "BSE2008", purchases=0),
        Misbehavior.INTERNAL_ERROR: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.RATE_LIMITED: Outcome("refused_busy", "BSE4003", purchases=0),
        Misbehavior.NO_CAPACITY: Outcome("refused_busy", "BSE4004", purchases=0),
        Misbehavior.NO_BALANCE: Outcome("refused_funds", "BSE4007", purchases=0),
        Misbehavior.BAD_KEY: Outcome("refused_auth", "BSE4008", purchases=0),
        Misbehavior.PARTIAL_BATCH: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.NO_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.BROKEN_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.EXPIRED_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        # Found again by our seed: bought once, and used.
        Misbehavior.ANSWER_DROPPED: Outcome(purchases=1),
        Misbehavior.REQUEST_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.GARBAGE: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.CALLBACK_TWICE: SUCCESS,
        Misbehavior.CALLBACK_EARLY: SUCCESS,
        Misbehavior.CALLBACK_FORGED: SUCCESS,
        Misbehavior.CALLBACK_NEVER: SUCCESS,
    },
)
