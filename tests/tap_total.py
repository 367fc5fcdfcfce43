#!/usr/bin/env python3
"""Adds up test results and prints what failed, what was skipped, and the total.

usage: tap_total.py FILE...

A FILE ending in .json is Meson's testlog.json; any other is the TAP of one test program, named after the file, whose last
line is "# status N", the exit status. A program that printed fewer results than it planned, or none, or ended badly without
saying `not ok`, counts as one failure more. Exit status: 1 where anything failed.
"""
import json
import os
import re
import sys

RESULT = re.compile(r'(not )?ok\b\s*(\d+)?\s*-?\s*(.*)')
DIRECTIVE = re.compile(r'#\s*(skip|todo)\b\S*\s*(.*)', re.I)
PLAN = re.compile(r'1\.\.(\d+)\s*(?:#\s*skip\S*\s*(.*))?', re.I)


class Total:
    def __init__(self):
        self.passed, self.failures, self.skips = 0, [], []

    def add_tap(self, program, text, status):
        planned, seen, failed = None, 0, 0
        for line in text.splitlines():
            result, plan = RESULT.match(line), PLAN.match(line)
            if plan:
                planned = int(plan.group(1))
                if planned == 0:
                    self.skips.append((program, plan.group(2) or 'no reason given'))
            elif result:
                seen += 1
                directive = DIRECTIVE.search(result.group(3))
                name = result.group(3)[:directive.start()].strip() if directive else result.group(3).strip()
                if directive:
                    self.skips.append((program + ': ' + name, directive.group(2) or 'no reason given'))
                elif result.group(1):
                    failed += 1
                    self.failures.append(program + ': ' + name)
                else:
                    self.passed += 1
            elif line.startswith('Bail out!'):
                failed += 1
                self.failures.append(program + ': ' + line)
        if planned is None and seen == 0:
            self.failures.append(program + ': printed no result (status %s)' % status)
        elif planned is not None and planned != seen:
            self.failures.append(program + ': planned %d tests, ran %d (status %s)' % (planned, seen, status))
        elif status != 0 and failed == 0:
            why = re.search(r'^SUMMARY: .*', text, re.M)  # of a sanitizer
            self.failures.append('%s: ended with status %s though no test failed%s'
                                 % (program, status, ' (%s)' % why.group(0) if why else ''))

    def add_meson(self, path):
        with open(path, encoding='utf-8', errors='replace') as log:
            for line in log:
                test = json.loads(line)
                name, out, result = test['name'], test.get('stdout') or '', test['result']
                if PLAN.search(out) or RESULT.search(out):
                    # Sanitizers end a program with a status that TAP does not show.
                    self.add_tap(name, out + (test.get('stderr') or ''), test['returncode'])
                elif result in ('OK', 'EXPECTEDFAIL'):
                    self.passed += 1
                elif result == 'SKIP':
                    self.skips.append((name, 'says nothing'))
                else:
                    self.failures.append(name + ': ' + result.lower())

    def add_file(self, path):
        if path.endswith('.json'):
            self.add_meson(path)
            return
        with open(path, encoding='utf-8', errors='replace') as file:
            text = file.read()
        status = re.search(r'^# status (\d+)\s*\Z', text, re.M)
        self.add_tap(os.path.splitext(os.path.basename(path))[0], text, int(status.group(1)) if status else 'unknown')


def main():
    total = Total()
    for path in sys.argv[1:]:
        total.add_file(path)
    for name, reason in total.skips:
        print('skipped: %s (%s)' % (name, reason))
    for name in total.failures:
        print('FAILED: ' + name)
    print('%d passed, %d failed, %d skipped' % (total.passed, len(total.failures), len(total.skips)))
    return 1 if total.failures or total.passed == 0 else 0


sys.exit(main())
