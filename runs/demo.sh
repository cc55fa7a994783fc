#!/usr/bin/env bash
# From a folder of documents to checked answers, offline, with the embedded defaults.
#   bash runs/demo.sh            (or: make demo)
set -euo pipefail
cd "$(dirname "$0")/.."
graft=${1:-graft}
export GRAFT_HOME=.demo
bold='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
ask() { printf '\n%s$ graft ask "%s"%s\n' "$bold" "$1" "$plain"; "$graft" ask "$1"; }

rm -rf "$GRAFT_HOME"

# 1. The weights: an embedder (91 MB) and a small chat model (98 MB), checked against their sha256.
"$graft" models pull all-minilm-l6-v2
"$graft" models pull smollm2-135m

# 2. A folder of mixed documents. Adding it again takes up only what changed.
"$graft" add samples/handbook
"$graft" add samples/handbook

# 3. Passages.
"$graft" search "how long is the warranty" -k 3

# 4. Answers. The model is the smallest there is and often wrong; what it says is checked, and where it
#    fails the documents are quoted.
ask "How many unused holiday days can I take over into next year?"
ask "What is the net price of an Atlas 2 Standard in the EU?"
ask "How fast must a stolen laptop be reported?"
ask "Until when must expense claims be submitted?"

# 5. What the documents do not say is not made up.
ask "What is the wifi password of the Aldermoor office?"

# 6. Does it help to retrieve? The same questions to the model alone, to Graft, and to two ways that need no model.
printf '\n%s$ graft compare --questions samples/questions.jsonl --limit 8%s\n' "$bold" "$plain"
"$graft" compare --questions samples/questions.jsonl --limit 8 --into "$GRAFT_HOME/comparison"
