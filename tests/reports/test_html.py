import base64
import re
from html.parser import HTMLParser

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.reports import html, pictures
from retrodict.reports.clips import write_clip

FRAMES = [np.full((24, 32, 3), 20 * i, np.uint8) for i in range(8)]


class Shown(HTMLParser):
    """The text that a reader sees, and whether every element that is opened is closed."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, document: str) -> None:
        super().__init__()
        self.text, self.open = "", []
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_text_is_shown_as_it_was_given(text):
    shown = Shown(html.page("Title", "lead", html.section(text, html.paragraph(text), html.table([text], [[text]]))))
    assert shown.open == []
    assert shown.text.count(text) >= 4


def test_a_page_needs_nothing_from_elsewhere():
    figure = pictures.bars({"ours": (3.0, 2.0, 4.0), "theirs": (1.0, 0.5, 1.5)}, "tics")
    page = html.page("Title", "lead", html.picture(figure, "caption"), html.picture(FRAMES[3]), html.film(FRAMES, fps=4))
    without_names = page.replace("http://www.w3.org/", "")  # namespaces of SVG, which nothing fetches
    assert "http" not in without_names
    assert "<script" not in page
    assert not re.search(r'src="(?!data:)', page)


def test_figures_follow_the_colours_of_the_page_and_keep_their_text():
    figure = pictures.lines({"loss": (np.arange(5), np.arange(5.0))}, "steps", "the loss in nats")
    drawn = html.picture(figure)
    assert "var(--ink)" in drawn
    assert "the loss in nats" in drawn


def test_two_drawings_of_a_figure_are_the_same():
    def drawn():
        return html.picture(pictures.histogram([3, 1, 7, 2], "confidence", ("kept", 0.4)))

    assert drawn() == drawn()


def test_a_column_of_numbers_stands_to_the_right():
    table = html.table(["name", "share"], [["a", "94.1 %"], ["b", "< 1 %"]])
    assert table.count('class="number"') == 3
    assert '<td class="number">94.1 %</td>' in table


def test_a_film_holds_every_frame(tmp_path):
    source = re.search(r"data:video/mp4;base64,([^\"]+)", html.film(FRAMES, fps=4, width=64))
    path = tmp_path / "film.mp4"
    path.write_bytes(base64.b64decode(source[1]))
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == len(FRAMES)
    assert shown[0].shape == (48, 64, 3)
    assert abs(int(shown[5].mean()) - 100) < 4


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_clips_are_written_by_suffix(tmp_path, suffix):
    path = write_clip(iter(FRAMES), tmp_path / f"clip{suffix}", fps=10)
    assert path.stat().st_size > 0
    assert list(tmp_path.iterdir()) == [path]


def test_clips_refuse_what_they_cannot_write(tmp_path):
    with pytest.raises(DataError, match=r"clip.avi: a clip is written as .mp4, .gif, .webp; got '.avi'"):
        write_clip(FRAMES, tmp_path / "clip.avi", fps=10)
    with pytest.raises(DataError, match="no frames"):
        write_clip([], tmp_path / "clip.gif", fps=10)
    assert list(tmp_path.iterdir()) == []
