"""SMTP client: connections, pool, submission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_sendmail.lazy_names import lazy_names

__all__ = [
    "SILENCE_NOTE",
    "Cancelled",
    "Candidate",
    "DNSAnswer",
    "DNSResolver",
    "Item",
    "Job",
    "JobResult",
    "Mailer",
    "MailerStats",
    "PoolLimits",
    "ProbeResult",
    "Resolver",
    "ServerVerifier",
    "SubmissionServer",
    "TLSARecord",
    "TLSARecords",
    "TLSPolicy",
    "TLSTrust",
    "Timeouts",
    "find_servers",
    "find_tlsa",
    "host_and_port",
    "host_name",
    "is_address",
    "is_loopback",
    "prepare_message",
    "probe_server",
    "sendmail",
    "submit",
]

if TYPE_CHECKING:
    from twisted_sendmail.client.connect import host_name
    from twisted_sendmail.client.dane import TLSARecord, TLSARecords, find_tlsa
    from twisted_sendmail.client.delivery_job import Job, JobResult, prepare_message
    from twisted_sendmail.client.discovery import Candidate, find_servers
    from twisted_sendmail.client.dns_lookup import DNSAnswer, DNSResolver, Resolver
    from twisted_sendmail.client.mailer import Item, Mailer, MailerStats
    from twisted_sendmail.client.pool import PoolLimits
    from twisted_sendmail.client.probe import ProbeResult, probe_server
    from twisted_sendmail.client.protocol import SILENCE_NOTE
    from twisted_sendmail.client.server_config import (
        SubmissionServer,
        host_and_port,
        is_loopback,
    )
    from twisted_sendmail.client.submission import sendmail, submit
    from twisted_sendmail.client.timeouts import Cancelled, Timeouts
    from twisted_sendmail.client.tls import ServerVerifier, TLSPolicy, TLSTrust, is_address
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "connect": "host_name",
            "dane": "TLSARecord TLSARecords find_tlsa",
            "delivery_job": "Job JobResult prepare_message",
            "discovery": "Candidate find_servers",
            "dns_lookup": "DNSAnswer DNSResolver Resolver",
            "mailer": "Item Mailer MailerStats",
            "pool": "PoolLimits",
            "probe": "ProbeResult probe_server",
            "protocol": "SILENCE_NOTE",
            "server_config": "SubmissionServer host_and_port is_loopback",
            "submission": "sendmail submit",
            "timeouts": "Cancelled Timeouts",
            "tls": "ServerVerifier TLSPolicy TLSTrust is_address",
        },
    )
