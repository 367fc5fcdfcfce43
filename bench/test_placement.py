#!/usr/bin/env python3
"""The placement benchmark in small, as TAP: it runs, its table is whole, and what is true of any number of rounds is true.

usage: test_placement.py PROGRAM
"""
import json
import subprocess
import sys
import tempfile

program = sys.argv[1]
rules = ["hvm", "first fit", "nova", "nova, more cells"]
cases = []


def case(function):
    cases.append(function)
    return function


with tempfile.NamedTemporaryFile(suffix=".json") as file:
    printed = subprocess.run([program, "--part", "100", "--json", file.name], check=True, capture_output=True, text=True).stdout
    found = json.load(open(file.name))
streams = {}
for row in found["quality"]:
    streams.setdefault((row["machine"], row["mix"], row["load"]), {})[row["strategy"]] = row


@case
def every_size_is_timed_at_each_fill_with_usual_and_hard_requests():
    return len(found["time"]) == 9 * 3 * 2 and all(row["median_ms"] <= row["p99_ms"] <= row["worst_ms"] for row in found["time"])


@case
def each_of_the_24_streams_is_given_to_each_rule():
    return len(streams) == 4 * 3 * 2 and all(list(stream) == rules for stream in streams.values())


@case
def all_of_it_is_printed():
    return all("%6.2f %%" % row["across_percent"] in printed for row in found["quality"]) and \
        sum(any(rule + " " in line for rule in rules) for line in printed.splitlines()) == len(found["quality"])


@case
def guests_are_placed_and_refused():
    shares = [row["accepted_percent"] for row in found["quality"]]
    return min(shares) > 0 and max(shares) <= 100 and min(shares) < 100


@case
def hvm_serves_at_least_as_many_cores_as_first_fit():
    return all(stream["hvm"]["cores_percent"] >= stream["first fit"]["cores_percent"] for stream in streams.values())


@case
def nova_never_splits_a_guest_of_one_cell():
    return all(stream["nova"]["across_percent"] == 0 for (machine, mix, load), stream in streams.items() if mix == "small")


@case
def wrong_options_are_refused():
    return all(subprocess.run([program] + words, capture_output=True).returncode == 2
               for words in [["--part", "0"], ["--part", "x"], ["more"]])


print("1..%d" % len(cases))
failed = 0
for number, function in enumerate(cases, 1):
    good = function()
    failed += not good
    print("%s %d - %s" % ("ok" if good else "not ok", number, function.__name__.replace("_", " ")))
sys.exit(failed > 0)
