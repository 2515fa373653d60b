"""The slider of the report: its tables against `select`, what a real browser shows against the pages of `report`."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from PIL import Image
from report_cases import Case, Page, make_out, summaries_of, walk_hashes

from lessismore_transforms.cli.main import main
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import write_report
from lessismore_transforms.report.choices import Scale, kept_masks, scales
from lessismore_transforms.report.slice_pictures import as_webp

STATE = """(() => {
  const written = / data-order="\\d+"| data-extra=""| class=""/g;
  const plain = (part) => part.innerHTML.replace(written, '').replace(/>\\s+</g, '><');
  return {
    numbers: [...document.querySelectorAll('.numbers div')].map(plain),
    words: plain(document.getElementById('in_words')),
    slices: plain(document.getElementById('slices')),
    tables: [...document.querySelectorAll('#threshold table')].map(plain),
  };
})()"""
EVERY = """(choices) => choices.map(([scale, value]) => {
  location.hash = `#${scale}=${value}`;
  dispatchEvent(new HashChangeEvent('hashchange'));
  const index = (tile) => parseInt(tile.getAttribute('aria-label').slice(6));
  const volumes = [...document.querySelectorAll('article')];
  return [document.querySelector('#kept_count dd').textContent,
    ...volumes.map((one) => [...one.querySelectorAll('.slices .kept')].map(index))];
})"""


def all_scales(out: Path) -> list[Scale]:
    manifest = Manifest.read(out)
    return scales(manifest, summaries_of(out), Selection.read(out).target)


def check_by_select(out: Path) -> list[Scale]:
    """Each choice of each scale against `select`: all slices of the data set, and those of each volume."""
    manifest, volumes, found = Manifest.read(out), summaries_of(out), all_scales(out)
    for scale in found:
        masks = np.concatenate([kept_masks(volume, scale) for volume in volumes], axis=1)
        for target, kept, mask in zip(scale.targets, scale.kept, masks, strict=True):
            expected = manifest.select(target).rows()
            np.testing.assert_array_equal(mask, expected, str(target))
            assert kept == expected.sum()
        assert not scale.nested or not (masks[1:] & ~masks[:-1]).any()
    return found


def test_choices_of_hash_are_what_select_keeps(tmp_path: Path) -> None:
    cases = [
        Case(walk_hashes(60, 1), unreadable={0: "x", 7: "no body: 0 %"}),
        Case(walk_hashes(45, 2), first_number=95),
        Case([9]),
        Case([5, 6], unreadable={0: "x", 1: "x"}),
    ]
    found = check_by_select(make_out(tmp_path, cases, Target.of(fraction=0.07)))
    assert [(scale.name, scale.words) for scale in found] == [
        ("exemplars", "rule exemplars"), ("pairs", "rule pairs"), ("share", "a fraction"),
    ]  # fmt: skip
    assert [target.threshold for target in found[0].targets] == list(range(65))
    assert 0.07 in [target.fraction for target in found[2].targets]
    assert all(scale.kept == sorted(scale.kept, reverse=True) for scale in found[1:])


@pytest.mark.parametrize(("measure", "ranked_to"), [("ssim", 0), ("ssim", 12), ("mi", 0), ("deepnet", 0)])
def test_choices_of_a_similarity_are_what_select_keeps_as_far_as_it_ranked(
    tmp_path: Path, measure: str, ranked_to: int
) -> None:
    cases = [Case(walk_hashes(60, seed, 9), ranked_to=ranked_to, unreadable={3: "x"}) for seed in (1, 2)]
    found = check_by_select(make_out(tmp_path, cases, Target.of(method=measure, fraction=0.3), measure=measure))
    assert [scale.name for scale in found] == [measure, f"{measure}_share", "exemplars", "pairs", "share"]
    assert min(found[1].kept) == (24 if ranked_to else 2)
    assert min(found[0].kept) in (range(24, 30) if ranked_to else [2])  # thresholds are round


def test_pictures_of_long_volumes_are_made_smaller() -> None:
    """Noise, as of a sharp kernel: by quality, not by leaving tiles out."""
    rng = np.random.default_rng(0)
    noise = np.clip(128 + rng.normal(0, 18, (60, 96, 96)), 0, 255).astype(np.uint8)
    whole = as_webp(noise, 6, 10)
    small = as_webp(noise, 6, 10, len(whole) / 3)
    assert len(small) < 1.1 * len(whole) / 3
    assert as_webp(noise, 6, 10, 2 * len(whole)) == whole
    pictures = [np.asarray(Image.open(io.BytesIO(each)).convert("L"), dtype=float) for each in (whole, small)]
    assert pictures[0].shape == pictures[1].shape == (6 * 96, 10 * 96)
    assert np.abs(pictures[1] - pictures[0]).mean() < 18


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes of which two are shown, with an unreadable slice, one without body and an odd order."""
    cases = [
        Case(walk_hashes(70, 1), unreadable={4: "x", 9: "no body: 0 %"}, thumbnails=True, notes=("<script>a()",)),
        Case(walk_hashes(45, 2), first_number=95, thumbnails=True),
        Case(walk_hashes(20, 3)),
    ]
    return make_out(tmp_path_factory.mktemp("report") / "out", cases)


@pytest.fixture(scope="module")
def page(out: Path) -> Path:
    """The report of `out`, written once, under a name that no other takes."""
    return write_report(out).rename(out / "page.html")


def go(browser: Browser, scale: str, value: float) -> None:
    browser.run(f"location.hash = '#{scale}={value}'; dispatchEvent(new HashChangeEvent('hashchange'))")


def shown_kept(browser: Browser) -> int:
    return int(browser.run("document.querySelector('#kept_count dd').textContent").replace(",", ""))


def check_every_choice(browser: Browser, out: Path, page: Path) -> int:
    """What the browser shows on a page of each choice of each scale against `select`; returns their number."""
    manifest = Manifest.read(out)
    sizes = np.cumsum([record["slices"] for record in manifest.volumes])[:-1]
    shown = [(out / "store" / "thumbnails" / f"{record['volume']}.npy").is_file() for record in manifest.volumes]
    browser.open(page.as_uri())
    choices = [(scale, target) for scale in all_scales(out) for target in scale.targets]
    addresses = [[scale.name, target.fraction or target.threshold or 0] for scale, target in choices]
    found = browser.run(f"({EVERY})({json.dumps(addresses)})")
    for (_, target), (total, *volumes) in zip(choices, found, strict=True):
        expected = manifest.select(target).rows()
        assert int(total.replace(",", "")) == expected.sum(), target
        parts = [part for part, there in zip(np.split(expected, sizes), shown, strict=True) if there]
        assert volumes == [np.flatnonzero(part).tolist() for part in parts], target
    assert browser.complaints() == []
    return len(choices)


def test_the_page_and_select_agree_on_every_choice(browser: Browser, out: Path, page: Path) -> None:
    assert check_every_choice(browser, out, page) == 65 + 65 + 46


def test_the_page_and_select_agree_on_five_real_volumes(browser: Browser, real_report: Path) -> None:
    assert check_every_choice(browser, real_report, write_report(real_report)) >= 65 + 65
    assert (real_report / "report.html").stat().st_size < 3e6


@pytest.mark.parametrize("measure", ["hash", "ssim"])
def test_it_shows_what_report_writes_of_that_selection(
    browser: Browser, out: Path, page: Path, tmp_path: Path, measure: str
) -> None:
    if measure != "hash":
        cases = [Case(walk_hashes(50, seed, 9), unreadable={4: "x"}, thumbnails=True) for seed in (1, 2)]
        out = make_out(tmp_path / "out", cases, Target.of(method=measure, fraction=0.5), measure=measure)
        page = write_report(out).rename(tmp_path / "page.html")
    wanted = {"hash": ("exemplars", "pairs", "share"), "ssim": ("ssim", "ssim_share")}[measure]
    for scale in all_scales(out):
        if scale.name in wanted:
            target = min(zip(scale.targets, scale.kept, strict=True), key=lambda each: abs(each[1] - 30))[0]
            Manifest.read(out).select(target).write(out, "other")
            browser.open(write_report(out, "other").as_uri())
            expected = browser.run(STATE)
            browser.open(f"{page.as_uri()}#{scale.name}={target.fraction or target.threshold:g}")
            found = browser.run(STATE)
            for part in expected:
                assert found[part] == expected[part], (part, target)


def test_by_keyboard_to_three_bits_and_back(
    browser: Browser, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    reduce_dataset(small_data, out, Settings(), workers=0)
    browser.open(write_report(out).as_uri())
    before = browser.run(STATE)
    pictures = "[...document.querySelectorAll('.plot img')].map((picture) => picture.src)"
    drawn = browser.run(pictures)
    browser.run("document.querySelector('#chooser [name=rule]:checked').focus()")
    browser.press("Tab", 9)
    assert browser.run("document.activeElement.id") == "amount"
    for _ in range(3):
        browser.press("ArrowLeft", 37)
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    command = browser.run("document.getElementById('command').textContent")
    assert command == "python -m lessismore_transforms select OUT --threshold 3 --name hash3"
    assert main([str(out) if word == "OUT" else word for word in shlex.split(command)[3:]]) == 0
    kept = shown_kept(browser)
    assert f"selection hash3: kept {kept} of 96 slices" in capsys.readouterr().out
    assert kept == len(Selection.read(out, "hash3").kept_ids) > 20
    assert browser.run("location.hash") == "#exemplars=3"
    assert browser.run("document.getElementById('amount').getAttribute('aria-valuetext')") == "3 bits"
    assert browser.run("document.querySelector('tr.chosen th').textContent") == "3 bits (chosen)"
    assert browser.run("document.querySelector('.mark b').textContent").startswith("3 bits, ")
    assert "chosen:" not in browser.run("decodeURIComponent(document.querySelector('.chart img').src)")

    browser.run("document.getElementById('back').click()")
    assert browser.run(STATE) == before
    assert browser.run(pictures) == drawn
    assert browser.run("getComputedStyle(document.getElementById('command')).display === 'none' || "
                       "document.getElementById('command').offsetParent === null")  # fmt: skip
    assert browser.complaints() == []


def test_the_other_rule_begins_where_as_many_slices_stay(browser: Browser, out: Path, page: Path) -> None:
    browser.open(page.as_uri())
    before = shown_kept(browser)
    browser.run("document.querySelector('#chooser [value=pairs]').click()")
    kept = all_scales(out)[1].kept
    assert shown_kept(browser) == min(kept, key=lambda number: abs(number - before))
    assert "--rule pairs --name pairs" in browser.run("document.getElementById('command').textContent")


def test_a_selection_that_is_on_no_scale_is_shown_until_the_slider_moves(browser: Browser, tmp_path: Path) -> None:
    target = Target.of(method="every_n", step=3)
    out = make_out(tmp_path, [Case(walk_hashes(40), thumbnails=True)], target)
    browser.open(write_report(out).as_uri())
    assert browser.run("document.getElementById('outcome').textContent") == "default: EveryN every 3 slices"
    before = browser.run(STATE)
    go(browser, "exemplars", 3)
    assert shown_kept(browser) == len(Manifest.read(out).select(Target.of(threshold=3)).kept_ids) != 14
    browser.run("document.getElementById('back').click()")
    assert browser.run(STATE) == before


def test_without_a_script_and_on_paper_there_is_no_form(browser: Browser, page: Path) -> None:
    visible = "getComputedStyle(document.getElementById('chooser')).display !== 'none'"
    browser.open(page.as_uri())
    assert browser.run(visible)
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert not browser.run(visible)
    browser.send("Emulation.setEmulatedMedia", media="")
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page.as_uri())
        assert not browser.run(visible)
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_the_page_runs_its_own_script_alone(browser: Browser, out: Path, page: Path) -> None:
    """A note that holds a script is text; and one that was put into the file is not run."""
    parsed = Page(page)
    assert [attributes for tag, attributes in parsed.elements if tag == "script"] == [
        {"type": "application/json", "id": "choices"},
        {},
    ]
    assert parsed.tables["noted"][1][0] == "<script>a()"
    forged = out / "forged.html"
    forged.write_text(parsed.source.replace("</main>", "<script>document.title = 'forged'</script></main>"))
    browser.open(forged.as_uri())
    assert browser.run("document.title") == "Slice reduction report"


def test_narrow_windows_do_not_scroll_sideways(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.open(page.as_uri())
    go(browser, "exemplars", 3)
    browser.picture(tmp_path / "narrow.png", 360, 700)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.send("Emulation.clearDeviceMetricsOverride")
