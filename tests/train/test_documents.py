import hashlib

import numpy as np
import pytest

from tests.data import data_config
from train.config import DataConfig, InputError
from train.data import documents

WORDS = "the of and a to in is was that for it with as his on be at by had not are but from or have an they".split()


def story(seed: int, num_bytes: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, num_bytes))[:num_bytes]


def write_stories(folder, sizes) -> None:
    folder.mkdir(exist_ok=True)
    for seed, size in enumerate(sizes):
        (folder / f"story{seed:03}.txt").write_text(story(seed, size))


def config(source: str, **fields) -> DataConfig:
    fields = {"seq_len": 16, "max_bytes": 0, "tune_fraction": 0.2, "test_fraction": 0.2} | fields
    return data_config(source=source, **fields)


def read(source, **fields) -> tuple[list[documents.Document], str]:
    splits, unit = documents.read(config(f"file:{source}", **fields))
    return [document for split in splits.values() for document in split], unit


def test_the_split_outlives_new_files_and_new_names(tmp_path):
    def splits():
        found, _ = documents.read(config(f"file:{tmp_path}/*.txt"))
        return {split: {document.text for document in found[split]} for split in found}

    write_stories(tmp_path, [100] * 300)
    old = splits()
    (tmp_path / "story000.txt").rename(tmp_path / "zebra.txt")
    for seed in range(300, 400):
        (tmp_path / f"new{seed}.txt").write_text(story(seed, 100))
    new = splits()
    assert all(old[split] < new[split] for split in documents.SPLITS)


def test_fractions_are_met_in_expectation():
    made = [documents.Document("", b"", hashlib.sha256(bytes([i % 256, i // 256])).digest()) for i in range(20_000)]
    splits = documents.split(made, config("docs", tune_fraction=0.1, test_fraction=0.05))
    assert abs(len(splits["tune"]) / 20_000 - 0.1) < 0.01 and abs(len(splits["test"]) / 20_000 - 0.05) < 0.01


def test_every_split_gets_a_document_where_hashes_give_none():
    made = [documents.Document("", b"", hashlib.sha256(bytes([i])).digest()) for i in range(3)]
    splits = documents.split(made, config("docs", tune_fraction=1e-9, test_fraction=1e-9))
    assert [len(splits[name]) for name in documents.SPLITS] == [1, 1, 1]


def test_repeated_and_blank_files_are_dropped(tmp_path):
    write_stories(tmp_path, [100] * 40)
    (tmp_path / "copy.txt").write_text(story(3, 100))
    (tmp_path / "blank.txt").write_text(" \n")
    found, unit = read(f"{tmp_path}/*.txt")
    assert unit == "document" and len(found) == 40
    assert len({document.text for document in found}) == 40 and "blank.txt" not in {one.name for one in found}


def test_max_bytes_takes_a_sample_below_it(tmp_path):
    write_stories(tmp_path, [100] * 100)
    found, unit = read(f"{tmp_path}/*.txt", max_bytes=5_050)
    assert unit == "document" and len(found) == 50
    assert max(document.name for document in found) > "story080.txt"  # not the first fifty


def test_few_files_are_cut_into_blocks_at_line_ends(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{number} {story(number, 60)}\n" for number in range(1_000)))
    found, unit = read(path)
    blocks = {int(document.name.removeprefix("book.txt@")): document.text for document in found}
    assert unit == "block"
    assert b"".join(blocks[place] for place in sorted(blocks)) == path.read_bytes()
    assert all(text.endswith(b"\n") and 2_048 <= len(text) <= 6_144 for text in blocks.values())
    assert len(blocks) == pytest.approx(len(path.read_bytes()) / 4_096, abs=2)


@pytest.mark.parametrize("character", ["é", "語", "🙂", "a "])
def test_text_without_lines_is_cut_between_characters(tmp_path, character):
    text = "".join(f"{number}{character * (number % 50)}" for number in range(3_000))
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    found, _ = read(tmp_path / "book.txt")
    assert sum(len(document.text.decode()) for document in found) == len(text)


def test_a_small_sample_of_large_files_is_cut_into_blocks(tmp_path):
    write_stories(tmp_path, [20_000] * 40)
    found, unit = read(f"{tmp_path}/*.txt", max_bytes=100_000)
    assert unit == "block" and 80_000 < sum(len(document.text) for document in found) <= 100_000


def bad(source: str, **fields) -> str:
    with pytest.raises(InputError) as caught:
        documents.read(config(source, **fields))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_missing_files(tmp_path):
    assert f"{tmp_path}/none.txt does not exist" in bad(f"file:{tmp_path}/none.txt")
    assert f"No file matches file:{tmp_path}/*.txt" in bad(f"file:{tmp_path}/*.txt")
    assert "names no file" in bad("file:")
    assert f"is a folder, not a text file; name its files with a glob: file:{tmp_path}/*.txt" in bad(f"file:{tmp_path}")


def test_an_existing_name_with_brackets_is_no_glob(tmp_path):
    (tmp_path / "a[1].txt").write_text("text")
    count, records = documents.files(f"file:{tmp_path}/a[1].txt")
    assert count == 1 and list(records) == [("a[1].txt", b"text")]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty"),
        (b"abc\x00def", "byte 3 of 7 is a zero byte"),
        ("na\u00efve".encode("latin-1"), "byte 2 of 5 is 0xef, which is not UTF-8"),
        ("\u8a9e".encode()[:2], "byte 0 of 2 is 0xe8"),
        (b"\x1f\x8b\x08 gzip", "byte 1 of 8 is 0x8b"),
    ],
)
def test_files_that_are_not_text(tmp_path, content, said):
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    message = bad(f"file:{path}")
    assert str(path) in message and said in message


def test_a_text_that_is_too_short(tmp_path):
    (tmp_path / "short.txt").write_text(story(0, 5_000))
    message = bad(f"file:{tmp_path}/short.txt")
    assert "of 5,000 bytes, train has 0 bytes in 0 blocks and needs 136" in message
    assert "Give it about 12,288 bytes or more" in message
    write_stories(tmp_path / "text", [3] * 50)
    assert "too little text for data.seq_len=64" in bad(f"file:{tmp_path}/text/*.txt", seq_len=64)


@pytest.mark.parametrize("source", ["dox", "http://x", ""])
def test_unknown_sources(source):
    assert f"{source!r} is not known; the sources are docs, file:PATH-or-glob, tfds:NAME" in bad(source)


def test_another_split_seed_is_another_split_of_the_same_documents():
    made = [documents.Document(str(n), b"", hashlib.sha256(bytes([n])).digest()) for n in range(200)]
    held = [
        {
            document.name
            for document in documents.split(made, config("docs", test_fraction=0.2, split_seed=seed))["test"]
        }
        for seed in (0, 1, 2)
    ]
    assert all(20 < len(names) < 60 for names in held)
    assert all(len(held[a] & held[b]) < 25 for a, b in ((0, 1), (0, 2), (1, 2)))
