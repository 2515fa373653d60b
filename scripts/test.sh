#!/usr/bin/env bash
# Install the project with its test tools and run every check: lint, format, types, tests.
#
#   bash scripts/test.sh            # all but the tests marked slow
#   bash scripts/test.sh --slow     # those too
#   bash scripts/test.sh -k hash    # further arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_project test

marker=()
if [[ "${1:-}" == "--slow" ]]; then
  shift
  marker=(-m "slow or not slow")
fi
echo "== ruff" && ruff check . && ruff format --check .
echo "== mypy" && mypy
# Small networks on one thread in each of several processes: faster than several threads in one.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
echo "== pytest" && python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal "${marker[@]}" "$@"
