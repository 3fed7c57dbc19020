"""Measure what one message costs a local program: the ``sendmail`` command beside those of others.

python sendmail_command.py [--messages 30] [--only ours,msmtp] [--dma /usr/sbin/dma]

Each line has the median CPU time (user and system, of the command and the processes that it waits
for), the median of the real time, and the largest memory of one process.

* ``python``: the interpreter alone, which does nothing.
* ``ours``: ``twisted-sendmail-sendmail``; the message is on the disk when it ends.  ``ours-t`` takes the
  recipients from the header.
* ``msmtp``: submits to a server of this process over the loopback interface, without TLS.
* ``postfix``: Postfix's ``sendmail`` and ``postdrop``; needs root, for a queue of its own.
* ``dma``: puts the message into a spool of its own, and delivers later; needs root.

Rounds are interleaved.  ``time`` of GNU is needed.  A program that is not installed, or cannot be used, is left out.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted_sendmail.drop import DropSettings, write_settings
from twisted_sendmail.testing import BackgroundServer

MESSAGE = b"To: bob@example.net\nSubject: a message\n\n" + b"A line of a message of 2 KB.\n" * 68
BIN = Path(sys.executable).parent

POSTFIX = """\
compatibility_level = 3.6
queue_directory = {0}/queue
data_directory = {0}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mta.example.org
alias_maps =
alias_database =
"""


def ours(folder):
    (folder / "drop").mkdir()
    (folder / "drop").chmod(0o3733)
    settings = DropSettings(
        str(folder),
        str(folder / "queue"),
        *("relay.example.org",) * 3,
        message_size=50 << 20,
        header_size=256 << 10,
        recipients=1000,
        hops=100,
    )
    write_settings(settings)
    return [BIN / "twisted-sendmail-sendmail", f"-OQueueDirectory={folder}", "-i"]


def postfix(folder):
    program = shutil.which("postfix", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None or os.geteuid():
        return None
    (folder / "main.cf").write_text(POSTFIX.format(folder))
    (folder / "master.cf").write_text("pickup unix n - n 60 1 pickup\n")
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    (folder / "queue").mkdir()
    subprocess.run([program, "-c", folder, "check"], check=True, capture_output=True)
    return [Path(program).parent / "sendmail", "-C", folder, "-i"]


def dma(folder, program):
    if not Path(program).exists() or os.geteuid() or shutil.which("unshare") is None:
        return None
    (folder / "etc").mkdir()
    (folder / "spool").mkdir()
    shutil.chown(folder / "spool", group="mail")
    (folder / "spool").chmod(0o2775)
    (folder / "etc/dma.conf").write_text("DEFER\nSMARTHOST 127.0.0.1\n")
    for path in ("/etc/dma", "/var/spool/dma"):
        if not Path(path).is_dir():
            return None
    mounts = f"mount --bind {folder}/etc /etc/dma && mount --bind {folder}/spool /var/spool/dma"
    # The shell of the namespace measures the program, not itself.
    return ["unshare", "-m", "sh", "-c", f'{mounts} && exec {program} "$@"', "sh", "-i"]


def commands(only, folder, server, dma_program):
    """The command lines, by name, without recipients."""

    def made(name):
        path = folder / name
        path.mkdir()
        path.chmod(0o755)
        return path

    msmtp = shutil.which("msmtp")
    known = {
        "python": lambda: [sys.executable, "-c", "pass"],
        "ours": lambda: ours(made("ours")),
        "ours-t": lambda: [*ours(made("ours-t")), "-t"],
        "msmtp": lambda: (
            msmtp
            and [msmtp, "--host=127.0.0.1", f"--port={server.port}", "--from=alice@example.org"]
        ),
        "postfix": lambda: postfix(made("postfix")),
        "dma": lambda: dma(made("dma"), dma_program),
    }
    found = {}
    for name in only or known:
        command = known[name]()
        if command is None:
            print(f"without {name}: it is not installed, or cannot be used here", file=sys.stderr)
        else:
            found[name] = [str(word) for word in command]
    return found


def measured(command):
    """CPU seconds, real seconds and kilobytes of one message."""
    read, write = os.pipe()
    os.write(write, MESSAGE)
    os.close(write)
    # A process begins with the memory of the one that started it: that must be a small one.
    small = ["/usr/bin/time", "-q", "-f", "%M"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*small, *command], stdin=read, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    os.close(read)
    errors = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command}: exit status {process.returncode}: {errors.decode()}")
    return usage.ru_utime + usage.ru_stime, taken, int(errors.split()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=30)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--dma", default=shutil.which("dma") or "/usr/sbin/dma")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, BackgroundServer() as server:
        folder = Path(directory)
        folder.chmod(0o755)
        programs = commands(args.only, folder, server, args.dma)
        results = {name: [] for name in programs}
        for command in programs.values():
            measured([*command, "bob@example.net"])
        for _ in range(args.messages):
            for name, command in programs.items():
                results[name].append(measured([*command, "bob@example.net"]))
    print("| program | CPU ms | real ms | MB |\n|---|--:|--:|--:|")
    for name, rounds in results.items():
        cpu, real = (statistics.median(each[n] for each in rounds) * 1000 for n in (0, 1))
        memory = max(each[2] for each in rounds) / 1024
        print(f"| {name} | {cpu:.0f} | {real:.0f} | {memory:.1f} |")


if __name__ == "__main__":
    main()
