#!/usr/bin/env bash
# Everything `make bench` measures, one after another: two heavy jobs at once would measure each other.
# KB=300 ROUNDS=1 benchmarks/run.sh is a quick look; the figures of record are the defaults'.
set -euo pipefail
cd "$(dirname "$0")/.."

exec 9> "${TMPDIR:-/tmp}/graft-bench.lock"
flock --nonblock 9 || { echo "another benchmark is running / fix: wait for it" >&2; exit 1; }

data=${GRAFT_DATA:-../shared/data}
[ -d "$data/retrieval/scifact" ] || {
  echo "no public test data under $data / fix: GRAFT_DATA=FOLDER make bench" >&2; exit 1; }

benchmarks/setup.sh
python=.bench-venv/bin/python
mkdir -p benchmarks/results/parts
$python -m benchmarks.ours > /dev/null    # pulls the weights and builds both graphs before anything is timed

$python -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . --doctest-modules benchmarks
$python -m benchmarks.bench_embed
$python -m benchmarks.bench_ingest --kb "${KB:-1000}" --rounds "${ROUNDS:-3}"
$python -m benchmarks.bench_retrieval
$python -m benchmarks.bench_retrieval --precision fp32 --collections scifact
$python -m benchmarks.bench_samples
$python -m benchmarks.bench_claims
vectors=$($python -m benchmarks.real_vectors)    # minutes the first time, then kept
OMP_NUM_THREADS=1 $python -m benchmarks.bench_store --vectors "$vectors/vectors.npy" \
  --queries "$vectors/queries.npy" --texts "$vectors/texts.jsonl" > benchmarks/results/parts/store.json.new
mv benchmarks/results/parts/store.json.new benchmarks/results/parts/store.json
OMP_NUM_THREADS=1 $python -m benchmarks.bench_overhead
$python -m benchmarks.bench_train
$python -m benchmarks.bench_merged
$python -m benchmarks.report
