"""The person at the terminal: a meant yes is a discharge, and all else is a no."""


import pytest

from captoken.cli.discharge import needed_facts
from captoken.cli.terminal import lines_of
from tests.cli.test_cli import ASKING, AT_TERMINAL, DISCHARGER, ROOT, approve, run
from tests.cli.test_inspect import NASTY
from tests.program import CAPTOKEN


@pytest.mark.parametrize("answer", ["y", "Y", "yes", " YES  "])
def test_a_yes_is_a_discharge(answer, folder):
    code, shown, written = approve(answer, folder)
    assert code == 0 and 'approve = "payment"' in shown and "cents = 500" in shown and "cap1u_" not in shown
    assert ASKING.with_discharge(written.strip()).needs == ()


@pytest.mark.parametrize(
    "answer", ["", "n", "N", "no", "ye", "yy", "yes please", "y n", "1", "true", "\x04", "j", "\x1b[201~y"]
)
def test_all_else_is_a_no(answer, folder):
    code, shown, written = approve(answer, folder)
    assert code == 1 and written == "" and "nothing is discharged" in shown


@pytest.mark.parametrize("typed", ["y\x04\x04", "yes\x04\x04", "\x04"])
def test_a_line_that_was_not_ended_is_a_no(typed, folder):
    """End of file in place of Enter: what stands before it is half an answer."""
    code, shown, written = approve(typed, folder)
    assert code == 1 and written == "" and "nothing is discharged" in shown


def test_a_line_that_comes_in_two_pieces_is_one(folder):
    """The first end of file of a line only hands over what was typed: the line goes on, and is ended by Enter."""
    code, _, written = approve("y\x04es", folder)
    assert code == 0 and ASKING.with_discharge(written.strip()).needs == ()


def test_what_was_typed_before_the_question_is_no_answer_to_it(folder):
    code, _, written = approve("n", folder, AHEAD="y\ny\n")
    assert code == 1 and written == ""


def test_what_does_not_fit_the_terminal_is_not_approved(folder):
    """What has scrolled away has not been seen: it is refused before anybody is asked."""
    need = {"amount": "999999 EUR", **{f"z{count:03}": "" for count in range(60)}}
    ticket = ROOT.require(DISCHARGER.public, need=need).needs[0].text
    done = run(AT_TERMINAL, "y", CAPTOKEN, "approve", "--key", "discharger.json", stdin=ticket, cwd=folder)
    assert done.returncode == 2 and done.stdout == b"" and b"61 lines to read, and the terminal has 24" in done.stderr


@pytest.mark.parametrize("width", [0, 1, 26, 40, 80])
def test_what_is_needed_cannot_be_misread(width):
    """No character moves the terminal, no line is wider than it, and only names stand where names stand."""
    from rich.cells import cell_len

    need = {f"a{char}": f"{char}{' ' * 90}cents = 5" for char in NASTY} | {
        "wide\n": "支付" * 50,
        "list": [{"a": "b\x1b"}],
        "": "",
    }
    lines = lines_of(needed_facts(need), width)
    assert all(line.isprintable() and cell_len(line) <= max(width, 26) for line in lines)
    assert [line[:2] for line in lines] == ["  "] * len(lines)
    assert sum(line[2] != " " for line in lines) == len(need)
    assert all(line.startswith("    | ") for line in lines if line[2] == " ")
