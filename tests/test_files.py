"""Files are whole or absent, whatever happens while they are written."""

import os
import stat

import pytest

from vgglab._files import prepare, replacing, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "history.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["history.json"]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new" / "é.txt", "über")
    finally:
        os.umask(before)
    path = tmp_path / "new" / "é.txt"
    assert path.read_text(encoding="utf-8") == "über"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_a_killed_write_left_is_cleared_away_and_nothing_else(tmp_path):
    names = ["run.pt", "run.pt.before", "run.pt2abcd_123.part"]
    for name in (*names, "run.ptabcd_123.part"):
        (tmp_path / name).touch()
    prepare(tmp_path / "run.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == names
