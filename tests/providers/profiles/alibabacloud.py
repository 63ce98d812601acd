"""Alibaba Cloud."""

from tests.emulators.alibabacloud import AlibabaCloudEmulator
from tests.emulators.kit import Misbehavior
from tests.providers.profiles.kit import Case, Outcome, Profile

_NO_CALLBACKS = "What the account may be told of tasks names no outputs: they are polled."

PROFILE = Profile(
    emulator=AlibabaCloudEmulator,
    image=Case("wan/2.6-t2i", {"generation_output_number": 2}, outputs=2),
    video=Case("wan/2.6-t2v", {"generation_duration": 5}),
    outcomes={
        Misbehavior.SLOW: Outcome("timed_out", "BSE4002", purchases=1),
        Misbehavior.LOST_JOB: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.MODERATED_INPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=0),
        Misbehavior.MODERATED_OUTPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=1),
        Misbehavior.BAD_INPUT: Outcome("refused_input", "BSE4005", purchases=0),
        Misbehavior.INTERNAL_ERROR: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.RATE_LIMITED: Outcome("refused_busy", "BSE4003", purchases=0),
        Misbehavior.NO_CAPACITY: Outcome("refused_busy", "BSE4004", purchases=0),
        Misbehavior.NO_BALANCE: Outcome("refused_funds", "BSE4007", purchases=0),
        Misbehavior.BAD_KEY: Outcome("refused_auth", "BSE4008", purchases=0),
        Misbehavior.PARTIAL_BATCH: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.NO_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.BROKEN_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.EXPIRED_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.ANSWER_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=1),
        Misbehavior.REQUEST_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.GARBAGE: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.CALLBACK_TWICE: _NO_CALLBACKS,
        Misbehavior.CALLBACK_EARLY: _NO_CALLBACKS,
        Misbehavior.CALLBACK_FORGED: _NO_CALLBACKS,
        Misbehavior.CALLBACK_NEVER: _NO_CALLBACKS,
    },
)
