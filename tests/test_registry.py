from __future__ import annotations

import builtins
import sys

import pytest

from muster.errors import MusterError, UsageError
from muster.importing import CodeError
from muster.registry import Registry, UnknownName


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def registry():
    """What a project file reaches as `own_plugins.plugins`."""
    made = Registry(
        "plugin",
        builtins={"json": "json:loads", "path": "pathlib:Path", "broken": "no_such_module:x"},
        aliases={"folder": "path"},
    )
    module = type(sys)("own_plugins")
    module.plugins = made
    sys.modules["own_plugins"] = module
    return made


@pytest.fixture
def folder(tmp_path):
    """`folder(name, file=code, …)` is a folder of project files."""

    def make(name="plugins", **files):
        path = tmp_path / name
        path.mkdir(parents=True)
        for stem, code in files.items():
            (path / f"{stem}.py").write_text("from own_plugins import plugins\n" + code)
        return path

    return make


def first(target=None):
    return 1


def second(target=None):
    return 2


# --- code ---------------------------------------------------------------------------------------


def test_registered_in_code(registry):
    assert registry.register("mine", first) is first
    assert registry.get("mine") is first
    entry = registry.describe("mine")
    assert (entry.source, entry.location) == ("code", f"{__name__}:first")


def test_registered_by_decorator(registry):
    @registry.register("deco")
    class Made:
        pass

    assert registry.get("deco") is Made
    assert Made.__name__ == "Made"


def test_a_taken_name_must_be_overridden(registry):
    registry.register("mine", first)
    registry.register("mine", first)  # the same again is no conflict
    with pytest.raises(UsageError, match='"mine" is registered already; override=True replaces'):
        registry.register("mine", second)
    registry.register("mine", second, override=True)
    assert registry.get("mine") is second


@pytest.mark.parametrize("name", ["json", "folder"])
def test_built_ins_are_overridden_only_explicitly(registry, name):
    with pytest.raises(UsageError, match=f'"{name}" is a built-in plugin.*override=True'):
        registry.register(name, first)
    assert registry.get(name) is not first
    assert registry.is_builtin(name)

    @registry.register(name, override=True)
    def mine():
        """In its place."""

    assert registry.get(name) is mine
    assert not registry.is_builtin(name)
    assert registry.describe(name).source == "code"
    registry.unregister(name)
    assert registry.is_builtin(name)


@pytest.mark.parametrize("name", ["", "a:b", 3, None])
def test_names_that_are_none(registry, name):
    with pytest.raises(UsageError, match="cannot name a plugin"):
        registry.register(name, first)


def test_what_is_no_factory(registry):
    with pytest.raises(UsageError, match='factory of plugin "x" is not callable: 3'):
        registry.register("x", 3)


# --- built-ins, aliases, dotted paths -----------------------------------------------------------


def test_built_ins_and_aliases(registry):
    import json
    from pathlib import Path

    assert registry.get("json") is json.loads
    assert registry.get("folder") is Path
    assert registry.canonical("folder") == "path"
    assert registry.describe("folder").name == "path"
    assert "json" in registry
    assert "folder" in registry
    assert "jsno" not in registry
    with pytest.raises(CodeError, match="no_such_module"):
        registry.get("broken")


def test_a_dotted_path_where_the_name_stands(registry, tmp_path):
    (tmp_path / "own_factory.py").write_text("def make(target): return target\n")
    made = registry.get("own_factory:make", search=tmp_path)
    assert made(5) == 5
    assert registry.describe("own_factory:make", search=tmp_path).source == "dotted path"
    with pytest.raises(CodeError, match=r'has no "mkae".*near: make'):
        registry.get("own_factory:mkae", search=tmp_path)


def test_an_unknown_name_says_what_is_known_and_near(registry):
    registry.register("myprovider", first)
    with pytest.raises(UnknownName) as caught:
        registry.get("myprovidr")
    assert str(caught.value) == (
        'unknown plugin "myprovidr" — did you register it? '
        "(near: myprovider; known: broken, json, myprovider, path)"
    )
    with pytest.raises(UnknownName, match=r"did you register it\? \(known: broken"):
        registry.get("zzz")
    with pytest.raises(UnknownName, match="near: folder"):
        registry.get("foldr")
    assert isinstance(caught.value, MusterError)


# --- project files ------------------------------------------------------------------------------


def test_project_files(registry, folder):
    path = folder(
        one="@plugins.register('a')\ndef make(target): return 'a'\n",
        two="plugins.register('b', lambda target: 'b')\nplugins.register('c', print)\n",
        _helper="raise RuntimeError('not a plugin: it begins with an underscore')\n",
    )
    scoped = registry.for_project([path])
    assert scoped.failures == []
    assert (scoped.get("a")(None), scoped.get("b")(None)) == ("a", "b")
    assert scoped.describe("c").source == "project"
    assert scoped.describe("c").location == str(path / "two.py")
    assert "a" in scoped
    # The project's names are the project's alone.
    assert "a" not in registry
    with pytest.raises(UnknownName):
        registry.for_project([]).get("a")


def test_a_project_file_that_fails_is_named_and_the_rest_load(registry, folder):
    path = folder(
        a_fine="plugins.register('a', print)\n",
        b_broken="\nplugins.register('half', print)\n1/0\n",
        c_syntax="def (\n",
        d_exits="import sys\nsys.exit('no licence')\n",
        e_empty="",
        f_takes="plugins.register('json', print)\n",
        g_twice="plugins.register('a', len)\n",
        h_fine="plugins.register('h', print)\n",
    )
    scoped = registry.for_project([path])
    assert scoped.get("a") is scoped.get("h") is print
    told = [line.removeprefix(f"{path}/") for line in scoped.failures]
    assert told[0] == "b_broken.py:4: ZeroDivisionError: division by zero"
    assert told[1].startswith("c_syntax.py:2: SyntaxError: ")
    assert told[2] == "d_exits.py:3: SystemExit: no licence"
    assert told[3].startswith("e_empty.py: registers no plugin; it should call muster.register(")
    assert told[4].startswith('f_takes.py:2: UsageError: "json" is a built-in plugin')
    assert told[5].startswith('g_twice.py:2: UsageError: plugin "a" is registered already, by ')
    assert told[5].endswith("a_fine.py")
    assert len(told) == 6
    with pytest.raises(UnknownName) as caught:
        scoped.get("half-done")
    assert f"not loaded:\n  {path}/b_broken.py:4: ZeroDivisionError" in str(caught.value)
    assert "half" not in scoped  # what fails half-way has registered nothing


def test_a_project_file_registers_for_its_own_registry_only(registry, folder, monkeypatch):
    other = Registry("gadget")
    monkeypatch.setattr(builtins, "gadgets", other, raising=False)
    path = folder(x="plugins.register('x', print)\ngadgets.register('y', print)\n")
    scoped = registry.for_project([path])
    assert scoped.failures == [
        f'{path}/x.py:3: UsageError: a file in .muster/plugins cannot register the gadget "y"; '
        "it belongs into a file in .muster/gadgets"
    ]
    assert "x" not in scoped
    assert "y" not in other


def test_a_project_may_override_a_built_in_when_it_says_so(registry, folder):
    path = folder(mine="plugins.register('json', print, override=True)\n")
    scoped = registry.for_project([path])
    assert scoped.get("json") is print
    assert not scoped.is_builtin("json")
    assert registry.is_builtin("json")


def test_the_nearest_folder_keeps_its_names(registry, folder):
    near = folder(
        "near", x="plugins.register('x', max)\nplugins.register('json', max, override=True)\n"
    )
    far = folder(
        "far",
        x="plugins.register('x', min)\nplugins.register('json', min, override=True)\n",
        y="plugins.register('x', sum)\nplugins.register('y', min)\n",
    )
    scoped = registry.for_project([near, far])
    assert scoped.failures == []
    assert (scoped.get("x"), scoped.get("json"), scoped.get("y")) == (max, max, min)


def test_code_goes_before_project_files(registry, folder):
    registry.register("x", first)
    scoped = registry.for_project([folder(x="plugins.register('x', max)\n")])
    assert scoped.get("x") is first
    registry.register("later", second)
    assert scoped.get("later") is second


def test_a_file_may_replace_what_it_registered_itself(registry, folder):
    path = folder(
        x="plugins.register('x', max)\n",
        y="plugins.register('x', min, override=True)\n",
    )
    scoped = registry.for_project([path])
    assert (scoped.get("x"), scoped.failures) == (min, [])


def test_safe_runs_no_code(registry, folder, tmp_path):
    marker = tmp_path / "ran"
    path = folder(x=f"open({str(marker)!r}, 'w')\nplugins.register('x', print)\n")
    scoped = registry.for_project([path], safe=True)
    assert not marker.exists()
    with pytest.raises(UnknownName):
        scoped.get("x")
    with pytest.raises(MusterError, match=r'--safe refuses the plugin "json:loads"'):
        scoped.get("json:loads")
    assert callable(scoped.get("json"))


# --- installed packages -------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with entry points, as pip leaves it."""
    site = tmp_path / "site"
    info = site / "own_package-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[muster.plugins]\n"
        "packaged = own_package_code:make\n"
        "json = own_package_code:make\n"
        "failing = own_package_code:gone\n"
        "crashing = own_package_crash:make\n"
        "[muster.others]\n"
        "elsewhere = own_package_code:make\n"
    )
    (site / "own_package_code.py").write_text("def make(target): return 'packaged'\n")
    (site / "own_package_crash.py").write_text("\nraise OSError('no device')\n")
    monkeypatch.syspath_prepend(str(site))
    return site


def test_entry_points_of_installed_packages(installed, registry):
    assert registry.get("packaged")(None) == "packaged"
    entry = registry.describe("packaged")
    assert (entry.source, entry.location) == ("package", "own_package_code:make")
    assert "packaged" in registry
    assert "elsewhere" not in registry


def test_entry_points_do_not_replace_built_ins(installed, registry):
    import json

    assert registry.get("json") is json.loads
    assert registry.is_builtin("json")


def test_project_files_and_code_go_before_entry_points(installed, registry, folder):
    scoped = registry.for_project([folder(x="plugins.register('packaged', max)\n")])
    assert scoped.get("packaged") is max
    registry.register("packaged", min)
    assert scoped.get("packaged") is min


def test_an_entry_point_that_fails_names_the_package(installed, registry):
    with pytest.raises(
        CodeError, match=r'plugin "failing" of the package own-package fails to import: .*gone'
    ):
        registry.get("failing")
    with pytest.raises(CodeError, match=r"own_package_crash\.py:2: OSError: no device"):
        registry.get("crashing")


def test_safe_loads_no_package(installed, registry):
    scoped = registry.for_project([], safe=True)
    with pytest.raises(UnknownName):
        scoped.get("packaged")
    assert "packaged" not in scoped
    assert "own_package_code" not in sys.modules


def test_entries_lists_all_and_imports_nothing(installed, registry, folder):
    scoped = registry.for_project([folder(x="plugins.register('x', max)\n")])
    registry.register("mine", first)
    found = {entry.name: entry.source for entry in scoped.entries()}
    assert list(found) == sorted(found)
    assert found == {
        "broken": "built-in",
        "crashing": "package",
        "failing": "package",
        "json": "built-in",
        "mine": "code",
        "packaged": "package",
        "path": "built-in",
        "x": "project",
    }
    assert "own_package_code" not in sys.modules
