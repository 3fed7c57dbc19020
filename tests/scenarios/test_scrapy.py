"""Spiders of a real Scrapy, in processes of their own, crawl a local site and send mail."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.peers import python_of
from twisted_sendmail.testing import BackgroundServer, faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSWORD = "kein-Wort-davon-42"
PAGE = "<div class=product><b>Café</b><i>3.50</i></div><div class=product><b>Tea</b><i>2</i></div>"
# A spider with one request, in the settings' own terms.
SPIDER = """
import os, scrapy
from twisted_sendmail.scrapy import MailSender

class Plain(scrapy.Spider):
    name = "plain"
    custom_settings = {settings!r}
    if "PASSWORD" in os.environ:
        custom_settings["MAIL_PASS"] = os.environ["PASSWORD"]
    start_urls = [{site!r}]

    def parse(self, response):
        {parse}
"""


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Nothing."""


@contextmanager
def web_site() -> Iterator[str]:
    """Serve one page; yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def crawl(folder: Path, spider: str, *arguments: str, **environment: str) -> str:
    """Run a spider to its end; the log."""
    done = subprocess.run(
        [python_of("scrapy"), "-m", "scrapy", "runspider", spider, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_spider_on_asyncio_mails_its_prices_and_its_statistics(tmp_path: Path) -> None:
    with web_site() as site, BackgroundServer(users={"ci": PASSWORD}) as server:
        log = crawl(
            tmp_path,
            str(EXAMPLES / "price_spider.py"),
            *("-a", f"site={site}", "-a", "recipient=Bob Straße <bob@example.test>"),
            MAIL_URL=server.url.replace("://", "://ci@"),
            MAIL_CA_FILE=server.ca_file,
            TWISTED_SENDMAIL_PASSWORD=PASSWORD,
        )
        messages = {str(each.recipients[0]): each for each in server.messages}
    assert "AsyncioSelectorReactor" in log
    assert {each.user for each in messages.values()} == {"ci"}
    assert sorted(messages) == ["bob@example.test", "ops@example.test"]
    prices, stats = messages["bob@example.test"].email, messages["ops@example.test"].email
    assert str(messages["bob@example.test"].sender) == "spider@example.test"
    assert (prices["To"], prices["Subject"]) == ("Bob Straße <bob@example.test>", "2 prices")
    assert prices["Date"]
    assert prices["Message-ID"]
    text, table = prices.iter_parts()
    assert text.get_content() == "The table is attached.\r\n"
    assert (table.get_filename(), table.get_content_type()) == ("prices.csv", "text/csv")
    assert table.get_content() == "name,price\r\nCafé,3.50\r\nTea,2\r\n"
    assert stats["Subject"] == "Scrapy stats for: prices"
    assert f"{'item_scraped_count':<50} : 2" in stats.get_content()
    assert log.count("Mail sent OK: ") == 2
    assert "Traceback" not in log
    assert "returned a Deferred, this is deprecated" not in log
    assert PASSWORD not in log


def plain_spider(
    folder: Path, site: str, settings: Mapping[str, object], parse: str = "pass"
) -> str:
    path = folder / "plain.py"
    path.write_text(SPIDER.format(site=site, parse=parse, settings=dict(settings)), "utf-8")
    return str(path)


STATS: dict[str, object] = {
    "EXTENSIONS": {"twisted_sendmail.scrapy.StatsMailer": 500},
    "STATSMAILER_RCPTS": ["ops@example.test", "Ann <ann@example.test>"],
}


def test_the_settings_of_scrapy_alone_send_to_a_server_on_this_machine(tmp_path: Path) -> None:
    with web_site() as site, BackgroundServer(tls=False) as server:
        spider = plain_spider(
            tmp_path, site, {"MAIL_HOST": "localhost", "MAIL_PORT": server.port, **STATS}
        )
        crawl(tmp_path, spider)
        (message,) = server.messages
    assert [str(each) for each in message.recipients] == ["ops@example.test", "ann@example.test"]
    assert str(message.sender) == "scrapy@localhost"


def test_a_body_has_the_type_and_charset_that_the_spider_gives(tmp_path: Path) -> None:
    parse = (
        "yield MailSender.from_crawler(self.crawler).send(['a@example.test'], 'Grüße', '<p>Grüße', "
        "cc='b@example.test, c@example.test', mimetype='text/html', charset='latin-1') and {}"
    )
    with web_site() as site, BackgroundServer(users={"ci": PASSWORD}) as server:
        url = server.tls_url.replace("://", "://ci@")
        spider = plain_spider(tmp_path, site, {"MAIL_URL": url}, parse)
        # The CAs of the system are those of OpenSSL, which takes them from this file instead.
        crawl(tmp_path, spider, SSL_CERT_FILE=server.ca_file, PASSWORD=PASSWORD)
        (message,) = server.messages
    assert [str(each) for each in message.recipients] == [
        "a@example.test",
        "b@example.test",
        "c@example.test",
    ]
    assert message.user == "ci"
    email = message.email
    assert (email["Subject"], email["Cc"]) == ("Grüße", "b@example.test, c@example.test")
    assert (email.get_content_type(), email.get_content_charset()) == ("text/html", "iso-8859-1")
    assert email.get_content() == "<p>Grüße\r\n"


def test_statistics_that_cannot_be_mailed_are_one_line_in_the_log(tmp_path: Path) -> None:
    refuse = faults.refuse("RCPT", "550 5.1.1 no such user")
    with web_site() as site, BackgroundServer(tls=False, faults=[refuse]) as server:
        log = crawl(tmp_path, plain_spider(tmp_path, site, {"MAIL_PORT": server.port, **STATS}))
    (error,) = [each for each in log.splitlines() if "Unable to send mail" in each]
    assert "Subject='Scrapy stats for: plain'" in error
    assert "550 5.1.1 no such user" in error
    assert "Traceback" not in log
    assert "Spider closed (finished)" in log


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"MAIL_URL": f"smtps://ci:{PASSWORD}@h/x"}, "server URL 'smtps://…@h…' cannot be used"),
        ({"MAIL_URL": "smtps://ci@mail.example.net"}, "there is no password for ci"),
    ],
)
def test_a_setting_that_cannot_be_used_disables_the_extension_with_one_line(
    tmp_path: Path, settings: dict[str, object], line: str
) -> None:
    with web_site() as site:
        log = crawl(tmp_path, plain_spider(tmp_path, site, STATS | settings))
    (warning,) = [each for each in log.splitlines() if "Disabled twisted_sendmail" in each]
    assert line in warning
    assert PASSWORD not in log


def test_without_a_reactor_the_extension_is_disabled_with_one_line(tmp_path: Path) -> None:
    with web_site() as site:
        spider = plain_spider(tmp_path, site, STATS)
        log = crawl(tmp_path, spider, "-s", "TWISTED_REACTOR_ENABLED=0")
    (warning,) = [each for each in log.splitlines() if "Disabled twisted_sendmail" in each]
    assert "mail needs a Twisted reactor: leave the setting TWISTED_REACTOR_ENABLED True" in warning


def test_without_scrapy_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['scrapy'] = None; import twisted_sendmail.scrapy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: twisted_sendmail.scrapy cannot be used: ")
    assert error.endswith("; install it with: pip install 'twisted_sendmail[scrapy]'")
