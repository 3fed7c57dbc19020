"""SMTP client: connections, pool, submission."""

from twisted_sendmail.client.connect import SILENCE_NOTE
from twisted_sendmail.client.delivery_job import Job, JobResult, prepare_message
from twisted_sendmail.client.mailer import Item, Mailer, MailerStats
from twisted_sendmail.client.pool import PoolLimits
from twisted_sendmail.client.probe import ProbeResult, probe_server
from twisted_sendmail.client.server_config import SubmissionServer
from twisted_sendmail.client.submit import sendmail, submit
from twisted_sendmail.client.timeouts import Cancelled, Timeouts
from twisted_sendmail.client.tls import ServerVerifier, TLSPolicy, TLSTrust

__all__ = [
    "SILENCE_NOTE",
    "Cancelled",
    "Item",
    "Job",
    "JobResult",
    "Mailer",
    "MailerStats",
    "PoolLimits",
    "ProbeResult",
    "ServerVerifier",
    "SubmissionServer",
    "TLSPolicy",
    "TLSTrust",
    "Timeouts",
    "prepare_message",
    "probe_server",
    "sendmail",
    "submit",
]
