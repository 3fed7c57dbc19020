"""The image recipe and the compose file of examples/oci, as far as a machine without a container engine can try them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ports import free_port
from tests.postgresql import PostgreSQL, as_owner, new_folder, programs, why_not
from tests.scenarios.peers import require
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
OCI = ROOT / "examples/oci"
COMPOSE: dict[str, Any] = yaml.safe_load((OCI / "compose.yaml").read_text("utf-8"))
SECRETS = {"POSTGRES_PASSWORD": "of the relays", "REPLICATION_PASSWORD": "of the standby"}


def test_every_file_that_the_compose_file_names_is_there() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (OCI / source).is_file(), (name, source)
                assert mode == ["ro"]
            else:
                assert source in COMPOSE["volumes"]
            assert target.startswith("/")
        for each in service.get("depends_on", ()):
            assert "healthcheck" in COMPOSE["services"][each]
        for secret in service.get("secrets", ()):
            assert secret in COMPOSE["secrets"]
        if "build" in service:
            context = (OCI / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()


def test_the_relays_use_the_databases_and_ports_that_there_are() -> None:
    configuration = (OCI / "relay.toml").read_text("utf-8")
    services = COMPOSE["services"]
    hosts = re.search(r"postgresql://relay@([\w,]+)/mail", configuration)
    assert hosts is not None
    assert set(hosts[1].split(",")) == {name for name in services if name.startswith("db")}
    inside = {p.split(":")[-1] for name in ("relay1", "relay2") for p in services[name]["ports"]}
    assert inside == set(re.findall(r'endpoint = "tcp:(\d+)"', configuration))
    (exposed,) = re.findall(r"^EXPOSE (.*)$", (OCI / "Containerfile").read_text(), re.MULTILINE)
    assert set(exposed.split()) == inside
    names = re.search(r"names = \[(.*)\]", configuration)
    assert names is not None
    assert {services[n]["hostname"] for n in ("relay1", "relay2")} == set(
        re.findall(r'"(.*?)"', names[1])
    )


def test_the_recipe_installs_extras_and_starts_programs_that_there_are() -> None:
    recipe = (OCI / "Containerfile").read_text("utf-8")
    extras = re.search(r"/src\[([\w,]+)\]", recipe)
    assert extras is not None
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    for extra in extras[1].split(","):
        assert f"\n{extra} =\n" in setup
    instructions = re.findall(r"^([A-Z]+) ", recipe, re.MULTILINE)
    assert instructions[0] == "FROM"
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT"} <= set(instructions)
    assert '"twistd", "--nodaemon", "--pidfile=", "sendmail"' in recipe


class Machines:
    """The containers of the databases, as processes of this machine."""

    def __init__(self) -> None:
        self.primary = PostgreSQL()
        self.folder = new_folder()
        self.port = free_port()
        self.standby: subprocess.Popen[bytes] | None = None
        where = programs()
        assert where is not None
        self.path = f"{where}:{os.environ['PATH']}"

    def start(self) -> None:
        """Do what the entry points of the images do."""
        self.primary.start()
        script = shutil.copy(OCI / "database/primary.sh", self.primary.folder / "primary.sh")
        environment = {
            "PATH": self.path,
            "PGHOST": str(self.primary.folder),
            "PGPORT": str(self.primary.port),
            "PGDATA": str(self.primary.data),
            **SECRETS,
        }
        subprocess.run(["sh", str(script)], env=environment, check=True, **as_owner())
        # The tests let everybody in without a password; here the password counts.
        access = self.primary.data / "pg_hba.conf"
        (line,) = [
            each for each in access.read_text().splitlines() if each.endswith("all scram-sha-256")
        ]
        access.write_text(
            f"{line}\nhost all relay 127.0.0.1/32 scram-sha-256\nlocal all all trust\n"
            "host all postgres 127.0.0.1/32 trust\n"
        )
        self.primary.stop()
        self.primary.start()
        self._start_standby()

    def _start_standby(self) -> None:
        script = shutil.copy(OCI / "database/standby.sh", self.folder / "standby.sh")
        environment = {
            "PATH": self.path,
            "PGDATA": str(self.folder / "data"),
            "PRIMARY": f"host=127.0.0.1 port={self.primary.port}",
            "PGPASSWORD": SECRETS["REPLICATION_PASSWORD"],
        }
        own = ["-c", f"port={self.port}", "-c", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("wb") as log:
            self.standby = subprocess.Popen(
                ["sh", str(script), *own],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **as_owner(),
            )
        self.primary.wait_for_standby((self.folder / "log").read_text)

    def stop(self) -> None:
        """End both."""
        if self.standby is not None:
            self.standby.terminate()
            self.standby.wait(PATIENCE)
        self.primary.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def machines() -> Iterator[Machines]:
    require("PostgreSQL", why_not())
    made = Machines()
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_the_databases_start_and_the_relay_accepts_its_configuration(
    machines: Machines, tmp_path: Path
) -> None:
    text = (OCI / "relay.toml").read_text("utf-8")
    hosts = f"127.0.0.1:{machines.primary.port},127.0.0.1:{machines.port}"
    for old, new in (
        ("db1,db2", hosts),
        ("/var/lib/twisted_sendmail", str(tmp_path)),
        ("/run/secrets/smarthost", str(tmp_path / "password")),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "relay.toml").write_text(text)
    (tmp_path / "password").write_text("secret\n")
    twistd = Path(sys.executable).with_name("twistd")
    command = [
        str(twistd),
        "--nodaemon",
        "--pidfile=",
        "sendmail",
        "--config",
        f"{tmp_path}/relay.toml",
    ]
    migrate = [str(twistd.with_name("twisted-sendmail")), "queue", "migrate", *command[-2:]]
    environment = {**os.environ, "PGPASSWORD": SECRETS["POSTGRES_PASSWORD"]}
    for each in (migrate, [*command, "--check"]):
        done = subprocess.run(each, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        assert SECRETS["POSTGRES_PASSWORD"] not in done.stdout + done.stderr
    # It is on both.
    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'twisted_sendmail'"
    assert machines.primary.sql(query, database="mail")[0][0] > 3
    wrong = {**environment, "PGPASSWORD": "wrong"}
    done = subprocess.run(migrate, env=wrong, capture_output=True, text=True, check=False)
    assert done.returncode in {75, 78}
    assert "password authentication failed" in done.stderr
