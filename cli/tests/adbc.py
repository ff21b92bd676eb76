"""Runs every flights query through the stock ADBC Flight SQL driver and compares the answers.

Usage: python adbc.py URL QUERIES_DIR      (needs: pip install adbc-driver-flightsql pyarrow)
URL is a coordinator's, with the five flights tables stored. Exit code 0: all equal.
"""

import csv
import math
import pathlib
import sys

import adbc_driver_flightsql.dbapi as flightsql


def text(value):
    """A cell as the golden answers write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def equal(got, want):
    """Texts are equal, or numbers that agree to nine significant digits."""
    if got == want:
        return True
    try:
        return math.isclose(float(got), float(want), rel_tol=5e-9, abs_tol=1e-12)
    except ValueError:
        return False


def check(connection, query, answer):
    """Runs one query; returns what differs, or None."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        rows = [[text(v) for v in row] for row in cursor.fetchall()]
    want = list(csv.reader(answer.splitlines()))[1:]
    if len(rows) != len(want):
        return f"{len(rows)} rows instead of {len(want)}"
    for number, (got_row, want_row) in enumerate(zip(rows, want), 1):
        if len(got_row) != len(want_row) or not all(map(equal, got_row, want_row)):
            return f"row {number}: {got_row} instead of {want_row}"
    return None


def check_catalog(connection):
    """What BI tools ask before they query."""
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Conun", info
    objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    schemas = [s for c in objects for s in c["catalog_db_schemas"]]
    tables = {t["table_name"] for s in schemas for t in s["db_schema_tables"]}
    assert "flights" in tables, tables
    assert "carrier" in connection.adbc_get_table_schema("flights").names
    assert connection.adbc_get_table_types() == ["TABLE"]


def check_errors(connection):
    """Mistakes come back as errors with the coordinator's words."""
    for bad, word in [("selec 1", "selec"), ("select * from nowhere", "nowhere")]:
        try:
            with connection.cursor() as cursor:
                cursor.execute(bad)
        except Exception as error:  # the driver's classes differ by version
            assert word in str(error), error
        else:
            raise AssertionError(f"{bad!r} succeeded")


def main():
    url, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    failures = []
    with flightsql.connect(url.replace("http://", "grpc://")) as connection:
        check_catalog(connection)
        check_errors(connection)
        queries = sorted(folder.glob("*.sql"))
        for path in queries:
            problem = check(connection, path.read_text(), path.with_suffix(".csv").read_text())
            print(f"{path.stem}: {problem or 'equal'}")
            failures += [path.stem] if problem else []
    if failures or not queries:
        sys.exit(f"{len(failures)} of {len(queries)} differ")


if __name__ == "__main__":
    main()
