"""The configuration of the private Postfix: services, user, and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DOMAIN = "example.test"
HOST = f"mail.{DOMAIN}"
USER = f"alice@{DOMAIN}"
PASSWORD = "wonder=land, with ÿ"

#: Service to what is different there; each has STARTTLS and AUTH unless it says otherwise.
SERVICES = {
    "submission": {},
    "submissions": {"smtpd_tls_wrappermode": "yes"},
    "data": {"smtpd_discard_ehlo_keywords": "chunking"},
    "no_pipelining": {"smtpd_discard_ehlo_keywords": "pipelining"},
    "bare": {
        "smtpd_discard_ehlo_keywords": "pipelining,chunking,8bitmime,smtputf8,dsn,size,enhancedstatuscodes,etrn,vrfy"
    },
    "small": {"message_size_limit": "2000"},
    "small_untold": {"message_size_limit": "2000", "smtpd_discard_ehlo_keywords": "size"},
    "small_data": {"message_size_limit": "2000", "smtpd_discard_ehlo_keywords": "chunking"},
    "small_untold_data": {
        "message_size_limit": "2000",
        "smtpd_discard_ehlo_keywords": "size,chunking",
    },
    "few_recipients": {"smtpd_recipient_limit": "3"},
    "scram": {"smtpd_sasl_path": "scram"},
    "expired": {"smtpd_tls_chain_files": "{directory}/expired.pem"},
    "no_tls": {
        "smtpd_tls_security_level": "none",
        "smtpd_sasl_auth_enable": "no",
        "smtpd_relay_restrictions": "reject_unauth_destination",
    },
    "no_tls_data": {
        "smtpd_tls_security_level": "none",
        "smtpd_sasl_auth_enable": "no",
        "smtpd_relay_restrictions": "reject_unauth_destination",
        "smtpd_discard_ehlo_keywords": "chunking",
    },
    "no_auth": {
        "smtpd_sasl_auth_enable": "no",
        "smtpd_relay_restrictions": "reject_unauth_destination",
    },
    "xclient": {
        "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
        "smtpd_tls_security_level": "none",
        "smtpd_sasl_auth_enable": "no",
        "smtpd_relay_restrictions": "reject_unauth_destination",
    },
    "closing": {"smtpd_hard_error_limit": "1"},
}

#: Local parts that are refused, by how they begin.
ACCESS = {
    "recipients": (
        "/^gone/ 550 5.1.1 there is nobody here by that name\n"
        "/^later/ 450 4.2.1 come back tomorrow\n"
        "/^busy/ 451 4.3.0 trouble inside\n"
        "/^full/ 452 4.2.2 mailbox full\n"
    ),
    "senders": "/^banned/ 550 5.7.1 not from you\n",
    "data": "/^nodata/ 554 5.7.0 no data from you\n",
    "content": "/^closing/ 421 4.3.2 going down\n",
    "headers": "/^X-Refuse:/ REJECT 5.6.0 not with this header\n",
}

#: Cyrus SASL, by application name.
SASL = {
    "smtpd": (
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {directory}/sasldb2\n"
        "mech_list: PLAIN LOGIN\n"
    ),
    "scram": (
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {directory}/sasldb2\n"
        "mech_list: SCRAM-SHA-1 SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5\n"
    ),
}

MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
enable_long_queue_ids = yes
mail_owner = postfix
setgid_group = postdrop

myhostname = mail.example.test
mydomain = example.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
biff = no
notify_classes =
# Nothing leaves this machine.
default_transport = error:nothing leaves this machine
relay_transport = error:nothing leaves this machine

# Every address of the domain, into one Maildir.
virtual_mailbox_domains = example.test
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 100000000
message_size_limit = 50000000

# The content stays as it was submitted: no header added, rewritten or dropped.
local_header_rewrite_clients =
remote_header_rewrite_domain =
always_add_missing_headers = no
message_drop_headers =
header_checks = regexp:{directory}/conf/headers

smtputf8_enable = yes
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {directory}/server.pem
smtpd_tls_loglevel = 1
smtpd_tls_received_header = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {directory}/conf/sasl
smtpd_sasl_local_domain = example.test
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
    check_sender_access regexp:{directory}/conf/senders,
    check_recipient_access regexp:{directory}/conf/recipients
smtpd_data_restrictions = check_sender_access regexp:{directory}/conf/data
smtpd_end_of_data_restrictions = check_sender_access regexp:{directory}/conf/content
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
"""

_LOCAL = """\
local-submission unix n - n - - smtpd -o smtpd_tls_security_level=none -o smtpd_sasl_auth_enable=no
    -o smtpd_relay_restrictions=reject_unauth_destination -o syslog_name=postfix/local
"""

#: The configuration of every Postfix.
INSIDE = """\
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


def master(ports: Mapping[str, int], directory: Path) -> str:
    """`master.cf`."""
    lines = []
    for service, port in ports.items():
        lines.append(f"127.0.0.1:{port} inet n - n - - smtpd -o syslog_name=postfix/{service}")
        for name, value in SERVICES[service].items():
            lines.append(f"    -o {{ {name} = {value.format(directory=directory)} }}")
    return "\n".join(lines) + "\n" + _LOCAL + INSIDE
