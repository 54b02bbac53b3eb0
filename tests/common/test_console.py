import ast
import errno
import io
import logging
import os
import warnings
from pathlib import Path

import click
import pytest
from tqdm import tqdm

from pipeline.common.console import LazyGroup, configure_output, note, progress_disabled, run_command
from pipeline.common.errors import ManifestError
from pipeline.common.files import write_csv


def code_of(action, arguments=()):
    @click.command()
    @click.option("--number", type=int)
    def command(number):
        return action()

    with pytest.raises(SystemExit) as stopped:
        run_command(command, list(arguments))
    return stopped.value.code


def raising(error):
    def action():
        raise error

    return action


def test_success_is_0_even_if_the_command_returns_something():
    assert code_of(lambda: None) == 0
    assert code_of(lambda: "text") == 0


def test_a_users_mistake_is_one_line_and_1(capsys):
    assert code_of(raising(ManifestError("clips.csv:3: bad\n  on two lines"))) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: clips.csv:3: bad on two lines\n"
    assert printed.out == ""


def test_wrong_options_are_2(capsys):
    assert code_of(lambda: None, ["--number", "x"]) == 2
    assert "Invalid value for '--number'" in capsys.readouterr().err
    assert code_of(lambda: None, ["--nonsense"]) == 2


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [(b"caf\xe9.mp4", "utf-8", rb"caf\udce9.mp4"), ("a…".encode(), "latin-1", rb"a\u2026")],
)
def test_a_name_that_cannot_be_shown_as_it_is_is_escaped(monkeypatch, name, encoding, shown):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr("sys.stdout", streams[0])
    monkeypatch.setattr("sys.stderr", streams[1])
    path = os.fsdecode(name)

    def action():
        click.echo(path)
        raise ManifestError(path)

    assert code_of(action) == 1
    for stream, line in zip(streams, (shown, b"error: " + shown), strict=True):
        stream.flush()
        assert stream.buffer.getvalue() == line + b"\n"


def test_streams_that_cannot_be_reconfigured_are_left_alone(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", None)
    assert code_of(lambda: click.echo("done")) == 0
    assert out.getvalue() == "done\n"


def test_ctrl_c_is_130(capsys):
    assert code_of(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_a_full_disk_is_no_traceback_but_a_fault_of_the_program_is(capsys):
    for number in (errno.EFBIG, errno.ENOSPC):
        assert code_of(raising(OSError(number, os.strerror(number), "/x/shard.tmp"))) == 1
        assert capsys.readouterr().err == f"error: /x/shard.tmp: {os.strerror(number)}\n"
    with pytest.raises(FileNotFoundError):
        code_of_unexpected(raising(FileNotFoundError(errno.ENOENT, "No such file", "a")))
    with pytest.raises(ZeroDivisionError):
        code_of_unexpected(lambda: 1 / 0)


def test_a_folder_where_a_file_is_to_be_written_is_no_traceback(tmp_path, capsys):
    (tmp_path / "taken.csv").mkdir()
    assert code_of(lambda: write_csv(tmp_path / "taken.csv", ("a",), [(1,)])) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'taken.csv'}: Is a directory\n"
    (tmp_path / "file").write_text("")
    assert code_of(lambda: write_csv(tmp_path / "file" / "rows.csv", ("a",), [(1,)])) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'}: File exists\n"


def test_a_disk_that_fills_up_names_the_file(tmp_path, capsys, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of a file number, with no name

    (tmp_path / "rows.csv").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    assert code_of(lambda: write_csv(tmp_path / "rows.csv", ("a",), [(1,)])) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'rows.csv'}: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert (tmp_path / "rows.csv").read_text() == "before"


def code_of_unexpected(action):
    run_command(click.Command("x", callback=action), [])


def test_help_is_0(capsys):
    assert code_of(lambda: None, ["--help"]) == 0
    assert "--number" in capsys.readouterr().out


def test_a_lazy_command_is_imported_when_asked_for():
    group = LazyGroup("g", commands_at={"one-thing": "tests.common.test_console:THING", "broken": "no.such.module:x"})
    context = click.Context(group)
    assert group.list_commands(context) == ["one-thing", "broken"]
    assert group.get_command(context, "one-thing") is THING
    assert group.get_command(context, "one_thing") is THING
    assert group.get_command(context, "other") is None


THING = click.Command("one-thing")


def calls_of(name, path):
    """Return the calls of a function in a file, also as an attribute of a module."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    called = [(node, node.func) for node in nodes if isinstance(node, ast.Call)]
    return [node for node, function in called if name in (getattr(function, "id", ""), getattr(function, "attr", ""))]


def keywords(call):
    return [(keyword.arg, ast.unparse(keyword.value)) for keyword in call.keywords]


class TestConfigureOutput:
    @pytest.fixture
    def run(self, monkeypatch):
        """Run a command that calls configure_output, and restore what it changes."""
        monkeypatch.delenv("TQDM_DISABLE", raising=False)
        root = logging.getLogger()
        level, handlers = root.level, root.handlers[:]

        def run(action, **options):
            @click.command()
            @click.pass_context
            def command(ctx):
                root.handlers.clear()  # as in a fresh process, where logging is not set up
                configure_output(ctx, **{"quiet": False, "verbose": False, **options})
                action()

            with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():
                run_command(command, [])
            return stopped.value.code

        yield run
        os.environ.pop("TQDM_DISABLE", None)  # what monkeypatch deletes here, it would bring back
        root.setLevel(level)
        root.handlers[:] = handlers

    def test_quiet_leaves_out_bars_and_notes_but_no_errors(self, run, capsys):
        def action():
            note("by the way")
            raise ManifestError("bad")

        assert run(action, quiet=True) == 1
        assert os.environ["TQDM_DISABLE"] == "1"
        assert capsys.readouterr().err == "error: bad\n"

    @pytest.mark.parametrize("quiet", [False, True])
    def test_quiet_leaves_out_bars_on_a_terminal(self, run, quiet):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        terminal = Terminal()
        assert run(lambda: list(tqdm(range(2), file=terminal, disable=progress_disabled())) and None, quiet=quiet) == 0
        assert bool(terminal.getvalue()) is not quiet

    def test_no_bar_forgets_about_quiet(self):
        root = Path(__file__).resolve().parents[2]
        sources = [path for folder in ("pipeline", "stages") for path in (root / folder).rglob("*.py")]
        calls = {f"{path.name}:{call.lineno}": call for path in sources for call in calls_of("tqdm", path)}
        assert len(calls) > 3
        assert not [where for where, call in calls.items() if ("disable", "progress_disabled()") not in keywords(call)]

    def test_notes_are_told_by_default(self, run, capsys):
        assert run(lambda: note("by the way")) == 0
        assert capsys.readouterr().err == "by the way\n"

    def test_verbose_says_where_an_error_came_up(self, run, capsys):
        def deep_down():
            raise ManifestError("bad")

        assert run(deep_down, verbose=True) == 1
        printed = capsys.readouterr().err
        assert "in deep_down" in printed
        assert printed.endswith("error: bad\n")

    def test_both_at_once(self, run, capsys):
        assert run(lambda: None, quiet=True, verbose=True) == 2
        assert "mutually exclusive" in capsys.readouterr().err

    def test_no_color(self, run, capsys, monkeypatch):
        monkeypatch.setenv("NO_COLOR", "1")

        def action():
            assert click.get_current_context().color is False

        assert run(action) == 0
