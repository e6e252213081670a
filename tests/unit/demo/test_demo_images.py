"""Where the demo's images come from, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from core.demo.images import ImagesUnusable, read_folder, write_digits


def make_folder(folder: Path, *names: str) -> Path:
    for grey, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), grey).save(path)
    return folder


def write_csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_the_digits_are_greyscale_png_files_with_labels(tmp_path: Path) -> None:
    samples = write_digits(tmp_path)
    assert len(samples) == len({sample.path.read_bytes() for sample in samples}) == 1797
    assert set(Counter(sample.label for sample in samples)) == set("0123456789")
    with Image.open(samples[0].path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (8, 8))
        # The first digit of the data set is a 0 whose ink at row 0, column 3 is 13 of 16.
        assert image.getpixel((3, 0)) == round(13 * 255 / 16)


def test_a_folder_is_searched_with_all_below_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", "a.png", "deep/er/b.JPG", "c.webp", ".hidden.png")
    (folder / "notes.txt").write_text("no image")
    labels = write_csv(tmp_path, "label,file,by\nx,a.png,me\ny,b.JPG,me\n,c.webp,me\n", "utf-8-sig")
    found = {sample.name: sample.label for sample in read_folder(folder, labels)}
    assert found == {"a.png": "x", "deep/er/b.JPG": "y", "c.webp": None}


def test_a_missing_folder(tmp_path: Path) -> None:
    labels = write_csv(tmp_path, "file,label\n")
    with pytest.raises(ImagesUnusable, match="there is no folder"):
        read_folder(tmp_path / "nowhere", labels)


def test_a_folder_without_images(tmp_path: Path) -> None:
    labels = write_csv(tmp_path, "file,label\n")
    with pytest.raises(ImagesUnusable, match=r"found no .*gif files"):
        read_folder(tmp_path, labels)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needed are file and label"),
        ("name,label\na.png,x\n", r"\['name', 'label'\]; needed are file and label"),
        ("file,label\na.png,x\nz.png,y\n", "not in the folder: 'z.png'$"),
        ("file,label\na.png,x\nb.png,x\n", "one class, 'x'"),
        ("file,label\na.png,\n", "no labels"),
        ("file,label\na.png,x\na.png,y\n", "'a.png' is both 'x' and 'y'"),
        ("file,label\na.png,x\ntwice.png,y\n", "may be 'one/twice.png' or 'two/twice.png'"),
    ],
)
def test_a_wrong_csv_is_told_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    folder = make_folder(tmp_path, "a.png", "b.png", "one/twice.png", "two/twice.png")
    with pytest.raises(ImagesUnusable, match=said) as raised:
        read_folder(folder, write_csv(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_many_unknown_files_are_counted(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "a.png")
    rows = "".join(f"z{index}.png,x\n" for index in range(9))
    with pytest.raises(ImagesUnusable, match=r"'z2\.png' and 6 more"):
        read_folder(folder, write_csv(tmp_path, "file,label\n" + rows))


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "a.png")
    with pytest.raises(ImagesUnusable, match="is not CSV in UTF-8"):
        read_folder(folder, write_csv(tmp_path, "file,label\na.png,größe\n", "latin-1"))
    with pytest.raises(ImagesUnusable, match="cannot read"):
        read_folder(folder, tmp_path / "nowhere.csv")
