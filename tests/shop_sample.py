"""A small real shop for tests: rows of the bundled transactions, with a recipe that trains for seconds."""

from pathlib import Path

import polars as pl

ROOT = Path(__file__).parent.parent
TRANSACTIONS = ROOT / "data" / "online_retail.parquet"
RECIPE = ROOT / "recipes" / "online_retail.toml"
PRECISION = '\n[encoders.text]\nprecision = "float32"\n'  # measuring which is fastest takes ten seconds


def small_shop(folder: Path, *, num_items: int = 200, num_users: int = 150, until: str = "2012-01-01") -> Path:
    """Write the transactions of the most frequent items and customers up to a day, and a recipe for them; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pl.scan_parquet(TRANSACTIONS).filter(pl.col("StockCode").str.contains(r"^\d{5}"))
    items = rows.group_by("StockCode").len().sort("len", "StockCode", descending=[True, False]).head(num_items)
    users = rows.drop_nulls("CustomerID").group_by("CustomerID").len().sort("len", "CustomerID", descending=[True, False])
    kept = rows.join(items.select("StockCode"), on="StockCode", how="semi", maintain_order="left")
    kept = kept.join(users.head(num_users).select("CustomerID"), on="CustomerID", how="semi", maintain_order="left")
    kept.filter(pl.col("InvoiceDate") < pl.lit(until).str.to_datetime()).collect().write_parquet(folder / "transactions.parquet")
    return write_recipe(folder)


def write_recipe(folder: Path, *, extra: str = "", replace: dict[str, str] | None = None) -> Path:
    """Write the shop's own recipe for `folder`/transactions.parquet with a short training; append `extra`, apply `replace`."""
    changes = {
        "../data/online_retail.parquet": "transactions.parquet",
        "max_epochs = 4": "max_epochs = 1",
        "maximum = 0.30": "maximum = 0.60",  # 200 items at 3x32 collide more than 4,700 at 3x128
    }
    text = RECIPE.read_text(encoding="utf-8") + PRECISION
    for old, new in (changes | (replace or {})).items():
        assert old in text, f"the recipe has no {old!r}"
        text = text.replace(old, new)
    path = folder / "shop.toml"
    path.write_text(text + extra, encoding="utf-8")
    return path
