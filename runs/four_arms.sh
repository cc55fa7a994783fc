#!/usr/bin/env bash
# Retrieval, tuning, both or neither? From documents to a recommendation, offline, on the sample handbook.
#   bash runs/four_arms.sh [GRAFT]     needs pip install -e '.[tune]'; about 7 minutes on two cores
set -euo pipefail
cd "$(dirname "$0")/.."
graft=${1:-graft}
export GRAFT_HOME=.four-arms
mkdir -p "$GRAFT_HOME"

# 1. Weights and documents.
"$graft" models pull all-minilm-l6-v2
"$graft" models pull smollm2-135m
"$graft" add samples/handbook

# 2. Most questions to learn from, about 20 of every kind to be asked; a conversation stays on one side.
cp samples/questions.jsonl "$GRAFT_HOME/questions.jsonl"
"$graft" dataset split "$GRAFT_HOME/questions.jsonl" --parts 0.86,0,0.14

# 3. Every way on the same questions; killed, the same command goes on.
"$graft" compare --questions "$GRAFT_HOME/questions.jsonl.test.jsonl" --train "$GRAFT_HOME/questions.jsonl.train.jsonl" \
  --arms base,few-shot,rag,tuned,tuned+rag,nearest-vote,constant,best-sentence,always-first \
  --into "$GRAFT_HOME/comparison"

# 4. What follows, with what each way would cost; the answers are the usual ones, edit them.
[ -f "$GRAFT_HOME/answers.toml" ] || "$graft" advise --example > "$GRAFT_HOME/answers.toml"
"$graft" advise --answers "$GRAFT_HOME/answers.toml" --report "$GRAFT_HOME/comparison/compare.json"
