"""The server session in memory: order, TLS, AUTH, transactions, content, limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.smtp.server_session import SECURE, Decide, Talk, in_transaction
from twisted_sendmail import Recipient, Reply
from twisted_sendmail.smtp import PENDING, MailParameters, ServerState
from twisted_sendmail.smtp.server_states import SERVER_TABLE

EARLY = "554 5.5.0 SMTP protocol synchronization error: input before the reply to {}"
MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


def refuse(method: str, code: int, text: str) -> Decide:
    return lambda called: Reply(code, (text,)) if called == method else None


# -- greeting and EHLO ----------------------------------------------------------------


def test_the_greeting_names_the_host() -> None:
    assert Talk().said == "220 mx.example.org ESMTP\r\n"


def test_nothing_is_obeyed_before_the_greeting() -> None:
    talk = Talk()
    talk.session.state = ServerState.OPENING
    assert talk.send("EHLO x\r\n") == []


def test_a_greeting_that_refuses_ends_the_session() -> None:
    talk = Talk()
    talk.session.state = ServerState.OPENING
    talk.session.greet(Reply(421, ("4.7.0 Too many",)))
    assert talk.send("") == ["421 4.7.0 Too many"]
    assert talk.over


def test_ehlo_says_what_there_is() -> None:
    assert Talk(max_size=1000, max_messages=7).send("EHLO client.example.org\r\n") == [
        "250-mx.example.org",
        "250-PIPELINING",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-ENHANCEDSTATUSCODES",
        "250-DSN",
        "250-CHUNKING",
        "250-BINARYMIME",
        "250-SIZE 1000",
        "250 LIMITS MAILMAX=7 RCPTMAX=1000",
    ]


def test_helo_says_the_name_only() -> None:
    assert Talk().send("HELO client.example.org\r\n") == ["250 mx.example.org"]


def test_behind_helo_there_are_no_extensions() -> None:
    talk = Talk()
    talk.send("HELO client.example.org\r\n")
    assert talk.code("MAIL FROM:<a@example.org> SIZE=10") == "555 5.5.4"


def test_lmtp_wants_lhlo_and_smtp_does_not() -> None:
    assert Talk(lmtp=True).said == "220 mx.example.org LMTP\r\n"
    assert Talk(lmtp=True).code("EHLO x") == "500 5.5.1"
    assert Talk(lmtp=True).send("LHLO x\r\n")[0] == "250-mx.example.org"
    assert Talk().code("LHLO x") == "500 5.5.1"


def test_who_does_not_say_hello_is_sent_away_unless_it_is_not_asked_for() -> None:
    assert Talk().code("MAIL FROM:<a@example.org>") == "503 5.5.1"
    lenient = Talk(require_hello=False)
    assert lenient.code("MAIL FROM:<a@example.org> SIZE=10") == "555 5.5.4"
    assert lenient.code("MAIL FROM:<a@example.org>") == "250 2.0.0"
    lenient.send("RCPT TO:<b@example.net>\r\nDATA\r\nX: y\r\n\r\n.\r\n")
    assert lenient.contents == [b"X: y\r\n\r\n"]


def test_without_hello_nobody_gets_past_tls_or_auth() -> None:
    for settings in (replace(SECURE, require_hello=False), SECURE):
        talk = Talk(settings)
        assert talk.code("STARTTLS").startswith("503")
        assert talk.code("AUTH PLAIN AGEAYg==").startswith("5")
        assert talk.code("MAIL FROM:<a@example.org>").startswith("5")


# -- STARTTLS -----------------------------------------------------------------------


def test_auth_is_offered_inside_tls_only_and_starttls_outside_only() -> None:
    talk = Talk(SECURE)
    before = talk.send("EHLO x\r\n")
    assert ("250-STARTTLS" in before, any("AUTH" in line for line in before)) == (True, False)
    assert talk.send("STARTTLS\r\n") == ["220 2.0.0 Go ahead"]
    after = talk.send("EHLO x\r\n")
    assert ("250-STARTTLS" in after, "250-AUTH PLAIN LOGIN" in after) == (False, True)


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_what_follows_starttls_in_clear_is_never_run(cut: int) -> None:
    """In the same segment it ends the session; later octets are the handshake's."""
    talk = Talk(SECURE)
    talk.send("EHLO x\r\n")
    said = talk.send("STARTTLS\r\nEHLO y\r\nMAIL FROM:<a@example.org>\r\n")
    assert said == [
        "554 5.5.0 SMTP protocol synchronization error: input before the reply to STARTTLS"
    ]
    assert (talk.over, talk.called("mail"), talk.called("start_tls")) == (
        True,
        0,
        0,
    )


def starting_tls() -> Talk:
    talk = Talk(SECURE, decide=lambda method: PENDING if method == "start_tls" else None)
    talk.send("EHLO x\r\n")
    assert talk.send("STARTTLS\r\n") == ["220 2.0.0 Go ahead"]
    return talk


def test_octets_that_come_before_the_handshake_wait_for_ever() -> None:
    assert starting_tls().send(b"NOOP\r\n") == []


def test_octets_that_came_in_clear_are_not_run_inside_tls() -> None:
    """Should anybody hand them over late, when the session is about to start TLS."""
    talk = starting_tls()
    talk.send(b"EHLO y\r\nMAIL FROM:<>\r\n")
    talk.session.tls_started()
    assert talk.send("") == [EARLY.format("STARTTLS")]
    assert (talk.over, talk.called("mail")) == (True, 0)


def test_starttls_with_an_argument_is_501_and_a_second_one_503() -> None:
    talk = Talk(SECURE)
    talk.send("EHLO x\r\n")
    assert talk.code("STARTTLS now") == "501 5.5.4"
    assert talk.code("STARTTLS") == "220 2.0.0"
    talk.send("EHLO x\r\n")
    assert talk.code("STARTTLS") == "503 5.5.1"


def test_starttls_that_is_not_offered_is_502_and_without_ehlo_503() -> None:
    talk = Talk()
    talk.send("EHLO x\r\n")
    assert talk.code("STARTTLS") == "502 5.5.1"
    assert Talk(SECURE).code("STARTTLS") == "503 5.5.1"


def test_starttls_is_out_of_order_in_a_transaction() -> None:
    talk = in_transaction(Talk(starttls=True))
    assert talk.code("STARTTLS") == "503 5.5.1"


def test_what_was_said_before_tls_is_forgotten() -> None:
    talk = Talk(SECURE, clear_auth=True)
    talk.send("EHLO x\r\n")
    assert talk.code("AUTH PLAIN AGEAYg==") == "235 2.7.0"
    talk.send("STARTTLS\r\n")
    assert talk.session.authenticated is False
    assert talk.code("MAIL FROM:<a@example.org>") == "503 5.5.1"
    talk.send("EHLO x\r\n")
    assert talk.code("MAIL FROM:<a@example.org>") == "530 5.7.0"


# -- AUTH ---------------------------------------------------------------------------


def secure() -> Talk:
    talk = Talk(SECURE, tls=True)
    talk.send("EHLO x\r\n")
    return talk


def test_neither_auth_nor_mail_is_taken_in_clear() -> None:
    talk = Talk(SECURE)
    talk.send("EHLO x\r\n")
    assert talk.code("AUTH PLAIN AGEAYg==") == "538 5.7.11"
    assert talk.code("MAIL FROM:<a@example.org>") == "530 5.7.0"


def test_mail_in_clear_is_530_even_where_nobody_has_to_log_in() -> None:
    talk = Talk(SECURE, require_auth=False)
    talk.send("EHLO x\r\n")
    assert talk.line("MAIL FROM:<a@example.org>").startswith("530 5.7.0 Encryption is required")


def test_mail_without_auth_is_530_where_auth_is_required() -> None:
    talk = secure()
    assert talk.code("MAIL FROM:<a@example.org>") == "530 5.7.0"
    assert talk.code("AUTH PLAIN AGEAYg==") == "235 2.7.0"
    assert talk.code("MAIL FROM:<a@example.org>") == "250 2.0.0"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("AUTH", "501 5.5.4"),
        ("AUTH PLAIN !", "501 5.5.2"),
        ("AUTH PLAIN AGEAYg", "501 5.5.2"),
        ("AUTH PLAIN AGEAYg== x", "501 5.5.2"),
        ("AUTH CRAM-MD5", "504 5.5.4"),
        ("AUTH pl@in", "501 5.5.4"),
    ],
)
def test_a_bad_auth_is_refused_and_the_session_goes_on(command: str, code: str) -> None:
    talk = secure()
    assert talk.code(command) == code
    assert talk.code("AUTH plain AGEAYg==") == "235 2.7.0"


def test_an_initial_response_may_be_empty_or_absent() -> None:
    talk = secure()
    talk.send("AUTH PLAIN =\r\n")
    assert talk.calls[-1] == ("auth", "PLAIN", b"")
    talk = secure()
    talk.send("AUTH PLAIN\r\n")
    assert talk.calls[-1] == ("auth", "PLAIN", None)


def challenged() -> Talk:
    challenge = Reply(334, ("VXNlcm5hbWU6",))
    first = iter([challenge])
    decide: Decide = lambda method: next(first, None) if method == "auth" else None  # noqa: E731
    talk = Talk(SECURE, tls=True, decide=decide)
    talk.send("EHLO x\r\n")
    assert talk.line("AUTH LOGIN") == "334 VXNlcm5hbWU6"
    assert talk.calls[-1] == ("auth", "LOGIN", None)
    return talk


def test_a_challenge_is_answered_by_base64() -> None:
    talk = challenged()
    assert talk.send("amFuZQ==\r\n") == ["235 2.7.0 welcome"]
    assert talk.calls[-1] == ("auth_response", b"jane")


def test_a_star_cancels_the_exchange() -> None:
    talk = challenged()
    assert talk.code("*") == "501 5.7.0"
    assert (talk.calls[-1], talk.session.authenticated) == (("auth_cancelled",), False)
    assert talk.code("AUTH PLAIN AGEAYg==") == "235 2.7.0"


@pytest.mark.parametrize(
    ("line", "code"), [("MAIL FROM:<a@example.org>", "501 5.5.2"), ("x" * 20000, "500 5.5.6")]
)
def test_an_answer_that_is_not_base64_ends_the_exchange(line: str, code: str) -> None:
    talk = challenged()
    assert talk.code(line) == code
    assert talk.calls[-1] == ("auth_cancelled",)
    assert talk.code("AUTH PLAIN AGEAYg==") == "235 2.7.0"


def test_a_second_auth_and_one_in_a_transaction_are_503() -> None:
    talk = secure()
    talk.send("AUTH PLAIN AGEAYg==\r\n")
    assert talk.code("AUTH PLAIN AGEAYg==") == "503 5.5.1"
    talk = Talk(SECURE, tls=True, require_auth=False)
    in_transaction(talk)
    assert talk.code("AUTH PLAIN AGEAYg==") == "503 5.5.1"


def test_auth_where_nobody_is_known_is_502() -> None:
    talk = Talk()
    talk.send("EHLO x\r\n")
    assert talk.code("AUTH PLAIN AGEAYg==") == "502 5.5.1"


def test_failed_logins_cost_the_connection() -> None:
    talk = Talk(SECURE, tls=True, decide=refuse("auth", 535, "5.7.8 no"))
    talk.send("EHLO x\r\n")
    assert talk.code("AUTH PLAIN AGEAYg==") == "535 5.7.8"
    assert talk.code("AUTH PLAIN AGEAYg==") == "535 5.7.8"
    assert talk.send("AUTH PLAIN AGEAYg==\r\n") == [
        "535 5.7.8 no",
        "421 4.7.0 Too many failed logins",
    ]
    assert talk.over


def test_secrets_are_not_in_the_transcript() -> None:
    talk = challenged()
    talk.send("amFuZQ==\r\nAUTH PLAIN AGphbmUAczNjcmV0\r\nAUTH LOGIN bogus!\r\nc3RyYXk=\r\n")
    text = str(talk.session.transcript)
    shown = [s for s in ("amFuZQ", "AGphbmUAczNjcmV0", "bogus", "c3RyYXk") if s in text]
    assert shown == []
    assert "C: AUTH LOGIN" in text


# -- transactions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "command"),
    [
        ("", "MAIL FROM:<a@example.org>"),
        ("", "DATA"),
        ("EHLO x\r\n", "RCPT TO:<a@example.org>"),
        ("EHLO x\r\n", "DATA"),
        ("EHLO x\r\nMAIL FROM:<>\r\n", "DATA"),
        ("EHLO x\r\nMAIL FROM:<>\r\n", "MAIL FROM:<>"),
        ("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n", "MAIL FROM:<>"),
    ],
)
def test_what_is_out_of_order_is_503(before: str, command: str) -> None:
    talk = Talk()
    talk.send(before)
    assert talk.code(command) == "503 5.5.1"


def test_a_message_and_then_another_start_clean() -> None:
    talk = in_transaction(Talk(), " SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x+2By")
    assert talk.send(b"DATA\r\n") == ["354 End with CRLF, dot, CRLF"]
    assert talk.send(MESSAGE + b"..dot\r\n.\r\n") == ["250 2.0.0 Ok"]
    assert talk.code("RCPT TO:<b@example.net>") == "503 5.5.1"
    talk.send("MAIL FROM:<>\r\n")
    senders = [call[1:] for call in talk.calls if call[0] == "mail"]
    assert [(str(sender), said.envid, said.ret) for sender, said in senders] == [  # type: ignore[attr-defined]
        ("a@example.org", "x+y", "HDRS"),
        ("<>", None, None),
    ]
    assert talk.contents == [MESSAGE + b".dot\r\n"]


def test_pipelined_commands_are_answered_in_order_and_one_at_a_time() -> None:
    talk = Talk()
    said = talk.send(
        "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
    )
    assert said[-4:] == [
        "250 2.0.0 Ok",
        "250 2.0.0 Ok",
        "250 2.0.0 Ok",
        "354 End with CRLF, dot, CRLF",
    ]


def test_nothing_is_read_while_an_answer_is_awaited() -> None:
    talk = Talk(decide=lambda method: PENDING if method == "mail" else None)
    talk.send("EHLO x\r\n")
    assert talk.send(b"MAIL FROM:<>\r\nNOOP\r\n") == []
    assert talk.send(b"NOOP\r\n") == []
    talk.session.resume(Reply(250, ("2.1.0 fine",)))
    talk.session.run()
    assert talk.send("") == ["250 2.1.0 fine", "250 2.0.0 Ok", "250 2.0.0 Ok"]


def test_a_refused_recipient_is_not_counted_and_data_needs_one() -> None:
    talk = Talk(decide=refuse("rcpt", 550, "5.1.1 no"))
    talk.send("EHLO x\r\nMAIL FROM:<>\r\n")
    assert talk.code("RCPT TO:<a@example.org>") == "550 5.1.1"
    assert talk.code("DATA") == "503 5.5.1"


def test_rset_and_ehlo_abort_the_transaction() -> None:
    for command in ("RSET", "EHLO x"):
        talk = in_transaction(Talk())
        talk.send(command + "\r\n")
        assert talk.called("abort") == 1
        assert talk.code("RCPT TO:<b@example.net>") == "503 5.5.1"


@pytest.mark.parametrize("command", ["RSET", "EHLO x"])
def test_an_aborted_transaction_leaves_nothing_behind(command: str) -> None:
    talk = in_transaction(Talk(max_recipients=1), " BODY=BINARYMIME SMTPUTF8")
    talk.send(f"{command}\r\nMAIL FROM:<>\r\n")
    assert talk.code("RCPT TO:<\u00e4@example.net>") == "553 5.6.7"
    assert talk.code("RCPT TO:<b@example.net>") == "250 2.0.0"
    assert talk.send("DATA\r\n") == ["354 End with CRLF, dot, CRLF"]


def test_quit_ends_the_session_and_aborts_the_transaction() -> None:
    talk = in_transaction(Talk())
    assert talk.line("QUIT") == "221 2.0.0 mx.example.org closing"
    assert (talk.calls[-1][0], talk.over) == ("abort", True)
    assert talk.send("NOOP\r\n") == []


def test_an_answer_without_enhanced_code_gets_one() -> None:
    talk = Talk(decide=refuse("mail", 550, "no"))
    talk.send("EHLO x\r\n")
    assert talk.line("MAIL FROM:<>") == "550 5.0.0 no"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("MAIL FROM:<a@example.org> FOO=1", "555 5.5.4"),
        ("MAIL FROM:<a@example.org> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> SIZE=1 SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> SIZE=99999999999", "552 5.3.4"),
        ("MAIL FROM:<a@example.org> BODY=9BIT", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> ENVID=+ZZ", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> ENVID=+0D+0A", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> RET=SOME", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> AUTH=<>", "555 5.5.4"),
        ("MAIL FROM:<a@example.org> REQUIRETLS", "555 5.5.4"),
        ("MAIL FROM:<\u00e4@example.org>", "550 5.6.7"),
        ("MAIL FROM:<\u00e4@example.org> SMTPUTF8", "250 2.0.0"),
        ("MAIL FROM:a@example.org", "501 5.5.4"),
        ("MAIL FROM: <a@example.org>", "250 2.0.0"),
        ("MAIL FROM:<a b@example.org>", "553 5.1.7"),
        ("MAIL FROM:<a@example.org>X", "501 5.5.4"),
        ("MAIL TO:<a@example.org>", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
    ],
)
def test_mail_is_read_strictly(command: str, code: str) -> None:
    talk = Talk()
    talk.send("EHLO x\r\n")
    assert talk.code(command) == code


@pytest.mark.parametrize(
    ("value", "reply", "auth"),
    [
        ("<>", "250", "<>"),
        ("e+3Dmc2@example.com", "250", "e=mc2@example.com"),
        ("jane", "250", "<>"),
        ("jane@", "250", "<>"),
        ("jane+20doe", "250", "<>"),
        ("+ZZ", "501", None),
        ("", "501", None),
    ],
)
def test_the_auth_parameter_is_a_mailbox_or_nobody(
    value: str, reply: str, auth: str | None
) -> None:
    talk = Talk(SECURE, tls=True)
    talk.send("EHLO x\r\nAUTH PLAIN AGEAYg==\r\n")
    assert talk.line(f"MAIL FROM:<a@example.org> AUTH={value}")[:3] == reply
    if auth is not None:
        (_, parameters) = talk.last("mail")
        assert isinstance(parameters, MailParameters)
        assert str(parameters.auth) == auth


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("RCPT TO:<>", "553 5.1.3"),
        ("RCPT TO:<Postmaster>", "250 2.0.0"),
        ("RCPT TO:<b@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+40x", "250 2.0.0"),
        ("RCPT TO:<b@example.net> NOTIFY=NEVER,FAILURE", "501 5.5.4"),
        ("RCPT TO:<b@example.net> ORCPT=x", "501 5.5.4"),
        ("RCPT TO:<b@example.net> NOTIFY", "501 5.5.4"),
        ("RCPT TO:<b@example.net> FOO=1", "555 5.5.4"),
        ("RCPT TO:<\u00e4@example.net>", "553 5.6.7"),
    ],
)
def test_rcpt_is_read_strictly(command: str, code: str) -> None:
    talk = in_transaction(Talk())
    assert talk.code(command) == code


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("NOOP", "250"),
        ("QU\u0131T", "500"),
        ("R\u017fET", "500"),
        ("\ufb06ARTTLS", "500"),
        ("MA\u0131L FROM:<a@example.org>", "500"),
        ("BDAT 1 LA\u017fT", "501"),
        ("MAIL FROM:<a@example.org> \u017fIZE=10", "501"),
        ("MAIL FROM:<a@example.org> BODY=8B\u0131TMIME", "501"),
        ("MAIL FROM:<a@example.org> RET=FULL\u2003SIZE=10", "501"),
        ("RCPT TO:<b@example.net> NOTIFY=\u017fUCCESS", "501"),
    ],
)
def test_only_ascii_letters_and_spaces_are_those_of_commands(line: str, code: str) -> None:
    talk = in_transaction(Talk())
    if line.startswith("MAIL"):
        talk.send("RSET\r\n")
    assert talk.send(line + "\r\n")[0][:3] == code


def test_what_dsn_asks_for_reaches_the_recipient() -> None:
    talk = in_transaction(Talk())
    talk.send("RCPT TO:<c@example.net> NOTIFY=DELAY,FAILURE ORCPT=rfc822;c+2Bd@example.net\r\n")
    (recipient,) = talk.last("rcpt")
    assert isinstance(recipient, Recipient)
    assert (recipient.notify, recipient.orcpt) == (
        frozenset({"DELAY", "FAILURE"}),
        "rfc822;c+d@example.net",
    )


@pytest.mark.parametrize(
    ("orcpt", "address"),
    [
        ("utf-8;j\\x{FC}rgen\\x{2B}x@example.net", "utf-8;j\u00fcrgen+x@example.net"),
        ("UTF-8;j\u00fcrgen@example.net", "UTF-8;j\u00fcrgen@example.net"),
        ("rfc822;\\x{41}@example.net", "rfc822;\\x{41}@example.net"),
    ],
)
def test_an_original_recipient_beyond_ascii_is_read(orcpt: str, address: str) -> None:
    talk = in_transaction(Talk(), " SMTPUTF8")
    assert talk.code(f"RCPT TO:<c@example.net> ORCPT={orcpt}") == "250 2.0.0"
    (recipient,) = talk.last("rcpt")
    assert isinstance(recipient, Recipient)
    assert recipient.orcpt == address


@pytest.mark.parametrize("escape", ["0A", "110000", "D800", "200B"])
def test_an_original_recipient_that_cannot_be_shown_is_refused(escape: str) -> None:
    talk = in_transaction(Talk())
    assert talk.code(f"RCPT TO:<c@example.net> ORCPT=utf-8;a\\x{{{escape}}}@x") == "501 5.5.4"


@pytest.mark.parametrize(
    "kind",
    ["mail", "rcpt", "data", "chunk", "commit"],
)
@pytest.mark.parametrize("content", ["DATA\r\n\r\n.\r\n", "BDAT 2\r\n\r\nBDAT 0 LAST\r\n"])
def test_a_421_by_whoever_decides_ends_the_session(kind: str, content: str) -> None:
    talk = Talk(max_refusals=0, max_errors=0, decide=refuse(kind, 421, "4.3.2 going down"))
    said = talk.send(f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n{content}NOOP\r\n")
    assert (said[-1], talk.over) == ("421 4.3.2 going down", True)
    # The rest of the input must not reset the connection before the client has the 421.
    assert talk.session.discarding


# -- lines ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"EHLO a\x00b\r\n", "500 5.5.2"),
        (b"EHLO a\x1bb\r\n", "500 5.5.2"),
        (b"EHLO \xff\r\n", "500 5.5.2"),
        (b"EHLO\r\n", "501 5.5.4"),
        (b"EHLO a b\r\n", "501 5.5.4"),
        (b"EHLO [1.2.3]\r\n", "501 5.5.4"),
        (b"NOOP\nQUIT\r\n", "500 5.5.2"),
        (b"NOOP\rQUIT\r\n", "500 5.5.2"),
        (b"NOOP\r\r\n", "500 5.5.2"),
        (b"x" * 3000 + b"\r\n", "500 5.5.6"),
        (b"\r\n", "500 5.5.1"),
        (b" NOOP\r\n", "500 5.5.1"),
        (b"RSET x\r\n", "501 5.5.4"),
        (b"QUIT x\r\n", "501 5.5.4"),
        (b"NOOP x y\r\n", "250 2.0.0"),
        (b"VRFY jane\r\n", "252 2.5.2"),
        (b"EXPN list\r\n", "502 5.5.1"),
        (b"HELP\r\n", "214 2.0.0"),
        (b"XYZZY\r\n", "502 5.5.1"),
    ],
)
@pytest.mark.parametrize("cut", [0, 1])
def test_a_line_is_a_command_or_is_refused_whole(octets: bytes, said: str, cut: int) -> None:
    talk = Talk()
    replies = talk.send(octets + b"NOOP\r\n", cut)
    assert [" ".join(r.split()[:2]) for r in replies] == [said, "250 2.0.0"]


def test_data_with_an_argument_is_501() -> None:
    assert Talk().code("DATA x") == "501 5.5.4"


def test_a_client_that_ends_lines_with_lf_is_told_at_once() -> None:
    talk = Talk()
    said = ["500 5.5.2 A line ends with CRLF, and holds no other CR or LF"]
    assert talk.send(b"EHLO x\n") == said
    assert talk.send(b"MAIL FROM:<>\n") == []
    assert talk.send(b"\r\nNOOP\r\n") == ["250 2.0.0 Ok"]


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST / HTTP/1.1", "CONNECT mx:25 HTTP/1.0"])
def test_a_browser_is_sent_away(line: str) -> None:
    talk = Talk()
    assert talk.send(line + "\r\nHost: mx\r\n") == ["421 4.7.0 This is SMTP, not HTTP"]


def test_an_endless_line_is_refused_once_and_not_kept() -> None:
    talk = Talk()
    assert talk.send(b"x" * 3000) == ["500 5.5.6 Line too long"]
    for _ in range(100):
        assert talk.send(b"x" * 10000) == []
        assert len(talk.session._buffer) <= 1
    assert talk.send(b"\r\nNOOP\r\n") == ["250 2.0.0 Ok"]


# -- limits ---------------------------------------------------------------------------


def test_errors_are_counted_and_then_cost_the_connection() -> None:
    talk = Talk(max_errors=3)
    assert talk.send("FOO\r\n" * 10)[-1] == "421 4.7.0 Too many errors"
    assert talk.over


def test_commands_that_lead_nowhere_are_counted() -> None:
    talk = Talk(max_idle_commands=5)
    said = talk.send("NOOP\r\n" * 10)
    assert (len(said), said[-1]) == (6, "421 4.7.0 Too many commands without a message")


def test_a_message_makes_room_for_more_commands() -> None:
    talk = Talk(max_idle_commands=5)
    for _ in range(5):
        talk.send("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n.\r\n")
    assert (len(talk.contents), talk.over) == (5, False)


def test_refused_addresses_are_counted() -> None:
    talk = Talk(max_refusals=3, decide=refuse("rcpt", 550, "5.1.1 no"))
    talk.send("EHLO x\r\nMAIL FROM:<>\r\n")
    said = talk.send("RCPT TO:<a@example.org>\r\n" * 10)
    assert said[-1] == "421 4.7.0 Too many refused addresses"


ENVELOPE = "MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\n"


@pytest.mark.parametrize(
    ("commands", "method", "what"),
    [
        ("MAIL FROM:<> SIZE=1001\r\n", "", "addresses"),
        ("MAIL FROM:<>\r\n", "mail", "addresses"),
        (ENVELOPE + "DATA\r\n", "data", "messages"),
        (ENVELOPE + "BDAT 1 LAST\r\nx", "data", "messages"),
        (ENVELOPE + "DATA\r\nhello\r\n.\r\n", "chunk", "messages"),
        (ENVELOPE + "DATA\r\nhello\r\n.\r\n", "commit", "messages"),
        (ENVELOPE + "BDAT 1 LAST\r\nx", "commit", "messages"),
        (ENVELOPE + "DATA\r\n" + "x" * 1001 + "\r\n.\r\n", "", "messages"),
    ],
)
def test_a_session_in_which_everything_is_refused_ends(
    commands: str, method: str, what: str
) -> None:
    talk = Talk(max_refusals=3, max_size=1000, decide=refuse(method, 550, "5.7.1 no"))
    talk.send("EHLO x\r\n")
    said = [line for _ in range(10) for line in talk.send(commands)]
    refusals = [line for line in said if line[:3] in {"550", "552"}]
    assert (len(refusals), said[-1]) == (4, f"421 4.7.0 Too many refused {what}")


def test_recipients_above_the_limit_are_counted_until_a_message_is_accepted() -> None:
    talk = Talk(max_recipients=2)
    talk.send("EHLO x\r\n")
    for _ in range(3):
        talk.send("MAIL FROM:<>\r\n" + "RCPT TO:<a@example.org>\r\n" * 22)
        assert not talk.over
        talk.send("DATA\r\n.\r\n")
    said = talk.send("MAIL FROM:<>\r\n" + "RCPT TO:<a@example.org>\r\n" * 30)
    assert (said[22], said[23:]) == (
        "452 4.5.3 Too many recipients",
        ["452 4.5.3 Too many recipients", "421 4.5.3 Too many recipients"],
    )


def test_the_101st_recipient_of_100_gets_452() -> None:
    talk = Talk(max_recipients=100)
    talk.send("EHLO x\r\nMAIL FROM:<>\r\n")
    said = talk.send("".join(f"RCPT TO:<u{n}@example.org>\r\n" for n in range(101)))
    assert (said[99], said[100]) == ("250 2.0.0 Ok", "452 4.5.3 Too many recipients")


def test_messages_of_a_session_are_limited_where_that_is_said() -> None:
    talk = Talk(max_messages=1)
    talk.send("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n.\r\n")
    assert talk.code("MAIL FROM:<>") == "421 4.7.0"


# -- DATA -----------------------------------------------------------------------------


def data(talk: Talk, content: bytes, cut: int = 0) -> list[str]:
    in_transaction(talk)
    talk.send(b"DATA\r\n")
    return talk.send(content, cut)


LOOK_ALIKES = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\r\n\0.\r\n"]


@pytest.mark.parametrize("end", LOOK_ALIKES)
@pytest.mark.parametrize("cut", [0, 1])
def test_only_crlf_dot_crlf_ends_the_content(end: bytes, cut: int) -> None:
    """A message with a look-alike is refused, and what follows it is never run."""
    talk = Talk()
    smuggled = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nx\r\n.\r\n"
    said = data(talk, b"hello" + end + smuggled, cut)
    assert [line[:9] for line in said] == ["550 5.6.0"]
    assert (talk.called("mail"), talk.contents) == (1, [])


@pytest.mark.parametrize("end", LOOK_ALIKES)
def test_where_it_is_asked_for_such_a_message_is_repaired(end: bytes) -> None:
    talk = Talk(repair=True)
    data(talk, b"hello" + end + b"MAIL FROM:<evil@example.org>\r\n.\r\n")
    (content,) = talk.contents
    assert talk.called("mail") == 1
    bare = content.replace(b"\r\n", b"")
    assert [mark for mark in (b"\r", b"\n", b"\0") if mark in bare] == []


def test_a_content_may_be_empty_and_start_with_a_dot() -> None:
    talk = Talk()
    assert data(talk, b".\r\n") == ["250 2.0.0 Ok"]
    data(talk, b"..\r\n..a\r\n.\r\n", 1)
    assert talk.contents == [b"", b".\r\n.a\r\n"]


@pytest.mark.parametrize("cut", [0, 1, 7, 4096])
def test_a_content_that_is_too_large_is_read_to_its_end_and_refused(cut: int) -> None:
    talk = Talk(max_size=1000)
    said = data(talk, b"x" * 98 + b"\r\n" + b"y" * 1000 + b"\r\n.\r\nNOOP\r\n", cut)
    assert said == ["552 5.3.4 The message is larger than 1000 octets", "250 2.0.0 Ok"]
    assert (talk.contents, talk.called("abort")) == ([], 1)


def test_a_content_without_end_costs_the_connection() -> None:
    talk = Talk(max_size=1000)
    in_transaction(talk)
    talk.send(b"DATA\r\n")
    for _ in range(40):
        talk.send(b"x" * 65536)
    assert talk.over


def test_a_header_without_end_is_refused() -> None:
    talk = Talk(max_header=100)
    assert data(talk, b"A: " + b"x" * 200 + b"\r\n.\r\n")[0][:9] == "552 5.3.4"
    assert data(talk, b"A: x\r\n\r\n" + b"x" * 200 + b"\r\n.\r\n") == ["250 2.0.0 Ok"]


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(
    ("size", "code"),
    [(99, "250 2.0.0"), (100, "250 2.0.0"), (101, "552 5.3.4"), (102, "552 5.3.4")],
)
def test_the_limit_of_the_header_is_exact(size: int, code: str, cut: int) -> None:
    talk = Talk(max_header=100)
    header = b"A: " + b"x" * (size - 5) + b"\r\n"
    assert data(talk, header + b"\r\nbody\r\n.\r\n", cut)[0][:9] == code


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("start", [b"", b"A: b\r\n", b"A: b\r\n c\r\n"])
def test_what_is_no_field_begins_the_body(start: bytes, cut: int) -> None:
    """However long it is, and whatever it looks like."""
    talk = Talk(max_header=100, max_hops=0)
    body = b"a line of text\r\n" * 20 + b"Received: x\r\n"
    assert data(talk, start + body + b".\r\n", cut) == ["250 2.0.0 Ok"]


def test_a_message_with_too_many_hops_is_refused() -> None:
    hops = b"Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    talk = Talk()
    assert data(talk, hops * 101 + b"\r\n.\r\n")[0][:9] == "554 5.4.6"
    assert data(talk, hops * 100 + b"\r\nReceived: in the body\r\n.\r\n") == ["250 2.0.0 Ok"]


def test_a_refusal_while_content_comes_is_told_at_its_end() -> None:
    talk = Talk(decide=refuse("chunk", 554, "5.7.1 spam"))
    in_transaction(talk)
    assert talk.send(b"DATA\r\nsome") == ["354 End with CRLF, dot, CRLF"]
    assert talk.send(b" more\r\n.\r\n") == ["554 5.7.1 spam"]
    assert talk.contents == []


def test_the_end_of_the_octets_in_data_commits_nothing() -> None:
    talk = Talk()
    data(talk, b"half a message\r\n")
    assert (talk.contents, talk.called("commit")) == ([], 0)


# -- BDAT -----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 5])
def test_chunks_make_one_content(cut: int) -> None:
    talk = in_transaction(Talk())
    said = talk.send(b"BDAT 4\r\n.\r\n\rBDAT 0\r\nBDAT 3 LAST\r\n\n.\nNOOP\r\n", cut)
    assert [line[:9] for line in said] == ["250 2.0.0", "250 2.0.0", "550 5.6.0", "250 2.0.0"]
    talk = in_transaction(Talk())
    talk.send(b"BDAT 4\r\n.\r\n\rBDAT 0\r\nBDAT 4 LAST\r\n\n.\r\nNOOP\r\n", cut)
    assert talk.contents == [b".\r\n\r\n.\r\n"]


def test_binarymime_takes_every_octet_and_needs_bdat() -> None:
    talk = in_transaction(Talk(), " BODY=BINARYMIME")
    assert talk.code("DATA") == "503 5.5.1"
    assert talk.send(b"BDAT 6 LAST\r\na\r\0\nb\r") == ["250 2.0.0 Ok"]
    assert talk.contents == [b"a\r\0\nb\r"]


@pytest.mark.parametrize("cut", [0, 1])
def test_a_chunk_out_of_order_is_consumed_and_never_read_as_commands(cut: int) -> None:
    talk = Talk()
    said = talk.send(b"EHLO x\r\nBDAT 14 LAST\r\nMAIL FROM:<>\r\nNOOP\r\n", cut)
    assert [line[:9] for line in said[-2:]] == ["503 5.5.1", "250 2.0.0"]
    assert talk.called("mail") == 0


def test_a_refused_chunk_is_consumed_and_the_transaction_is_over() -> None:
    talk = Talk(decide=refuse("data", 451, "4.3.0 no"))
    in_transaction(talk)
    said = talk.send(b"BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert [line[:9] for line in said] == ["451 4.3.0", "503 5.5.1", "250 2.0.0"]
    assert talk.code("MAIL FROM:<>") == "250 2.0.0"


@pytest.mark.parametrize("argument", ["", "x", "-1", "1 FIRST", "9" * 30, "1 LAST x"])
def test_a_bdat_that_cannot_be_read_costs_the_connection(argument: str) -> None:
    """Where its chunk ends nobody knows."""
    talk = in_transaction(Talk())
    said = talk.send(f"BDAT {argument}\r\nMAIL FROM:<>\r\n")
    assert ([line[:3] for line in said], talk.over) == (["501", "421"], True)


def test_chunks_beyond_the_size_are_refused() -> None:
    talk = in_transaction(Talk(max_size=10))
    said = talk.send(b"BDAT 8\r\naaaaaaaaBDAT 8\r\nbbbbbbbbBDAT 2 LAST\r\ncc")
    assert [line[:9] for line in said] == ["250 2.0.0", "552 5.3.4", "503 5.5.1"]


def test_a_monstrous_chunk_costs_the_connection_at_once() -> None:
    talk = in_transaction(Talk(max_size=10))
    assert talk.send(b"BDAT 999999999999\r\n")[0][:9] == "552 5.3.4"
    assert talk.over


def test_many_tiny_chunks_are_bounded() -> None:
    talk = in_transaction(Talk(max_chunks=5))
    said = talk.send(b"BDAT 1\r\nx" * 6)
    assert said[-1] == "552 5.3.4 The message comes in more than 5 chunks"


def test_bdat_where_it_is_not_offered_is_consumed() -> None:
    talk = in_transaction(Talk(extensions=("PIPELINING",)))
    assert [line[:9] for line in talk.send(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")] == [
        "502 5.5.1",
        "250 2.0.0",
    ]


# -- LMTP ------------------------------------------------------------------------------


def lmtp(decide: Decide = lambda method: None) -> Talk:
    talk = Talk(lmtp=True, decide=decide)
    talk.send("LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n")
    return talk


def test_lmtp_gives_a_verdict_for_each_recipient() -> None:
    verdicts = [Reply(250, ("2.0.0 a has it",)), Reply(452, ("4.2.2 b is full",))]
    talk = lmtp(lambda method: verdicts if method == "commit" else None)
    talk.send("DATA\r\n")
    assert talk.send(".\r\n") == ["250 2.0.0 a has it", "452 4.2.2 b is full"]


def test_a_421_for_one_recipient_of_lmtp_ends_the_session_after_all_verdicts() -> None:
    verdicts = [Reply(421, ("4.3.2 going down",)), Reply(250, ("2.0.0 ok",))]
    talk = lmtp(lambda method: verdicts if method == "commit" else None)
    assert talk.send("DATA\r\n.\r\nNOOP\r\n")[1:] == ["421 4.3.2 going down", "250 2.0.0 ok"]
    assert (talk.over, talk.session.discarding) == (True, True)


def test_lmtp_says_one_verdict_for_all_as_often_as_there_are_recipients() -> None:
    talk = lmtp()
    assert talk.send("DATA\r\n.\r\n") == [
        "354 End with CRLF, dot, CRLF",
        "250 2.0.0 Ok",
        "250 2.0.0 Ok",
    ]
    talk = lmtp()
    assert len(talk.send(b"DATA\r\nbare\n\r\n.\r\n")) == 3


# -- laws ------------------------------------------------------------------------------

SCRIPT = (
    b"EHLO x\r\nMAIL FROM:<a@example.org> BODY=8BITMIME\r\nRCPT TO:<b@example.net>\r\n"
    b"DATA\r\nA: b\r\n\r\n..dot\r\n\xff\r\n.\r\nFOO\r\nbad\nline\r\n"
    b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nBDAT 3\r\na\r\nBDAT 4 LAST\r\n.\r\n\r"
    b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nbare\n\r\n.\r\nVRFY x\r\nQUIT\r\n"
)


@given(st.lists(st.integers(1, 40)))
def test_any_cutting_of_the_octets_gives_the_same_session(cuts: list[int]) -> None:
    whole, cut = Talk(), Talk()
    assert cut.send(SCRIPT, cuts) == whole.send(SCRIPT)
    assert (cut.contents, list(cut.session.transcript)) == (
        whole.contents,
        list(whole.session.transcript),
    )


WORDS = st.sampled_from(
    [
        b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n",
        b"DATA\r\n", b".\r\n", b"\r\n.\r\n", b"BDAT 3\r\n", b"BDAT 3 LAST\r\n", b"abc", b"RSET\r\n",
        b"STARTTLS\r\n", b"AUTH PLAIN\r\n", b"AUTH LOGIN AA==\r\n", b"*\r\n", b"AGEAYg==\r\n",
        b"NOOP\r\n", b"\0", b"\r", b"\n", b"\xff", b" ", b"x" * 3000, b"QUIT\r\n",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(WORDS, st.binary(max_size=20))), st.integers(0, 30), st.booleans())
def test_whatever_comes_gives_replies_and_nothing_else(
    words: list[bytes], cut: int, tls: bool
) -> None:
    """No exception, only well-formed replies, a bounded buffer, and never two contents for one."""
    talk = Talk(SECURE, tls=tls, require_auth=False, require_tls=False)
    for line in talk.send(b"".join(words), cut):
        assert line[:3].isdigit()
        assert line[3] in " -"
    assert len(talk.contents) <= talk.called("mail")


@pytest.mark.parametrize("state", list(ServerState), ids=lambda s: s.name)
def test_every_state_but_the_last_leads_somewhere(state: ServerState) -> None:
    ways = {to for (start, _), to in SERVER_TABLE.items() if start is state}
    # The end of the handshake is told by tls_started, and is no command.
    final = {ServerState.CLOSED, ServerState.HANDSHAKE}
    assert bool(ways) is (state not in final)
