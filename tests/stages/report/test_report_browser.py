"""The report in a real browser: it opens without network and without complaint, and its figures can be seen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes.browser import Browser, browser
from support.results_folder import Results

FIGURES = """
[...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const inside = [...svg.querySelectorAll('text')].every(text => {
    const one = text.getBoundingClientRect();
    return one.left > box.left - 2 && one.right < box.right + 2 && one.top > box.top - 2 && one.bottom < box.bottom + 2;
  });
  const size = Math.min(...[...svg.querySelectorAll('text')].map(text => text.getBoundingClientRect().height));
  return {name: svg.getAttribute('aria-label'), width: box.width, height: box.height, inside: inside, size: size,
    marks: svg.querySelectorAll('path, use').length};
})
"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = Results(tmp_path_factory.mktemp("results")).all()
    results.page()
    return results.root / "report.html"


@pytest.mark.parametrize("width", [1200, 375])
def test_page_opens_without_network_or_complaints_and_shows_its_figures(
    chromium: Browser, page: Path, width: int
) -> None:
    chromium.requests.clear()
    chromium.problems.clear()
    chromium.open(page, width)
    chromium.value("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.value("document.title") == "Reward model report"
    assert chromium.requests == [page.as_uri()]
    assert chromium.problems == []
    figures = chromium.value(FIGURES)
    assert len(figures) > 10
    for one in figures:
        assert one["width"] > 250, one
        assert one["height"] > 100, one
        assert one["marks"] > 5, one
        assert one["inside"], one
        assert one["size"] > 9, one
    assert chromium.value(WIDER) <= 0, "the page must not be wider than the window"


def test_tables_are_sorted_by_a_click_on_a_column(chromium: Browser, tmp_path: Path) -> None:
    results = Results(tmp_path)
    for k in range(25):
        results.eval(f"r{k}", skill=k / 10)
        results.model(f"r{k}", training={"learning_rate": (k * 7 % 25 + 1) * 1e-5})
    results.page()
    chromium.open(tmp_path / "report.html", 1200)
    column = "[...document.querySelector('table.sortable').tBodies].map(x => x.rows[0].cells[1].textContent)"
    before = list(map(float, chromium.value(column)))
    assert (
        len(before) == 20 and len(chromium.value("[...document.querySelectorAll('details table.sortable tbody')]")) == 5
    )
    for order in (True, False):
        chromium.value("document.querySelector('table.sortable').tHead.rows[0].cells[1].click()")
        assert list(map(float, chromium.value(column))) == sorted(before, reverse=order)


def test_page_fits_on_paper(chromium: Browser, page: Path) -> None:
    chromium.open(page, width=718)  # A4 within the browser's margins
    chromium.call("Emulation.setEmulatedMedia", media="print")
    rightmost = "Math.max(...[...document.querySelectorAll('table, svg')].map(x => x.getBoundingClientRect().right))"
    assert chromium.value(rightmost) <= 718
    assert chromium.pdf().startswith(b"%PDF")
    chromium.call("Emulation.setEmulatedMedia", media="")
