from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muster.importing import CodeError, import_file, load_object


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch):
    """Modules and paths that a test adds are gone after it; no stale byte code between tests."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


# --- dotted paths -------------------------------------------------------------------------------


def test_loads_an_attribute():
    assert load_object("pathlib:Path") is Path
    assert load_object("pathlib:Path.home")() == Path.home()


def test_modules_in_the_search_folder_come_first(tmp_path):
    (tmp_path / "own_agent.py").write_text("ANSWER = 42\n")
    assert load_object("own_agent:ANSWER", search=tmp_path) == 42


def test_modules_of_one_name_in_two_folders_are_two(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "own_agent.py").write_text(f"import own_helper\nANSWER = {name!r}\nRUNS = []\n")
        (folder / "own_helper.py").write_text("")
    one = load_object("own_agent:ANSWER", search=tmp_path / "one")
    two = load_object("own_agent:ANSWER", search=tmp_path / "two")
    assert (one, two) == ("one", "two")
    # Each is run once, however often it is named.
    runs = load_object("own_agent:RUNS", search=tmp_path / "two")
    assert load_object("own_agent:RUNS", search=tmp_path / "two") is runs
    assert load_object("own_agent:ANSWER", search=tmp_path / "one") == "one"


def test_the_search_folder_comes_before_folders_searched_earlier(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own_late.py").write_text(f"ANSWER = {name!r}\n")
        (tmp_path / name / f"own_{name}.py").write_text("")
    load_object("own_one:__name__", search=tmp_path / "one")
    load_object("own_two:__name__", search=tmp_path / "two")
    assert load_object("own_late:ANSWER", search=tmp_path / "one") == "one"


def test_a_file_with_the_name_of_a_standard_module(tmp_path):
    import json

    (tmp_path / "json.py").write_text("ANSWER = 'mine'\n")
    assert load_object("json:ANSWER", search=tmp_path) == "mine"
    assert sys.modules["json"] is json


@pytest.mark.parametrize("spec", ["", "module", "module:", ":name"])
def test_not_a_dotted_path(spec):
    with pytest.raises(CodeError, match=r"is not of the form package\.module:name"):
        load_object(spec)


def test_no_such_module(tmp_path):
    with pytest.raises(CodeError, match=r'^no module "no_such_thing" for "no_such_thing:x"') as e:
        load_object("no_such_thing:x", search=tmp_path)
    assert f"looked in {tmp_path}" in str(e.value)
    with pytest.raises(CodeError, match=r'no module "json\.no_such" for'):
        load_object("json.no_such:x")


def test_no_such_attribute_names_the_nearest():
    with pytest.raises(CodeError, match=r'module "pathlib" has no "Paht" \(near: Path\)'):
        load_object("pathlib:Paht")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("x = 1\nraise ValueError('no key')\n", r"own_broken\.py:2: ValueError: no key"),
        ("def f(:\n", r"own_broken\.py:1: SyntaxError"),
        ("import sys\n\nsys.exit(3)\n", r"own_broken\.py:3: SystemExit: 3"),
        ("import not_installed_at_all\n", r"own_broken\.py:1: ModuleNotFoundError: .*not_inst"),
    ],
)
def test_a_module_that_fails_says_where(tmp_path, code, told):
    (tmp_path / "own_broken.py").write_text(code)
    with pytest.raises(CodeError, match=rf'"own_broken:f" fails to import: .*{told}'):
        load_object("own_broken:f", search=tmp_path)


def test_one_of_two_modules_of_a_name_that_fails_says_where(tmp_path):
    (tmp_path / "json.py").write_text("\n1/0\n")
    with pytest.raises(
        CodeError, match=r'^"json:x" fails to import: .*json\.py:2: ZeroDivisionError'
    ):
        load_object("json:x", search=tmp_path)


# --- files --------------------------------------------------------------------------------------


def test_runs_a_file_whose_neighbours_are_importable(tmp_path):
    (tmp_path / "own_neighbour.py").write_text("NAME = 'next door'\n")
    (tmp_path / "a-plugin.py").write_text("from own_neighbour import NAME\n")
    before = list(sys.path)
    module = import_file(tmp_path / "a-plugin.py", name="_own_plugin")
    assert module.NAME == "next door"
    assert sys.modules["_own_plugin"] is module
    assert sys.path == before


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("x = 1\n\nraise ValueError('no key')\n", r"p\.py:3: ValueError: no key"),
        ("def f():\n    1/0\nf()\n", r"p\.py:2: ZeroDivisionError: division by zero"),
        ("import json\njson.loads('{')\n", r"p\.py:2: JSONDecodeError: "),
        ("x = (\n", r"p\.py:1: SyntaxError: "),
        ("raise SystemExit\n", r"p\.py:1: SystemExit$"),
        ("from nothing_like_it import x\n", r"p\.py:1: ModuleNotFoundError: "),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_a_file_that_fails_says_where(tmp_path, monkeypatch, code, told, relative):
    monkeypatch.chdir(tmp_path)
    path = Path("p.py") if relative else tmp_path / "p.py"
    path.write_text(code)
    before = list(sys.path)
    with pytest.raises(CodeError, match=told):
        import_file(path, name="_own_failing")
    assert "_own_failing" not in sys.modules
    assert sys.path == before


def test_not_a_python_file(tmp_path):
    with pytest.raises(CodeError, match=r"notes\.txt: not a Python file"):
        import_file(tmp_path / "notes.txt", name="_own_notes")
    with pytest.raises(CodeError, match=r"gone\.py: FileNotFoundError"):
        import_file(tmp_path / "gone.py", name="_own_gone")
