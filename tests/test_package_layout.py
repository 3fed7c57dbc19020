"""Rules of the package layout that no linter checks: packaging, imports, names, examples, pages."""

from __future__ import annotations

import ast
import importlib
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
# All files of the package; the __init__ files of its sub-packages; all others.
MODULES = sorted(PACKAGE.rglob("*.py"))
TOP = PACKAGE / "__init__.py"
INITS = [path for path in MODULES if path.name == "__init__.py" and path != TOP]
CODE = [path for path in MODULES if path not in INITS]


# Modules of an extra, with its name: their imports are not in this environment.
CONFIG = ConfigParser()
CONFIG.read(ROOT / "setup.cfg", "utf-8")
OPTIONAL = [PACKAGE / f"{extra}.py" for extra in CONFIG["options.extras_require"]]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), name_of(path))


def run_at_import(node: ast.AST) -> list[ast.AST]:
    """Return the nodes below *node* that run when the module is imported: not function bodies."""
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += [child, *run_at_import(child)]
    return found


def imported_at_import(path: Path) -> set[str]:
    """Return the dotted names that the module at *path* imports when it is imported."""
    names: set[str] = set()
    for node in run_at_import(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(twisted_sendmail.__file__).parent / "py.typed").read_bytes() == b""


def test_the_version_is_that_of_the_metadata() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    versions = (twisted_sendmail.__version__, version("twisted_sendmail"))
    assert versions == (config["metadata"]["version"],) * 2


def test_tox_has_an_environment_with_the_oldest_dependencies() -> None:
    config = ConfigParser()
    config.read([ROOT / "setup.cfg", ROOT / "tox.ini"], "utf-8")
    oldest = config["testenv:lowest"]["deps"].replace("==", ">=")
    assert config["options"]["install_requires"].split() == oldest.split()


def test_setuptools_ships_the_plugin_and_every_package() -> None:
    """`find_namespace:` finds the packages of the tree and `twisted.plugins`."""
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


def test_our_part_of_twisted_is_no_package_of_its_own() -> None:
    """An `__init__.py` under `twisted/` would hide Twisted itself."""
    files = sorted(name_of(path) for path in (ROOT / "twisted").rglob("*.py"))
    assert files == ["twisted/plugins/twisted_sendmail_plugin.py"]


def test_twistd_finds_the_plugin() -> None:
    (maker,) = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "sendmail"]
    assert issubclass(maker.options, Options)
    assert callable(maker.makeService)


def test_the_command_is_installed_and_loads() -> None:
    (command,) = entry_points(group="console_scripts", name="twisted-sendmail")
    assert command.value == "twisted_sendmail.cli.main:console"
    assert callable(command.load())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(tree(path))
    assert docstring, f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_the_reactor_when_it_is_imported(path: Path) -> None:
    """Importing `twisted.internet.reactor` installs a reactor, which is for the application to choose."""
    assert imported_at_import(path) & {"twisted.internet.reactor"} == set()


def test_importing_the_whole_package_installs_no_reactor() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in CODE
        if path not in OPTIONAL
    ]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    code += "print('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize("path", INITS, ids=name_of)
def test_an_init_file_has_only_a_docstring_and_re_exports(path: Path) -> None:
    statements = [
        inner
        for node in tree(path).body
        for inner in ([*node.body, *node.orelse] if isinstance(node, ast.If) else [node])
    ]
    kinds = {type(node) for node in statements}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}


@pytest.mark.parametrize("package", ["", ".drop", ".message", ".received", ".smtp"])
def test_a_package_imports_lazily_exactly_the_names_that_it_exports(package: str) -> None:
    """Each name is one that the type checker sees, and comes from the same module."""
    module = importlib.import_module(f"twisted_sendmail{package}")
    seen = {
        alias.name: node.module
        for node in ast.walk(tree(Path(str(module.__file__))))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(module.__name__ + ".")
        for alias in node.names
        if alias.name != "lazy_names"
    }
    assert sorted(seen) == sorted(module.__all__)
    for name, home in seen.items():
        assert getattr(module, name) is getattr(importlib.import_module(str(home)), name)
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = module.absent


def test_an_address_is_parsed_without_the_sessions_of_smtp() -> None:
    """Short programs need only a few modules."""
    code = (
        "import sys; from twisted_sendmail.smtp import Mailbox; Mailbox.parse('a@example.org')\n"
        "print(*sorted(name for name in sys.modules if name.startswith('twisted_sendmail.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = ["lazy_names", "smtp", "smtp.address", "smtp.errors", "smtp.escape", "smtp.limits"]
    assert done.stdout.split() == [f"twisted_sendmail.{name}" for name in modules]


@pytest.mark.parametrize("path", [path for path in MODULES if path != TOP], ids=name_of)
def test_the_package_does_not_import_its_own_public_names(path: Path) -> None:
    """Modules import a name from the package that defines it; the top package is for applications."""
    taken = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "twisted_sendmail"
        for alias in node.names
        if not (PACKAGE / alias.name).is_dir() and not (PACKAGE / f"{alias.name}.py").is_file()
    }
    assert taken == set()


def test_no_file_has_a_name_without_a_subject() -> None:
    forbidden = {"utils", "util", "helpers", "helper", "common", "misc"}
    everything = [*PACKAGE.rglob("*"), *(ROOT / "tests").rglob("*")]
    assert [name_of(path) for path in everything if path.stem in forbidden] == []


def test_packages_import_only_from_lower_layers() -> None:
    """The contracts of import-linter in setup.cfg hold."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_folder_of_tests_is_a_package() -> None:
    """Two files called `test_choice.py` may then live in two folders."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    bare = [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    assert bare == []


def test_every_example_is_run_by_a_test_and_included_by_a_page() -> None:
    """The file name of each example stands in a test and in a page of docs/."""
    examples = [path.name for path in (ROOT / "examples").glob("*.py")]
    here = Path(__file__)
    tests = "".join(
        path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py") if path != here
    )
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md"))
    unrun = [name for name in examples if name not in tests and Path(name).stem not in tests]
    unshown = [name for name in examples if f"examples/{name}" not in pages]
    assert (unrun, unshown) == ([], [])


def test_every_page_includes_files_that_exist() -> None:
    absent = []
    for page in (ROOT / "docs").rglob("*.md"):
        for line in io.StringIO(page.read_text("utf-8")):
            directive, _, target = line.partition(" ")
            if directive.endswith(("{literalinclude}", "{include}")):
                quoted = (page.parent / target.strip()).resolve()
                absent += [] if quoted.is_file() else [f"{name_of(page)}: {target.strip()}"]
    assert absent == []


def test_all_python_of_the_readme_is_in_an_example() -> None:
    """Each line of Python in README.md is a line of a file in `examples/`."""
    examples = {
        line.strip()
        for path in (ROOT / "examples").glob("*.py")
        for line in path.read_text("utf-8").splitlines()
    }
    blocks = (ROOT / "README.md").read_text("utf-8").split("```python\n")[1:]
    shown = [line.strip() for block in blocks for line in block.partition("```")[0].splitlines()]
    assert [line for line in shown if line not in examples] == []


def test_no_lazy_name_is_that_of_a_module_of_its_package() -> None:
    """The import of such a module would put the module in place of the name."""
    taken = {
        f"{path.parent.name}.{name}"
        for path in INITS
        for name in getattr(importlib.import_module(package_of(path)), "__all__", ())
        if (path.parent / f"{name}.py").is_file() and "lazy_names" in path.read_text("utf-8")
    }
    assert taken == set()


def package_of(path: Path) -> str:
    return ".".join(path.parent.relative_to(ROOT).parts)
