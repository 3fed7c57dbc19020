"""The options of the sendmail command mean what they mean to Postfix and sendmail."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_sendmail.cli.sendmail.options import SendmailMode, SendmailOptions, parse
from twisted_sendmail.exit_status import CommandError

DELIVER: dict[str, Any] = {"recipients": ("bob",)}

# What is written, and what it means; each is documented in sendmail(1) of Postfix, or in
# sendmail(8), or is how a well-known program calls it.
MEANS: list[tuple[str, dict[str, Any]]] = [
    ("bob", {}),
    ("-bm bob", {}),
    ("-b m bob", {}),
    ("-i bob", {"ignore_dots": True}),
    ("-oi bob", {"ignore_dots": True}),
    ("-o i bob", {"ignore_dots": True}),
    ("-oi -t", {"ignore_dots": True, "from_header": True, "recipients": ()}),
    ("-ti", {"ignore_dots": True, "from_header": True, "recipients": ()}),
    ("-it", {"ignore_dots": True, "from_header": True, "recipients": ()}),
    ("-t bob", {"from_header": True}),
    ("-FCronDaemon -i -B8BITMIME -oem bob", {"full_name": "CronDaemon", "ignore_dots": True}),
    ("-f alice@example.org bob", {"sender": "alice@example.org"}),
    ("-falice@example.org bob", {"sender": "alice@example.org"}),
    ("-r alice bob", {"sender": "alice"}),
    ("-ralice bob", {"sender": "alice"}),
    ("-f <> bob", {"sender": "<>"}),
    ("-F Alice bob", {"full_name": "Alice"}),
    ("-FAlice bob", {"full_name": "Alice"}),
    ("-tif alice", {"from_header": True, "ignore_dots": True, "sender": "alice", "recipients": ()}),
    ("bob -f alice", {"sender": "alice"}),
    ("-i -- bob", {"ignore_dots": True}),
    ("-- -bob", {"recipients": ("-bob",)}),
    ("bob carol@example.net", {"recipients": ("bob", "carol@example.net")}),
    ("-N never bob", {"notify": ("NEVER",)}),
    ("-Nsuccess,failure bob", {"notify": ("SUCCESS", "FAILURE")}),
    ("-N Delay bob", {"notify": ("DELAY",)}),
    ("-R full bob", {"ret": "FULL"}),
    ("-Rhdrs bob", {"ret": "HDRS"}),
    ("-V QQ123 bob", {"envid": "QQ123"}),
    ("-v bob", {"verbose": True}),
    ("-C /etc/relay.toml bob", {"settings": "/etc/relay.toml"}),
    ("-C/etc/relay.toml bob", {"settings": "/etc/relay.toml"}),
    ("-O IgnoreDots=true bob", {"ignore_dots": True}),
    ("-OIgnoreDots=False bob", {}),
    ("-O QueueDirectory=/var/spool/q bob", {"spool": "/var/spool/q"}),
    ("-O DeliveryMode=b -ODoubleBounceAddress=x bob", {}),
    ("-odb -oem -om -o7 -oT5d bob", {}),
    ("-em bob", {}),
    ("-e m bob", {}),
    ("-Am -Ac bob", {}),
    ("-A m bob", {}),
    ("-B7BIT bob", {}),
    ("-G -m -n -U -s bob", {}),
    ("-h 3 bob", {}),
    ("-L tag -Ltag bob", {}),
    ("-p ESMTP -X /dev/null -D log -M name bob", {}),
    ("-d -d0.1 bob", {}),
]

MODES: list[tuple[str, SendmailMode, dict[str, Any]]] = [
    ("-bp", SendmailMode.PRINT, {}),
    ("-bp -v", SendmailMode.PRINT, {"verbose": True}),
    ("-v -bp", SendmailMode.PRINT, {"verbose": True}),
    ("-bpv", SendmailMode.PRINT, {}),
    ("-bs", SendmailMode.SMTP, {}),
    ("-bs -f alice", SendmailMode.SMTP, {"sender": "alice"}),
    ("-bi", SendmailMode.ALIASES, {}),
    ("-I", SendmailMode.ALIASES, {}),
    ("-q", SendmailMode.FLUSH, {}),
    ("-q30m", SendmailMode.FLUSH, {}),
    ("-qf", SendmailMode.FLUSH, {}),
    ("-v -q", SendmailMode.FLUSH, {"verbose": True}),
    ("-qI0ABC", SendmailMode.FLUSH, {"flush": (("I", "0ABC"),)}),
    ("-qRexample.net", SendmailMode.FLUSH, {"flush": (("R", "example.net"),)}),
    ("-qSalice", SendmailMode.FLUSH, {"flush": (("S", "alice"),)}),
]

WRONG: list[tuple[str, str]] = [
    ("", "there are no recipients"),
    ("-i", "there are no recipients"),
    ("-f", "option -f needs a value"),
    ("-tiF", "option -F needs a value"),
    ("-bd", "run 'twistd sendmail'"),
    ("-bd -q30m", "run 'twistd sendmail'"),
    ("-bD", "run 'twistd sendmail'"),
    ("-bv bob", "addresses are not verified"),
    ("-bt", "there are no rewriting rules"),
    ("-bh", "use -bm, -bp, -bs or -bi"),
    ("-b", "option -b needs a value"),
    ("-N sometimes bob", "-N sometimes cannot be used"),
    ("-N never,delay bob", "-N never,delay cannot be used"),
    ("-N , bob", "-N , cannot be used"),
    ("-R some bob", "give full or hdrs"),
    ("-B binary bob", "give 7bit or 8bitmime"),
    ("-z bob", "option -z is not known"),
    ("-iz bob", "option -z is not known"),
    ("--version", "option --version is not known"),
    ("--secret=x bob", "option --secret is not known"),
    ("-qI", "option -qI needs a value"),
    ("-q!Rx", "use 'twisted-sendmail queue flush'"),
    ("-qGgroup", "use 'twisted-sendmail queue'"),
]


@pytest.mark.parametrize(("words", "meant"), MEANS, ids=[words for words, _ in MEANS])
def test_options_have_their_usual_meaning(words: str, meant: dict[str, Any]) -> None:
    assert parse("sendmail", words.split()) == SendmailOptions(**{**DELIVER, **meant})


@pytest.mark.parametrize(("words", "mode", "meant"), MODES, ids=[words for words, *_ in MODES])
def test_options_set_the_mode(words: str, mode: SendmailMode, meant: dict[str, Any]) -> None:
    if words == "-bpv":  # -b takes all that is joined to it, as getopt(3) has it
        with pytest.raises(CommandError, match="-bpv is not supported"):
            parse("sendmail", [words])
    else:
        assert parse("sendmail", words.split()) == SendmailOptions(mode=mode, **meant)


@pytest.mark.parametrize(("words", "held"), WRONG, ids=[words for words, _ in WRONG])
def test_each_mistake_is_one_line(words: str, held: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse("sendmail", words.split())
    assert held in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_value_may_be_empty_or_hold_spaces() -> None:
    asked = parse("sendmail", ["-f", "", "-F", "Alice of Wonderland", "bob"])
    assert (asked.sender, asked.full_name) == ("", "Alice of Wonderland")


def test_quoted_values_are_escaped() -> None:
    with pytest.raises(CommandError) as caught:
        parse("sendmail", ["-N", "\x1b[2J", "bob"])
    assert "-N \\x1b[2J cannot be used" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("/usr/bin/mailq", SendmailMode.PRINT),
        ("mailq", SendmailMode.PRINT),
        ("/usr/bin/newaliases", SendmailMode.ALIASES),
    ],
)
def test_the_program_s_name_sets_the_mode(name: str, mode: SendmailMode) -> None:
    assert parse(name, []) == SendmailOptions(mode=mode)


def test_any_other_name_delivers() -> None:
    assert parse("/usr/lib/sendmail", ["bob"]).mode is SendmailMode.DELIVER
