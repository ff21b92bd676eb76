"""Runs a SQL script on DuckDB and prints its last result as CSV: `python3 duckdb_sql.py SCRIPT`.

Says on stderr how many seconds the queries took, so that Python's start is not held against DuckDB.
"""

import csv
import sys
import time

import duckdb


def main():
    with open(sys.argv[1]) as file:
        script = file.read()
    connection = duckdb.connect()
    start = time.perf_counter()
    result = connection.execute(script)
    rows = result.fetchall()
    seconds = time.perf_counter() - start
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(column[0] for column in result.description)
    out.writerows(rows)
    print(f"seconds={seconds:.6f}", file=sys.stderr)


main()
