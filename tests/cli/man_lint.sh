#!/bin/sh
# mandoc finds nothing to warn of in the manual pages. Status 77 (a skip) where there is no mandoc.
command -v mandoc >/dev/null || { echo "skipped: mandoc is not installed"; exit 77; }
exec mandoc -Tlint -Wwarning "$@"
