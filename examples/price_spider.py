"""A spider that mails what it found, and its statistics when it closes.

MAIL_URL=smtps://ci@mail.example.net MAIL_CA_FILE=… TWISTED_SENDMAIL_PASSWORD=… \
    scrapy runspider price_spider.py -a site=http://127.0.0.1:8000/ -a recipient=bob@example.test
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, ClassVar

import scrapy

from twisted_sendmail import SubmissionServer, TLSTrust
from twisted_sendmail.scrapy import MailSender

if TYPE_CHECKING:
    from collections.abc import Iterator


class PriceSpider(scrapy.Spider):
    """Collects the prices of a site."""

    name = "prices"
    custom_settings: ClassVar[dict[str, Any]] = {
        "TWISTED_REACTOR": "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
        # Scrapy writes MAIL_PASS to its log, and not this.
        "MAIL_URL": SubmissionServer.from_url(
            os.environ["MAIL_URL"],
            password=os.environ["TWISTED_SENDMAIL_PASSWORD"],
            trust=TLSTrust(ca_file=os.environ.get("MAIL_CA_FILE")),
        ),
        "MAIL_FROM": "Spider <spider@example.test>",
        "STATSMAILER_RCPTS": ["ops@example.test"],
        "EXTENSIONS": {"twisted_sendmail.scrapy.StatsMailer": 500},
    }

    def __init__(self, site: str, recipient: str) -> None:
        super().__init__()
        self.start_urls = [site]
        self.recipient = recipient
        self.rows: list[str] = []

    def parse(self, response: Any) -> Iterator[dict[str, str]]:
        """Take the price of each product on a page."""
        for product in response.css(".product"):
            row = {"name": product.css("b::text").get(), "price": product.css("i::text").get()}
            self.rows.append(f"{row['name']},{row['price']}\r\n")
            yield row

    def closed(self, reason: str) -> None:
        """Mail the prices; the process ends when the message was sent."""
        table = io.StringIO("".join(["name,price\r\n", *self.rows]))
        _ = MailSender.from_crawler(self.crawler).send(
            to=self.recipient,
            subject=f"{len(self.rows)} prices",
            body="The table is attached.\n",
            attachs=[("prices.csv", "text/csv", table)],
        )
