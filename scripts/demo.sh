#!/usr/bin/env bash
# Install the project, write a small data set of synthetic CT scans, reduce it and say where to look.
#
#   bash scripts/demo.sh [FOLDER]     # default: demo/
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_project

folder="${1:-demo}"
rm -rf "$folder/out"
python -m lessismore_transforms demo-data "$folder/data"
python -m lessismore_transforms reduce "$folder/data" --output_dir "$folder/out" --method hash --threshold 6
python -m lessismore_transforms select "$folder/out" --threshold 3 --name hash3
echo
echo "Open $folder/out/report.html in a browser; the kept slices are in $folder/out/store,"
echo "the ranking of every slice in $folder/out/manifest.csv."
