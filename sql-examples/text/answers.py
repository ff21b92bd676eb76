"""Makes the golden answers of the text queries with nothing but Python's standard library: `python3 answers.py`.

It shares no code with any engine, so that an answer which agrees with it is right for another reason than being ours.
"""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).parent


def words(text):
    """Lower-cased runs of ASCII letters, as the queries cut them."""
    return re.findall("[a-z]+", text.lower())


def write(name, header, rows):
    with open(HERE / "queries" / f"{name}.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def main():
    with open(HERE / "lines.csv", newline="") as file:
        lines = [(row["doc"], int(row["line"]), row["text"]) for row in csv.DictReader(file)]
    found = [(word, doc, line) for doc, line, text in lines for word in words(text)]

    counts = Counter(word for word, _, _ in found)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    write("01_word_count", ["word", "n"], by_count)

    postings = defaultdict(set)
    for word, doc, line in found:
        postings[word].add((doc, line))
    index = [
        (word, len(places), " ".join(f"{doc}:{line}" for doc, line in sorted(places)))
        for word, places in sorted(postings.items())
        if len(places) >= 2
    ]
    write("02_inverted_index", ["word", "places", "postings"], index)

    documents = {doc for doc, _, _ in lines}
    spread = defaultdict(Counter)
    for word, doc, _ in found:
        spread[word][doc] += 1
    everywhere = [(word, sum(docs.values())) for word, docs in sorted(spread.items()) if set(docs) == documents]
    write("03_words_in_every_document", ["word", "n"], everywhere)


main()
