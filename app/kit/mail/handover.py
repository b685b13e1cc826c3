"""The moment a mail leaves the house: its row says `sending` before it, and `sent` before anything else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from app.kit.mail import ledger
from app.kit.mail.ledger import Email
from app.kit.mail.replies import Reply, UnknownOutcomeError

RECORD_DELAYS_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
"""Waits between tries to write down a server's yes: no mail is worth more care than one that has gone."""

log = logging.getLogger("postroom.mail")


def hand_over(email: Email, give: Callable[[], Reply]) -> None:
    """Mark a mail sending, give it away, mark it sent; do nothing if the row says it is not to be sent.

    `give` sends what makes the other side take the mail, and returns its yes.
    Raises: what `give` raises; UnknownOutcomeError when the yes cannot be written down.
    """
    if not ledger.mark_sending(email.id, email.job):
        log.info("mail %d is not sent: it was cancelled, or another has it", email.id)
        return
    reply = give()
    for delay_s in RECORD_DELAYS_S:
        try:
            ledger.mark_sent(email.id, reply, email.began_at)
            return
        except Exception as error:  # whatever it is: the mail has gone, and that must be written down
            log.error("mail %d was sent (%s), which cannot be written down yet: %s", email.id, reply, error)
            time.sleep(delay_s)
    words = f"it was taken ({reply}), but that could not be written down"
    raise UnknownOutcomeError(Reply(reply.stage, reply.code, reply.enhanced, words))
