"""Black Forest Labs."""

from tests.emulators.bfl import BflEmulator
from tests.emulators.kit import Misbehavior
from tests.providers.profiles.kit import SUCCESS, Case, Outcome, Profile

PROFILE = Profile(
    emulator=BflEmulator,
    image=Case("bfl/flux-2-pro", {"generation_ratio": "16:9"}),
    video=None,
    outcomes={
        Misbehavior.SLOW: Outcome("timed_out", "BSE4002", purchases=1),
        Misbehavior.LOST_JOB: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.MODERATED_INPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=1),
        Misbehavior.MODERATED_OUTPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=1),
        Misbehavior.BAD_INPUT: Outcome("refused_input", "BSE4005", purchases=0),
        Misbehavior.INTERNAL_ERROR: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.RATE_LIMITED: Outcome("refused_busy", "BSE4003", purchases=0),
        Misbehavior.NO_CAPACITY: Outcome("refused_busy", "BSE4004", purchases=0),
        Misbehavior.NO_BALANCE: Outcome("refused_funds", "BSE4007", purchases=0),
        Misbehavior.BAD_KEY: Outcome("refused_auth", "BSE4008", purchases=0),
        Misbehavior.PARTIAL_BATCH: "a task makes one picture, and no model takes a number",
        Misbehavior.NO_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.BROKEN_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.EXPIRED_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        # Nothing lists tasks, so whether one was begun cannot be found out.
        Misbehavior.ANSWER_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=1),
        Misbehavior.REQUEST_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.GARBAGE: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.CALLBACK_TWICE: SUCCESS,
        Misbehavior.CALLBACK_EARLY: SUCCESS,
        Misbehavior.CALLBACK_FORGED: SUCCESS,
        Misbehavior.CALLBACK_NEVER: SUCCESS,
    },
    refuses_forged=True,
)
