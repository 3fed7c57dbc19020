"""`twisted-sendmail trace`: the route of a message as a table, JSON, a graph and a drawing."""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import termios
from fcntl import ioctl
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from tests.cli.shell import COMMAND, Shell, read_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADERS = Path(__file__).parents[1] / "received" / "headers"
DOCS = Path(__file__).parents[2] / "docs"
NAMES = sorted(path.stem for path in HEADERS.glob("*.txt"))
HOSTILE = (
    'Received: from \x1b[2Ja (\x1b]0;x\x07 [192.0.2.1]) by "<&\'>\\" with ESMTPS\x9b id \u202e1\uffff\n'
    " for <script>alert(1)</script>; Mon, 5 Jan 2026 10:00:00 +0000\n"
    "Received: from b\x1bc by c\x1bc (d\x1bc) with e\x1bc via f\x1bc; g\x1bc\n"
    "Authentication-Results: h\x1bc; spf=pass\nDelivered-To: i\x1bc\n"
    "Received: (qmail 1 invoked by \x1bc); Mon, 5 Jan 2026 11:00:00 +0000\n\n"
).encode("utf-8", "surrogateescape")


def header(name: str) -> str:
    return str(HEADERS / f"{name}.txt")


def drawn(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - the command's own output


def on_terminal(shell: Shell, width: int, *words: str, **env: str) -> str:
    """Run the command on a terminal with *width* columns; what it shows."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with Popen(
        [COMMAND, *words], stdout=theirs, env={**shell.env, "TERM": "xterm-256color", **env}
    ) as process:
        os.close(theirs)
        seen = read_terminal(ours)
    os.close(ours)
    assert process.returncode == 0
    return seen.decode()


def test_the_route_is_a_table_without_colours_if_there_is_no_terminal(shell: Shell) -> None:
    done = shell.run_now("trace", header("skew-and-gap"))
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split() for line in lines[:1] + lines[2:5]] == [
        ["#", "delay", "server,", "client,", "date", "with"],
        ["1", "-", "mail.example.com", "ESMTPSA"],
        ["from", "ws", "([10.1.1.1])", "TLS"],
        ["2026-03-22", "12:00:00", "UTC", "id", "1"],
    ]
    assert done.out.endswith(
        "\n\n3 hops in 5 s\n"
        "clock skew: hop 2 is dated 3597 s before hop 1: the clock of mail.example.com is ahead, or that of\n"
        "edge.example.net is behind\n"
        "missing link: no field shows how the message came from mail.example.com to mta.other.example\n"
        "([192.0.2.21])\n"
    )


def test_each_delay_has_a_bar_as_long_as_its_part_of_the_longest(shell: Shell) -> None:
    shell.write(
        "delays",
        b"Received: by e.example; Mon, 5 Jan 2026 10:00:25 +0000\n"
        b"Received: by d.example; Mon, 5 Jan 2026 10:00:25 +0000\n"
        b"Received: by c.example; Mon, 5 Jan 2026 10:00:17 +0000\n"
        b"Received: by b.example; Mon, 5 Jan 2026 10:00:01 +0000\n"
        b"Received: by a.example; Mon, 5 Jan 2026 10:00:00 +0000\n",
    )
    for encoding, bars in (
        ("utf-8", ["", "▊", "████████████", "██████", ""]),
        ("ascii", ["", "#", "############", "######", ""]),
    ):
        out = shell.run_now("trace", "delays", PYTHONIOENCODING=encoding).out
        rows = [line for line in out.splitlines() if ".example" in line]
        assert [re.sub(r"[^█▊#]", "", row) for row in rows] == bars


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_fits_the_terminal_and_has_colours(shell: Shell, width: int) -> None:
    shown = on_terminal(shell, width, "trace", header("exchange-online"))
    assert "\x1b[1m" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert max(len(line) for line in plain.splitlines()) <= width
    together = re.sub(r"\s", "", plain)
    for text in ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "2026-03-0614:00:05UTC", "2hopsin1s"):
        assert text in together
    quiet = on_terminal(shell, width, "trace", header("exchange-online"), NO_COLOR="1")
    assert "\x1b[3" not in quiet


def test_other_trace_fields_stand_at_the_server_that_added_them(shell: Shell) -> None:
    out = shell.run_now("trace", header("gmail")).out
    first, second, third = re.split(r"^\d  .*\n", out, flags=re.MULTILINE)[1:]
    assert "Delivered-To" not in first + second
    assert "ARC-Authentication-Results: dkim=pass spf=pass" in second
    assert "Delivered-To: frank@example.com" in third


@pytest.mark.parametrize("option", [(), ("--json",), ("--dot",), ("--svg",)])
def test_nothing_in_a_header_reaches_the_terminal_unescaped(
    shell: Shell, option: tuple[str, ...]
) -> None:
    done = shell.run_now("trace", *option, "-", stdin=HOSTILE)
    assert (done.status, done.err) == (0, "")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.out)
    assert "<script>" not in done.out or option != ("--svg",)
    if option == ("--svg",):
        drawn(done.out)


@pytest.mark.parametrize("name", NAMES)
def test_every_output_holds_every_hop(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from twisted_sendmail.cli.main import main

    def output(*options: str) -> str:
        assert main(["trace", *options, header(name)]) == 0
        return capsys.readouterr().out

    route = json.loads(output("--json"))
    expected = (HEADERS / f"{name}.txt").read_text("utf-8").partition("\n\n")[2].splitlines()
    hops = len(route["hops"])
    assert hops + len(route["findings"]) == len(expected)
    table, dot, drawing = output(), output("--dot"), drawn(output("--svg"))
    for finding in route["findings"]:
        assert "".join(finding["text"].split()) in "".join(table.split())
    assert [n for n in range(1, hops + 1) if not re.search(rf"^{n} ", table, re.MULTILINE)] == []
    assert len(re.findall(r'label="(\d+): ', dot)) in {hops, hops - 1}
    numbers = [e.text for e in drawing.iter() if e.get("class") == "number"]
    assert numbers == [str(n) for n in range(1, hops + 1)]


def test_the_drawing_needs_nothing_else(shell: Shell) -> None:
    out = shell.run_now("trace", "--svg", header("postfix")).out
    drawing = drawn(out)
    assert (drawing.get("width"), "prefers-color-scheme: dark" in out) == ("800", True)
    assert re.findall(r"https?://[^\"]*", out) == ["http://www.w3.org/2000/svg"]
    kinds = {element.tag.rpartition("}")[2] for element in drawing.iter()}
    assert kinds == {"svg", "title", "style", "clipPath", "rect", "text", "circle", "line"}


def test_a_loop_is_a_loop_in_the_graph(shell: Shell) -> None:
    assert shell.run_now("trace", "--dot", header("loop")).out == (
        "digraph trace {\n"
        "  rankdir=LR;\n"
        '  node [shape=box, style=rounded, fontname="sans-serif"];\n'
        '  edge [fontname="sans-serif", fontsize=10];\n'
        '  n0 [label="www ([10.0.0.3])"];\n'
        '  n1 [label="a.example.org"];\n'
        '  n2 [label="b.example.net"];\n'
        '  n0 -> n1 [label="1: -\\nESMTP"];\n'
        '  n1 -> n2 [label="2: 1 s\\nESMTP"];\n'
        '  n2 -> n1 [label="3: 1 s\\nESMTP"];\n'
        "}\n"
    )


def test_the_reference_lists_the_names_of_the_json(shell: Shell) -> None:
    page = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    section = page.partition("### The JSON of trace\n")[2].partition("\n## ")[0]
    rows = [
        re.findall(r"`([a-z_]+)`", row)
        for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    ]
    written = {name for row in rows for name in row}
    route = shell.run_now("trace", "--json", header("postfix")).json
    hop = route["hops"][0]
    assert written == {*route, *hop} - {"zone_assumed"}
    described = set(re.findall(r"`([a-z_]+)`", section))
    parts = {*hop["from"], *hop["tls"], *route["hops"][1]["notes"][0], "problem", "text"}
    assert {"zone_assumed", *parts} - described == set()


def test_the_body_is_not_read(shell: Shell) -> None:
    """A command that pipes a large message in may not have to write all of it."""
    with Popen([COMMAND, "trace"], stdin=-1, stdout=-1, env=shell.env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\nReceived: by mx.example.org\n\nbody")
        process.stdin.flush()
        assert b"mx.example.org" in process.stdout.read()


@pytest.mark.parametrize(
    ("words", "status", "held"),
    [
        ("absent", 66, "the message absent cannot be read: No such file"),
        (".", 66, "the message . cannot be read: Is a directory"),
        ("empty", 65, "the message empty is empty"),
        ("-", 65, "the message is empty"),
        ("message.eml", 65, "the message has no Received field"),
        ("--json message.eml", 65, "the message has no Received field"),
        ("--json --svg message.eml", 64, "not allowed with argument"),
    ],
)
def test_each_mistake_is_one_line_and_a_status(
    shell: Shell, words: str, status: int, held: str
) -> None:
    shell.write("empty", b"\r\n\n")
    done = shell.run_now("trace", *words.split())
    assert (done.status, done.out, len(done.err.splitlines())) == (status, "", 1)
    assert held in done.err


def blocks(language: str) -> Iterator[str]:
    text = (DOCS / "how-to" / "trace-a-message.md").read_text("utf-8")
    return (
        match[1]
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    )


def test_the_commands_of_the_page_print_what_it_shows(shell: Shell) -> None:
    shell.write("message.eml", PAGE_MESSAGE)
    shell.env["PATH"] = f"{Path(COMMAND).parent}:{shell.env['PATH']}"
    (shown,) = blocks("text")
    printed: list[Any] = []
    for block in blocks("sh"):
        done = shell.line(f"cd {shell.folder} && {block}")
        assert (done.returncode, done.stderr) == (0, b"")
        printed.append(done.stdout.decode())
    assert printed == [shown, shown, "", "", ""]
    assert json.loads((shell.folder / "route.json").read_text())["duration"] == 429.0
    assert (shell.folder / "route.svg").read_text().startswith("<svg")
    assert (shell.folder / "route.dot").read_text().startswith("digraph")


PAGE_MESSAGE = b"""Return-Path: <alice@example.net>
Authentication-Results: mx.example.org; dkim=pass header.d=example.net; spf=pass smtp.mailfrom=example.net
Received: from mail.example.net (mail.example.net [192.0.2.10])
	(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))
	by mx.example.org (Postfix) with ESMTPS id 4bX1yT2Z8kz
	for <bob@example.org>; Tue, 3 Feb 2026 10:22:09 +0100 (CET)
Received: from laptop.home (dyn-17.isp.example [198.51.100.17])
	(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))
	by mail.example.net (Postfix) with ESMTPSA id 5C0FE2A1B3;
	Tue, 3 Feb 2026 09:15:01 +0000 (UTC)
Date: Tue, 03 Feb 2026 10:15:00 +0100
From: alice@example.net

Hello.
"""
