"""Cloudflare Workers AI."""

from tests.emulators.cloudflare import CloudflareEmulator
from tests.emulators.kit import Misbehavior
from tests.providers.profiles.kit import Case, Outcome, Profile

_INLINE = "The picture comes with the answer: there is no job to lose and no file to expire."
_ONE = "A call makes one picture, so none of several can be missing."
_NO_CALLBACKS = "Cloudflare announces nothing."

PROFILE = Profile(
    emulator=CloudflareEmulator,
    image=Case("bfl/flux-schnell"),
    video=None,
    outcomes={
        # The answer that is not waited for any longer is the result, and it cannot be asked for again.
        Misbehavior.SLOW: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=1),
        Misbehavior.LOST_JOB: _INLINE,
        Misbehavior.MODERATED_INPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=0),
        Misbehavior.MODERATED_OUTPUT: Outcome("refused_policy", "BSE2006", ends_chain=True, purchases=1),
        Misbehavior.BAD_INPUT: Outcome("refused_input", "BSE4005", purchases=0),
        Misbehavior.INTERNAL_ERROR: Outcome("failed", "BSE4001", purchases=1),
        Misbehavior.RATE_LIMITED: Outcome("refused_busy", "BSE4003", purchases=0),
        Misbehavior.NO_CAPACITY: Outcome("refused_busy", "BSE4004", purchases=0),
        Misbehavior.NO_BALANCE: Outcome("refused_funds", "BSE4007", purchases=0),
        Misbehavior.BAD_KEY: Outcome("refused_auth", "BSE4008", purchases=0),
        Misbehavior.PARTIAL_BATCH: _ONE,
        Misbehavior.NO_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.BROKEN_OUTPUT: Outcome("bad_output", "BSE4010", purchases=1),
        Misbehavior.EXPIRED_OUTPUT: _INLINE,
        Misbehavior.ANSWER_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=1),
        Misbehavior.REQUEST_DROPPED: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.GARBAGE: Outcome("outcome_unknown", "BSE4009", ends_chain=True, purchases=0),
        Misbehavior.CALLBACK_TWICE: _NO_CALLBACKS,
        Misbehavior.CALLBACK_EARLY: _NO_CALLBACKS,
        Misbehavior.CALLBACK_FORGED: _NO_CALLBACKS,
        Misbehavior.CALLBACK_NEVER: _NO_CALLBACKS,
    },
)
