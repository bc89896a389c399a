"""CSV and TSV: every value as it is written, in any dialect that is told or plain to see; else its line is named."""

import bz2
import gzip
import json

import polars as pl
import pyarrow as pa
import pytest
from source_files_sample import column, ingested

from sidlake.errors import RecipeError, SourceError


def items_of(folder, data, *, name="items.csv", **settings):
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return ingested(folder, name, **settings)


def titles(result):
    return dict(zip(column(result, "item_id"), column(result, "title"), strict=True))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_that_gives_the_columns_of_the_recipe_is_taken(tmp_path, delimiter):
    assert titles(items_of(tmp_path, f"id{delimiter}name\n007{delimiter}a, b\n")) == {"007": "a, b"}


def test_a_delimiter_that_is_told_is_taken_though_a_comma_would_fit(tmp_path):
    assert titles(items_of(tmp_path, "id:name\n1:x,y\n", source='delimiter = ":"')) == {"1": "x,y"}


def test_a_header_in_one_piece_is_an_error_that_names_the_delimiter(tmp_path):
    with pytest.raises(SourceError, match="set delimiter"):
        items_of(tmp_path, "id~name\n1~x\n")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-32", "utf-8-sig"])
def test_text_in_a_told_encoding_or_with_a_byte_order_mark_is_read(tmp_path, encoding):
    source = f'encoding = "{encoding}"' if encoding in ("cp1252", "latin-1") else ""
    assert titles(items_of(tmp_path, "id,name\n1,señor café\n".encode(encoding), source=source)) == {"1": "señor café"}


def test_a_byte_of_another_encoding_is_named_with_its_line_and_the_key(tmp_path):
    with pytest.raises(SourceError, match=r'line 3 is not utf-8.*encoding = "cp1252"'):
        items_of(tmp_path, b"id,name\n1,fine\n2,caf\xe9\n")


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_a_compressed_file_is_read_by_its_content(tmp_path, ending):
    rows = b"id,name\n1,x\n"
    packed = {"gz": gzip.compress(rows), "bz2": bz2.compress(rows), "zst": pa.compress(rows, "zstd", asbytes=True)}[ending]
    assert titles(items_of(tmp_path, packed, name=f"items.csv.{ending}")) == {"1": "x"}
    assert titles(items_of(tmp_path, packed, name="items.csv")) == {"1": "x"}


def test_a_compressed_file_that_is_cut_short_is_an_error(tmp_path):
    packed = gzip.compress("".join(f"{at},title {at * 7919}\n" for at in range(5000)).encode())
    with pytest.raises(SourceError, match="compressed bytes cannot be read"):
        items_of(tmp_path, packed[: len(packed) // 2], name="items.csv.gz", source='columns = ["id", "name"]')


@pytest.mark.parametrize("row", ['1,12" pipe', '1,"12"" pipe"'])
def test_inch_marks_are_a_part_of_the_value(tmp_path, row):
    assert titles(items_of(tmp_path, f"id,name\n{row}\n")) == {"1": '12" pipe'}


def test_a_quote_that_stands_alone_in_a_quoted_value_is_an_error_that_names_line_and_key(tmp_path):
    with pytest.raises(SourceError, match=r"line 3: .*quote = ''"):
        items_of(tmp_path, 'id,name\n1,"x"\n2,"12" pipe"\n')
    assert titles(items_of(tmp_path, 'id,name\n1,"x"\n2,"12" pipe"\n', source="quote = ''"))["2"] == '"12" pipe"'


def test_lines_within_quotes_are_one_value(tmp_path):
    assert titles(items_of(tmp_path, 'id,name\r\n1,"two\r\nlines"\r\n2,x\r\n')) == {"1": "two lines", "2": "x"}


@pytest.mark.parametrize("text", ["id,name\n1,x\n2\n", "id,name\n1,x\n2,y,z\n", 'id,name\n1,"x"\n2\n', 'id,name\n1,"x"\n2,"y",z\n'])
def test_a_row_of_another_length_than_the_header_is_an_error(tmp_path, text):
    with pytest.raises(SourceError, match=r"2 columns, got|the header has 2"):
        items_of(tmp_path, text)


def test_names_of_columns_lose_blanks_and_a_missing_one_is_named_with_its_like(tmp_path):
    assert titles(items_of(tmp_path, "\ufeff id , name \n1,x\n")) == {"1": "x"}
    with pytest.raises(SourceError, match=r"no column 'name'; it has \['id', 'Name'\]: did you mean 'Name'\?"):
        items_of(tmp_path, "id,Name\n1,x\n")


def test_a_column_that_is_there_twice_is_an_error_where_it_is_wanted(tmp_path):
    with pytest.raises(SourceError, match="column 'name' is there 2 times"):
        items_of(tmp_path, "id,name,name\n1,x,y\n")
    assert titles(items_of(tmp_path, "id,name,other,other\n1,x,y,z\n")) == {"1": "x"}


def test_a_file_without_a_header_has_the_columns_that_the_recipe_names(tmp_path):
    data = "00196\tKolya\t881250949\n"
    assert titles(items_of(tmp_path, data, name="u.item", source='columns = ["id", "name", "at"]\nformat = "tsv"')) == {
        "00196": "Kolya"
    }


def test_texts_that_stand_for_nothing_are_told(tmp_path):
    result = items_of(tmp_path, "id,name\n1,NULL\n2,x\n", source='null_values = ["NULL", "NA"]')
    assert titles(result) == {"2": "x"}


@pytest.mark.parametrize("text", ["id,name\n", "", "\n\n"])
def test_an_empty_file_of_a_folder_adds_nothing(tmp_path, text):
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "1.csv").write_text("id,name\n007,x\n")
    (tmp_path / "days" / "2.csv").write_text(text)
    assert titles(ingested(tmp_path, "days")) == {"007": "x"}


def test_a_value_of_a_megabyte_is_read(tmp_path):
    assert len(titles(items_of(tmp_path, f'id,name\n1,"{"x" * 1_000_000}"\n'))["1"]) == 1_000_000


@pytest.mark.parametrize(
    "source", ['delimiter = "ab"', 'quote = "ab"', 'encoding = "klingon"', 'encoding = "base64"', 'columns = ["a", "a"]']
)
def test_a_dialect_that_cannot_be_is_refused_by_the_recipe(tmp_path, source):
    with pytest.raises(RecipeError, match=source.split(" ", maxsplit=1)[0]):
        items_of(tmp_path, "id,name\n1,x\n", source=source)


@pytest.mark.parametrize("text", ["id,name", "id;name", "\ufeffid,name\r\n\r\n"])
def test_a_header_alone_is_a_file_without_rows(tmp_path, text):
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "1.csv").write_text("id,name\n007,x\n")
    (tmp_path / "days" / "2.csv").write_text(text)
    assert titles(ingested(tmp_path, "days")) == {"007": "x"}


def test_a_line_longer_than_a_block_is_read(tmp_path):
    assert len(titles(items_of(tmp_path, f"id,name\n1,{'x' * 20_000_000}\n"))["1"]) == 20_000_000


@pytest.mark.parametrize("name", ["*", "^n.*$", "", " ", "a.b", "a'b", "0"])
def test_a_column_may_be_called_anything(tmp_path, name):
    (tmp_path / "items.csv").write_text(f'id,"{name}",note\n1,x,y\n')
    assert titles(ingested(tmp_path, title=json.dumps(name.strip()))) == {"1": "x"}
    pl.DataFrame({"id": ["1"], "note": ["y"], name.strip() or "*": ["x"]}).write_parquet(tmp_path / "items.parquet")
    assert titles(ingested(tmp_path, "items.parquet", title=json.dumps(name.strip() or "*"))) == {"1": "x"}
