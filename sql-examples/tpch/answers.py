"""Makes the golden answers of TPC-H with DuckDB: `python3 answers.py SCALE DATA`, where DATA holds the tables that
`tpch-data --sf SCALE DATA` writes.

DuckDB is another engine, over the same rows: an answer that agrees with it is right for another reason than being ours.
"""

import sys
from pathlib import Path

import duckdb

HERE = Path(__file__).parent


def text(value):
    return "" if value is None else str(value)


def main():
    scale, data = sys.argv[1], Path(sys.argv[2])
    connection = duckdb.connect()
    for table in data.glob("*.parquet"):
        connection.execute(f"create view {table.stem} as select * from read_parquet('{table}')")
    for query in sorted((HERE / "queries").glob("*.sql")):
        result = connection.execute(query.read_text())
        lines = ["|".join(column[0] for column in result.description)]
        lines += ["|".join(map(text, row)) for row in result.fetchall()]
        (HERE / "answers" / f"sf{scale}" / f"{query.stem}.csv").write_text("\n".join(lines) + "\n")


main()
