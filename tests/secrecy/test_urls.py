"""No error about a URL contains its password, however the URL is misspelt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.forked import run_forked
from twisted_sendmail import InvalidInput, SubmissionServer

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-kein-Wort"
WRONG = [
    f"smtps:/u:{SECRET}@h",
    f"smtps:u:{SECRET}@h",
    f"smtp:u:{SECRET}@h",
    f"//u:{SECRET}@h",
    f"/u:{SECRET}@h",
    f"u:{SECRET}@h:port",
    f"SMTPS:/U:{SECRET}@h",
    f"SmTpS:///u:{SECRET}@h",
    f" smtps:/ u:{SECRET} @h",
    f"smtps://u:{SECRET} @h",
    f"smtps://u: {SECRET}@h",
    f"\tsmtps://u:{SECRET}@h\n",
    f"smtps://u:{SECRET}%40h",
    f"smtps://u:{SECRET}\uff20h",
    f"smtps://u:{SECRET}",
    f"u:{SECRET}",
    f"smtps://u:a@b/{SECRET}@h/x",
    f"smtps://u:12/{SECRET}@h",
    f"smtps://u:12?{SECRET}@h",
    f"smtps://u:12#{SECRET}@h",
    f"smtps://u:#{SECRET}@h",
    f"smtps://u:{SECRET}@[::1",
    f"smtps://[u:{SECRET}@::1]:465",
    f"smtps://[u:{SECRET}]",
    f"smtps://u:{SECRET}@[::g]",
    f"smtps://u:{SECRET}@h:99999",
    f"smtps://u:{SECRET}@h:port",
    f"smtps://u:{SECRET}@",
    f"smtps://h/?password={SECRET}",
    f"smtps://h/{SECRET}",
    f"smtps:\\\\u:{SECRET}@h",
    f"smtps;//u:{SECRET}@h",
    f"https://u:{SECRET}@h",
    f"smtps//u:{SECRET}@h",
    f"smtps://u:{SECRET}@h_%",
]


def shown(error: BaseException | None) -> str:
    """All that is to be seen of *error*, and of those that led to it."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("url", WRONG)
def test_no_error_of_a_url_shows_a_password(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SubmissionServer.from_url(url, credentials=None)

    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("url", WRONG)
def test_no_error_of_a_host_shows_a_password(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SubmissionServer(url)

    assert SECRET not in shown(caught.value)


@given(
    st.sampled_from(["smtps", "SMTP", "smtp+starttls", "http", ""]),
    st.sampled_from(["://", ":/", ":", "//", "/", ":///", ""]),
    st.text("abc:/@%[]?# ", max_size=6),
    st.sampled_from(["@", "%40", " @"]),
    st.text("abc.:/?#[]0159 ", max_size=6),
)
@example("smtps", ":/", "u:", "@", "h")
def test_nothing_before_the_at_sign_is_shown(
    scheme: str, colon: str, before: str, at: str, after: str
) -> None:
    url = f"{scheme}{colon}{before}{SECRET}{at}{after}"
    seen = ""
    try:
        server = SubmissionServer.from_url(url, credentials=None)
        seen = f"{server} {server!r}"
    except InvalidInput as error:
        seen = shown(error)

    assert SECRET not in seen


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("mail.example.net:587", "mail.example.net:587"),
        ("https://mail.example.net/", "https://mail.example.net…"),
        ("smtps:/u:x@mail.example.net:465", "smtps:/…@mail.example.net:465"),
        ("smtps://[2001:db8::1]/x", "smtps://[2001:db8::1]…"),
    ],
)
def test_what_is_no_secret_is_named(url: str, named: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be used") as caught:
        SubmissionServer.from_url(url)

    assert f"'{named}'" in str(caught.value)


SOME = [WRONG[0], WRONG[1], WRONG[3], WRONG[12].strip(), WRONG[14], WRONG[23], WRONG[28]]


def run(folder: Path, program: str, *words: str, **env: str) -> str:
    """Run a command that is to refuse; what it printed."""
    done = run_forked(
        program,
        *words,
        folder=folder,
        env={**os.environ, **env},
        stdin=b"To: b@example.net\r\n\r\nx\r\n",
    )
    text = done.stdout + done.stderr
    assert done.returncode not in {0, 70}, text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("url", SOME)
def test_the_command_shows_none(tmp_path: Path, url: str) -> None:
    texts = [
        run(tmp_path, "twisted-sendmail", "send", "--server", url),
        run(tmp_path, "twisted-sendmail", "send", TWISTED_SENDMAIL_SERVER=url),
        run(tmp_path, "twisted-sendmail", "check", url),
        run(tmp_path, "twisted-sendmail", url),
        run(tmp_path, "twisted-sendmail", "send", "--server", "h", "--tls", url),
        run(tmp_path, "twisted-sendmail", "send", "--server", "h", "--timeout", url),
        run(tmp_path, "twisted-sendmail", "send", "--server", "h", url),
    ]

    assert SECRET not in "".join(texts)


@pytest.mark.parametrize("url", SOME)
def test_the_relay_shows_none(tmp_path: Path, url: str) -> None:
    smarthost = f'queue = "q"\n[[smarthost]]\nurl = "{url}"\n'
    (tmp_path / "smarthost.toml").write_text(smarthost)
    (tmp_path / "listen.toml").write_text(f'queue = "q"\nlisten = ["{url}"]\n')
    texts = [
        run(tmp_path, "twistd", "sendmail", "--check", "--config", "smarthost.toml"),
        run(tmp_path, "twistd", "sendmail", "--check", "--config", "listen.toml"),
        run(tmp_path, "twistd", "sendmail", "--check", "--queue", "q", "--smarthost", url),
        run(tmp_path, "twistd", "sendmail", "--check", "--queue", "q", "--listen", url),
    ]

    assert SECRET not in "".join(texts)
