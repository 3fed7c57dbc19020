"""The clients that are measured. To add one, add an entry.

cmd       the command; {python} {clients} {build} are filled in
modes     supported: reuse (keep connections), fresh (one per message)
tls       supported: starttls, none
barrier   the client has the option --barrier
chunking  True: run with --chunking (BDAT), otherwise with --data
approx    the sink may count a few bytes more or less than the message has
only      run it in these workloads only
group     ours, peer, ceiling (a bare Twisted protocol), limit (C)
env       extra environment variables
"""

PY = "{python}"


def _py(script, *args, **kw):
    d = dict(
        cmd=[PY, "{clients}/" + script, *args],
        modes={"reuse", "fresh"},
        tls={"starttls", "none"},
        barrier=True,
        chunking=False,
        group="peer",
    )
    d.update(kw)
    return d


def _c(*args, **kw):
    d = dict(
        cmd=["{build}/limit", *args],
        modes={"reuse", "fresh"},
        tls={"starttls", "none"},
        barrier=True,
        chunking=False,
        group="limit",
    )
    d.update(kw)
    return d


KEPT = {"W2", "W3", "W5", "P2", "P3"}

ADAPTERS = {
    # ours
    "ours-bdat": _py("ours_client.py", group="ours", modes={"reuse"}, chunking=True),
    "ours-data": _py("ours_client.py", group="ours", modes={"reuse"}),
    "ours-data-1-flight": _py(
        "ours_client.py", "--pipeline-after-data", group="ours", modes={"reuse"}, only=KEPT
    ),
    "ours-bdat-w1": _py(
        "ours_client.py", "--window", "1", group="ours", modes={"reuse"}, chunking=True, only=KEPT
    ),
    "ours-send": _py(
        "ours_client.py",
        *("--api", "send", "--workers", "8"),
        group="ours",
        modes={"reuse"},
        chunking=True,
        only=KEPT,
    ),
    "ours-send-data": _py(
        "ours_client.py",
        *("--api", "send", "--workers", "8"),
        group="ours",
        modes={"reuse"},
        only=KEPT,
    ),
    "ours-submit-full": _py(
        "ours_client.py",
        "--full",
        group="ours",
        modes={"fresh"},
        chunking=True,
        only={"W1", "W8"},
    ),
    "ours-submit": _py("ours_client.py", group="ours", modes={"fresh"}, chunking=True),
    # the physical limit: C, prebuilt buffers
    "limit-data": _c(),
    "limit-bdat": _c(chunking=True),
    "limit-bdat-d8": _c("--depth", "8", chunking=True, only=KEPT),
    "limit-bdat-resume": _c("--resume", chunking=True, only={"W1", "W8"}),
    # a plain Twisted protocol that parses replies, fires Deferreds and keeps results
    "tx-real-data": _py("tx_realistic_client.py", group="ceiling"),
    "tx-real-bdat": _py("tx_realistic_client.py", group="ceiling", chunking=True),
    "tx-real-data-eager": _py("tx_realistic_client.py", "--eager", group="ceiling"),
    "tx-real-bdat-eager": _py("tx_realistic_client.py", "--eager", group="ceiling", chunking=True),
    # peers
    "smtplib": _py("smtplib_client.py"),
    "aiosmtplib": _py("aiosmtplib_client.py"),
    "aiosmtplib-uvloop": _py("aiosmtplib_client.py", "--loop", "uvloop"),
    "twisted-sender": _py("twisted_sender_client.py", modes={"fresh"}, barrier=False),
    "twisted-reuse": _py("twisted_reuse_client.py", modes={"reuse"}),
    "libcurl": _py("pycurl_client.py", barrier=False),
    # On a kept connection nodemailer 6.8, Debian 12's, waits 40 ms for delayed acknowledgements:
    # ten thousand messages would take minutes.
    "nodemailer": {
        "only": {"W1", "W4", "W5", "W6", "W8"},
        "cmd": ["node", "{clients}/nodemailer_client.js"],
        "modes": {"reuse", "fresh"},
        "tls": {"starttls", "none"},
        "barrier": False,
        "chunking": False,
        "group": "peer",
        "env": {"NODE_PATH": "{build}/node/node_modules:/usr/share/nodejs"},
    },
    "go-net/smtp": {
        "cmd": ["{build}/go_client"],
        "modes": {"reuse", "fresh"},
        "tls": {"starttls", "none"},
        "barrier": True,
        "chunking": False,
        "group": "peer",
    },
}
