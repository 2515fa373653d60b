#!/usr/bin/env bash
# Install the project, write small data sets of synthetic CT scans, reduce one, pre-train a small encoder on it for a
# minute while the other tells what the encoder has learned, fine-tune it on labelled pictures beside one from scratch,
# and say where to look.
#
#   bash scripts/demo.sh [FOLDER]     # new, empty or of an earlier demo, which is replaced; default: demo/ of the checkout
set -euo pipefail
given="${1:-}"
[[ -z "$given" || "$given" == /* ]] || given="$PWD/$given" # where the user stands, before this leaves for the checkout
cd "$(dirname "$0")/.."
source scripts/environment.sh

folder="${given:-demo}"
marker="$folder/.lessismore-demo"

if [[ -e "$folder" && ! -f "$marker" ]] && { [[ ! -d "$folder" ]] || [[ -n "$(ls -A "$folder")" ]]; }; then
  echo "error: expected a new or empty folder, or that of an earlier demo, found others' files in $folder: name another" >&2
  exit 2
fi
install_project
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # threads of tiny networks wait for each other, where others compute most

mkdir -p "$folder"
touch "$marker"
for name in analysis out probe_out run covid finetuned scratch; do
  rm -rf "${folder:?}/$name"
done

echo "== reduce"
python -m lessismore_transforms demo-data "$folder/data"
python -m lessismore_transforms reduce "$folder/data" --output_dir "$folder/out" --method hash --threshold 6
python -m lessismore_transforms select "$folder/out" --threshold 3 --name hash3 --fill_store

echo "== pre-train (about a minute)"
python -m lessismore_transforms demo-data "$folder/probe_data" --patients 4 --seed 100
python -m lessismore_transforms reduce "$folder/probe_data" --output_dir "$folder/probe_out" --method every_n --step 4 --no_report
python -m monai.bundle run --config_file bundles/ct_swav_pretraining/configs/train.json \
  --dataset_dir "$folder/out" --selection hash3 --output_dir "$folder/run" \
  --backbone resnet18 --large_size 64 --small_size 32 --small_crops 2 --prototypes 50 --batch_size 32 \
  --max_steps 120 --max_epochs 12 --warmup_epochs 1 --freeze_prototypes 20 --learning_rate 0.6 --workers 0 \
  --log_interval 2 --probe_epochs 1 \
  --probe "$folder/probe_data/labels.csv" --probe_label region --probe_output "$folder/probe_out"

echo "== fine-tune, and train from scratch (about a minute)"
python -m lessismore_transforms demo-data "$folder/covid" --task covid19 --patients 48
evaluate() {
  python -m monai.bundle run --config_file bundles/covid19_ct_classification/configs/train.json \
    --dataset_dir "$folder/covid" --output_dir "$folder/$1" "${@:2}" --leakage ignore \
    --backbone resnet18 --image_size 64 --batch_size 16 --max_epochs 15 --learning_rate 0.0005 --workers 0
}
evaluate finetuned --pretrained "$folder/run/backbone.safetensors" --frozen_epochs 2
evaluate scratch --mode scratch
python -m lessismore_transforms table "$folder/scratch" "$folder/finetuned"

echo "== explain"
python -m monai.bundle run --config_file bundles/ssl_representation_analysis/configs/inference.json \
  --dataset_dir "$folder/covid" --labels "$folder/finetuned/run_00/predictions.csv:test" --output_dir "$folder/analysis" \
  --models "['pre-trained=$folder/run','fine-tuned=$folder/finetuned/run_00','untrained=random']" --overlays 4

echo
echo "Open $folder/out/report.html in a browser; the kept slices are in $folder/out/store,"
echo "the ranking of every slice in $folder/out/manifest.csv."
echo "The curves of the training are $folder/run/curves.png, its encoder is $folder/run/backbone.safetensors."
echo "What the fine-tuned network can tell is in $folder/finetuned/run_00/evaluation.png."
echo "What training changed inside the networks is in $folder/analysis/analysis.html."
