"""`python` and `javascript`: functions, files, and code that is given as text."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from children import all_gone, pids_in
from muster.errors import ConfigError
from program_parts import ask, bound

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on PATH")

MODULE = """
import asyncio, threading
import muster

def bool_(context): return context.output == "The answer."
def number(context): return 0.25
def score(context): return muster.Score(0.5, (muster.Assertion("seen", True),))
def mapping(output, context): return {"pass": True, "score": 0.9, "reason": context["vars"]["v"]}
async def later(context):
    await asyncio.sleep(0)
    return True
async def never(context): await asyncio.sleep(60)
def thread(context):
    return {"score": 1, "details": {"main": threading.current_thread() is threading.main_thread()}}
def raises(context): raise ValueError("broken")
def nothing(context): pass
def too_much(context): return 11
def three(a, b, c): return True
CONSTANT = 5

class Callable:
    def __call__(self, context): return 1
instance = Callable()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_grading.py").write_text(MODULE)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("bool_", 1),
        ("number", 0.25),
        ("score", 0.5),
        ("mapping", 0.9),
        ("later", 1),
        ("instance", 1),
    ],
)
async def test_functions_by_dotted_path_and_in_files(name, score, folder):
    for value in (f"my_grading:{name}", f"file://my_grading.py:{name}", f"my_grading.py:{name}"):
        graded = await ask({"type": "python", "value": value}, folder, vars={"v": "it is"})
        assert (graded.error, graded.score) == (None, score)


async def test_a_file_of_the_projects_graders_and_the_usual_names(folder):
    (folder / ".muster" / "graders").mkdir(parents=True)
    path = folder / ".muster" / "graders" / "short.py"
    path.write_text("def grade(context): return len(context.output) < 20")
    assert (await ask({"type": "python", "value": "short.py"}, folder)).score == 1
    path.write_text("def get_assert(output, context): return len(output) > 200")
    assert (await ask({"type": "python", "value": "short.py"}, folder)).score == 0


@pytest.mark.parametrize(("thread", "main"), [(False, True), (True, False)])
async def test_on_a_thread_if_asked_for(thread, main, folder):
    entry = {"type": "python", "value": "my_grading:thread", "thread": thread}
    assert (await ask(entry, folder)).rows[0].details == {"main": main}


async def test_a_thread_keeps_nobody_waiting(folder):
    (folder / "waiting.py").write_text(
        "import threading\nevent = threading.Event()\ndef grade(context): return event.wait(10)"
    )
    entry = {"type": "python", "value": "waiting.py", "thread": True}
    task = asyncio.create_task(ask(entry, folder))
    await asyncio.sleep(0.01)
    from muster.evals.graders.python import _loaded

    _loaded[(folder / "waiting.py").resolve()][1].event.set()
    assert (await task).score == 1
    assert threading.active_count() < 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "my_grading.py:15: ValueError: broken"),
        ("nothing", "it returned nothing"),
        ("too_much", "returned the score 11"),
    ],
)
async def test_what_fails_is_an_error(name, message, folder):
    assert message in (await ask({"type": "python", "value": f"my_grading:{name}"}, folder)).error


async def test_an_async_function_has_a_time(folder):
    entry = {"type": "python", "value": "my_grading:never", "timeout_seconds": 0.05}
    assert "it took more than 0.05 s" in (await ask(entry, folder)).error


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"value": "my_grading:nowhere"}, 'has no "nowhere"'),
        ({"value": "no_such_module:f"}, 'no module "no_such_module"'),
        ({"value": "file://nowhere.py"}, "there is no file"),
        ({"value": "nowhere.py"}, "nor one in .muster/graders"),
        ({"value": "file://../outside.py"}, "outside the project"),
        ({"value": "my_grading.py"}, "has no function grade or get_assert"),
        ({"value": "my_grading:three"}, r"called as \(context\) or as \(output, context\)"),
        ({"value": "my_grading:CONSTANT"}, "which is no function"),
        ({"value": "True", "thread": True}, "needs no thread"),
        ({"value": " "}, "value"),
    ],
)
def test_wrong_settings_are_told(entry, message, folder):
    with pytest.raises(ConfigError, match=message):
        bound({"type": "python", **entry}, folder)


@pytest.mark.parametrize(
    ("code", "score"),
    [
        ("len(output) < 20", 1),
        ("0.5 if 'answer' in output else 0", 0.5),
        ("{'pass': True, 'score': 0.9, 'reason': context['vars']['v']}", 0.9),
        ("\n    words = output.split()\n    return len(words) / 4\n", 0.5),
        ("print('noise')\nreturn context['config']['limit'] == 3", 1),
    ],
)
async def test_python_as_text(code, score, tmp_path):
    entry = {"type": "python", "value": code, "config": {"limit": 3}}
    graded = await ask(entry, tmp_path, vars={"v": "it is"})
    assert (graded.error, graded.score) == (None, score)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "it returned nothing; does its last line begin with `return`?"),
        ("import os\nos._exit(0)", "wrote nothing to standard output"),
        ("object()", "not JSON serializable"),
    ],
)
async def test_python_as_text_that_fails(code, message, tmp_path):
    assert message in (await ask({"type": "python", "value": code}, tmp_path)).error


async def test_python_as_text_has_a_time_and_leaves_nothing(tmp_path):
    code = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    entry = {"type": "python", "value": code, "timeout_seconds": 0.7}
    assert "took more than 0.7 s" in (await ask(entry, tmp_path)).error
    assert await all_gone(await pids_in(tmp_path / "pid", 1))


@needs_node
@pytest.mark.parametrize(
    ("code", "score"),
    [
        ("output.length < 20", 1),
        ("0.5", 0.5),
        ("({pass: true, score: 0.9, reason: context.vars.v})", 0.9),
        ("{ pass: false, score: 0.9 }", 0),
        ("console.log('noise'); return output.includes('answer')", 1),
        ("const n = await Promise.resolve(0.25); return n", 0.25),
        ("file://one.js", 0.25),
        ("file://many.mjs:half", 0.5),
    ],
)
async def test_javascript(code, score, tmp_path):
    (tmp_path / "one.js").write_text("module.exports = async (output, context) => 0.25;")
    (tmp_path / "many.mjs").write_text("export const half = () => 0.5;")
    entry = {"type": "javascript", "value": code}
    graded = await ask(entry, tmp_path, vars={"v": "it is"})
    assert (graded.error, graded.score) == (None, score)


@needs_node
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("nowhere.x", "ReferenceError"),
        ("return (", "SyntaxError"),
        ("let x = 1", "it returned nothing"),
        ("process.exit(0)", "wrote nothing"),
        ("file://one.js:nowhere", "exports no such function"),
        ("while (true) {}", "took more than 1 s"),
    ],
)
async def test_javascript_that_fails(code, message, tmp_path):
    (tmp_path / "one.js").write_text("module.exports = {};")
    entry = {"type": "javascript", "value": code, "timeout_seconds": 1}
    assert message in (await ask(entry, tmp_path)).error


def test_without_node_the_run_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no `node` on PATH"):
        bound({"type": "javascript", "value": "true"}, tmp_path)


async def test_a_threshold_is_the_score_it_passes_from(tmp_path):
    entry = {"type": "python", "value": "0.5", "threshold": 0.5}
    assert (await ask(entry, tmp_path)).rows[0].verdict == "pass"
