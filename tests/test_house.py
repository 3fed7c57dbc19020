"""The house keeps its own rules: facts of the layout that no linter watches."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.usage import Options

import twisted_sendmail

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "twisted_sendmail"
# Every file of the package; its sub-packages' __init__ files; and the rest, where the code is.
MODULES = sorted(PACKAGE.rglob("*.py"))
TOP = PACKAGE / "__init__.py"
INITS = [path for path in MODULES if path.name == "__init__.py" and path != TOP]
ROOMS = [path for path in MODULES if path not in INITS]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), named(path))


def run_at_import(node: ast.AST) -> list[ast.AST]:
    """Every node below *node* that runs when the module is imported: all but function bodies."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += [child, *run_at_import(child)]
    return found


def imported_at_import(path: Path) -> set[str]:
    """The dotted names that importing the module at *path* imports."""
    names: set[str] = set()
    for node in run_at_import(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_package_says_that_it_is_typed() -> None:
    assert b"" == (Path(twisted_sendmail.__file__).parent / "py.typed").read_bytes()


def test_the_version_is_the_one_of_the_metadata() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    said = config["metadata"]["version"]
    assert (said, said) == (twisted_sendmail.__version__, version("twisted_sendmail"))


def test_tox_tries_the_oldest_versions_that_the_metadata_allows() -> None:
    config = ConfigParser()
    config.read([ROOT / "setup.cfg", ROOT / "tox.ini"], "utf-8")
    oldest = config["testenv:lowest"]["deps"].replace("==", ">=")
    assert config["options"]["install_requires"].split() == oldest.split()


def test_setuptools_ships_the_plugin_and_every_package() -> None:
    """What `find_namespace:` finds is the packages of the tree and `twisted.plugins`."""
    code = (
        "from setuptools import Distribution; d = Distribution(); d.parse_config_files();"
        "print(*sorted(d.packages), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES}
    assert packages | {"twisted.plugins"} == set(done.stdout.split()), done.stderr


def test_twisted_is_a_portion_and_no_package() -> None:
    """An `__init__.py` under `twisted/` would hide Twisted itself."""
    held = sorted(named(path) for path in (ROOT / "twisted").rglob("*.py"))
    assert ["twisted/plugins/twisted_sendmail_plugin.py"] == held


def test_twistd_finds_the_plugin_and_what_it_names() -> None:
    (maker,) = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "sendmail"]
    assert issubclass(maker.options, Options)
    assert callable(maker.makeService)


def test_the_command_is_installed_and_loads() -> None:
    (command,) = entry_points(group="console_scripts", name="twisted-sendmail")
    assert "twisted_sendmail.cli.main:console" == command.value
    assert callable(command.load())


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_module_opens_with_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(tree(path))
    assert docstring, f"{named(path)} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_module_imports_the_reactor_when_it_is_imported(path: Path) -> None:
    """Importing `twisted.internet.reactor` installs one, and takes the choice from the application."""
    assert set() == imported_at_import(path) & {"twisted.internet.reactor"}


def test_importing_the_whole_package_installs_no_reactor() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOMS]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    code += "print('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ("False", "") == (done.stdout.strip(), done.stderr)


@pytest.mark.parametrize("path", INITS, ids=named)
def test_an_init_file_holds_a_docstring_and_re_exports(path: Path) -> None:
    kinds = {type(node) for node in tree(path).body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}


@pytest.mark.parametrize("path", [path for path in MODULES if path != TOP], ids=named)
def test_nothing_inside_imports_the_public_names(path: Path) -> None:
    """Inside, a name comes from the module that owns it; the top is for applications."""
    taken = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "twisted_sendmail"
        for alias in node.names
        if not (PACKAGE / alias.name).is_dir() and not (PACKAGE / f"{alias.name}.py").is_file()
    }
    assert set() == taken


def test_no_room_is_called_after_what_does_not_belong_anywhere() -> None:
    forbidden = {"utils", "util", "helpers", "helper", "common", "misc"}
    everything = [*PACKAGE.rglob("*"), *(ROOT / "tests").rglob("*")]
    assert [] == [named(path) for path in everything if path.stem in forbidden]


def test_the_arrows_go_down_only() -> None:
    """The contracts of import-linter in setup.cfg hold."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout


def test_every_folder_of_tests_is_a_package() -> None:
    """Two files called `test_choice.py` may then live in two folders."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    bare = [named(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    assert [] == bare


def test_every_example_is_run_by_a_test_and_shown_by_a_page() -> None:
    """`examples/NAME.py` is named in a test, and included by a page of docs/."""
    examples = [path.name for path in (ROOT / "examples").glob("*.py")]
    here = Path(__file__)
    tests = "".join(
        path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py") if path != here
    )
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    unrun = [name for name in examples if name not in tests and Path(name).stem not in tests]
    unshown = [name for name in examples if f"examples/{name}" not in pages]
    assert ([], []) == (unrun, unshown)


def test_every_page_quotes_files_that_exist() -> None:
    absent = []
    for page in (ROOT / "docs").rglob("*.md"):
        for line in io.StringIO(page.read_text("utf-8")):
            directive, _, target = line.partition(" ")
            if directive.endswith(("{literalinclude}", "{include}")):
                quoted = (page.parent / target.strip()).resolve()
                absent += [] if quoted.is_file() else [f"{named(page)}: {target.strip()}"]
    assert [] == absent


def test_the_readme_shows_only_what_the_examples_run() -> None:
    """Each line of Python in README.md stands in a file of `examples/`."""
    examples = {
        line.strip()
        for path in (ROOT / "examples").glob("*.py")
        for line in path.read_text("utf-8").splitlines()
    }
    blocks = (ROOT / "README.md").read_text("utf-8").split("```python\n")[1:]
    shown = [line.strip() for block in blocks for line in block.partition("```")[0].splitlines()]
    assert [] == [line for line in shown if line not in examples]
